"""What a person must know: each incident is told once when it begins, and once when it is over."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from kvitt.budget import MonthlyBudget
from kvitt.domain.budget import Purpose
from kvitt.domain.incidents import IncidentKind
from kvitt.domain.money import Totals
from kvitt.domain.warmth import Habit
from kvitt.ports import ColdStart, ColdStartKind, Consequence, Trigger
from tests.cast import FJORDBY, HOUR, MINUTE, NORDVEST, TOUR
from tests.ledger.stages import budget, close, collect, frozen, intend, spend

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from kvitt.domain.incidents import Incident
    from tests.cast import Stage

    Enrol = Callable[..., Awaitable[Stage]]


@pytest.fixture
def long_ago(enrol: Enrol) -> Enrol:
    """Enrol an integration that has been switched on for long."""

    async def long_ago(*who: object, **how: object) -> Stage:
        stage = await enrol(*who, **how)
        stage.ask(
            "update kvitt.integrations set expected_since = '-infinity' where id = %(id)s"
            " returning id"
        )
        return stage

    return long_ago


async def due(stage: Stage, ago: timedelta) -> None:
    """Plan one period that came due some time ago, to the minute, and one that is to come."""
    this_minute = datetime.now(UTC).replace(second=0, microsecond=0)
    stage.due = [this_minute - ago]
    await stage.ledger.plan_periods(
        stage.id, opens_at=stage.due[0] - HOUR, due=[*stage.due, this_minute + 12 * HOUR]
    )


async def noted(stage: Stage) -> list[str]:
    """Look, and tell: returns the events."""
    untold = await stage.ledger.note_incidents(stage.id)
    for incident in untold:
        await stage.ledger.incident_told(incident)
    return [incident.event for incident in untold]


async def the_one(stage: Stage) -> Incident:
    [incident] = await stage.ledger.note_incidents(stage.id)
    return incident


async def settle(stage: Stage) -> None:
    period = await stage.claimed()
    await collect(stage, period)
    assert await stage.ledger.settle(period, Totals(), {}) is not None
    await close(stage, "settled")


async def test_a_daily_job_that_nobody_starts_is_told_at_the_fifth_minute(long_ago: Enrol) -> None:
    """lms-front #660: it never ran in production, and nobody knew."""
    early, late = await long_ago(NORDVEST, periods=0), await long_ago(NORDVEST, periods=0)
    early.ask("delete from kvitt.periods where integration_id = %(id)s returning 1")
    late.ask("delete from kvitt.periods where integration_id = %(id)s returning 1")
    await due(early, 4 * MINUTE)
    await due(late, 5 * MINUTE)
    assert await noted(early) == []
    incident = await the_one(late)
    assert incident.event == "kvitt.period.late"
    assert incident.since == late.due[0]
    assert late.integration.organisation in incident.what
    assert "nobody has started it" in incident.what
    assert "prefect worker start" in incident.what


async def test_how_late_is_late_the_integration_says(long_ago: Enrol) -> None:
    stage = await long_ago(NORDVEST, periods=0, limits={"late": 1200})
    stage.ask("delete from kvitt.periods where integration_id = %(id)s returning 1")
    await due(stage, 19 * MINUTE)
    assert await noted(stage) == []
    stage.ask(
        "update kvitt.integrations set limits = '{\"late\": 1140}' where id = %(id)s returning id"
    )
    assert await noted(stage) == ["kvitt.period.late"]


async def test_a_start_that_is_late_is_told_though_it_then_starts(long_ago: Enrol) -> None:
    """healthchecks #910: alert when a start is late, apart from how long it runs."""
    stage = await long_ago(NORDVEST)
    assert await noted(stage) == ["kvitt.period.late"]
    period = await stage.claimed()
    assert await noted(stage) == ["kvitt.incident.over"]
    stage.time_passes(HOUR / 60)
    await stage.ledger.renew(period, timedelta(minutes=2))
    assert await noted(stage) == []


async def test_what_is_late_when_the_next_one_comes_due_is_missed(long_ago: Enrol) -> None:
    stage = await long_ago(TOUR, periods=3)
    assert sorted(await noted(stage)) == ["kvitt.period.late", "kvitt.period.missed"]
    rows = stage.ask(
        "select kind::text, periods, due_at from kvitt.incidents where integration_id = %(id)s"
        " order by kind"
    )
    assert rows == [("late", 1, stage.due[2]), ("missed", 2, stage.due[0])]


