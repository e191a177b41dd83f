"""Who may work on a period: one at a time, and whoever comes later has the greater number."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from kvitt.domain.errors import LeaseLost, LedgerRefused
from kvitt.domain.money import Totals
from kvitt.ports import ClaimOutcome, ColdStart, ColdStartKind, Trigger
from tests.cast import HOUR, LEASE, NORDVEST, PERSON, WATCH, another
from tests.ledger.protocol import SETTLE
from tests.ledger.stages import collect

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from kvitt.domain.periods import Period
    from kvitt.ledger import SupabaseLedger
    from tests.cast import Stage

    Enrol = Callable[..., Awaitable[Stage]]

RAN_OUT = LEASE + timedelta(seconds=1)


async def empty_period(stage: Stage) -> Period:
    """Bring a period without records to its end."""
    period = await stage.claimed()
    stage.ask(
        "select kvitt.collect_page(%(id)s, %(due)s, %(fence)s, 9)",
        due=period.due_at,
        fence=period.fence,
    )
    assert await stage.ledger.settle(period, Totals(), {})
    await close(stage, "settled")
    return period


async def close(stage: Stage, outcome: str) -> None:
    [[attempt]] = stage.ask(
        "select holder from kvitt.periods where integration_id = %(id)s and holder is not null"
    )
    await stage.ledger.close(attempt, outcome, None, {})


def attempts(stage: Stage, columns: str = "outcome") -> list[Any]:
    rows = stage.ask(
        f"select {columns} from kvitt.attempts where integration_id = %(id)s order by due_at, fence"  # noqa: S608 - our own words
    )
    return [row[0] if len(row) == 1 else row for row in rows]


# -- outcomes --------------------------------------------------------------------------------------


async def test_a_due_period_is_claimed_and_an_attempt_opened(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    scheduled = datetime(2026, 11, 24, 5, tzinfo=UTC)
    trigger = Trigger(kind="schedule", scheduled_at=scheduled, flow_run="run", worker="worker")
    answer = await stage.claim(trigger=trigger)
    assert answer.outcome is ClaimOutcome.CLAIMED
    assert answer.integration == stage.integration
    assert answer.period is not None
    assert (answer.period.state, answer.period.fence) == ("collecting", 1)
    columns = "trigger, scheduled_at, flow_run, worker, fence, outcome"
    assert attempts(stage, columns) == [("schedule", scheduled, "run", "worker", 1, None)]
    [drift] = attempts(stage, "drift")
    assert HOUR <= drift < 1.1 * HOUR


async def test_the_oldest_unfinished_period_comes_first(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST, periods=3)
    done = [(await empty_period(stage)).due_at for _ in range(3)]
    assert done == stage.due
    answer = await stage.claim()
    assert answer.outcome is ClaimOutcome.SETTLED
    assert answer.period is not None
    assert answer.period.due_at == stage.due[-1]


async def test_the_second_to_ask_finds_it_busy_and_learns_until_when(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST, periods=2)
    held = await stage.claimed()
    for due_at in (None, *stage.due):
        answer = await stage.claim(due_at=due_at)
        assert answer.outcome is ClaimOutcome.BUSY
        assert answer.period is not None
        assert answer.period.due_at == held.due_at
        assert answer.period.leased_until == held.leased_until


async def test_of_many_who_ask_at_once_one_gets_it(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    answers = await asyncio.gather(*(stage.claim() for _ in range(12)))
    assert Counter(answer.outcome for answer in answers) == {"claimed": 1, "busy": 11}
    assert len(attempts(stage)) == 1


async def test_a_period_is_not_claimed_before_it_is_due(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    [[future]] = stage.ask("select max(due_at) from kvitt.periods where integration_id = %(id)s")
    assert (await stage.claim(due_at=future)).outcome is ClaimOutcome.EARLY


async def test_where_nothing_was_ever_due_there_is_nothing_to_do(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST, periods=0)
    assert (await stage.claim()).outcome is ClaimOutcome.IDLE


async def test_an_integration_that_is_switched_off_rests(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST, enabled=False)
    assert (await stage.claim()).outcome is ClaimOutcome.DISABLED


async def test_a_time_that_is_in_no_schedule_is_refused(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    with pytest.raises(LedgerRefused, match="has no period that is due at"):
        await stage.claim(due_at=stage.due[0] + timedelta(minutes=1))
    with pytest.raises(LedgerRefused, match="there is no integration nobody"):
        await stage.ledger.claim("nobody", uuid4(), PERSON, lease=LEASE, due_at=None)


async def test_a_trigger_that_nobody_knows_is_refused(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    with pytest.raises(LedgerRefused, match="attempts_trigger_check"):
        await stage.claim(trigger=Trigger(kind="horoscope"))
    assert stage.state() == "due"


async def test_a_failed_period_waits_for_a_person(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    await stage.ledger.fail(await stage.claimed(), "the account 7140 is blocked")
    await close(stage, "failed")
    answer = await stage.claim(trigger=WATCH)
    assert answer.outcome is ClaimOutcome.FAILED
    assert answer.period is not None
    assert answer.period.reason == "the account 7140 is blocked"
    asked_for = await stage.claim(trigger=PERSON, due_at=stage.due[0])
    assert asked_for.outcome is ClaimOutcome.FAILED
    await stage.mend()
    again = await stage.claimed(trigger=WATCH)
    assert (again.state, again.reason, again.fence) == ("collecting", None, 2)


async def test_a_period_is_mended_with_a_reason_that_is_kept(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    with pytest.raises(LedgerRefused, match="is due: only a failed one is mended"):
        await stage.mend()
    await stage.ledger.fail(await stage.claimed(), "the account 7140 is blocked")
    with pytest.raises(LedgerRefused, match="a run works on it"):
        await stage.mend()
    await close(stage, "failed")
    with pytest.raises(LedgerRefused, match="say what was mended"):
        await stage.ledger.mend(stage.id, stage.due[0], who="Inger", reason=" ")
    await stage.mend()
    period = await stage.claimed()
    await collect(stage, period)
    receipt = await stage.ledger.settle(period, Totals(), {})
    assert receipt is not None
    [decision] = receipt["decisions"]
    del decision["at"]
    assert decision == {
        "decision": "mend",
        "who": "Inger",
        "reason": "account 7140 is open again",
    }


async def test_a_failed_period_lets_the_later_ones_pass(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST, periods=2)
    await stage.ledger.fail(await stage.claimed(), "mend me")
    await close(stage, "failed")
    later = await stage.claimed(trigger=WATCH)
    assert later.due_at == stage.due[1]
    await close(stage, "interrupted")
    await stage.mend()
    assert (await stage.claimed(trigger=WATCH)).due_at == stage.due[0]


async def test_a_skipped_period_is_finished(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    stage.database.execute(
        "update kvitt.periods set state = 'skipped', reason = 'booked by hand'"
        " where integration_id = %s and due_at = %s",
        [stage.id, stage.due[0]],
    )
    assert (await stage.claim()).outcome is ClaimOutcome.SETTLED
    assert (await stage.claim(due_at=stage.due[0])).outcome is ClaimOutcome.SETTLED


# -- the lease -------------------------------------------------------------------------------------


async def test_a_claim_whose_reply_was_lost_is_simply_made_again(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    attempt = uuid4()
    first, second = [
        await stage.ledger.claim(stage.id, attempt, PERSON, lease=LEASE, due_at=None)
        for _ in range(2)
    ]
    assert first == second
    assert first.outcome is ClaimOutcome.CLAIMED
    assert len(attempts(stage)) == 1


async def test_each_lease_has_a_greater_fence(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    fences: list[int] = []
    for _ in range(4):
        fences.append((await stage.claimed()).fence)
        stage.time_passes(RAN_OUT)
    assert fences == [1, 2, 3, 4]
    assert attempts(stage) == ["interrupted"] * 3 + [None]


async def test_a_renewed_lease_holds_on(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    period = await stage.claimed()
    for _ in range(3):
        stage.time_passes(LEASE / 2)
        await stage.ledger.renew(period, LEASE)
    assert (await stage.claim()).outcome is ClaimOutcome.BUSY


async def test_a_lease_that_ran_out_is_not_renewed(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    period = await stage.claimed()
    stage.time_passes(RAN_OUT)
    with pytest.raises(LeaseLost, match="the lease of attempt 1 ran out"):
        await stage.ledger.renew(period, LEASE)
    assert (await stage.claim()).outcome is ClaimOutcome.CLAIMED


async def test_a_closed_attempt_gives_its_lease_back_at_once(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    await stage.claimed()
    await close(stage, "interrupted")
    assert (await stage.claimed()).fence == 2
    assert attempts(stage) == ["interrupted", None]


async def test_the_last_word_of_an_attempt_is_its_first(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    answer = await stage.claim()
    [[attempt]] = stage.ask("select id from kvitt.attempts where integration_id = %(id)s")
    await stage.ledger.close(attempt, "failed", "the vendor refused it", {"export": 2})
    await stage.ledger.close(attempt, "settled", None, {})
    columns = "outcome, detail, requests"
    assert attempts(stage, columns) == [("failed", "the vendor refused it", {"export": 2})]
    assert answer.outcome is ClaimOutcome.CLAIMED


async def test_a_late_last_word_does_not_take_the_successors_lease(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    await stage.claimed()
    [[old]] = stage.ask(
        "select holder from kvitt.periods where holder is not null and integration_id = %(id)s"
    )
    stage.time_passes(RAN_OUT)
    new = await stage.claimed()
    await stage.ledger.close(old, "settled", None, {})
    await stage.ledger.renew(new, LEASE)
    assert attempts(stage) == ["interrupted", None]


# -- taking over -----------------------------------------------------------------------------------


async def frozen(stage: Stage, number: int = 3) -> Period:
    """Claim a period and freeze its batch."""
    await stage.approve(number)
    period = await stage.claimed()
    stage.ask(
        "select kvitt.collect_page(%(id)s, %(due)s, %(f)s, 99)", due=period.due_at, f=period.fence
    )
    return period


async def intended(stage: Stage, number: int = 3) -> Period:
    """Claim a period, freeze its batch, and write down that its first voucher is about to go."""
    period = await frozen(stage, number)
    await stage.ledger.intend(period, "lines", 1, 1, Totals(), SETTLE)
    return period


async def test_what_the_last_holder_intended_is_uncertain_until_it_has_surely_settled(
    enrol: Enrol,
) -> None:
    stage = await enrol(NORDVEST)
    period = await intended(stage)
    assert period.leased_until is not None
    stage.time_passes(RAN_OUT)
    await stage.claimed()
    [(state, not_before)] = stage.chunks("state, not_before")
    assert state == "uncertain"
    assert not_before == period.leased_until - RAN_OUT + SETTLE


async def test_what_was_intended_before_an_attempt_gave_up_counts_from_when_it_gave_up(
    enrol: Enrol,
) -> None:
    stage = await enrol(NORDVEST)
    period = await intended(stage)
    stage.time_passes(LEASE / 2)
    await stage.ledger.renew(period, LEASE)
    await close(stage, "interrupted")
    await stage.claimed()
    [(not_before,)] = [stage.chunks("not_before")]
    [ended] = attempts(stage, "ended_at")[:1]
    assert not_before == ended + SETTLE


async def test_a_missing_reply_is_worth_one_look_before_its_time(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    await intended(stage)
    stage.time_passes(RAN_OUT)
    period = await stage.claimed()
    await stage.ledger.settle_chunk(period, 1, "absent")
    until = await stage.ledger.suspend(period, "1 voucher is not there yet")
    await close(stage, "uncertain")
    answer = await stage.claim()
    assert answer.outcome is ClaimOutcome.WAITING
    assert answer.period is not None
    assert answer.period.not_before == until
    stage.time_passes(SETTLE + LEASE)
    assert (await stage.claimed()).state == "exporting"


async def test_who_lost_the_lease_changes_nothing_any_more(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    old = await intended(stage)
    stage.time_passes(RAN_OUT)
    new = await stage.claimed()
    before = snapshot(stage)
    for attempt in fenced_calls(stage, old):
        with pytest.raises(LeaseLost, match="attempt 2 took it over from attempt 1"):
            await attempt
    assert snapshot(stage) == before
    stage.time_passes(RAN_OUT)
    before = snapshot(stage)
    for attempt in fenced_calls(stage, new):
        with pytest.raises(LeaseLost, match="the lease of attempt 2 ran out"):
            await attempt
    assert snapshot(stage) == before


def fenced_calls(stage: Stage, period: Period) -> list[Awaitable[Any]]:
    ledger = stage.ledger
    fenced = {
        "p_integration": stage.id,
        "p_due": period.due_at.isoformat(),
        "p_fence": period.fence,
    }
    return [
        ledger.renew(period, LEASE),
        ledger._call("collect_page", **fenced, p_limit=10),
        ledger.intend(period, "lines", 1, 1, Totals(), SETTLE),
        ledger.intend(period, "lines", 2, 2, Totals(), SETTLE),
        ledger.intend(period, "post", None, None, Totals(), SETTLE),
        *(
            ledger.settle_chunk(period, 1, outcome)
            for outcome in ("confirmed", "refused", "unsent", "uncertain", "absent")
        ),
        ledger.write_chunks(period, {1: {}}, [], SETTLE),
        ledger.mark_fitted(period, stage.integration),
        ledger.set_aside(period, {1: "why"}, most=1),
        ledger.withdrawn(period, [1]),
        ledger.finish_export(period),
        ledger.settle(period, Totals(), {}),
        ledger.suspend(period, "why"),
        ledger.postpone(period, "vendor", LEASE, postponed=1, reason="why"),
        ledger.postpone(period, "budget", LEASE, postponed=0, reason="why"),
        ledger.fail(period, "why"),
    ]


async def test_each_function_that_takes_a_fence_is_among_them(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    fenced = stage.ask(
        """
        select proname from pg_proc where pronamespace = 'kvitt'::regnamespace
           and 'p_fence' = any (proargnames)
           and has_function_privilege('service_role', oid, 'execute')
        """
    )
    tried = {
        *("renew_lease", "collect_page", "intend_chunk", "settle_chunk", "write_chunks"),
        *(
            "mark_fitted",
            "set_aside",
            "withdrawn",
            "finish_export",
            "settle_period",
            "suspend_period",
            "postpone_period",
            "fail_period",
        ),
    }
    assert {name for (name,) in fenced} == tried


def snapshot(stage: Stage) -> list[Any]:
    """Return all that the ledger knows of an integration."""
    return [
        stage.ask(f"select t::text from kvitt.{table} t where integration_id = %(id)s order by 1")  # noqa: S608 - our own names
        for table in ("periods", "chunks", "set_aside", "attempts", "records", "cold_starts")
    ]


# -- for the watchers ------------------------------------------------------------------------------


async def work(stage: Stage) -> list[datetime]:
    """Return for which periods a run would find something to do."""
    found = await stage.ledger.integrations_with_work()
    return [one.due_at for one in found if one.integration_id == stage.id]


async def test_an_integration_has_work_while_a_period_is_due_and_nobody_is_at_it(
    enrol: Enrol,
) -> None:
    stage = await enrol(NORDVEST, periods=2)
    assert await work(stage) == [stage.due[0]]
    await stage.claimed()
    assert await work(stage) == []
    stage.time_passes(RAN_OUT)
    assert await work(stage) == [stage.due[0]]


async def test_what_is_settled_failed_or_switched_off_is_no_work(enrol: Enrol) -> None:
    settled, failed = await enrol(NORDVEST), await enrol(NORDVEST)
    off = await enrol(NORDVEST, enabled=False)
    await empty_period(settled)
    await failed.ledger.fail(await failed.claimed(), "mend me")
    await close(failed, "failed")
    for stage in (settled, failed, off):
        assert await work(stage) == []


async def test_an_uncertain_period_is_work_when_its_time_has_come_and_the_later_ones_wait(
    enrol: Enrol,
) -> None:
    stage = await enrol(NORDVEST, periods=2)
    period = await intended(stage)
    await stage.ledger.settle_chunk(period, 1, "uncertain")
    await stage.ledger.suspend(period, "no reply")
    await close(stage, "uncertain")
    assert (await stage.claim()).outcome is ClaimOutcome.WAITING
    assert await work(stage) == []
    stage.time_passes(SETTLE)
    assert await work(stage) == [stage.due[0]]


async def test_a_run_finds_work_exactly_where_the_watcher_sees_it(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST, periods=3)
    await stage.ledger.fail(await stage.claimed(), "mend me")
    await close(stage, "failed")
    assert await work(stage) == [stage.due[1]]
    assert (await stage.claimed(trigger=WATCH)).due_at == stage.due[1]


# -- cold starts -----------------------------------------------------------------------------------


async def test_a_cold_start_is_kept_with_its_period_and_attempt(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    period = await stage.claimed()
    [[attempt]] = stage.ask("select id from kvitt.attempts where integration_id = %(id)s")
    seen = ColdStart(kind=ColdStartKind.BOOTED, reply_ms=184.2, boot_ms=31)
    await stage.ledger.record_cold_start(period, attempt, "collect", seen)
    columns = "due_at, attempt, function, kind::text, boot_ms::text, reply_ms::text"
    assert stage.ask(f"select {columns} from kvitt.cold_starts where integration_id = %(id)s") == [  # noqa: S608 - our own words
        (period.due_at, attempt, "collect", "booted", "31", "184.2")
    ]


async def test_a_cached_task_result_is_the_first_that_was_written(ledger: SupabaseLedger) -> None:
    key = f"export/{another(NORDVEST).id}"
    assert await ledger.read_task_result(key) is None
    await ledger.write_task_result(key, "first")
    await ledger.write_task_result(key, "second")
    assert await ledger.read_task_result(key) == "first"
