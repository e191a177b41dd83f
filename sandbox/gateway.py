"""The front door of the local Supabase: one URL for the REST API and for the Edge Functions.

    KVITT_GATEWAY='{…}' python -m sandbox.gateway --port 0

It prints `{"url": …}` when it is ready. What `supabase-py` needs of a project is there:
`/rest/v1/…` (PostgREST) and `/functions/v1/<name>` (our Edge runtime). Opaque keys (`sb_secret_…`,
`sb_publishable_…`) are exchanged for the JWT of their role, as the hosted gateway does; JWT keys
of the older kind pass.

Under `/_sandbox/`, for whoever holds the secret key, it can be made to misbehave:

    GET  /_sandbox/functions         limits, and per function: invocations, boots, statuses
    PATCH /_sandbox/functions        change limits (the fields of `sandbox.edge.Limits`)
    POST /_sandbox/functions/end     end all workers: the next request is a cold start
"""

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import socket
import time
import tomllib
from collections.abc import AsyncGenerator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self, cast

import httpx
import jwt
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from sandbox.edge import EdgeRuntime, end_to_end
from sandbox.processes import Home

SETTINGS = "KVITT_GATEWAY"
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
TEN_YEARS = 10 * 365 * 24 * 3600  # what the platform gives its own JWT keys


@dataclass(frozen=True, kw_only=True)
class Keys:
    """The keys of a project: two opaque ones, and what the JWT ones are signed with."""

    secret: str
    publishable: str
    jwt_secret: str

    @classmethod
    def generate(cls) -> Self:
        """Make new ones, in the form of the hosted ones."""
        return cls(
            secret=f"sb_secret_{secrets.token_urlsafe(23)}",
            publishable=f"sb_publishable_{secrets.token_urlsafe(23)}",
            jwt_secret=secrets.token_urlsafe(48),
        )

    def jwt_of(self, role: str) -> str:
        """Sign a JWT for a role."""
        now = int(time.time())
        claims = {"iss": "supabase", "ref": "sandbox", "role": role, "iat": now}
        return jwt.encode({**claims, "exp": now + TEN_YEARS}, self.jwt_secret, "HS256")

    def is_jwt(self, key: str) -> bool:
        """Say whether a key is a valid JWT of this project."""
        try:
            jwt.decode(key, self.jwt_secret, ["HS256"], options={"verify_aud": False})
        except jwt.InvalidTokenError:
            return False
        return True


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the gateway is told, through the environment: arguments could be read by anybody."""

    project: str
    home: str
    postgrest_url: str
    database_url: str
    keys: Keys

    @classmethod
    def from_environment(cls) -> Self:
        """Read them; they do not stay in the environment."""
        settings: dict[str, Any] = json.loads(os.environ.pop(SETTINGS))
        keys = Keys(**settings.pop("keys"))
        return cls(keys=keys, **settings)

    def to_environment(self) -> dict[str, str]:
        """Return what `from_environment` reads."""
        return {SETTINGS: json.dumps(asdict(self))}


class Gateway:
    """The routes, and what they share."""

    def __init__(self, settings: Settings, url: str) -> None:
        """Prepare; nothing is opened before `lifespan`."""
        self.settings, self.keys, self.url = settings, settings.keys, url
        self._roles = {
            self.keys.secret: self.keys.jwt_of("service_role"),
            self.keys.publishable: self.keys.jwt_of("anon"),
        }
        # No time-outs of our own: each side has its own, and tests want to see those.
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(None), limits=httpx.Limits(), trust_env=False
        )
        project = Path(settings.project) / "supabase"
        self.edge = EdgeRuntime(
            functions=project / "functions",
            config=read_config(project).get("functions", {}),
            environment=self._function_environment(),
            home=Home(Path(settings.home)),
            client=self._client,
        )

    def app(self) -> Starlette:
        """Return the application."""
        return Starlette(
            lifespan=self._lifespan,
            routes=[
                Route("/rest/v1/{path:path}", self.rest, methods=METHODS),
                Route("/functions/v1/{name}{rest:path}", self.function, methods=METHODS),
                Route("/_sandbox/functions", self.show_functions, methods=["GET"]),
                Route("/_sandbox/functions", self.change_limits, methods=["PATCH"]),
                Route("/_sandbox/functions/end", self.end_workers, methods=["POST"]),
            ],
        )

    async def rest(self, request: Request) -> Response:
        """Pass a request on to PostgREST, with the JWT of the key's role."""
        key = request.headers.get("apikey") or request.query_params.get("apikey")
        if refusal := self._refuse(key):
            return refusal
        headers = end_to_end(request.headers)
        headers["authorization"] = self._authorization(key or "", headers.get("authorization"))
        upstream_request = self._client.build_request(
            request.method,
            f"{self.settings.postgrest_url}/{request.path_params['path']}",
            params=tuple(
                item for item in request.query_params.multi_items() if item[0] != "apikey"
            ),
            headers=headers,
            content=request.stream() if _has_body(request) else None,
        )
        try:
            upstream = await self._client.send(upstream_request, stream=True)
        except httpx.TransportError:
            return _unreachable()
        return StreamingResponse(
            _body(upstream), upstream.status_code, headers=end_to_end(upstream.headers)
        )

    async def function(self, request: Request) -> Response:
        """Run an Edge Function.

        As on the hosted platform no `apikey` is asked for here: `verify_jwt` is the only check.
        """
        name = request.path_params["name"]
        checked = request.method != "OPTIONS" and self.edge.verifies_jwt(
            name
        )  # browsers' preflight
        if checked and (refusal := self._refuse_jwt(request.headers.get("authorization"))):
            return refusal
        return await self.edge.handle(request, name, request.path_params["rest"])

    async def show_functions(self, request: Request) -> Response:
        """Tell limits and counts."""
        if refusal := self._refuse_control(request):
            return refusal
        counts = {name: vars(counts) for name, counts in self.edge.counts.items()}
        return JSONResponse({"limits": asdict(self.edge.limits), "functions": counts})

    async def change_limits(self, request: Request) -> Response:
        """Change limits, and tell what they are now."""
        if refusal := self._refuse_control(request):
            return refusal
        return JSONResponse(asdict(self.edge.change_limits(**await request.json())))

    async def end_workers(self, request: Request) -> Response:
        """End all workers."""
        if refusal := self._refuse_control(request):
            return refusal
        await self.edge.end_workers()
        return Response(status_code=204)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncGenerator[None]:
        reaper = asyncio.create_task(self.edge.reap())
        print(json.dumps({"url": self.url}), flush=True)
        yield
        reaper.cancel()
        await self.edge.end_workers()
        await self._client.aclose()

    def _refuse(self, key: str | None) -> Response | None:
        """Answer as the hosted gateway does where the key is missing or unknown."""
        if not key:
            hint = "No `apikey` request header or url param was found."
            return JSONResponse({"message": "No API key found in request", "hint": hint}, 401)
        if key in self._roles or self.keys.is_jwt(key):
            return None
        hint = "Double check your Supabase `anon` or `service_role` API key."
        return JSONResponse({"message": "Invalid API key", "hint": hint}, 401)

    def _refuse_jwt(self, authorization: str | None) -> Response | None:
        """Answer as the platform does where `verify_jwt` is on and there is no valid JWT."""
        if not authorization:
            return JSONResponse({"code": 401, "message": "Missing authorization header"}, 401)
        if self.keys.is_jwt(_token(authorization)):
            return None
        return JSONResponse({"code": 401, "message": "Invalid JWT"}, 401)

    def _refuse_control(self, request: Request) -> Response | None:
        given = request.headers.get("apikey", "")
        if secrets.compare_digest(given.encode(), self.keys.secret.encode()):
            return None
        return JSONResponse({"message": "the sandbox is controlled with the secret key"}, 401)

    def _authorization(self, key: str, given: str | None) -> str:
        """Exchange an opaque key for its role's JWT; the JWT of a user stays."""
        token = _token(given) if given else key
        return f"Bearer {self._roles.get(token, token)}"

    def _function_environment(self) -> dict[str, str]:
        """Return what the platform puts into each function's environment."""
        return {
            "SUPABASE_URL": self.url,
            "SUPABASE_ANON_KEY": self._roles[self.keys.publishable],
            "SUPABASE_SERVICE_ROLE_KEY": self._roles[self.keys.secret],
            "SUPABASE_PUBLISHABLE_KEYS": json.dumps({"default": self.keys.publishable}),
            "SUPABASE_SECRET_KEYS": json.dumps({"default": self.keys.secret}),
            "SUPABASE_DB_URL": self.settings.database_url,
        }