async def test_an_outage_of_a_day_is_one_alert_and_no_storm(long_ago: Enrol) -> None:
    """prefect #22139: a storm of late events."""
    stage = await long_ago(TOUR, periods=24)
    assert len(await noted(stage)) == 2
    for _ in range(5):
        assert await noted(stage) == []


async def test_an_alert_is_told_once_by_however_many_watchers(long_ago: Enrol) -> None:
    stage = await long_ago(NORDVEST)
    await asyncio.gather(*(stage.ledger.note_incidents(stage.id) for _ in range(8)))
    found = stage.ask("select count(*) from kvitt.incidents where integration_id = %(id)s")
    assert found == [(1,)]


async def test_an_alert_that_could_not_be_told_is_told_later_even_when_it_is_over(
    long_ago: Enrol,
) -> None:
    stage = await long_ago(NORDVEST)
    assert (await the_one(stage)).event == "kvitt.period.late"
    assert (await the_one(stage)).event == "kvitt.period.late"
    await settle(stage)
    incident = await the_one(stage)
    assert incident.event == "kvitt.period.late"
    assert "(It is over by now.)" in incident.words
    await stage.ledger.incident_told(incident)
    assert await noted(stage) == []


async def test_vouchers_that_were_set_aside_are_told_once_settled_and_over_once_mended(
    long_ago: Enrol,
) -> None:
    stage = await long_ago(NORDVEST)
    first, second = await stage.approve(2)
    period = await stage.claimed()
    await collect(stage, period)
    await stage.ledger.set_aside(period, {1: "account 7140 is closed.", 2: "so is 7100"}, most=5)
    assert await noted(stage) == []
    assert await stage.ledger.settle(period, Totals(), {}) is not None
    await close(stage, "settled")
    incident = await the_one(stage)
    assert incident.what == (
        f"Teater Nordvest: period {period.key} was settled without 2 vouchers, which the "
        f"accounting system does not take. The first: record {first.id}, account 7140 is closed. "
        f"kvitt set-aside {stage.id} shows all. When one is mended, let it go again: "
        f'kvitt mend {stage.id} --record RECORD --reason "…"'
    )
    assert await noted(stage) == ["kvitt.period.set-aside"]
    for record in (first, second):
        assert await noted(stage) == []
        await stage.ledger.mend_record(stage.id, record.id, who="Inger", reason="it is open again")
    assert await noted(stage) == ["kvitt.incident.over"]


async def test_what_comes_back_is_a_new_incident(long_ago: Enrol) -> None:
    stage = await long_ago(NORDVEST)
    await noted(stage)
    stage.ask("update kvitt.integrations set enabled = false where id = %(id)s returning id")
    stage.time_passes(MINUTE)
    assert await noted(stage) == ["kvitt.incident.over"]
    stage.ask("update kvitt.integrations set enabled = true where id = %(id)s returning id")
    assert await noted(stage) == ["kvitt.period.late"]


async def test_what_was_due_before_an_integration_was_made_is_not_late_at_once(
    enrol: Enrol,
) -> None:
    stage = await enrol(TOUR, periods=30)
    assert await noted(stage) == []


async def test_an_integration_that_is_switched_on_again_has_its_minutes_anew(
    long_ago: Enrol,
) -> None:
    stage = await long_ago(NORDVEST)
    off = stage.integration.model_copy(update={"enabled": False})
    await stage.ledger.save_integration(off)
    assert await noted(stage) == []
    await stage.ledger.save_integration(stage.integration)
    assert await noted(stage) == []
    stage.ask(
        "update kvitt.integrations set expected_since = now() - interval '5 minutes'"
        " where id = %(id)s returning id"
    )
    assert await noted(stage) == ["kvitt.period.late"]


