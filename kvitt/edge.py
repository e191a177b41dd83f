"""The Edge Function `collect`, called through Supabase. Its contract is docs/edge-function.md."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any, cast

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError
from supabase_functions.errors import FunctionsError

from kvitt.domain.errors import FunctionFailed, LeaseLost
from kvitt.ports import ColdStartKind, Page, Pong

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from supabase import AsyncClient

    from kvitt.domain.periods import Period

# The platform's own codes, in the header `sb-error-code` and in the body, and the status behind
# each where neither is there (contracts: hosted limits; 546 was WORKER_LIMIT before).
_KINDS = {
    "WORKER_RESOURCE_LIMIT": ColdStartKind.OUT_OF_MEMORY,
    "WORKER_LIMIT": ColdStartKind.OUT_OF_MEMORY,
    "BOOT_ERROR": ColdStartKind.BOOT_ERROR,
    "IDLE_TIMEOUT": ColdStartKind.TIMED_OUT,
}
_KINDS_BY_STATUS = {
    546: ColdStartKind.OUT_OF_MEMORY,
    503: ColdStartKind.BOOT_ERROR,
    504: ColdStartKind.TIMED_OUT,
}


class EdgeFunction:
    """One Edge Function of a project (`ports.Collector`)."""

    def __init__(self, client: AsyncClient, *, name: str = "collect", seconds: float) -> None:
        """`seconds` is how long it may take over a page before we stop waiting for it."""
        self.name = name
        self._client = client
        self._seconds = seconds

    async def ping(self, *, within: float) -> Pong:
        """Wake it, and learn whether it had to boot; `within` is how many seconds it may take."""
        began = time.monotonic()
        answer = await self._invoke({"ping": True}, within=within)
        reply_ms = (time.monotonic() - began) * 1000
        try:
            pong = _PongReply.model_validate(answer)
        except ValidationError as error:
            raise self._off_contract(error) from error
        return Pong(booted=pong.booted, boot_ms=pong.boot_ms, reply_ms=round(reply_ms, 1))

    async def collect(self, period: Period, *, page: int) -> Page:
        """Let it freeze the next page of a period's records."""
        answer = await self._invoke(
            {
                "key": period.key,
                "integration": period.integration_id,
                "due_at": period.due_at.isoformat(),
                "fence": period.fence,
                "page": page,
            },
            within=self._seconds,
        )
        try:
            return Page.model_validate(answer)
        except ValidationError as error:
            raise self._off_contract(error) from error

    async def _invoke(self, body: dict[str, Any], *, within: float) -> Any:
        # The library types its reply as an unspecified dict or bytes; it is bytes for JSON, too.
        invoke = cast(
            "Callable[[str, dict[str, Any]], Awaitable[bytes]]",
            self._client.functions.invoke,  # pyright: ignore[reportUnknownMemberType]
        )
        try:
            async with asyncio.timeout(within):
                raw = await invoke(self.name, {"body": body})
        except TimeoutError as error:
            raise FunctionFailed(
                f"Edge Function {self.name} did not answer within {within:g} s",
                kind=ColdStartKind.TIMED_OUT,
            ) from error
        except httpx.TransportError as error:
            raise FunctionFailed(
                f"Edge Function {self.name} could not be reached ({type(error).__name__})"
            ) from error
        except FunctionsError as error:
            raise self._meaning(error) from error
        try:
            return json.loads(raw)
        except ValueError as error:
            raise self._off_contract(error) from error

    def _meaning(self, error: FunctionsError) -> FunctionFailed | LeaseLost:
        """Read the platform's reply: the library's error keeps it only as its cause."""
        cause = error.__cause__
        if not isinstance(cause, httpx.HTTPStatusError):
            return FunctionFailed(f"Edge Function {self.name} failed: {error.message}")
        status = cause.response.status_code
        body = _json_object(cause.response)
        code = cause.response.headers.get("sb-error-code") or body.get("code") or ""
        said = body.get("message") or body.get("error") or error.message
        if code == "KV001":
            return LeaseLost(f"{said}: this attempt ends here and has changed nothing since")
        return FunctionFailed(
            f"Edge Function {self.name} answered {status} {code}: {str(said)[:500]}",
            kind=_KINDS.get(code) or (None if code else _KINDS_BY_STATUS.get(status)),
        )

    def _off_contract(self, error: ValueError) -> FunctionFailed:
        return FunctionFailed(
            f"Edge Function {self.name} does not answer as docs/edge-function.md says: {error}"
        )


class _PongReply(BaseModel):
    model_config = ConfigDict(extra="ignore")

    booted: bool
    boot_ms: float | None = None


def _json_object(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    return cast("dict[str, Any]", body) if isinstance(body, dict) else {}
