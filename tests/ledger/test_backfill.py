"""Past periods are filled in behind the schedule's own: in order, at a pace, without a gap."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from kvitt.domain.errors import LedgerRefused
from kvitt.domain.money import Totals
from kvitt.planning import NotPlanned, extend_back, pace_of, write_ahead
from tests.cast import HOUR, NORDVEST, TOUR, another, claim_for_travel
from tests.ledger.stages import LEASE_RAN_OUT, close, collect, intend

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import psycopg

    from kvitt.ledger import SupabaseLedger
    from tests.cast import Stage

    Enrol = Callable[..., Awaitable[Stage]]

NOW = timedelta(0)


async def fill_in(stage: Stage, since: datetime, pace: timedelta = NOW) -> int:
    hourly = stage.integration.model_copy(update={"cron": f"{stage.due[0].minute} * * * *"})
    return await extend_back(stage.ledger, hourly, since=since, pace=pace)


async def settle(stage: Stage, **how: object) -> datetime:
    """Settle the period that comes next, and say when it was due."""
    period = await stage.claimed(**how)
    await collect(stage, period)
    stage.ask(
        "update kvitt.periods set state = 'skipped', reason = 'a test', holder = null,"
        " leased_until = null where key = %(key)s and state = 'collecting' returning key",
        key=period.key,
    )
    if not (await stage.ledger.read_period(stage.id, period.due_at)).state.finished:
        await stage.ledger.settle(period, Totals(), {})
        await close(stage, "settled")
    return period.due_at


async def test_the_calendar_grows_backwards_without_a_gap(
    enrol: Enrol, database: psycopg.Connection
) -> None:
    stage = await enrol(TOUR)
    assert await fill_in(stage, stage.due[0] - 2500 * HOUR) == 2500
    periods = database.execute(
        "select opens_at, due_at from kvitt.periods where integration_id = %s order by due_at",
        [stage.id],
    ).fetchall()
    assert all(earlier[1] == later[0] for earlier, later in pairwise(periods))
    assert periods[0] == (stage.due[0] - 2501 * HOUR, stage.due[0] - 2500 * HOUR)


async def test_asked_for_again_it_goes_on_where_it_was_broken_off(enrol: Enrol) -> None:
    stage = await enrol(TOUR)
    assert await fill_in(stage, stage.due[0] - 10 * HOUR) == 10
    assert await fill_in(stage, stage.due[0] - 10 * HOUR) == 0
    assert await fill_in(stage, stage.due[0] - 12 * HOUR) == 2
    assert await fill_in(stage, stage.due[0] + HOUR) == 0


async def test_the_schedules_own_periods_go_first(enrol: Enrol) -> None:
    stage = await enrol(TOUR)
    await fill_in(stage, stage.due[0] - 3 * HOUR)
    back = [stage.due[0] - n * HOUR for n in (3, 2, 1)]
    assert [await settle(stage) for _ in range(4)] == [stage.due[0], *back]
    assert (await stage.claim()).outcome == "settled"


async def test_nothing_of_one_is_older_in_the_books_than_its_first_intent(enrol: Enrol) -> None:
    stage = await enrol(TOUR)
    past = stage.due[0] - 3 * HOUR
    await fill_in(stage, past)
    period = await stage.claimed(due_at=past)
    first = period.sent_since
    assert first >= datetime.now(UTC) - HOUR > past
    await stage.ledger.add_records([claim_for_travel(stage.id, 1, past - HOUR / 2)])
    await collect(stage, period)
    await intend(stage, period, 1, 1)
    kept = await stage.ledger.read_period(stage.id, past)
    assert kept.first_sent_at is not None
    assert kept.first_sent_at >= first
    stage.time_passes(LEASE_RAN_OUT)
    again = await stage.claimed(due_at=past)
    moved = await stage.ledger.read_period(stage.id, past)
    assert again.sent_since == moved.first_sent_at < datetime.now(UTC)


async def test_of_the_schedules_own_nothing_is_older_than_when_they_were_due(enrol: Enrol) -> None:
    """A ledger that was restored to an earlier time would not know what it had sent."""
    stage = await enrol(TOUR)
    period = await stage.claimed()
    assert period.sent_since == stage.due[0]


async def test_each_waits_for_its_pace(enrol: Enrol) -> None:
    stage = await enrol(TOUR)
    await fill_in(stage, stage.due[0] - 3 * HOUR, pace=timedelta(minutes=10))
    assert await settle(stage) == stage.due[0]
    assert await settle(stage) == stage.due[0] - 3 * HOUR
    assert (await stage.claim()).outcome == "settled"
    assert [
        w for w in await stage.ledger.integrations_with_work() if w.integration_id == stage.id
    ] == []
    stage.time_passes(timedelta(minutes=10))
    [work] = [
        w for w in await stage.ledger.integrations_with_work() if w.integration_id == stage.id
    ]
    assert (work.due_at, work.backfill) == (stage.due[0] - 2 * HOUR, True)
    assert await settle(stage) == stage.due[0] - 2 * HOUR
    # Who names one need not wait.
    assert await settle(stage, due_at=stage.due[0] - HOUR) == stage.due[0] - HOUR


async def test_each_takes_what_was_approved_in_it_whichever_is_worked_on_first(
    enrol: Enrol,
) -> None:
    stage = await enrol(TOUR)
    await fill_in(stage, stage.due[0] - 2 * HOUR)
    approved = [stage.due[0] - n * HOUR - HOUR / 2 for n in range(3)]
    for number, moment in enumerate(approved):
        await stage.ledger.add_records([claim_for_travel(stage.id, number, moment)])
    for due_at in (stage.due[0], stage.due[0] - HOUR, stage.due[0] - 2 * HOUR):
        period = await stage.claimed(due_at=due_at)
        await collect(stage, period)
        await close(stage, "interrupted")
    taken = stage.ask(
        "select id, period_due_at from kvitt.records where integration_id = %(id)s order by id"
    )
    assert taken == [(f"2026-{n:04d}", stage.due[0] - n * HOUR) for n in range(3)]


async def test_nothing_that_is_filled_in_is_late(enrol: Enrol) -> None:
    stage = await enrol(TOUR, periods=0)
    stage.ask(
        "update kvitt.integrations set expected_since = '-infinity' where id = %(id)s returning id"
    )
    hourly = another(TOUR, id=stage.id)
    await write_ahead(stage.ledger, hourly)
    first = await stage.ledger.first_period(stage.id)
    await extend_back(stage.ledger, hourly, since=first.opens_at - 5 * HOUR, pace=NOW)
    incidents = await stage.ledger.note_incidents(stage.id)
    assert [
        i for i in incidents if i.due_at is not None and i.due_at < datetime.now(UTC) - 2 * HOUR
    ] == []


async def test_a_calendar_that_began_on_another_schedule_is_joined_to(
    ledger: SupabaseLedger, database: psycopg.Connection
) -> None:
    who = another(TOUR, first_period=datetime.now(UTC) - timedelta(hours=5))
    await ledger.save_integration(who)
    await write_ahead(ledger, who)
    changed = who.model_copy(update={"cron": "45 * * * *"})
    first = await ledger.first_period(who.id)
    assert await extend_back(ledger, changed, since=first.opens_at - 2 * HOUR, pace=NOW) == 3
    periods = database.execute(
        "select opens_at, due_at from kvitt.periods where integration_id = %s order by due_at",
        [who.id],
    ).fetchall()
    assert all(earlier[1] == later[0] for earlier, later in pairwise(periods))
    assert [due.minute for _, due in periods[:4]] == [45, 45, 15, 15]


async def test_a_gap_is_refused(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    early = stage.due[0] - 100 * HOUR
    with pytest.raises(LedgerRefused, match="would leave a gap"):
        await stage.ledger.extend_back(
            stage.id, opens_at=early - HOUR, due=[early], pace=NOW, before=0
        )


async def test_progress_counts_what_came_due(enrol: Enrol) -> None:
    stage = await enrol(TOUR)
    await fill_in(stage, stage.due[0] - 4 * HOUR, pace=timedelta(minutes=10))
    await settle(stage)
    await settle(stage)
    seen = await stage.ledger.progress(
        stage.id, since=stage.due[0] - 4 * HOUR, until=datetime.now(UTC) + HOUR
    )
    assert (seen.periods, seen.settled, seen.failed, seen.finished) == (5, 2, 0, False)
    assert seen.next_at is not None


async def test_a_time_of_which_periods_have_no_names_is_refused_before_anything_is_written(
    enrol: Enrol,
) -> None:
    stage = await enrol(TOUR)
    before = stage.ask("select count(*) from kvitt.periods where integration_id = %(id)s")
    with pytest.raises(NotPlanned, match="from 2020-01-01T00:00Z on") as refused:
        await fill_in(stage, datetime(1999, 1, 1, tzinfo=UTC))
    assert stage.id in str(refused.value)
    assert stage.ask("select count(*) from kvitt.periods where integration_id = %(id)s") == before


async def test_the_first_period_that_has_a_name_may_be_filled_in(enrol: Enrol) -> None:
    stage = await enrol(TOUR)
    yearly = stage.integration.model_copy(update={"cron": "0 6 1 1 *", "time_zone": "UTC"})
    since = datetime(2020, 1, 1, tzinfo=UTC)
    written = await extend_back(stage.ledger, yearly, since=since, pace=NOW)
    first = await stage.ledger.first_period(stage.id)
    assert first.due_at == datetime(2020, 1, 1, 6, tzinfo=UTC)
    assert written == stage.due[0].year - 2019 + 1  # the last joins the calendar


@pytest.mark.parametrize("seconds", [-1, 86_401, 1e300, float("inf"), float("nan")])
def test_a_pace_that_is_none_is_refused_in_words(seconds: float) -> None:
    with pytest.raises(NotPlanned, match="0 to 86400 seconds"):
        pace_of(seconds)
