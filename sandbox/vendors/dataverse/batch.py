"""$batch as Dataverse has it: multipart/mixed; a part is a request, or a change set of some."""

import email
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from typing import cast
from uuid import uuid4

from sandbox.vendors.dataverse.errors import bad_payload, bad_request

REQUEST = re.compile(r"(GET|POST|PATCH|PUT|DELETE) (\S+) HTTP/1\.1")
PHRASES = {200: "OK", 204: "No Content", 400: "Bad Request", 404: "Not Found", 403: "Forbidden"}


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One request within a batch; `number` is its Content-ID."""

    number: str | None
    verb: str
    url: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a batch: one request, or a change set of several."""

    change_set: bool
    operations: Sequence[Operation]


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What one request of a batch came to."""

    number: str | None
    status: int
    headers: Mapping[str, str]
    text: str


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What is said of a part."""

    change_set: bool
    replies: Sequence[Reply]


def read(content_type: str, body: bytes, *, wants_length: bool = True) -> list[Part]:
    """Return a batch's parts. Raises ApiError for what is not one.

    `wants_length`: a request that has a body has to say how long it is.
    """
    if not content_type.startswith("multipart/mixed"):
        raise bad_request("The Content-Type of a batch has to be multipart/mixed.")
    if b"\n" in body.replace(b"\r\n", b""):
        # Line ends have to be CRLF [C]; this is what Dataverse says of others.
        raise bad_payload("System.ArgumentException: Stream was not readable.")
    message = email.message_from_bytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
    if message.defects or not message.is_multipart():
        raise bad_request("The batch can't be read: a boundary is missing.")
    parts = [_part(each) for each in _below(message)]
    operations = [operation for part in parts for operation in part.operations]
    if wants_length and any(
        each.body.strip() and "content-length" not in each.headers for each in operations
    ):
        raise bad_request("A request in a batch has to have a Content-Length.")
    return parts


def _part(message: Message) -> Part:
    if message.get_content_type() == "application/http":
        return Part(change_set=False, operations=[_operation(message)])
    if message.get_content_type() != "multipart/mixed" or message.defects:
        raise bad_request("A part is neither a request nor a change set.")
    operations = [_operation(each) for each in _below(message)]
    numbers = [operation.number for operation in operations]
    if None in numbers:
        raise bad_request("Content-ID header not present in a change set.")
    if len(set(numbers)) != len(numbers):
        raise bad_request("A Content-ID comes twice.")
    if any(operation.verb == "GET" for operation in operations):
        raise bad_request("GET is not allowed in a change set.")
    return Part(change_set=True, operations=operations)


def _operation(message: Message) -> Operation:
    transfer = message.get("Content-Transfer-Encoding", "")
    if message.get_content_type() != "application/http" or transfer.strip() != "binary":
        raise bad_request("A request in a batch is application/http, and binary.")
    head, _, body = cast("bytes", message.get_payload(decode=True)).partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    asked = REQUEST.fullmatch(first)
    if asked is None:
        raise bad_request(f"'{first}' is no request.")
    headers = {name.strip().lower(): text.strip() for name, _, text in _pairs(lines)}
    length = headers.get("content-length")
    content = body if length is None else body[: int(length)]
    return Operation(
        number=message.get("Content-ID"),
        verb=asked[1],
        url=asked[2],
        headers=headers,
        body=content,
    )


def write(answers: Sequence[Answered]) -> tuple[str, str]:
    """Return the type of the reply, with its boundary, and its text."""
    boundary = f"batchresponse_{uuid4()}"
    lines: list[str] = []
    for answered in answers:
        lines.append(f"--{boundary}")
        lines += _change_set(answered) if answered.change_set else _reply(answered.replies[0])
    text = "\r\n".join([*lines, f"--{boundary}--", ""])
    return f"multipart/mixed; boundary={boundary}", text


def _change_set(answered: Answered) -> list[str]:
    boundary = f"changesetresponse_{uuid4()}"
    lines = [f"Content-Type: multipart/mixed; boundary={boundary}", ""]
    for reply in answered.replies:
        lines += [f"--{boundary}", *_reply(reply)]
    return [*lines, f"--{boundary}--"]


def _reply(reply: Reply) -> list[str]:
    numbered = [] if reply.number is None else [f"Content-ID: {reply.number}"]
    typed = ["Content-Type: application/json; odata.metadata=minimal"] if reply.text else []
    return [
        "Content-Type: application/http",
        "Content-Transfer-Encoding: binary",
        *numbered,
        "",
        f"HTTP/1.1 {reply.status} {PHRASES.get(reply.status, 'Error')}",
        "OData-Version: 4.0",
        *typed,
        *(f"{name}: {text}" for name, text in reply.headers.items()),
        "",
        reply.text,
    ]


def _pairs(lines: Sequence[str]) -> list[tuple[str, str, str]]:
    return [line.partition(":") for line in lines]


def _below(message: Message) -> list[Message]:
    return cast("list[Message]", message.get_payload())