def read_config(supabase: Path) -> dict[str, Any]:
    """Read the `config.toml` of a project's `supabase` folder."""
    with (supabase / "config.toml").open("rb") as file:
        return tomllib.load(file)


def main() -> None:
    """Serve until told to end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    listener = _listen(cast("int", parser.parse_args().port))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    app = Gateway(Settings.from_environment(), url).app()
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
    with listener:
        uvicorn.Server(config).run(sockets=[listener])


def _listen(port: int) -> socket.socket:
    """Listen on a port of 127.0.0.1 (0: any), at once, so that nobody is refused from now on.

    The protocol is named because asyncio turns Nagle's algorithm off only where it is: without,
    each reply would take 40 ms.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(1024)
    return listener


def _token(authorization: str) -> str:
    return authorization.removeprefix("Bearer ").removeprefix("bearer ")


def _has_body(request: Request) -> bool:
    return bool({"content-length", "transfer-encoding"} & set(request.headers))


def _unreachable() -> Response:
    reason = "upstream connect error or disconnect/reset before headers"
    return PlainTextResponse(f"{reason}. reset reason: connection failure", 503)


async def _body(upstream: httpx.Response) -> AsyncGenerator[bytes]:
    try:
        async for part in upstream.aiter_raw():
            yield part
    finally:
        await upstream.aclose()


if __name__ == "__main__":
    main()
