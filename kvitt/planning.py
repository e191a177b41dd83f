"""Writing the calendar ahead: each period is a row before it is due."""

from __future__ import annotations

from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING

from kvitt.domain.calendar import due_before, due_times, first_due

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from kvitt.domain.integrations import Integration
    from kvitt.ledger import SupabaseLedger
    from kvitt.ledger.rpc import Calendar

# Two days ahead, and the next two due times where they are further away: a watcher that is down
# over a weekend finds the rows there. A page bounds one statement: a minute schedule has 2,880.
AHEAD = timedelta(days=2)
_AT_LEAST = 2
_PAGE = 1000


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
    return due_times(cron, zone, after=first - timedelta(microseconds=1))
