"""A vendor that is quick: it takes whatever comes and answers after 30 ms, five calls at a time.

The strict simulators take longer than that to check and book a hundred lines, so they would be what
is measured. This one keeps no books; both vendors' calls are told apart by their paths.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request

LATENCY_SECONDS = 0.03
_PLACES = asyncio.Semaphore(5)


@asynccontextmanager
async def _place() -> AsyncGenerator[None]:
    """Hold one of the places until a call has taken 30 ms, what it took to read it included."""
    async with _PLACES:
        until = time.monotonic() + LATENCY_SECONDS
        yield
        await asyncio.sleep(until - time.monotonic())


async def token(_: Request) -> Response:
    """Give a token."""
    return JSONResponse({"access_token": "quick", "expires_in": 3600})


async def business_central(request: Request) -> Response:
    """Create a journal, run a batch, or post."""
    async with _place():
        if request.url.path.endswith("Microsoft.NAV.post"):
            return Response(status_code=204)
        if not request.url.path.endswith("$batch"):
            return JSONResponse({"id": str(uuid4())}, status_code=201)
        operations = json.loads(await request.body())["requests"]
        return JSONResponse({"responses": [{"id": o["id"], "status": 201} for o in operations]})


async def xledger(request: Request) -> Response:
    """Take nodes."""
    async with _place():
        inputs = json.loads(await request.body())["variables"]["inputs"]
        edges = [{"clientId": i["clientId"], "node": {"dbId": n}} for n, i in enumerate(inputs, 1)]
        return JSONResponse({"data": {"addGLImportItems": {"edges": edges}}})


app = Starlette(
    routes=[
        Route("/graphql", xledger, methods=["POST"]),
        Route("/{tenant}/oauth2/v2.0/token", token, methods=["POST"]),
        Route("/{path:path}", business_central, methods=["POST"]),
    ]
)


def main() -> None:
    """Serve on the port that is told."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    # With its protocol named: else asyncio leaves Nagle on, and each answer takes 40 ms more.
    listening = socket.socket(proto=socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", parser.parse_args().port))
    print(json.dumps({"url": f"http://127.0.0.1:{listening.getsockname()[1]}"}), flush=True)
    config = uvicorn.Config(app, log_level="warning", access_log=False)
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
