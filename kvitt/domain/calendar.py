"""The calendar: when the periods of an integration are due.

The only place where local time matters. Cron expressions are read by cronsim, whose rules for
daylight saving are Debian cron's: a fixed time that a spring change skips comes right after the
gap, one that an autumn change repeats comes once, and `*` in the hour follows real time.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_FIELDS = 5  # cronsim would take a sixth, for seconds
_MICROSECOND = timedelta(microseconds=1)
_STEP = timedelta(days=1)  # within it, clocks change once at most
# cronsim is right again by the midnight after a change, at the latest.
_RUN_UP = timedelta(days=2)


def due_times(cron: str, time_zone: str, *, after: datetime) -> Iterator[datetime]:
    """Yield the due times after a time, in UTC, in order, without end.

    The count begins earlier, so that what is due does not hang on where between two it was asked:
    cronsim, begun right after a change by half an hour, would miss the rest of that day.
    """
    zone = ZoneInfo(time_zone)
    latest = after.astimezone(UTC) - _RUN_UP
    for found in _utc(CronSim(cron, latest.astimezone(zone))):
        # Asked in the second of two like hours of autumn, it begins with the first of them.
        for due in (*_passed_over(cron, zone, latest, found), found):
            if due > latest:
                latest = due
                if due > after:
                    yield due


def _passed_over(cron: str, zone: ZoneInfo, latest: datetime, found: datetime) -> list[datetime]:
    """Return the due times that cronsim jumped over on its way from one to the next.

    It steps by hours from full hours. A change by half an hour, as Lord Howe's, lets it jump over a
    due time; on the way back it finds it. Where the clocks did not change, there is none.
    """
    here, there = latest.astimezone(zone), found.astimezone(zone)
    if found - latest <= _STEP and here.utcoffset() == there.utcoffset():
        return []
    back = _utc(CronSim(cron, there, reverse=True))
    return list(takewhile(lambda due: due > latest, back))[::-1]


def _utc(times: Iterable[datetime]) -> Iterator[datetime]:
    """Turn local times into UTC: in one zone, Python compares clocks and not moments."""
    return (local.astimezone(UTC) for local in times)


def due_times_between(
    cron: str, time_zone: str, *, after: datetime, until: datetime
) -> list[datetime]:
    """Return the due times after the one time up to and including the other, in UTC."""
    return list(takewhile(lambda due: due <= until, due_times(cron, time_zone, after=after)))


def first_due(cron: str, time_zone: str, *, at_or_after: datetime) -> datetime:
    """Return the first due time at or after a time, in UTC."""
    return next(due_times(cron, time_zone, after=at_or_after - _MICROSECOND))


def due_before(cron: str, time_zone: str, *, due: datetime) -> datetime:
    """Return the due time before another one, in UTC: when that other period opens."""
    local = due.astimezone(ZoneInfo(time_zone))
    return next(_utc(CronSim(cron, local, reverse=True)))


def lacking(due: Iterable[datetime], scheduled: Iterable[datetime]) -> list[datetime]:
    """Return the due times at which somebody else's scheduler has nothing, in UTC."""
    there = set(_utc(scheduled))
    return [moment for moment in _utc(due) if moment not in there]


def check_cron(cron: str) -> str:
    """Return the expression if it can be read and comes due at all; else ValueError."""
    if len(cron.split()) != _FIELDS:
        raise ValueError(f"{cron!r} is no cron expression of five fields")
    try:
        next(CronSim(cron, datetime(2024, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        raise ValueError(f"{cron!r} is no cron expression of five fields: {error}") from error
    except StopIteration:
        raise ValueError(f"{cron!r} never comes due") from None
    return cron