async def test_a_failed_period_is_told_with_its_reason_and_the_way_on(long_ago: Enrol) -> None:
    stage = await long_ago(NORDVEST)
    await stage.ledger.fail(await stage.claimed(), "account 7140 is blocked.")
    await close(stage, "failed")
    incident = await the_one(stage)
    assert incident.event == "kvitt.period.failed"
    assert "waits for a person: account 7140 is blocked. When" in incident.what
    command = f"kvitt mend {stage.id} {stage.due[0]:%Y-%m-%dT%H:%MZ} --reason"
    assert command in incident.what
    await stage.ledger.incident_told(incident)
    await stage.mend()
    assert await noted(stage) == ["kvitt.incident.over"]


async def uncertain(stage: Stage) -> datetime:
    """Leave its period uncertain; returns until when."""
    period = await frozen(stage)
    await intend(stage, period, 1, 3)
    await stage.ledger.settle_chunk(period, 1, "uncertain")
    until = await stage.ledger.suspend(period, "no reply to the first call")
    await close(stage, "uncertain")
    return until


async def test_a_period_that_is_uncertain_for_an_hour_is_told_with_its_time(
    long_ago: Enrol,
) -> None:
    stage = await long_ago(FJORDBY)
    until = await uncertain(stage)
    assert await noted(stage) == []
    [open_one] = [
        i for i in await stage.ledger.read_incidents(limit=9) if i.subject in named(stage)
    ]
    assert open_one.kind is IncidentKind.UNCERTAIN
    begun_before(stage, timedelta(minutes=59))
    assert await noted(stage) == []
    begun_before(stage, timedelta(minutes=1))
    incident = await the_one(stage)
    assert incident.event == "kvitt.period.uncertain"
    assert f"{until:%Y-%m-%d %H:%M} UTC" in incident.what


def named(stage: Stage) -> str:
    return stage.period("key")[0]


def begun_before(stage: Stage, time: timedelta) -> None:
    stage.ask(
        "update kvitt.incidents set since = since - %(time)s where integration_id = %(id)s"
        " returning id",
        time=time,
    )


async def test_what_is_uncertain_for_some_minutes_is_told_to_nobody(long_ago: Enrol) -> None:
    stage = await long_ago(FJORDBY)
    await uncertain(stage)
    assert await noted(stage) == []
    stage.time_passes(HOUR / 2)
    period = await stage.claimed()
    await stage.ledger.settle_chunk(period, 1, "confirmed")
    assert await noted(stage) == []
    begun_before(stage, HOUR)
    assert await noted(stage) == []


async def test_an_incident_knows_the_run_and_the_deployment_that_it_is_about(
    long_ago: Enrol,
) -> None:
    stage = await long_ago(NORDVEST)
    deployment = str(uuid4())
    await stage.ledger.name_deployments({stage.id: deployment})
    incident = await the_one(stage)
    assert (incident.kind, incident.flow_run) == (IncidentKind.LATE, None)
    assert incident.deployment == deployment
    for run in ("first-run", "second-run"):
        period = await stage.claimed(trigger=Trigger(kind="schedule", flow_run=run))
        await close(stage, "interrupted")
    period = await stage.claimed(trigger=Trigger(kind="schedule", flow_run="third-run"))
    await stage.ledger.fail(period, "the account is closed")
    await close(stage, "failed")
    failed = [i for i in await stage.ledger.note_incidents(stage.id) if i.kind == "failed"]
    assert [i.flow_run for i in failed] == ["third-run"]
    assert failed[0].payload()["deployment"] == deployment


# -- cold starts -----------------------------------------------------------------------------------


async def cold(stage: Stage, function: str, number: int, **how: Any) -> None:
    period = await stage.ledger.read_period(stage.id, stage.due[0])
    [[attempt]] = stage.ask("select id from kvitt.attempts where integration_id = %(id)s")
    seen = ColdStart(
        reply_ms=200, consequence=Consequence.CALLED_AGAIN, **{"kind": "boot_error", **how}
    )
    for _ in range(number):
        await stage.ledger.record_cold_start(period, attempt, function, seen)


async def piled_up(stage: Stage, function: str) -> list[Incident]:
    untold = await stage.ledger.note_incidents()
    found = [i for i in untold if i.subject == function]
    for incident in found:
        await stage.ledger.incident_told(incident)
    return found


