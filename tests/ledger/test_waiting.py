"""A period that waits: for a vendor or a function that is away, or for its budget."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from kvitt.budget import MonthlyBudget
from kvitt.domain.budget import Purpose
from kvitt.domain.errors import BudgetSpent, LeaseLost, LedgerRefused
from kvitt.domain.money import Totals
from kvitt.planning import extend_back
from kvitt.ports import ClaimOutcome, Trigger
from tests.cast import MINUTE, NORDVEST, PERSON, WATCH
from tests.ledger.stages import (
    LEASE_RAN_OUT,
    a_connection,
    budget,
    close,
    collect,
    frozen,
    intend,
    spend,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from kvitt.domain.periods import Period
    from tests.cast import Stage

    Enrol = Callable[..., Awaitable[Stage]]

AWAY = "Xledger could not be asked to stage 2 lines: HTTP 503"


async def postpone(stage: Stage, period: Period, **how: Any) -> datetime:
    told: dict[str, Any] = {"waiting_for": "vendor", "wait": 5 * MINUTE, "postponed": 1, **how}
    until = await stage.ledger.postpone(
        period, told["waiting_for"], told["wait"], postponed=told["postponed"], reason=AWAY
    )
    await close(stage, "postponed")
    return until


async def has_work(stage: Stage) -> bool:
    return stage.id in {w.integration_id for w in await stage.ledger.integrations_with_work()}


async def test_a_period_that_waits_is_left_alone_by_all_schedulers_and_says_until_when(
    enrol: Enrol,
) -> None:
    stage = await enrol(NORDVEST, periods=2)
    until = await postpone(stage, await stage.claimed())
    for kind in ("schedule", "watch", "pg_cron", "automation", "catch-up"):
        answer = await stage.claim(trigger=Trigger(kind=kind))
        assert answer.outcome is ClaimOutcome.WAITING
        assert answer.period is not None
        assert answer.period.due_at == stage.due[0]
        assert (answer.period.not_before, answer.period.reason) == (until, AWAY)
    assert not await has_work(stage)
    [[attempts]] = stage.ask("select count(*) from kvitt.attempts where integration_id = %(id)s")
    assert attempts == 1


async def test_it_goes_on_by_itself_when_its_time_has_come(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    await postpone(stage, await stage.claimed())
    stage.time_passes(5 * MINUTE)
    assert await has_work(stage)
    again = await stage.claimed(trigger=WATCH)
    assert (again.fence, again.state, again.postponed) == (2, "collecting", 1)
    assert (again.not_before, again.waiting_for, again.reason) == (None, None, None)


async def test_a_person_need_not_wait(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    await postpone(stage, await stage.claimed())
    assert (await stage.claimed(trigger=PERSON)).fence == 2


async def test_a_person_waits_as_well_for_a_missing_reply(enrol: Enrol) -> None:
    """What may be in the books is not sent again earlier, whoever asks."""
    stage = await enrol(NORDVEST)
    period = await frozen(stage, 2)
    await intend(stage, period, 1, 2)
    await stage.ledger.settle_chunk(period, 1, "uncertain")
    await stage.ledger.suspend(period, "no reply")
    await close(stage, "uncertain")
    assert (await stage.claim(trigger=PERSON)).outcome is ClaimOutcome.WAITING


@pytest.mark.parametrize("state", ["collecting", "collected", "exporting", "exported"])
async def test_a_period_waits_wherever_it_stands_and_stays_there(enrol: Enrol, state: str) -> None:
    stage = await enrol(NORDVEST)
    await stage.approve(2)
    period = await stage.claimed()
    if state != "collecting":
        await collect(stage, period)
    if state in {"exporting", "exported"}:
        await intend(stage, period, 1, 2)
        await stage.ledger.settle_chunk(period, 1, "confirmed")
    if state == "exported":
        await stage.ledger.finish_export(period)
    await postpone(stage, period, postponed=3)
    assert stage.period("state, postponed") == (state, 3)
    stage.time_passes(5 * MINUTE)
    assert (await stage.claimed(trigger=WATCH)).state == state


async def test_to_postpone_twice_is_to_postpone_once(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    period = await stage.claimed()
    untils = [
        await stage.ledger.postpone(period, "vendor", MINUTE, postponed=1, reason=AWAY)
        for _ in range(2)
    ]
    assert untils[0] == untils[1]


async def test_only_the_holder_of_the_lease_postpones(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    period = await stage.claimed()
    stage.time_passes(LEASE_RAN_OUT)
    await stage.claimed()
    with pytest.raises(LeaseLost):
        await stage.ledger.postpone(period, "vendor", MINUTE, postponed=1, reason=AWAY)
    assert stage.period("waiting_for, not_before") == (None, None)


async def test_a_period_that_has_ended_does_not_wait(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    period = await frozen(stage, 0)
    await stage.ledger.settle(period, Totals(), {})
    with pytest.raises(LedgerRefused, match="is verified, which does not wait for anybody"):
        await stage.ledger.postpone(period, "vendor", MINUTE, postponed=1, reason=AWAY)


async def test_a_killed_holder_is_followed_up_as_before(enrol: Enrol) -> None:
    """It postponed the period, and died before it could give the lease back."""
    stage = await enrol(NORDVEST)
    period = await stage.claimed()
    await stage.ledger.postpone(period, "vendor", 5 * MINUTE, postponed=1, reason=AWAY)
    stage.time_passes(LEASE_RAN_OUT)
    assert (await stage.claim(trigger=WATCH)).outcome is ClaimOutcome.WAITING
    stage.time_passes(5 * MINUTE)
    assert (await stage.claimed(trigger=WATCH)).fence == 2


# -- for the budget --------------------------------------------------------------------------------


async def exhausted(stage: Stage) -> MonthlyBudget:
    """Spend all that a connection has; returns the client that did."""
    purse = MonthlyBudget(stage.ledger, "xledger", stage.integration.connection)
    while True:
        try:
            await spend(purse, Purpose.EXPORT)
        except BudgetSpent:
            return purse


def next_month() -> datetime:
    return (datetime.now(UTC).replace(day=1) + timedelta(days=32)).replace(
        day=1, hour=0, minute=0, second=0, microsecond=0
    )


async def allow(stage: Stage, **stated: Any) -> None:
    told = {**stage.integration.model_dump(), "limits": {"budget": stated}}
    await stage.ledger.save_integration(stage.integration.model_validate(told))


async def test_where_the_budget_is_spent_a_period_waits_for_the_new_month_in_utc(
    enrol: Enrol,
) -> None:
    stage = await enrol(NORDVEST, **budget(requests=3))
    await exhausted(stage)
    period = await stage.claimed()
    until = await postpone(stage, period, waiting_for="budget", wait=2 * MINUTE)
    assert until == next_month() + 2 * MINUTE
    assert (await stage.claim(trigger=WATCH)).outcome is ClaimOutcome.WAITING
    stage.time_passes(until - datetime.now(UTC))
    assert await has_work(stage)


async def test_a_past_period_waits_for_its_share_and_todays_does_not(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST, **budget(requests=20, backfill_share=0.5))
    cron = f"{stage.due[0].minute} * * * *"
    hourly = stage.integration.model_copy(update={"cron": cron})
    past = stage.due[0] - timedelta(hours=1)
    await extend_back(stage.ledger, hourly, since=past, pace=timedelta(0))
    purse = MonthlyBudget(stage.ledger, "xledger", stage.integration.connection)
    await spend(purse, Purpose.EXPORT, 12)
    period = await stage.claimed(due_at=past)
    assert await postpone(stage, period, waiting_for="budget") > next_month()
    today = await stage.claimed(trigger=WATCH)
    assert today.due_at == stage.due[0]
    # There is room for today's, so it never waits.
    assert await postpone(stage, today, waiting_for="budget") <= datetime.now(UTC)
    assert (await stage.ledger.read_period(stage.id, past)).waiting_for == "budget"
    await allow(stage, requests=20, backfill_share=1)
    assert (await stage.ledger.read_period(stage.id, past)).not_before <= datetime.now(UTC)  # pyright: ignore[reportOptionalOperand]


@pytest.mark.parametrize("allowed", [{"requests": 4}, {"requests": 3, "paid": True}, {}])
async def test_it_goes_on_as_soon_as_more_is_allowed(enrol: Enrol, allowed: dict[str, Any]) -> None:
    stage = await enrol(NORDVEST, **budget(requests=3))
    await exhausted(stage)
    await postpone(stage, await stage.claimed(), waiting_for="budget")
    assert not await has_work(stage)
    await allow(stage, requests=2)
    assert not await has_work(stage)
    await allow(stage, **allowed)
    assert await has_work(stage)
    await stage.claimed(trigger=WATCH)


async def test_it_goes_on_when_another_integration_of_its_connection_lets_it(
    enrol: Enrol,
) -> None:
    shared = budget(requests=3)
    strict = await enrol(NORDVEST, **shared)
    other = await enrol(NORDVEST, connection=shared["connection"], limits={})
    await exhausted(other)
    await postpone(other, await other.claimed(), waiting_for="budget")
    elsewhere = strict.integration.model_copy(update={"connection": a_connection()})
    await strict.ledger.save_integration(elsewhere)
    assert await has_work(other)


async def test_it_goes_on_when_somebody_gives_back_what_they_had_reserved(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST, **budget(requests=100))
    hoarder = MonthlyBudget(stage.ledger, "xledger", stage.integration.connection)
    await spend(hoarder, Purpose.EXPORT)
    await exhausted(stage)
    await postpone(stage, await stage.claimed(), waiting_for="budget")
    assert not await has_work(stage)
    await hoarder.close()
    assert await has_work(stage)


async def test_a_vendor_that_is_away_is_not_asked_earlier_because_there_is_a_budget(
    enrol: Enrol,
) -> None:
    stage = await enrol(NORDVEST, **budget(requests=3))
    await postpone(stage, await stage.claimed())
    await allow(stage, requests=4)
    assert not await has_work(stage)


async def test_more_that_is_allowed_while_a_period_is_postponed_is_never_overlooked(
    enrol: Enrol,
) -> None:
    """Whichever comes first, the period does not sleep through the month."""
    for _ in range(10):
        stage = await enrol(NORDVEST, **budget(requests=1))
        await exhausted(stage)
        period = await stage.claimed()
        await asyncio.gather(
            stage.ledger.postpone(period, "budget", MINUTE, postponed=0, reason=AWAY),
            allow(stage, requests=2),
        )
        [until] = stage.period("not_before")
        assert until <= datetime.now(UTC)
