"""How a simulator starts, and the door that every call goes through.

A vendor is a process: `python -m sandbox.vendors.<vendor> --books PATH [--port N] [--setup FILE]`.
It binds loopback and prints one line on stdout when it answers: {"url": "http://127.0.0.1:PORT"}.
SIGTERM ends it at once, as a power cut would; the books stay.

Beside the vendor's own API, for tests and auditors (no token, no limits, no faults):

    GET    /_sandbox/books      every line in the books, amounts as strings (see each vendor)
    GET    /_sandbox/requests   {"counts": {token, write, read, probe}, "operations": {…}, "last"}
    POST   /_sandbox/setup      charts of accounts, parties, dimensions, blocked accounts, settings
    GET    /_sandbox/settings   the settings in force
    POST   /_sandbox/jobs       let the vendor's own jobs run now; {"done": how many}
    POST   /_sandbox/faults     queue one fault or a list of them (see `faults`)
    GET    /_sandbox/faults     those with strikes left
    DELETE /_sandbox/faults     forget them
"""

import argparse
import asyncio
import json
import os
import socket
import sys
from collections import Counter, deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import uvicorn
from pydantic import TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from sandbox.vendors.faults import Effect, Fault, Faults, Phase

LAST_REQUESTS = 50
FAULTS = TypeAdapter(list[Fault])


class Kind(StrEnum):
    """What a call is for, as its cost is judged."""

    TOKEN = "token"
    WRITE = "write"
    READ = "read"
    PROBE = "probe"


class Run(Protocol):
    """Execute a call; with `half`, only the first half of its items."""

    def __call__(self, *, half: bool) -> Awaitable[Response]:
        """Return the vendor's true reply."""
        ...


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call to the vendor: `refuse` answers a fault in the vendor's own words."""

    operation: str
    kind: Kind
    run: Run
    refuse: Callable[[Fault], Response]


class Vendor(Protocol):
    """What the shared server asks of a simulator."""

    def routes(self, door: "Door") -> list[BaseRoute]:
        """Return the vendor's API; each call goes through the door."""
        ...

    def audit(self) -> dict[str, Any]:
        """Return the books in the neutral shape."""
        ...

    def setup(self, wishes: Any) -> None:
        """Add to the vendor's set-up, or change it. Raises pydantic.ValidationError."""
        ...

    def settings(self) -> dict[str, Any]:
        """Return the settings in force."""
        ...

    async def run_jobs(self) -> int:
        """Run the vendor's own jobs now, and return how many rows or batches they took."""
        ...

    async def work(self) -> None:
        """Run the vendor's own jobs when they are due, for ever."""
        ...


