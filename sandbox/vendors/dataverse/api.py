"""From one API request to one outcome; a $batch is many of them."""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

from sandbox.vendors import exact_json
from sandbox.vendors.dataverse import batch, metadata
from sandbox.vendors.dataverse.books import Books
from sandbox.vendors.dataverse.errors import ApiError, bad_payload, bad_request, no_such_segment
from sandbox.vendors.dataverse.odata import Options, key_of, read_options, segment
from sandbox.vendors.dataverse.records import Records

NOT_ALLOWED = ApiError(405, "0x80060888", "The method is not allowed here.")
VERBS = {"POST": "create", "PATCH": "upsert", "DELETE": "delete"}


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request below …/api/data/v9.2/: header names in lower case."""

    verb: str
    url: str  # path and query
    base: str  # the address of the environment's API, with a slash at its end
    environment: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""

    @property
    def path(self) -> str:
        """The path, without the query."""
        return urlsplit(self.url).path.strip("/")

    @property
    def operation(self) -> str:
        """The name by which faults and counts know this kind of request."""
        match self.path:
            case "$batch":
                return "batch"
            case "WhoAmI":
                return "whoami"
            case path if path.startswith("EntityDefinitions"):
                return "metadata"
            case path:
                return f"rows.{VERBS.get(self.verb) or ('get' if '(' in path else 'list')}"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a request came to. `body` is JSON, unless it is text already."""

    status: int
    body: Mapping[str, Any] | str | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def succeeded(self) -> bool:
        """Whether it is a 2xx."""
        return self.status < 300  # noqa: PLR2004 - 2xx

    @property
    def text(self) -> str:
        """The body as it is sent."""
        if self.body is None:
            return ""
        return self.body if isinstance(self.body, str) else exact_json.dumps(self.body)


