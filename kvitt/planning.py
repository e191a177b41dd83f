"""Writing the calendar ahead: each period is a row before it is due."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING

from kvitt.domain.calendar import due_before, due_times, due_times_between, first_due
from kvitt.domain.errors import KvittError
from kvitt.domain.periods import FIRST_NAMED
from kvitt.ledger.rows import Calendar

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from kvitt.domain.integrations import Integration
    from kvitt.ledger import SupabaseLedger

# Two days ahead, and the next two due times where they are further away: a watcher that is down
# over a weekend finds the rows there. A page bounds one statement: a minute schedule has 2,880.
AHEAD = timedelta(days=2)
_AT_LEAST = 2
_PAGE = 1000
_MICROSECOND = timedelta(microseconds=1)
SLOWEST_PACE = timedelta(days=1)


class NotPlanned(KvittError):
    """The calendar cannot be written as it was asked for, and is as it was."""


async def write_ahead(ledger: SupabaseLedger, integration: Integration) -> int:
    """Write the periods of an integration up to the horizon; returns how many are new.

    What is there stays. Periods that nobody wrote in time, as after an outage of everything, are
    written now, so that none is missing.
    """
    written = 0
    while True:
        calendar = await ledger.read_calendar(integration.id)
        due = list(islice(_missing(integration, calendar), _PAGE))
        if not due:
            return written
        opens_at = due_before(integration.cron, integration.time_zone, due=due[0])
        written += await ledger.plan_periods(integration.id, opens_at=opens_at, due=due)
        if len(due) < _PAGE:
            return written


@dataclass(frozen=True, kw_only=True, slots=True)
class Rescheduled:
    """What a changed schedule does to the calendar: planned due times that go, and that come."""

    go: list[datetime]
    come: list[datetime]
    opens_at: datetime | None  # of the first period that comes


async def reschedule(ledger: SupabaseLedger, changed: Integration) -> Rescheduled:
    """Say what saving a changed schedule would do to the calendar; changes nothing.

    Periods that came due stay. The first one that comes takes up where the last of them ended.
    """
    calendar = await ledger.read_calendar(changed.id)
    planned = await ledger.read_planned(changed.id, after=calendar.now)
    kept = await ledger.read_last_kept(changed.id, now=calendar.now)
    after = Calendar(now=calendar.now, planned_until=kept, schedule_since=calendar.now)
    new = list(islice(_missing(changed, after), _PAGE))
    opens_at = kept
    if opens_at is None and new:
        opens_at = due_before(changed.cron, changed.time_zone, due=new[0])
    return Rescheduled(
        go=[due for due in planned if due not in new],
        come=[due for due in new if due not in planned],
        opens_at=opens_at,
    )


async def extend_back(
    ledger: SupabaseLedger, integration: Integration, *, since: datetime, pace: timedelta
) -> int:
    """Write the calendar on into the past, to the first due time at or after a moment.

    Returns how many periods are new. They are worked on in order, `pace` apart, after whatever the
    schedule has due. Written from the present backwards, a page at a time: broken off, it may be
    asked for again. Raises NotPlanned, before anything is written, for a time of which periods have
    no names.
    """
    if since < FIRST_NAMED:
        raise NotPlanned(
            f"{integration.id}: periods have names from {FIRST_NAMED:%Y-%m-%dT%H:%MZ} on, and "
            f"{since:%Y-%m-%dT%H:%MZ} lies before that. Nothing was written: ask from then on, or "
            "from a later time"
        )
    first = await ledger.first_period(integration.id)
    due = due_times_between(
        integration.cron, integration.time_zone, after=since - _MICROSECOND, until=first.opens_at
    )
    if since <= first.opens_at and first.opens_at not in due[-1:]:
        due.append(first.opens_at)  # the schedule was another one when the calendar began
    written = 0
    for start in range(len(due) - 1 - (len(due) - 1) % _PAGE, -1, -_PAGE):
        page = due[start : start + _PAGE]
        opens_at = due_before(integration.cron, integration.time_zone, due=page[0])
        written += await ledger.extend_back(
            integration.id,
            opens_at=due[start - 1] if start else opens_at,
            due=page,
            pace=pace,
            before=start,
        )
    return written


def pace_of(seconds: float) -> timedelta:
    """Return how far apart periods are filled in; NotPlanned for what is no pace."""
    if not 0 <= seconds <= SLOWEST_PACE.total_seconds():
        raise NotPlanned(
            f"a pace of {seconds:g} seconds is none: 0 to {SLOWEST_PACE.total_seconds():.0f} "
            "seconds lie between two periods that are filled in. Nothing was written"
        )
    return timedelta(seconds=seconds)


def _missing(integration: Integration, calendar: Calendar) -> Iterator[datetime]:
    """Yield the due times that are not written yet: past ones, and those within the horizon."""
    horizon = calendar.now + AHEAD
    written_ahead = calendar.planned_until is not None and calendar.planned_until > calendar.now
    wanted = 0 if written_ahead else _AT_LEAST
    for due in _from(integration, calendar):
        if due > horizon and wanted <= 0:
            return
        wanted -= due > calendar.now
        yield due


def _from(integration: Integration, calendar: Calendar) -> Iterator[datetime]:
    """Go on where the calendar ends. A changed schedule says nothing of the time before it."""
    cron, zone = integration.cron, integration.time_zone
    if calendar.planned_until is not None:
        since = calendar.schedule_since or calendar.planned_until
        return due_times(cron, zone, after=max(calendar.planned_until, since))
    first = first_due(cron, zone, at_or_after=integration.first_period)
    return due_times(cron, zone, after=first - _MICROSECOND)
