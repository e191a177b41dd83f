"""The budget: how many requests a month a connection may spend, and how they are counted out.

Months are calendar months in UTC, whatever the integration's zone: one connection may serve several
integrations, and each request belongs to one month. What is left, the ledger says; what is here is
only how much of it a client asks for at a time, and what the month will come to.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from enum import StrEnum

_LARGEST_LOT = 128
_A_DAY = timedelta(days=1)


class Purpose(StrEnum):
    """What a request is spent on."""

    EXPORT = "export"
    READ_BACK = "read-back"
    PROBE = "probe"
    TOKEN = "token"  # noqa: S105 - the word, not one of them


def next_lot(spent: int, *, first: int) -> int:
    """Return how many requests to reserve next: as many as were spent so far, within bounds.

    So the ledger is asked ever more rarely, and what a killed process had reserved in vain is never
    more than what it had spent (or `first`).
    """
    return min(max(spent, first), _LARGEST_LOT)


def forecast(spent: int, *, month: date, at: datetime) -> int:
    """Return what a month comes to at the pace it has had until `at`; of a past one, what it was.

    On its first day the pace is that of a whole day: less of it says nothing.
    """
    begins = datetime(month.year, month.month, 1, tzinfo=UTC)
    length = _month_after(begins) - begins
    elapsed = min(max(at - begins, _A_DAY), length)
    return round(spent * (length / elapsed))


def _month_after(begins: datetime) -> datetime:
    return (begins + timedelta(days=32)).replace(day=1)
