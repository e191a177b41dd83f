"""How the ledger is asked, and what its refusals mean: the one owner of retries of its calls."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Any, Protocol, TypeVar

import httpx
import stamina
from postgrest.exceptions import APIError
from pydantic import TypeAdapter, ValidationError

from kvitt.domain.errors import LeaseLost, LedgerRefused, LedgerUnavailable

_CALL_SECONDS = 60
_RETRY_SECONDS = 30
_LEASE_LOST = "KV001"

# SQLSTATE classes and codes that say "not now": connections, resources, an operator or a statement
# time-out (57014, rolled back), a lost race.
# PGRST00x is PostgREST without its database; a bare number is the status of a reply that was not
# PostgREST's own, as a gateway gives it.
_NOT_NOW = ("08", "53", "57", "58", "40", "PGRST00", "408", "429", "500", "502", "503", "504")

T = TypeVar("T")


async def ask(request: _Request, *, what: str = "reading") -> Any:
    """Make a request until it is answered, and return its data; each of ours may be made twice.

    Raises LeaseLost, LedgerRefused, and LedgerUnavailable after half a minute.
    """
    try:
        async for attempt in stamina.retry_context(
            on=LedgerUnavailable, attempts=None, timeout=_RETRY_SECONDS, wait_max=5
        ):
            with attempt:
                return await _once(request, what)
    except LedgerUnavailable as error:
        raise LedgerUnavailable(
            f"{error}. Tried for {_RETRY_SECONDS} s; the next run goes on from here"
        ) from error
    raise AssertionError("unreachable: retry_context returns or raises")


class _Request(Protocol):
    async def execute(self) -> Any: ...


async def _once(request: _Request, what: str) -> Any:
    try:
        async with asyncio.timeout(_CALL_SECONDS):
            return (await request.execute()).data
    except APIError as error:
        raise _meaning(error, what) from error
    except (TimeoutError, httpx.TransportError) as error:
        raise LedgerUnavailable(
            f"the ledger did not answer ({what}: {type(error).__name__})"
        ) from error


def _meaning(error: APIError, what: str) -> LeaseLost | LedgerRefused | LedgerUnavailable:
    code, message = str(error.code or ""), error.message or "no message"
    if code == _LEASE_LOST:
        return LeaseLost(f"{message}: this attempt ends here and has changed nothing since")
    # PostgREST always gives a code. Without one it is the gateway that speaks: of the key, which no
    # waiting mends, or of its own troubles.
    if not code and "api key" in message.lower():
        return LedgerRefused(f"the project refuses the secret key: {message}", code="401")
    if not code or code.startswith(_NOT_NOW):
        return LedgerUnavailable(f"the ledger cannot answer now ({what}: {code} {message})")
    return LedgerRefused(f"{message} ({what}: {code})", code=code)


def read(kind: type[T], answer: Any) -> T:
    """Return an answer as what it is. One that is broken on the way is nobody's fault."""
    try:
        return _adapter(kind).validate_python(answer)
    except ValidationError as error:
        raise LedgerUnavailable(f"the ledger's reply cannot be read as {kind}") from error


@cache
def _adapter(kind: type[T]) -> TypeAdapter[T]:
    return TypeAdapter(kind)
