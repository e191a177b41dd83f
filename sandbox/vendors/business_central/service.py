"""Business Central over HTTP: who asks, within which limits, and what it is called."""

import asyncio
from collections.abc import Coroutine
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from sandbox.vendors import exact_json
from sandbox.vendors.business_central.api import Api, Outcome, Request, parsed, refusal
from sandbox.vendors.business_central.books import Books, Setup
from sandbox.vendors.business_central.entra import Entra, unauthenticated
from sandbox.vendors.business_central.errors import ApiError
from sandbox.vendors.business_central.limits import Limits, too_many
from sandbox.vendors.business_central.posting import Posting
from sandbox.vendors.faults import Effect, Fault
from sandbox.vendors.server import Call, Door, Kind

API = "/v2.0/{tenant}/{environment}/api/v2.0/{path:path}"
PROBES = {"environments", "companies.list"}
SAY_WHEN = {429, 502, 503}  # documented for the latter two [C]; on 429 a client reckons with it
JOB_STEP = 0.1  # seconds between looks into the job queue
CODES = {
    400: "BadRequest",
    401: "Authentication_InvalidCredentials",
    403: "Authorization_RequestDenied",
    408: "RequestTimeout",
    409: "Request_EntityChanged",
    429: "Application_TooManyRequests",
    503: "ServiceUnavailable",
    504: "GatewayTimeout",
}


