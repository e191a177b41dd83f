"""Xledger's limits: a burst, requests at once, and the month's allowance. All refuse with 200."""

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta

from sandbox.vendors.xledger.books import Books
from sandbox.vendors.xledger.errors import BURST, CONCURRENCY, CREDITS, XledgerError


class Limits:
    """Counts by token, and refuses before anything is executed."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._bursts: defaultdict[str, deque[float]] = defaultdict(deque)
        self._running: Counter[str] = Counter()

    @asynccontextmanager
    async def place(self, token: str) -> AsyncGenerator[None]:
        """Spend one request, and hold a place while it runs. Raises XledgerError."""
        self._check_burst(self._bursts[token])
        if self._running[token] >= self._books.settings.concurrency:
            raise XledgerError("Concurrency limit reached.", CONCURRENCY)
        self._spend_credit(token)
        self._running[token] += 1
        try:
            await asyncio.sleep(self._books.settings.latency_ms / 1000)
            yield
        finally:
            self._running[token] -= 1

    def _check_burst(self, past: deque[float]) -> None:
        settings, now = self._books.settings, self._books.now()
        while past and past[0] <= now - settings.burst_seconds:
            past.popleft()
        if len(past) >= settings.burst_requests:
            raise XledgerError("Burst rate limit reached.", BURST)
        past.append(now)

    def _spend_credit(self, token: str) -> None:
        """Count against the month, which a probe and a read-back do too [C]."""
        spent = self._books.row(
            """INSERT INTO spent VALUES (?, ?, 1)
               ON CONFLICT DO UPDATE SET requests = requests + 1 WHERE requests < ?
               RETURNING requests""",
            token,
            self._books.moment()[:7],
            self._books.settings.monthly_allowance,
        )
        if spent is None:
            raise XledgerError("Insufficient credits.", CREDITS, self._next_month())

    def _next_month(self) -> str:
        """Return when the allowance is renewed, in local time."""
        first = self._books.local().replace(day=1, hour=0, minute=0, second=0)
        following = (first + timedelta(days=32)).replace(day=1)
        return following.strftime("%Y-%m-%dT%H:%M:%S")