async def test_five_failed_starts_within_an_hour_are_told_once(enrol: Enrol) -> None:
    stage, function = await enrol(NORDVEST), f"collect-{uuid4()}"
    await stage.claimed()
    await cold(stage, function, 4)
    await cold(stage, function, 20, kind=ColdStartKind.BOOTED)
    assert await piled_up(stage, function) == []
    await cold(stage, function, 1, kind=ColdStartKind.TIMED_OUT)
    [incident] = await piled_up(stage, function)
    assert incident.event == "kvitt.function.cold-starts"
    assert "4 x boot_error, 1 x timed_out, 20 x booted" in incident.what
    assert "the exports of Teater Nordvest for 5 s" in incident.what
    await cold(stage, function, 3)
    assert await piled_up(stage, function) == []


async def test_it_is_over_when_none_has_failed_for_an_hour(enrol: Enrol) -> None:
    stage, function = await enrol(NORDVEST), f"collect-{uuid4()}"
    await stage.claimed()
    await cold(stage, function, 5)
    assert len(await piled_up(stage, function)) == 1
    older = "update kvitt.cold_starts set seen_at = seen_at - %(time)s where id in (%(which)s)"
    which = "select id from kvitt.cold_starts where integration_id = %(id)s"
    query = older.replace("%(which)s", f"{which} limit 4") + " returning id"
    stage.ask(query, time=HOUR)
    assert await piled_up(stage, function) == []  # one is left
    stage.ask(older.replace("%(which)s", which) + " returning id", time=HOUR)
    [over] = await piled_up(stage, function)
    assert over.event == "kvitt.incident.over"


async def test_boots_are_told_when_they_cost_two_minutes(enrol: Enrol) -> None:
    stage, function = await enrol(NORDVEST), f"collect-{uuid4()}"
    await stage.claimed()
    await cold(stage, function, 7, kind=ColdStartKind.BOOTED, cost_ms=17_000)
    assert await piled_up(stage, function) == []
    await cold(stage, function, 1, kind=ColdStartKind.BOOTED, cost_ms=1_000)
    [incident] = await piled_up(stage, function)
    assert "within an hour 8 x booted, which held up the exports" in incident.what
    assert "for 120 s" in incident.what


async def test_a_function_is_known_by_the_attempts_that_warmed_it_up(enrol: Enrol) -> None:
    stage, function = await enrol(NORDVEST), f"collect-{uuid4()}"
    await stage.claimed()
    assert await stage.ledger.function_habit(function) == Habit()
    await cold(stage, function, 2, kind=ColdStartKind.BOOTED)
    await cold(stage, function, 3)
    assert await stage.ledger.function_habit(function) == Habit()  # not warmed up
    [[attempt]] = stage.ask("select id from kvitt.attempts where integration_id = %(id)s")
    await stage.ledger.record_warm_up(attempt, timedelta(seconds=1))
    assert await stage.ledger.function_habit(function) == Habit(boots=2, boot_seconds=0.2)


async def test_a_worker_that_died_and_that_nobody_followed_is_told(long_ago: Enrol) -> None:
    """prefect #16746: a dead worker leaves a run Running for ever."""
    stage = await long_ago(FJORDBY)
    await stage.claimed()
    stage.time_passes(6 * MINUTE)
    assert await noted(stage) == []
    stage.time_passes(2 * MINUTE)
    incident = await the_one(stage)
    assert incident.event == "kvitt.period.stuck"
    assert "nobody works on it" in incident.what


async def test_a_period_that_is_tried_again_and_again_without_end_is_told(long_ago: Enrol) -> None:
    stage = await long_ago(FJORDBY)
    await stage.claimed()
    holder = stage.ask(
        "select holder from kvitt.periods where integration_id = %(id)s and holder is not null"
    )
    await stage.ledger.close(holder[0][0], "interrupted", "the function does not boot.", {})
    assert await noted(stage) == []
    stage.ask(
        "update kvitt.attempts set started_at = started_at - interval '31 minutes'"
        " where integration_id = %(id)s returning id"
    )
    assert "ended so: the function does not boot. The next" in (await the_one(stage)).what


