"""The Edge Function: cold, failing, out of memory, or too slow; the batch is whole all the same."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from kvitt import sync as way
from kvitt.domain.errors import FunctionFailed, LeaseLost, PeriodPostponed
from kvitt.edge import EdgeFunction
from kvitt.ports import Trigger
from tests.sync.driver import working

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Awaitable, Callable

    from supabase import AsyncClient

    from sandbox.supabase import Supabase
    from tests.sync.scene import Books, Scene

    SetScene = Callable[..., Awaitable[Scene]]
    ColdStarts = Callable[[Scene], Counter[str]]


async def test_a_cold_function_is_warmed_up_and_its_boot_written_down(
    scene: SetScene, xledger: Books, supabase: Supabase, cold_starts: ColdStarts
) -> None:
    it = await scene(xledger)
    await it.approve(1)
    supabase.functions.end_workers()
    receipt = await it.receipt()
    assert cold_starts(it) == {"booted": 1}
    [start] = receipt["cold_starts"]
    assert start["kind"] == "booted"
    assert start["reply_ms"] > 0


async def test_a_warm_function_is_pinged_once_and_nothing_is_written_down(
    scene: SetScene, xledger: Books, supabase: Supabase, cold_starts: ColdStarts
) -> None:
    first, second = await scene(xledger), await scene(xledger)
    await first.receipt()
    before = supabase.functions.counts("collect")["invocations"]
    await second.receipt()
    assert cold_starts(second) == {}
    assert supabase.functions.counts("collect")["invocations"] == before + 2  # a ping, and a page


async def test_a_function_that_does_not_boot_is_tried_until_it_does(
    scene: SetScene, xledger: Books, supabase: Supabase, cold_starts: ColdStarts
) -> None:
    it = await scene(xledger)
    await it.approve(1)
    supabase.functions.change(failing_boots=2)
    supabase.functions.end_workers()
    receipt = await it.receipt()
    assert cold_starts(it) == {"boot_error": 2, "booted": 1}
    assert [start["kind"] for start in receipt["cold_starts"]] == ["boot_error"] * 2 + ["booted"]


async def test_a_warm_up_that_gives_up_does_not_stop_the_period(
    scene: SetScene, xledger: Books, supabase: Supabase, cold_starts: ColdStarts
) -> None:
    it = await scene(xledger, warm_up=0.5)
    await it.approve(2)
    supabase.functions.change(failing_boots=2)
    supabase.functions.end_workers()
    receipt = await it.receipt()
    assert receipt["taken"]["vouchers"] == 2
    assert cold_starts(it)["boot_error"] == 2


async def test_no_warm_up_is_a_choice(
    scene: SetScene, xledger: Books, supabase: Supabase, cold_starts: ColdStarts
) -> None:
    it = await scene(xledger, warm_up=0)
    supabase.functions.end_workers()
    await it.receipt()
    assert cold_starts(it) == {}


async def test_a_function_that_ends_between_two_pages_is_woken_again(
    scene: SetScene, xledger: Books, supabase: Supabase, cold_starts: ColdStarts
) -> None:
    it = await scene(xledger, page_records=2)
    await it.approve(5)
    answer = await way.claim(it.stage.ledger, it.stage.id, Trigger())
    async with working(it.project, xledger.connection, answer) as (attempt, collector, _):
        await collector.collect(attempt.period, page=2)
        supabase.functions.change(failing_boots=1)
        supabase.functions.end_workers()
        assert await way.collect(attempt, collector) == 5
    assert cold_starts(it) == {"boot_error": 1, "booted": 1}


async def test_a_function_that_never_boots_leaves_the_period_to_the_next_run(
    scene: SetScene, xledger: Books, supabase: Supabase
) -> None:
    it = await scene(xledger, warm_up=0)
    await it.approve(2)
    supabase.functions.change(failing_boots=99)
    supabase.functions.end_workers()
    with pytest.raises(PeriodPostponed, match="5 tries in a row failed"):
        await it.run()
    assert it.stage.period("state, waiting_for, postponed") == ("collecting", "function", 1)
    supabase.functions.change(failing_boots=0)
    receipt = await it.receipt()
    assert [attempt["outcome"] for attempt in receipt["attempts"]] == ["postponed", "settled"]
    assert it.audit().clean


async def test_at_the_memory_limit_the_page_is_halved_until_it_fits(
    scene: SetScene, xledger: Books, supabase: Supabase, cold_starts: ColdStarts
) -> None:
    it = await scene(xledger, page_records=320)
    await it.approve(100)
    supabase.functions.change(memory_mb=100)
    receipt = await it.receipt(function="greedy")
    assert receipt["taken"]["vouchers"] == 100
    assert cold_starts(it)["out_of_memory"] == 2
    assert it.audit().clean


async def test_records_that_arrive_while_a_batch_is_collected_belong_to_one_period(
    scene: SetScene, xledger: Books
) -> None:
    it = await scene(xledger, periods=2, page_records=3)
    await it.approve(30)
    receipts = await asyncio.gather(it.receipt(), *(it.approve(5) for _ in range(6)))
    first = receipts[0]["taken"]["vouchers"]  # pyright: ignore[reportOptionalSubscript] - a receipt
    second = (await it.receipt())["taken"]["vouchers"]
    assert first >= 30
    assert first + second == 60
    assert it.audit().clean


async def test_a_collector_that_lost_its_lease_takes_nothing(
    scene: SetScene, xledger: Books
) -> None:
    it = await scene(xledger)
    await it.approve(3)
    answer = await way.claim(it.stage.ledger, it.stage.id, Trigger())
    it.stage.time_passes(answer.lease)
    await it.stage.claimed()
    async with working(it.project, xledger.connection, answer) as (attempt, collector, _):
        with pytest.raises(LeaseLost, match="has changed nothing since"):
            await way.collect(attempt, collector)
    assert it.stage.period("record_count") == (0,)


async def test_a_function_that_is_not_there_is_told_so(project: AsyncClient) -> None:
    with pytest.raises(FunctionFailed, match="Edge Function gone answered 404 NOT_FOUND"):
        await EdgeFunction(project, name="gone", seconds=5).ping()


async def test_a_function_that_takes_too_long_is_not_waited_for(
    project: AsyncClient, supabase: Supabase
) -> None:
    supabase.functions.end_workers()
    supabase.functions.change(boot_delay_seconds=2)
    try:
        with pytest.raises(FunctionFailed, match=r"did not answer within 0\.3 s") as failed:
            await EdgeFunction(project, seconds=0.3).ping()
    finally:
        supabase.functions.change(boot_delay_seconds=0)
    assert failed.value.kind == "timed_out"


async def test_a_function_of_another_contract_is_told_so(project: AsyncClient) -> None:
    with pytest.raises(FunctionFailed, match=r"does not answer as docs/edge-function\.md says"):
        await EdgeFunction(project, name="stranger", seconds=5).ping()
