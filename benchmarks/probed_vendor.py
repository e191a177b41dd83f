"""Vendors that say that they are there, after 50 ms, and count who has asked how often.

They speak as Xledger and as Business Central do to a probe. `GET /_asked` answers how often each
connection asked since the last `DELETE /_asked`, and how many tokens were given.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
from collections import Counter
from typing import TYPE_CHECKING

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

if TYPE_CHECKING:
    from starlette.requests import Request

LATENCY_SECONDS = 0.05
_asked: Counter[str] = Counter()


async def token(request: Request) -> Response:
    """Give a token that names its owner."""
    await asyncio.sleep(LATENCY_SECONDS)
    _asked["token"] += 1
    return JSONResponse({"access_token": request.path_params["tenant"], "expires_in": 3600})


async def alive(request: Request) -> Response:
    """Answer a probe."""
    await asyncio.sleep(LATENCY_SECONDS)
    _asked[request.headers["Authorization"]] += 1
    if request.method == "POST":
        return JSONResponse({"data": {"__typename": "Query"}})
    return JSONResponse({"value": []})


async def asked(request: Request) -> Response:
    """Tell the counts, or forget them."""
    told = dict(_asked)
    if request.method == "DELETE":
        _asked.clear()
    return JSONResponse(told)


app = Starlette(
    routes=[
        Route("/_asked", asked, methods=["GET", "DELETE"]),
        Route("/{tenant}/oauth2/v2.0/token", token, methods=["POST"]),
        Route("/{path:path}", alive, methods=["GET", "POST"]),
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