async def test_a_period_that_waits_for_its_budget_is_told_at_once(long_ago: Enrol) -> None:
    stage = await long_ago(NORDVEST, **budget(requests=1))
    purse = MonthlyBudget(stage.ledger, "xledger", stage.integration.connection)
    await spend(purse, Purpose.EXPORT)
    period = await stage.claimed()
    why = "the budget is spent (1 of 1 requests)"
    until = await stage.ledger.postpone(period, "budget", MINUTE, postponed=0, reason=why)
    await close(stage, "postponed")
    incident = await the_one(stage)
    assert incident.event == "kvitt.period.stuck"
    assert f"waits for its budget: {why}. It goes on by itself after" in incident.what
    assert f"{until:%Y-%m-%d %H:%M} UTC, or when more is allowed" in incident.what


async def test_a_watcher_that_falls_silent_is_told_by_the_other_until_it_is_forgotten(
    long_ago: Enrol,
) -> None:
    """uptime-kuma #924: the monitor was down, and nobody was told."""
    stage = await long_ago(NORDVEST, periods=0)
    ledger, who = stage.ledger, f"clock-of-{stage.id}"

    def silent(incidents: list[Incident]) -> list[Incident]:
        return [i for i in incidents if i.kind is IncidentKind.SILENT and i.subject == who]

    await ledger.beat(who, {"every_seconds": 60})
    assert silent(await ledger.note_incidents()) == []
    stage.ask(
        "update kvitt.heartbeats set beat_at = now() - interval '11 minutes'"
        " where who = %(who)s returning who",
        who=who,
    )
    [incident] = silent(await ledger.note_incidents())
    assert f"kvitt watchers --forget {who}" in incident.what
    await ledger.incident_told(incident)
    assert await ledger.forget_watcher(who)
    assert not await ledger.forget_watcher(who)
    [over] = silent(await ledger.note_incidents())
    assert over.event == "kvitt.incident.over"
    await ledger.incident_told(over)


async def test_what_a_watcher_found_is_over_when_it_finds_it_no_more(long_ago: Enrol) -> None:
    stage = await long_ago(NORDVEST, periods=0)
    kind = IncidentKind.UNREADABLE
    await stage.ledger.note_findings(kind, {stage.id: "its cron is no cron"})
    await stage.ledger.note_findings(kind, {stage.id: "its cron is no cron"})
    incident = await the_one(stage)
    assert (incident.event, incident.what) == (
        "kvitt.integration.unreadable",
        "its cron is no cron",
    )
    await stage.ledger.incident_told(incident)
    await stage.ledger.note_findings(kind, {})
    assert await noted(stage) == ["kvitt.incident.over"]


async def test_a_drift_is_queue_and_start(long_ago: Enrol) -> None:
    stage = await long_ago(NORDVEST)
    picked_up = datetime.now(UTC) - timedelta(seconds=20)
    trigger = stage_trigger(picked_up)
    period = await stage.claimed(trigger=trigger)
    rows = stage.ask(
        "select drift, queue_drift, start_drift, id from kvitt.attempts"
        " where integration_id = %(id)s"
    )
    [(drift, queue, start, attempt)] = rows
    assert drift == queue + start
    assert timedelta(seconds=20) <= start < timedelta(seconds=40)
    await stage.ledger.record_warm_up(attempt, timedelta(seconds=1.5))
    await stage.ledger.record_warm_up(attempt, timedelta(seconds=9))
    await collect(stage, period)
    receipt = await stage.ledger.settle(period, Totals(), {})
    assert receipt is not None
    told = receipt["drift"]
    assert told["warm_up_seconds"] == 1.5
    parts = told["queue_seconds"] + told["start_seconds"]
    assert parts == pytest.approx(receipt["drift_seconds"], abs=0.01)


@pytest.mark.parametrize("seconds", [-90, 90])
async def test_a_worker_whose_clock_is_wrong_makes_no_negative_parts(
    long_ago: Enrol, seconds: int
) -> None:
    stage = await long_ago(NORDVEST)
    await stage.claimed(trigger=stage_trigger(datetime.now(UTC) + timedelta(seconds=seconds)))
    [(queue, start)] = stage.ask(
        "select queue_drift, start_drift from kvitt.attempts where integration_id = %(id)s"
    )
    assert min(queue, start) >= timedelta(0)


def stage_trigger(picked_up: datetime) -> Trigger:
    return Trigger(kind="schedule", picked_up_at=picked_up)
