"""Dataverse over HTTP: who asks, within which limits, and what it is called."""

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from sandbox.vendors import entra
from sandbox.vendors.dataverse.api import Api, Outcome, Request, refusal
from sandbox.vendors.dataverse.books import Books, Setup
from sandbox.vendors.dataverse.errors import ApiError, no_member
from sandbox.vendors.dataverse.limits import REQUESTS, Limits, too_many
from sandbox.vendors.faults import Effect, Fault
from sandbox.vendors.server import Call, Door, Kind

API = "/{environment}/api/data/v9.2/{path:path}"
PROBES = {"whoami", "metadata"}
CODES = {503: "0x80040224", 504: "0x80044178"}
UNEXPECTED = "0x80040216"


class Dataverse:
    """The simulator, as the shared server sees it."""

    def __init__(self, path: Path) -> None:
        self._books = Books(path)
        self._api = Api(self._books)
        self._entra = entra.Entra(self._books, self._is_scope)
        self._limits = Limits(self._books)

    def routes(self, door: Door) -> list[BaseRoute]:
        """Return Entra's endpoint and the Web API."""

        async def token(request: HttpRequest) -> Response:
            return await door.answer(await self._token_call(request))

        async def api(request: HttpRequest) -> Response:
            return await door.answer(await self._api_call(request))

        return [
            Route("/{tenant}/oauth2/v2.0/token", token, methods=["POST"]),
            Route(API, api, methods=["GET", "POST", "PATCH", "PUT", "DELETE"]),
        ]

    def audit(self) -> dict[str, Any]:
        """Return the books in the neutral shape."""
        return self._books.audit()

    def setup(self, wishes: Any) -> None:
        """Add to the set-up, or change it."""
        self._books.set_up(Setup.model_validate(wishes))

    def settings(self) -> dict[str, Any]:
        """Return the settings in force."""
        return self._books.settings.model_dump(mode="json")

    async def run_jobs(self) -> int:
        """Do nothing: what is there is final."""
        return 0

    async def work(self) -> None:
        """Have no job."""
        await asyncio.Event().wait()

    def _is_scope(self, scope: str) -> bool:
        """Whether this names an environment: its address, and /.default."""
        address, _, rest = scope.rpartition("/")
        return rest == ".default" and self._knows(urlsplit(address).path.strip("/"))

    def _knows(self, environment: str) -> bool:
        sql = "SELECT 1 FROM environments WHERE id = ?"
        return self._books.row(sql, environment) is not None

    async def _token_call(self, request: HttpRequest) -> Call:
        form = dict(parse_qsl((await request.body()).decode()))

        async def run(*, half: bool) -> Response:
            del half
            await asyncio.sleep(self._books.settings.latency_ms / 1000)
            return self._entra.token(request.path_params["tenant"], form)

        return Call(operation="token", kind=Kind.TOKEN, run=run, refuse=_said)

    async def _api_call(self, request: HttpRequest) -> Call:
        asked = _asked(request, await request.body())

        async def run(*, half: bool) -> Response:
            try:
                user = self._user(request, asked.environment)
                with self._limits.place(user):
                    await asyncio.sleep(self._books.settings.latency_ms / 1000)
                    outcome = self._api.execute(asked, half=half)
            except ApiError as error:
                outcome = refusal(error)
                user = ""
            return _response(outcome, self._limits.left(user))

        kind = Kind.READ if request.method == "GET" else Kind.WRITE
        probe = asked.operation in PROBES or "$top=1" in asked.url
        kind = Kind.PROBE if probe else kind

        def refuse(fault: Fault) -> Response:
            if fault.effect is Effect.TOKEN_EXPIRED:
                self._entra.revoke(request.headers.get("authorization", ""))
                return _unauthorised()
            return _said(fault)

        return Call(operation=asked.operation, kind=kind, run=run, refuse=refuse)

    def _user(self, request: HttpRequest, environment: str) -> str:
        """Return who asks. Raises ApiError 401 or 403."""
        holder = self._entra.holder(request.headers.get("authorization", ""))
        address = f"{request.url.scheme}://{request.url.netloc}/{environment}"
        if holder is None or holder.scope != f"{address}/.default":
            raise ApiError(401, "", "")
        if not holder.registered:
            raise no_member()
        return f"{environment} {holder.client}"


def _unauthorised() -> Response:
    return Response(b"", 401, {"WWW-Authenticate": "Bearer"})


def _said(fault: Fault) -> Response:
    """Return a fault in Dataverse's words."""
    if fault.effect is Effect.RATE_LIMIT:
        error = too_many(fault.code or REQUESTS, "Number of requests exceeded the limit.", 1)
        error.retry_after = error.retry_after if fault.retry_after is None else fault.retry_after
    else:
        code = fault.code or CODES.get(fault.status, UNEXPECTED)
        error = ApiError(fault.status, code, "A fault on order.", fault.retry_after)
    return _response(refusal(error), {})


def _asked(request: HttpRequest, body: bytes) -> Request:
    path = request.path_params["path"]
    query = f"?{request.url.query}" if request.url.query else ""
    environment = request.path_params["environment"]
    return Request(
        verb=request.method,
        url=f"{path}{query}",
        base=f"{request.url.scheme}://{request.url.netloc}/{environment}/api/data/v9.2/",
        environment=environment,
        headers=dict(request.headers),
        body=body,
    )


def _response(outcome: Outcome, left: dict[str, str]) -> Response:
    if outcome.status == 401:  # noqa: PLR2004
        return _unauthorised()
    text = outcome.text
    kind = {"Content-Type": "application/json; odata.metadata=minimal"} if text else {}
    headers = {"OData-Version": "4.0", **kind, **left, **outcome.headers}
    return Response(text.encode(), outcome.status, headers)