class BusinessCentral:
    """The simulator, as the shared server sees it."""

    def __init__(self, path: Path) -> None:
        self._books = Books(path)
        self._api = Api(self._books)
        self._entra = Entra(self._books)
        self._limits = Limits(self._books)
        self._under_way: set[asyncio.Task[Response]] = set()

    def routes(self, door: Door) -> list[BaseRoute]:
        """Return Entra's endpoint, the platform's and the API."""

        async def token(request: HttpRequest) -> Response:
            return await door.answer(await self._token_call(request))

        async def environments(request: HttpRequest) -> Response:
            return await door.answer(self._environments_call(request))

        async def api(request: HttpRequest) -> Response:
            return await door.answer(await self._api_call(request))

        routes = [
            Route("/{tenant}/oauth2/v2.0/token", token, methods=["POST"]),
            Route("/environments/v1.2", environments),
            Route(API, api, methods=["GET", "HEAD", "POST", "PATCH", "DELETE"]),
        ]
        for route in routes[:2]:
            (route.methods or set()).discard("HEAD")  # Starlette adds it; BC doesn't document it
        return [*routes]

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
        """Post everything in the job queue."""
        return Posting(self._books).run_queue(all_of_it=True)

    async def work(self) -> None:
        """Post what is due in the job queue, for ever."""
        while True:
            await asyncio.sleep(JOB_STEP)
            Posting(self._books).run_queue(all_of_it=False)

    async def _token_call(self, request: HttpRequest) -> Call:
        form = dict(parse_qsl((await request.body()).decode()))

        async def run(*, half: bool) -> Response:
            del half
            await asyncio.sleep(self._books.settings.latency_ms / 1000)
            return self._entra.token(request.path_params["tenant"], form)

        return Call(operation="token", kind=Kind.TOKEN, run=run, refuse=_said)

    def _environments_call(self, request: HttpRequest) -> Call:
        settings = self._books.settings

        async def run(*, half: bool) -> Response:
            del half
            try:
                principal = self._entra.principal(request.headers.get("authorization", ""))
                if settings.environments_cost_quota:
                    self._limits.count(principal)
            except ApiError as error:
                return _response(refusal(error))
            await asyncio.sleep(settings.latency_ms / 1000)
            environment = {"name": settings.environment, "type": "Production", "countryCode": "NO"}
            return JSONResponse({"value": [{**environment, "aadTenantId": settings.tenant}]})

        refuse = self._refuser(request)
        return Call(operation="environments", kind=Kind.PROBE, run=run, refuse=refuse)

    async def _api_call(self, request: HttpRequest) -> Call:
        body = await request.body()
        query = f"?{request.url.query}" if request.url.query else ""
        url = f"{request.path_params['path']}{query}"
        known_as = Request(verb=request.method, url=url).operation

        async def execute(*, half: bool) -> Response:
            try:
                self._check_request(request, len(body))
                principal = self._entra.principal(request.headers.get("authorization", ""))
                self._check_address(request)
                self._limits.count(principal)
                async with self._limits.place(principal):
                    asked = _asked(request, url, body)
                    return _response(self._api.execute(asked, half=half))
            except ApiError as error:
                return _response(refusal(error))

        async def run(*, half: bool) -> Response:
            return await self._through_the_gateway(execute(half=half))

        kind = Kind.READ if request.method in {"GET", "HEAD"} else Kind.WRITE
        kind = Kind.PROBE if known_as in PROBES else kind
        return Call(operation=known_as, kind=kind, run=run, refuse=self._refuser(request))

    async def _through_the_gateway(self, execution: Coroutine[Any, Any, Response]) -> Response:
        """Return the reply, or 504 where it takes too long; what is under way goes on [C]."""
        task = asyncio.create_task(execution)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        done, _ = await asyncio.wait({task}, timeout=self._books.settings.gateway_seconds)
        if done:
            return task.result()
        status = HTTPStatus.GATEWAY_TIMEOUT
        return _response(refusal(ApiError(status, CODES[status], "The gateway gave up.")))

    def _check_request(self, request: HttpRequest, size: int) -> None:
        """Raise ApiError for an address or a body beyond the limits [C]."""
        settings = self._books.settings
        if request.method == "HEAD" and not settings.answers_head:
            status = HTTPStatus.METHOD_NOT_ALLOWED
            raise ApiError(status, "BadRequest_MethodNotAllowed", "The method is not allowed.")
        if len(str(request.url)) > settings.url_characters:
            raise ApiError(HTTPStatus.REQUEST_URI_TOO_LONG, "BadRequest", "The URL is too long.")
        if size > settings.body_bytes:
            status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            raise ApiError(status, "RequestEntityTooLarge", "The body is too large.")

    def _check_address(self, request: HttpRequest) -> None:
        settings, given = self._books.settings, request.path_params
        if (given["tenant"], given["environment"]) != (settings.tenant, settings.environment):
            message = f"The environment '{given['environment']}' does not exist."
            raise ApiError(HTTPStatus.NOT_FOUND, "NoEnvironment", message)

    def _refuser(self, request: HttpRequest) -> Any:
        def refuse(fault: Fault) -> Response:
            if fault.effect is Effect.TOKEN_EXPIRED:
                self._entra.revoke(request.headers.get("authorization", ""))
                return _response(refusal(unauthenticated()))
            return _said(fault)

        return refuse


def _said(fault: Fault) -> Response:
    """Return a fault in BC's words."""
    if fault.effect is Effect.RATE_LIMIT:
        error = too_many()
    else:
        code = fault.code or CODES.get(fault.status, "Internal_ServerError")
        error = ApiError(fault.status, code, "A fault on order.")
    error.retry_after = fault.retry_after if error.status in SAY_WHEN else None
    return _response(refusal(error))


def _asked(request: HttpRequest, url: str, body: bytes) -> Request:
    path = request.url.path.removesuffix(request.path_params["path"])
    return Request(
        verb=request.method,
        url=url,
        base=f"{request.url.scheme}://{request.url.netloc}{path}",
        headers=dict(request.headers),
        body=parsed(body),
    )


def _response(outcome: Outcome) -> Response:
    content = b"" if outcome.body is None else exact_json.dumps(outcome.body).encode()
    media_type = None if outcome.body is None else "application/json"
    return Response(content, outcome.status, dict(outcome.headers), media_type)
