"""The limits of one service principal: requests in a window, and requests at once."""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from sandbox.vendors.business_central.books import Books
from sandbox.vendors.business_central.errors import ApiError


def too_many(message: str = "Too many requests reached.") -> ApiError:
    """Return the 429; BC documents no Retry-After for it [C]."""
    return ApiError(429, "Application_TooManyRequests", message)


@dataclass
class _Lane:
    """What one principal has under way."""

    past: deque[float] = field(default_factory=deque[float])
    running: int = 0
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque[asyncio.Future[None]])


class Limits:
    """Counts, queues and refuses, by service principal."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._lanes: defaultdict[str, _Lane] = defaultdict(_Lane)

    def count(self, principal: str) -> None:
        """Spend one request of the sliding window. Raises ApiError 429."""
        settings, past = self._books.settings, self._lanes[principal].past
        now = self._books.now()
        while past and past[0] <= now - settings.quota_seconds:
            past.popleft()
        if len(past) >= settings.quota:
            raise too_many(f"Too many requests reached. Maximum ({settings.quota}).")
        past.append(now)

    @asynccontextmanager
    async def place(self, principal: str) -> AsyncGenerator[None]:
        """Hold one of the few places, after queueing for it. Raises ApiError 408, 429 or 503."""
        lane, settings = self._lanes[principal], self._books.settings
        await self._enter(lane)
        try:
            takes = settings.latency_ms / 1000
            await asyncio.sleep(min(takes, settings.operation_seconds))
            if takes > settings.operation_seconds:
                # Ended in the middle, and so undone.
                raise ApiError(408, "RequestTimeout", "The operation took too long.")
            yield
        finally:
            _leave(lane)

    async def _enter(self, lane: _Lane) -> None:
        settings = self._books.settings
        if lane.running < settings.concurrency:
            lane.running += 1
            return
        if len(lane.waiting) >= settings.queue:
            raise too_many()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        lane.waiting.append(turn)
        try:
            await asyncio.wait_for(turn, settings.queue_seconds)
        except TimeoutError as error:
            lane.waiting.remove(turn)
            raise ApiError(503, "ServiceUnavailable", "Queued too long.", retry_after=30) from error


def _leave(lane: _Lane) -> None:
    """Hand the place to the next in the queue, or give it back."""
    while lane.waiting:
        turn = lane.waiting.popleft()
        if not turn.done():
            turn.set_result(None)
            return
    lane.running -= 1
