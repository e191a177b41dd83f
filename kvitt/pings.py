"""Telling a watcher outside that a period was begun, settled, or failed.

The form is that of healthchecks.io and its like: POST to `<address>/start`, `<address>` and
`<address>/fail`, with `?rid=` to tell one run from another. Such a watcher knows when it should
have heard of us, so it speaks up when everything of ours is down.

A ping that fails disturbs nothing, and the address, which is a secret, is in no log.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import httpx

from kvitt.domain.errors import PeriodFailed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from uuid import UUID

_SECONDS = 5
_LONGEST_TEXT = 10_000

_log = logging.getLogger(__name__)
_pinging: ContextVar[bool] = ContextVar("_pinging", default=False)


class _Silence(logging.Filter):
    """The HTTP client logs each address that it calls, and this one is a secret."""

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 - the interface's name
        return not _pinging.get()


_silence = _Silence()


@asynccontextmanager
async def seen_from_outside(address: str | None, run: UUID) -> AsyncGenerator[None]:
    """Tell the watcher at an address how the work inside goes; without an address, tell nobody.

    What waits for the vendor, or was interrupted, is not told: it goes on, and if it does not, the
    watcher hears nothing and says so.
    """
    if address is None:
        yield
        return
    started = asyncio.create_task(_ping(address, "/start", run))
    try:
        yield
    except PeriodFailed as failed:
        await started
        await _ping(address, "/fail", run, str(failed))
        raise
    except BaseException:
        started.cancel()
        raise
    await started
    await _ping(address, "", run)


async def _ping(address: str, what: str, run: UUID, text: str = "") -> None:
    logging.getLogger("httpx").addFilter(_silence)
    silent = _pinging.set(True)
    try:
        async with asyncio.timeout(_SECONDS), httpx.AsyncClient() as http:
            url = f"{address.strip().rstrip('/')}{what}"
            answer = await http.post(url, params={"rid": str(run)}, content=text[:_LONGEST_TEXT])
        if not answer.is_success:
            _log.warning("the watcher outside answered a ping with %s", answer.status_code)
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
        _log.warning("the watcher outside could not be pinged: %s", type(error).__name__)
    finally:
        _pinging.reset(silent)
