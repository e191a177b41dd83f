"""Service protection: requests and execution time in a window, and requests at once [C].

Each is judged by application user. Over a limit, Retry-After says when there is room again.
"""

import math
import time
from collections import defaultdict, deque
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sandbox.vendors.dataverse.books import Books
from sandbox.vendors.dataverse.errors import ApiError

REQUESTS, TIME, AT_ONCE = "0x80072322", "0x80072321", "0x80072326"


def too_many(code: str, message: str, wait: float) -> ApiError:
    """Return the 429; Dataverse always says how long to wait [C]."""
    return ApiError(429, code, message, retry_after=max(1, math.ceil(wait)))


@dataclass
class _User:
    """What one application user has asked for: when, and for how long it took."""

    past: deque[tuple[float, float]] = field(default_factory=deque[tuple[float, float]])
    running: int = 0


class Limits:
    """Counts and refuses."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._users: defaultdict[str, _User] = defaultdict(_User)

    @contextmanager
    def place(self, user: str) -> Generator[None]:
        """Spend a request, and the time until its end. Raises ApiError 429."""
        mine, now = self._users[user], self._books.now()
        self._check(mine, now)
        mine.running += 1
        began = time.monotonic()
        try:
            yield
        finally:
            mine.running -= 1
            mine.past.append((now, time.monotonic() - began))

    def left(self, user: str) -> dict[str, str]:
        """Return the headers that say what is left [C]."""
        settings, past = self._books.settings, self._users[user].past
        spent = sum(seconds for _, seconds in past)
        return {
            "x-ms-ratelimit-burst-remaining-xrm-requests": str(max(0, settings.quota - len(past))),
            "x-ms-ratelimit-time-remaining-xrm-requests": (
                f"{max(0, settings.execution_seconds - spent):,.2f}"
            ),
        }

    def _check(self, user: _User, now: float) -> None:
        settings, past = self._books.settings, user.past
        while past and past[0][0] <= now - settings.quota_seconds:
            past.popleft()
        wait = past[0][0] + settings.quota_seconds - now if past else 0
        window = f"time window of {settings.quota_seconds:g} seconds"
        if len(past) >= settings.quota:
            message = f"Number of requests exceeded the limit of {settings.quota} over {window}."
            raise too_many(REQUESTS, message, wait)
        if sum(seconds for _, seconds in past) >= settings.execution_seconds:
            limit = settings.execution_seconds * 1000
            message = f"Combined execution time of incoming requests exceeded limit of {limit:,.0f}"
            raise too_many(TIME, f"{message} milliseconds over {window}.", wait)
        if user.running >= settings.concurrency:
            message = f"Number of concurrent requests exceeded the limit of {settings.concurrency}."
            raise too_many(AT_ONCE, message, 1)