class Api:
    """Executes requests against the books."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def execute(self, request: Request, *, half: bool = False) -> Outcome:
        """Return the outcome. A refusal is one, and undoes what the request had done."""
        try:
            if request.path == "$batch":
                return self._batch(request, half=half)
            return self._single(request)
        except ApiError as error:
            return refusal(error)

    def _single(self, request: Request) -> Outcome:
        if request.path == "WhoAmI" or request.path.startswith("EntityDefinitions"):
            if request.verb != "GET":
                raise NOT_ALLOWED
            return Outcome(status=200, body=metadata.answer(self._books, request))
        name, given = segment(request.path)
        table = self._books.table(request.environment, entity_set=name)
        if table is None:
            raise no_such_segment(name)
        records = Records(self._books, table)
        key = None if given is None else key_of(table, given)
        if request.verb == "GET":
            options = read_options(
                table,
                parse_qsl(urlsplit(request.url).query),
                hyphens_sort=self._books.settings.hyphens_sort,
            )
            if key is None:
                return self._list(request, records, options)
            return Outcome(status=200, body=records.one(key, options))
        with self._books.transaction():
            return self._write(request, records, key)

    def _list(self, request: Request, records: Records, options: Options) -> Outcome:
        """Return a page. With a page size preferred, $top is ignored [C]."""
        preferred = re.search(r"odata\.maxpagesize=(\d+)", request.headers.get("prefer", ""))
        size = self._books.settings.page_size
        if preferred:
            size = min(size, max(1, int(preferred[1])))
            options = replace(options, top=None)
        rows, last = records.page(options, size)
        if not last:
            return Outcome(status=200, body={"value": rows})
        cookie = f"%3Ccookie%20pagenumber=%22{options.page + 1}%22%20last=%22{last}%22%20/%3E"
        kept = [part for part in urlsplit(request.url).query.split("&") if "skiptoken" not in part]
        link = f"{request.base}{request.path}?{'&'.join([*kept, f'$skiptoken={cookie}'])}"
        return Outcome(status=200, body={"value": rows, "@odata.nextLink": link})

    def _write(self, request: Request, records: Records, key: Any) -> Outcome:
        match request.verb, key:
            case "POST", None:
                new = records.create(_body(request))
            case "PATCH", _ if key is not None:
                new = records.upsert(
                    key,
                    _body(request),
                    if_match=request.headers.get("if-match"),
                    if_none_match=request.headers.get("if-none-match"),
                )
            case "DELETE", _ if key is not None:
                records.delete(key, if_match=request.headers.get("if-match"))
                return Outcome(status=204)
            case _:
                raise NOT_ALLOWED
        address = f"{request.base}{request.path.partition('(')[0]}({new})"
        return Outcome(status=204, headers={"OData-EntityId": address})

    # -- $batch ------------------------------------------------------------------------------------

    def _batch(self, request: Request, *, half: bool) -> Outcome:
        """Run parts one after another; the first that fails ends it, unless told otherwise [C]."""
        if request.verb != "POST":
            raise NOT_ALLOWED
        settings = self._books.settings
        parts = batch.read(
            request.headers.get("content-type", ""),
            request.body,
            wants_length=settings.wants_content_length,
        )
        if sum(len(part.operations) for part in parts) > settings.batch_operations:
            raise bad_request("The number of operations in a batch is limited.")
        go_on = "odata.continue-on-error" in request.headers.get("prefer", "").lower()
        answers, failed = list[batch.Answered](), None
        for part in parts[: len(parts) // 2] if half else parts:
            outcomes = self._run(request, part)
            answers.append(self._answered(part, outcomes))
            if not outcomes[-1].succeeded and not go_on:
                failed = outcomes[-1]
                break
        status = 200
        if failed and settings.batch_status == "inner":
            status = failed.status
        wait = failed.headers.get("Retry-After") if failed else None
        kind, text = batch.write(answers)
        headers = {"Content-Type": kind, **({"Retry-After": wait} if wait else {})}
        return Outcome(status=status, body=text, headers=headers)

    def _run(self, request: Request, part: batch.Part) -> list[Outcome]:
        """Run one request, or a change set: all of it or nothing [C]."""
        if not part.change_set:
            return [self.execute(_inner(request, part.operations[0]))]
        outcomes: list[Outcome] = []
        with suppress(_RolledBackError), self._books.transaction():
            for operation in part.operations:
                inner = _inner(request, operation)
                if not self._books.settings.create_only_in_sets:
                    inner = replace(inner, headers=_without(inner.headers, "if-none-match"))
                outcomes.append(self.execute(inner))
                if not outcomes[-1].succeeded:
                    raise _RolledBackError
        return outcomes

    def _answered(self, part: batch.Part, outcomes: list[Outcome]) -> batch.Answered:
        """Return what is said of a part: of a change set that failed, the failure alone [C]."""
        numbered = list(zip(part.operations, outcomes, strict=False))
        if not outcomes[-1].succeeded:
            numbered = numbered[-1:]
        named = self._books.settings.errors_name == "content-id" or outcomes[-1].succeeded
        return batch.Answered(
            change_set=part.change_set,
            replies=[
                batch.Reply(
                    number=operation.number if named else None,
                    status=outcome.status,
                    headers=outcome.headers,
                    text=outcome.text,
                )
                for operation, outcome in numbered
            ],
        )


class _RolledBackError(Exception):
    """A change set had an operation that failed."""


def refusal(error: ApiError) -> Outcome:
    """Return the outcome that says this error."""
    wait = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    return Outcome(status=error.status, body=error.body(), headers=wait)


def _inner(request: Request, operation: batch.Operation) -> Request:
    """Return the request that an operation is; its address may be whole or a path [C]."""
    path = urlsplit(request.base).path
    url = operation.url.removeprefix(request.base).removeprefix(path)
    if url.startswith(("/", "http")) or url == "$batch":
        raise bad_request(f"The address '{operation.url}' leads elsewhere.")
    return replace(
        request, verb=operation.verb, url=url, headers=operation.headers, body=operation.body
    )


def _without(headers: Mapping[str, str], name: str) -> dict[str, str]:
    return {each: text for each, text in headers.items() if each != name}


def _body(request: Request) -> dict[str, Any]:
    """Return a request's JSON object, its numbers exact. Raises ApiError."""
    if not request.headers.get("content-type", "").startswith("application/json"):
        raise bad_payload("The Content-Type of a body has to be application/json.")
    try:
        value = json.loads(request.body, parse_float=Decimal)
    except ValueError as error:
        raise bad_payload(f"The body is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise bad_payload("The body is not a JSON object.")
    return cast("dict[str, Any]", value)
