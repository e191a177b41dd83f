"""Where a run can be struck: every HTTP request that it makes, seen from below httpx.

Ledger, Edge Function, vendors and Prefect's server are all reached over HTTP, so whoever stands in
httpx's transport sees each write of the protocol, and needs no list of them. The child that runs
the exporter is held before and after each request until its keeper (`run.Keeper`) says how to go
on; the keeper may as well kill or stop it there.

    child → keeper   {"at": "before" | "after", "name": "ledger.intend_chunk"}
                     {"over": "vendor-write.batch"}             it has ended, one way or the other
    keeper → child   {"do": "go"}                               as if nobody were there
                     {"do": "drop"}                             no connection, nothing is sent
                     {"do": "lose"}                             sent and executed, the reply is lost
                     {"do": "answer", "status", "body", …}      that reply instead, sent or not
"""

from __future__ import annotations

import json
import re
import select
import threading
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import httpx

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")
_ROOT_FIELD = re.compile(r"\{\s*(?:\w+:\s*)?(\w+)")
_PART = 65_536


class Wire(Protocol):
    """What a child and its keeper talk over."""

    def tell(self, message: Mapping[str, Any]) -> None: ...
    def hear(self) -> dict[str, Any] | None: ...


class SocketWire:
    """Lines of JSON over one end of a socket pair; `hear` answers None when the other has ended."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._rest = b""  # received and not heard yet: two lines may come in one piece

    def tell(self, message: Mapping[str, Any]) -> None:
        self._end.sendall(json.dumps(message).encode() + b"\n")

    def hear(self) -> dict[str, Any] | None:
        while b"\n" not in self._rest:
            try:
                part = self._end.recv(_PART)
            except ConnectionResetError:
                return None
            if not part:
                return None
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line)

    def has_something(self) -> bool:
        """Whether there is something to hear, waiting for it a moment."""
        if b"\n" in self._rest:
            return True
        readable, _, _ = select.select([self._end], [], [], 0.01)
        return bool(readable)

    def close(self) -> None:
        self._end.close()


def install(wire: Wire, *, vendor: str) -> None:
    """Put the recorder under every httpx client of this process; `vendor` is the vendor's URL."""
    keeper = _OneAtATime(wire)
    send = httpx.AsyncHTTPTransport.handle_async_request
    address = urlsplit(vendor).netloc

    async def recorded(
        transport: httpx.AsyncHTTPTransport, request: httpx.Request
    ) -> httpx.Response:
        name = name_of(request, vendor=address)
        order = keeper.ask("before", name)
        try:
            if order["do"] == "drop":
                raise httpx.ConnectError("the matrix cut the connection", request=request)
            if order["do"] == "answer" and not order["sent"]:
                return _made_up(order)
            response = await send(transport, request)
            await _read_to_the_end(response)
        finally:
            keeper.tell({"over": name})
        if order["do"] == "answer":
            return _made_up(order)
        if order["do"] == "lose" or keeper.ask("after", name)["do"] == "lose":
            raise httpx.RemoteProtocolError("the matrix lost the reply", request=request)
        return response

    httpx.AsyncHTTPTransport.handle_async_request = recorded


class _OneAtATime:
    """A wire that the threads of a run share: Prefect's client runs in threads of its own.

    Without it, one of two that wait for an answer could take the other's along with its own.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._turn = threading.Lock()

    def ask(self, side: str, name: str) -> dict[str, Any]:
        with self._turn:
            self._wire.tell({"at": side, "name": name})
            return self._wire.hear() or {"do": "go"}

    def tell(self, message: Mapping[str, Any]) -> None:
        with self._turn:
            self._wire.tell(message)


async def _read_to_the_end(response: httpx.Response) -> None:
    """Read the reply, so that "after" is after the server has said all that it had to say."""
    stream: Any = response.stream
    content = b"".join([part async for part in stream])
    await stream.aclose()
    response.stream = httpx.ByteStream(content)


def _made_up(order: Mapping[str, Any]) -> httpx.Response:
    kind = order.get("type", "text/html")
    headers = {"content-type": kind, **order.get("headers", {})}
    return httpx.Response(order["status"], headers=headers, content=order["body"].encode())


def name_of(request: httpx.Request, *, vendor: str) -> str:
    """Name a request by whom it asks, and what; what writes to a vendor says so."""
    path = request.url.path
    if request.url.netloc.decode() == vendor:
        return _vendor_operation(request)
    if path.startswith("/rest/v1/rpc/"):
        return f"ledger.{path.rpartition('/')[2]}"
    if path.startswith("/rest/v1/"):
        return f"ledger.read-{path.rpartition('/')[2]}"
    if path.startswith("/functions/v1/"):
        asked = "ping" if b'"ping"' in request.content else "page"
        return f"edge.{path.rpartition('/')[2]}-{asked}"
    return f"prefect.{request.method} {_ID.sub('ID', path.removeprefix('/api'))}"


def _vendor_operation(request: httpx.Request) -> str:
    """GraphQL: the document's first field; else the method and the path's last part."""
    last = request.url.path.rpartition("/")[2]
    if last == "graphql":
        document = json.loads(request.content)["query"]
        field = _ROOT_FIELD.search(document)
        kind = "write" if document.lstrip().startswith("mutation") else "read"
        return f"vendor-{kind}.{field[1] if field else 'unreadable'}"
    if last == "token":
        return "vendor-token.token"
    kind = "read" if request.method == "GET" else "write"
    return f"vendor-{kind}.{last.partition('(')[0]}"