class Severed(Response):
    """Half of a reply, or none at all, and the end of the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send what is to be sent, and close."""
        del receive
        if self.body:
            start = {"status": self.status_code, "headers": self.raw_headers}
            await send({"type": "http.response.start", **start})
            half = bytes(self.body[: len(self.body) // 2])
            await send({"type": "http.response.body", "body": half, "more_body": True})
        scope["state"]["sever"]()
        await asyncio.sleep(0)  # uvicorn learns of it, and expects no more of this reply


class Door:
    """Notes each call, and lets it suffer the fault that waits for it."""

    def __init__(self) -> None:
        self.faults = Faults()
        self._counts: Counter[str] = Counter(dict.fromkeys(Kind, 0))
        self._operations: Counter[str] = Counter()
        self._last: deque[dict[str, Any]] = deque(maxlen=LAST_REQUESTS)
        self._commits_to_come: set[asyncio.Task[None]] = set()

    async def answer(self, call: Call) -> Response:
        """Return what the client of this call gets to see."""
        noted = self._note(call)
        fault = self.faults.take(call.operation)
        if fault is None:
            reply = await call.run(half=False)
        else:
            noted["fault"] = fault.fault
            reply = await self._suffer(call, fault)
        noted["status"] = None if isinstance(reply, Severed) else reply.status_code
        return reply

    def requests(self) -> dict[str, Any]:
        """Return how many calls came, by kind and by operation, and the last few of them."""
        operations = dict(self._operations)
        return {"counts": dict(self._counts), "operations": operations, "last": list(self._last)}

    def _note(self, call: Call) -> dict[str, Any]:
        self._counts[call.kind] += 1
        self._operations[call.operation] += 1
        noted: dict[str, Any] = {"operation": call.operation, "kind": call.kind, "status": None}
        self._last.append(noted)
        return noted

    async def _suffer(self, call: Call, fault: Fault) -> Response:
        reply = Response()
        if fault.when in {Phase.HALF, Phase.AFTER}:
            reply = await call.run(half=fault.when is Phase.HALF)
        elif fault.when is Phase.LATER:
            self._commit_later(call, fault.commit_after)
        await asyncio.sleep(fault.delay)
        return _seen(call, fault, reply)

    def _commit_later(self, call: Call, seconds: float) -> None:
        async def commit() -> None:
            await asyncio.sleep(seconds)
            await call.run(half=False)

        task = asyncio.create_task(commit())
        self._commits_to_come.add(task)
        task.add_done_callback(self._commits_to_come.discard)


def _seen(call: Call, fault: Fault, reply: Response) -> Response:
    """Return what the client sees of a reply under this fault."""
    match fault.effect:
        case Effect.REPLY:
            return reply
        case Effect.CLOSE:
            return Severed()
        case Effect.TRUNCATED:
            return Severed(reply.body, reply.status_code, dict(reply.headers))
        case Effect.MALFORMED:
            return Response(b'{"value": [{"id"', media_type="application/json")
        case _:
            return call.refuse(fault)


def control_surface(vendor: Vendor, door: Door) -> list[BaseRoute]:
    """Return the routes for tests and auditors."""

    async def books(_: Request) -> Response:
        return JSONResponse(vendor.audit())

    async def requests(_: Request) -> Response:
        return JSONResponse(door.requests())

    async def setup(request: Request) -> Response:
        vendor.setup(await request.json())
        return JSONResponse(vendor.settings())

    async def settings(_: Request) -> Response:
        return JSONResponse(vendor.settings())

    async def jobs(_: Request) -> Response:
        return JSONResponse({"done": await vendor.run_jobs()})

    async def faults(request: Request) -> Response:
        if request.method == "DELETE":
            door.faults.clear()
        if request.method == "POST":
            wished = await request.json()
            door.faults.queue(
                FAULTS.validate_python(wished if isinstance(wished, list) else [wished])
            )
        return JSONResponse([fault.model_dump(mode="json") for fault in door.faults.waiting()])

    return [
        Route("/_sandbox/books", books),
        Route("/_sandbox/requests", requests),
        Route("/_sandbox/setup", setup, methods=["POST"]),
        Route("/_sandbox/settings", settings),
        Route("/_sandbox/jobs", jobs, methods=["POST"]),
        Route("/_sandbox/faults", faults, methods=["GET", "POST", "DELETE"]),
    ]


async def _refused(_: Request, error: Exception) -> Response:
    """Answer a wish that the control surface does not understand."""
    return JSONResponse({"error": str(error)}, status_code=400)


def application(vendor: Vendor) -> Starlette:
    """Return the vendor's API, its jobs and the control surface as one ASGI application."""
    door = Door()

    @asynccontextmanager
    async def jobs(_: Starlette) -> AsyncGenerator[None]:
        work = asyncio.create_task(vendor.work())
        yield
        work.cancel()

    return Starlette(
        routes=[*control_surface(vendor, door), *vendor.routes(door)],
        exception_handlers={ValidationError: _refused, json.JSONDecodeError: _refused},
        lifespan=jobs,
    )


class _Severable(H11Protocol):
    """Lets a reply close its connection: `scope["state"]["sever"]`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] - as uvicorn has it
        super().connection_made(transport)
        self.app_state = {**self.app_state, "sever": transport.close}


class _Server(uvicorn.Server):
    """Says where it is once it answers, and dies at once when told to."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listening in sockets or []:
            host, port = listening.getsockname()
            print(json.dumps({"url": f"http://{host}:{port}"}), flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End without a goodbye: what the books hold is committed, the rest must not matter."""
        del sig, frame
        os._exit(0)


def main(open_vendor: Callable[[Path], Vendor], seed: Any) -> None:
    """Run a simulator from the command line; new books begin with the seed or with --setup."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--books", type=Path, required=True, help="SQLite file, made if missing")
    parser.add_argument("--port", type=int, default=0, help="0 takes any free one")
    parser.add_argument("--setup", type=Path, help="JSON, as for POST /_sandbox/setup")
    wished = parser.parse_args()
    wished.books.parent.mkdir(parents=True, exist_ok=True)
    new = not wished.books.exists()
    vendor = open_vendor(wished.books)
    if wished.setup:
        vendor.setup(json.loads(wished.setup.read_text()))
    elif new:
        vendor.setup(seed)
    _serve(application(vendor), wished.port)


def _serve(app: Starlette, port: int) -> None:
    # The protocol is named, as asyncio turns Nagle's algorithm off (40 ms a reply) only then.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
    except OSError as error:
        sys.exit(f"port {port} can't be had: {error}")
    config = uvicorn.Config(app, http=_Severable, log_level="warning", access_log=False)
    _Server(config).run(sockets=[listening])
