"""Vendors and functions that are away: waited for, without burning attempts, then it goes on."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from kvitt.domain.errors import PeriodPostponed
from kvitt.ports import Claim, ClaimOutcome
from sandbox.processes import free_port
from tests.cast import MINUTE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sandbox.supabase import Supabase
    from tests.sync.scene import Books, Scene

    SetScene = Callable[..., Awaitable[Scene]]

pytestmark = pytest.mark.usefixtures("no_waiting")


async def waits(it: Scene, **how: Any) -> timedelta:
    """Run, which must end in waiting; returns for how long."""
    with pytest.raises(PeriodPostponed) as postponed:
        await it.run(trigger="watch", **how)
    reason, not_before = it.stage.period("reason, not_before")
    assert reason in str(postponed.value)
    assert not_before == postponed.value.not_before
    assert f"waits until {not_before.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" in str(postponed.value)
    return not_before - datetime.now(UTC)


async def is_left_alone(it: Scene) -> None:
    """Let each scheduler come by: none of them makes an attempt, or asks the vendor anything."""
    before = it.books.calls()
    for trigger in ("schedule", "watch", "pg_cron", "automation"):
        answer = await it.run(trigger=trigger)
        assert isinstance(answer, Claim)
        assert answer.outcome is ClaimOutcome.WAITING
    assert it.books.calls() == before


async def test_two_hours_of_maintenance_are_outlasted_with_a_handful_of_attempts(
    scene: SetScene, books: Books
) -> None:
    it = await scene(books)
    await it.approve(3)
    books.fault("status", on="*", status=503, times=1_000)
    away = timedelta(0)
    while away < timedelta(hours=2):
        wait = await waits(it)
        await is_left_alone(it)
        it.stage.time_passes(wait)
        away += wait
    books.http.delete(f"{books.url}/_sandbox/faults").raise_for_status()
    # The first call of all may have arrived before the reply was 503, where it was a write.
    receipt = await (it.receipt_after_waiting() if it.stage.chunks() else it.receipt())
    attempts = [attempt["outcome"] for attempt in receipt["attempts"]]
    assert 5 <= attempts.count("postponed") <= 6
    assert len(attempts) <= 9
    assert it.audit().clean


async def test_waits_grow_and_begin_anew_once_something_got_through(
    scene: SetScene, books: Books
) -> None:
    it = await scene(books, chunk_lines=2)
    await it.approve(2)
    books.fault("rate-limit", times=3 * 3)
    lengths: list[float] = []
    for _ in range(3):
        wait = await waits(it)
        lengths.append(wait / MINUTE)
        it.stage.time_passes(wait)
    for length, full in zip(lengths, (5, 10, 20), strict=True):
        assert full * 0.8 - 0.5 <= length <= full
    later = books.first_write if books.vendor == "xledger" else "batch"
    books.fault("rate-limit", on=later, nth=2 if books.vendor == "xledger" else 1, times=3)
    assert await waits(it) <= 5 * MINUTE
    assert it.stage.chunks() == ["confirmed", "unsent"]
    assert it.stage.period("postponed") == (1,)
    it.stage.time_passes(5 * MINUTE)
    await it.receipt(trigger="watch")
    assert it.audit().clean


@pytest.mark.parametrize("fault", ["rate-limit", "status"])
async def test_a_vendor_that_names_a_time_is_not_asked_before_it(
    scene: SetScene, books: Books, fault: str
) -> None:
    it = await scene(books)
    await it.approve(1)
    first_read = "journalEntries" if books.vendor == "xledger" else "generalLedgerEntries.list"
    on = books.first_write if fault == "rate-limit" else first_read
    books.fault(fault, on=on, status=503, retry_after=3 * 3600)
    wait = await waits(it)
    assert timedelta(hours=2.99) < wait <= timedelta(hours=3) + MINUTE
    assert sum(n for name, n in books.calls().items() if name == on) == 1
    await is_left_alone(it)
    it.stage.time_passes(wait)
    await it.receipt(trigger="watch")
    assert it.audit().clean


async def test_credits_that_are_used_up_are_waited_for_until_the_vendor_renews_them(
    scene: SetScene, xledger: Books
) -> None:
    it = await scene(xledger)
    await it.approve(1)
    xledger.change(monthly_allowance=1)
    try:
        wait = await waits(it)
    finally:
        xledger.change(monthly_allowance=5_000)
    assert "Insufficient credits" in it.stage.period("reason")[0]
    renewed = (datetime.now(UTC) + wait).astimezone(it.stage.integration.zone)
    assert (renewed.day, renewed.hour) == (1, 0)
    assert it.stage.state() == "exported"
    await it.receipt()  # a person who has bought some need not wait
    assert it.audit().clean


async def test_a_vendor_that_cannot_be_reached_is_waited_for_and_costs_no_request(
    scene: SetScene, books: Books
) -> None:
    it = await scene(books)
    await it.approve(2)
    nowhere = f"http://127.0.0.1:{free_port()}"
    addresses = {k: nowhere for k in books.connection.settings if k.endswith("_url")}
    connection = replace(books.connection, settings={**books.connection.settings, **addresses})
    there = replace(it, books=replace(books, connection=connection))
    assert await waits(there) <= 5 * MINUTE
    assert it.stage.ask("select requests from kvitt.attempts where integration_id = %(id)s") == [
        ({"export" if books.vendor == "xledger" else "token": 0},)
    ]
    await it.receipt()
    assert it.audit().clean


async def test_a_lost_reply_at_the_beginning_of_a_maintenance_is_read_back_after_it(
    scene: SetScene, books: Books
) -> None:
    it = await scene(books)
    await it.approve(2)
    books.fault("reply-lost")
    books.fault("status", on="*", status=503, nth=2 if books.vendor == "xledger" else 3, times=99)
    assert await waits(it) <= 5 * MINUTE
    assert it.stage.chunks() == ["uncertain"]
    assert it.stage.state() == "exporting"
    books.http.delete(f"{books.url}/_sandbox/faults").raise_for_status()
    it.stage.time_passes(5 * MINUTE)
    await it.receipt(trigger="watch")
    assert books.calls()[books.first_write] == 1
    assert it.audit().clean


async def test_a_function_that_stays_away_is_waited_for_too(
    scene: SetScene, xledger: Books, supabase: Supabase
) -> None:
    it = await scene(xledger, warm_up=0)
    await it.approve(2)
    supabase.functions.change(failing_boots=99)
    supabase.functions.end_workers()
    first = await waits(it)
    await is_left_alone(it)
    it.stage.time_passes(first)
    assert await waits(it) > first
    assert it.stage.period("state, waiting_for, postponed") == ("collecting", "function", 2)
    it.stage.time_passes(10 * MINUTE)
    supabase.functions.change(failing_boots=0)
    receipt = await it.receipt(trigger="watch")
    assert [a["outcome"] for a in receipt["attempts"]] == ["postponed", "postponed", "settled"]


async def test_how_long_it_waits_is_the_integrations_to_say(scene: SetScene, books: Books) -> None:
    it = await scene(books, first_wait=60, longest_wait=90)
    await it.approve(1)
    books.fault("rate-limit", times=6)
    assert await waits(it) <= MINUTE
    it.stage.time_passes(MINUTE)
    assert await waits(it) <= 1.5 * MINUTE
