"""A server in front of another one, whose replies can be bent: another time, other words."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any, Self

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from sandbox.processes import free_port

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

_OWN = {"content-length", "content-encoding", "transfer-encoding", "date", "host", "connection"}
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


class Warp:
    """Passes requests on; `ahead` is how far its clock is ahead, `bend` what becomes of replies."""

    def __init__(
        self,
        target: str,
        *,
        ahead: timedelta = timedelta(0),
        bend: Callable[[str, int, bytes], tuple[int, bytes]] = lambda _, status, body: (
            status,
            body,
        ),
    ) -> None:
        self._target = target
        self._ahead = ahead
        self._bend = bend
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        app = Starlette(routes=[Route("/{path:path}", self._pass_on, methods=_METHODS)])
        config = uvicorn.Config(app, port=port, log_level="error", date_header=False)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        while not self._server.started:
            self._thread.join(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()

    async def _pass_on(self, request: Request) -> Response:
        async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
            reply = await http.request(
                request.method,
                f"{self._target}{request.url.path}",
                params=request.url.query,
                headers=_passed_on(request.headers),
                content=await request.body(),
            )
        status, body = self._bend(request.url.path, reply.status_code, reply.content)
        now = datetime.now(UTC) + self._ahead
        headers = {**_passed_on(reply.headers), "date": format_datetime(now, usegmt=True)}
        return Response(body, status, headers)


def _passed_on(headers: Any) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _OWN}
