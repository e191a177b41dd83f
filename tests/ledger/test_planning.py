"""The calendar is written ahead from cron and zone, on the real clock of the database."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from kvitt.domain.calendar import due_times_between
from kvitt.domain.errors import LedgerRefused
from kvitt.planning import AHEAD, reschedule, write_ahead
from tests.cast import FJORDBY, NORDVEST, TOUR, another

if TYPE_CHECKING:
    import psycopg

    from kvitt.domain.integrations import Integration
    from kvitt.ledger import SupabaseLedger

DAY = timedelta(days=1)


def planned(database: psycopg.Connection, who: Integration) -> list[tuple[datetime, datetime]]:
    return database.execute(
        "select opens_at, due_at from kvitt.periods where integration_id = %s order by due_at",
        [who.id],
    ).fetchall()


@pytest.mark.parametrize("member", [NORDVEST, FJORDBY, TOUR], ids=lambda who: who.id)
async def test_the_calendar_is_written_from_the_first_period_to_the_horizon(
    ledger: SupabaseLedger, database: psycopg.Connection, member: Integration
) -> None:
    who = another(member, first_period=datetime.now(UTC) - 10 * DAY)
    await ledger.save_integration(who)
    written = await write_ahead(ledger, who)
    until = datetime.now(UTC) + AHEAD
    due = due_times_between(who.cron, who.time_zone, after=who.first_period, until=until)
    periods = planned(database, who)
    assert len(periods) == written
    assert [moment for _, moment in periods][: len(due)] == due
    assert all(earlier[1] == later[0] for earlier, later in pairwise(periods))


async def test_the_next_two_are_written_however_far_ahead_they_are(
    ledger: SupabaseLedger, database: psycopg.Connection
) -> None:
    who = another(NORDVEST, cron="0 6 1 1 *", first_period=datetime.now(UTC))
    await ledger.save_integration(who)
    assert await write_ahead(ledger, who) == 2
    assert planned(database, who)[0][1] > datetime.now(UTC)


async def test_writing_again_or_at_once_adds_nothing(
    ledger: SupabaseLedger, database: psycopg.Connection
) -> None:
    who = another(TOUR, first_period=datetime.now(UTC) - DAY)
    await ledger.save_integration(who)
    written = await asyncio.gather(*(write_ahead(ledger, who) for _ in range(4)))
    assert sum(written) == len(planned(database, who)) >= 72
    assert await write_ahead(ledger, who) <= 1  # the hour may have turned meanwhile


async def test_what_an_outage_left_unwritten_is_written_page_by_page(
    ledger: SupabaseLedger, database: psycopg.Connection
) -> None:
    who = another(TOUR, cron="*/10 * * * *", first_period=datetime.now(UTC) - 15 * DAY)
    await ledger.save_integration(who)
    assert await write_ahead(ledger, who) >= 17 * 24 * 6
    periods = planned(database, who)
    assert {due - opens for opens, due in periods} == {timedelta(minutes=10)}


async def test_after_a_change_of_schedule_the_new_one_begins_where_the_old_one_ended(
    ledger: SupabaseLedger, database: psycopg.Connection
) -> None:
    who = another(TOUR, first_period=datetime.now(UTC) - DAY)
    await ledger.save_integration(who)
    await write_ahead(ledger, who)
    changed = another(TOUR, id=who.id, cron="45 * * * *", first_period=who.first_period)
    await ledger.save_integration(changed)
    await write_ahead(ledger, changed)
    periods = planned(database, who)
    minutes = [due.minute for _, due in periods]
    assert minutes == sorted(minutes)
    assert {*minutes} == {15, 45}
    assert all(earlier[1] == later[0] for earlier, later in pairwise(periods))


async def test_what_a_change_of_schedule_will_do_is_what_it_then_does(
    ledger: SupabaseLedger, database: psycopg.Connection
) -> None:
    who = another(TOUR, first_period=datetime.now(UTC) - DAY)
    await ledger.save_integration(who)
    await write_ahead(ledger, who)
    before = planned(database, who)
    changed = another(TOUR, id=who.id, cron="15 */2 * * *", first_period=who.first_period)
    told = await reschedule(ledger, changed)
    assert planned(database, who) == before
    await ledger.save_integration(changed)
    await write_ahead(ledger, changed)
    after = planned(database, who)
    due_before_it, due_after_it = {due for _, due in before}, {due for _, due in after}
    assert told.go == sorted(due_before_it - due_after_it)
    assert told.come == sorted(due_after_it - due_before_it)
    assert len(told.go) == 24
    assert told.opens_at == max(due for _, due in before if due <= datetime.now(UTC))


async def test_a_schedule_that_never_came_due_changes_from_its_beginning(
    ledger: SupabaseLedger, database: psycopg.Connection
) -> None:
    who = another(NORDVEST, first_period=datetime.now(UTC) + DAY)
    await ledger.save_integration(who)
    await write_ahead(ledger, who)
    changed = who.model_copy(update={"cron": "0 7 * * *"})
    told = await reschedule(ledger, changed)
    await ledger.save_integration(changed)
    await write_ahead(ledger, changed)
    assert [due for _, due in planned(database, who)] == told.come
    assert told.opens_at == planned(database, who)[0][0]


async def test_a_period_that_is_not_due_yet_is_not_skipped_so_that_a_new_schedule_has_no_gap(
    ledger: SupabaseLedger, database: psycopg.Connection
) -> None:
    who = another(NORDVEST, cron="0 6 1 1 *", first_period=datetime.now(UTC) + DAY)
    await ledger.save_integration(who)
    await write_ahead(ledger, who)
    for _, due in planned(database, who):
        with pytest.raises(LedgerRefused, match="it is not due yet") as refused:
            await ledger.skip(who.id, due, who="Liv", reason="yearly was a typo")
        assert "change the schedule" in str(refused.value)
    changed = who.model_copy(update={"cron": "0 * * * *"})
    await ledger.save_integration(changed)
    await write_ahead(ledger, changed)
    periods = planned(database, who)
    assert len(periods) > 2
    assert {due - opens for opens, due in periods} == {timedelta(hours=1)}
