"""The Edge Function: cold, failing, out of memory, or too slow; the batch is whole all the same."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from kvitt import sync as way
from kvitt.domain.errors import FunctionFailed, LeaseLost, PeriodPostponed
from kvitt.domain.pages import PageSize
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
    assert (start["kind"], start["consequence"]) == ("booted", "warm-up")
    assert start["cost_ms"] == start["reply_ms"] > 0


async def test_a_warm_function_is_pinged_once_and_nothing_is_written_down(
    scene: SetScene, xledger: Books, supabase: Supabase, cold_starts: ColdStarts
) -> None:
    first, second = await scene(xledger), await scene(xledger)
    first.stage.ask("delete from kvitt.cold_starts returning id")  # of other tests
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
    failed, again, booted = receipt["cold_starts"]
    assert [failed["kind"], again["kind"], booted["kind"]] == ["boot_error"] * 2 + ["booted"]
    assert failed["cost_ms"] >= 1000 + failed["reply_ms"]  # the pause before the next ping
    assert again["cost_ms"] >= 2000 + again["reply_ms"]


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


async def test_no_warm_up_is_a_choice_and_the_page_waits_for_the_boot(
    scene: SetScene, xledger: Books, supabase: Supabase, cold_starts: ColdStarts
) -> None:
    it = await scene(xledger, warm_up=0)
    supabase.functions.end_workers()
    receipt = await it.receipt()
    assert cold_starts(it) == {"booted": 1}
    [start] = receipt["cold_starts"]
    assert (start["consequence"], start["page"]) == ("slow page", 500)
    assert start["cost_ms"] == start["boot_ms"]
    assert receipt["drift"]["warm_up_seconds"] is None


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
    seen = it.stage.ask(
        "select consequence from kvitt.cold_starts where integration_id = %(id)s and page = 500"
        " order by seen_at"
    )
    assert seen == [("called again",)] * 4 + [("period waits",)]
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
    halved = [(start["consequence"], start["page"]) for start in receipt["cold_starts"][-2:]]
    assert halved == [("page halved", 320), ("page halved", 160)]
    assert it.audit().clean


async def test_what_fits_is_remembered_for_the_next_period_and_grown_with_care(
    scene: SetScene, xledger: Books, supabase: Supabase
) -> None:
    it = await scene(xledger, periods=2, page_records=160)
    await it.approve(100)
    await it.approve(500, period=1)
    supabase.functions.change(memory_mb=115)
    first = await it.receipt(function="greedy")
    assert [start["page"] for start in first["cold_starts"] if start["page"]] == [160]
    assert learned(it) == (80, 1, 160)
    second = await it.receipt(function="greedy")
    assert [start for start in second["cold_starts"] if start["kind"] == "out_of_memory"] == []
    assert second["taken"]["vouchers"] == 500
    assert learned(it) == (96, 2, 160)  # 3 x 80 made four in a row, then 2 x 96, and a rest
    assert it.audit().clean


def learned(it: Scene) -> tuple[int, ...] | None:
    rows = it.stage.ask(
        "select records, good, too_much from kvitt.pages where integration_id = %(id)s"
    )
    return rows[0] if rows else None


async def test_what_was_learned_with_less_memory_is_forgotten_with_more(
    scene: SetScene, xledger: Books
) -> None:
    it = await scene(xledger, page_records=400, function_memory=128)
    answer = await way.claim(it.stage.ledger, it.stage.id, Trigger())
    async with working(it.project, xledger.connection, answer) as (attempt, collector, _):
        ledger, name = attempt.ledger, collector.name
        page = PageSize(records=50, good=2, too_much=100)
        for _ in range(2):
            await ledger.remember_page(attempt.period, name, page, memory_mb=128)
        assert await ledger.learned_page(it.stage.id, name, memory_mb=128) == page
        assert await ledger.learned_page(it.stage.id, name, memory_mb=256) is None
        assert await ledger.learned_page(it.stage.id, "another", memory_mb=128) is None


async def test_a_small_runtime_begins_with_a_small_page(
    scene: SetScene, xledger: Books, supabase: Supabase, cold_starts: ColdStarts
) -> None:
    """A self-hosted runtime with less memory, which the integration knows: nothing fails."""
    it = await scene(xledger, page_records=320, function_memory=64)
    await it.approve(100)
    supabase.functions.change(memory_mb=100)
    receipt = await it.receipt(function="greedy")
    assert receipt["taken"]["vouchers"] == 100
    assert "out_of_memory" not in cold_starts(it)
    assert learned(it) is None or learned(it)[2] is None  # pyright: ignore[reportOptionalSubscript]


async def test_behind_one_address_each_of_several_workers_is_warmed_up(
    scene: SetScene, xledger: Books, supabase: Supabase, cold_starts: ColdStarts
) -> None:
    first, second = await scene(xledger, periods=2), await scene(xledger)
    first.stage.ask("delete from kvitt.cold_starts returning id")  # of other tests
    supabase.functions.end_workers()
    supabase.functions.change(spread=3)
    try:
        before = supabase.functions.counts("collect")["invocations"]
        receipt = await first.receipt()
        assert [s["consequence"] for s in receipt["cold_starts"]] == ["warm-up"] * 3
        # Three boots, three warm answers in a row, and a page.
        assert supabase.functions.counts("collect")["invocations"] == before + 7
        # The next one knows how many there are, though all of them are warm.
        await second.receipt()
        assert cold_starts(second) == {}
        assert supabase.functions.counts("collect")["invocations"] == before + 7 + 4
    finally:
        supabase.functions.change(spread=1)


async def test_a_ping_that_hangs_is_given_up_before_the_time_of_a_page(
    scene: SetScene, xledger: Books, supabase: Supabase, cold_starts: ColdStarts
) -> None:
    it = await scene(xledger, warm_up=1)
    supabase.functions.end_workers()
    supabase.functions.change(boot_delay_seconds=3)
    try:
        receipt = await it.receipt()
    finally:
        supabase.functions.change(boot_delay_seconds=0)
    assert cold_starts(it)["timed_out"] == 1
    assert "did not answer within 1 s" in str(
        it.stage.ask(
            "select detail from kvitt.cold_starts"
            " where integration_id = %(id)s and kind = 'timed_out'"
        )
    )
    assert receipt["drift"]["warm_up_seconds"] < 3


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
        await EdgeFunction(project, name="gone", seconds=5).ping(within=5)


async def test_a_function_that_takes_too_long_is_not_waited_for(
    project: AsyncClient, supabase: Supabase
) -> None:
    supabase.functions.end_workers()
    supabase.functions.change(boot_delay_seconds=2)
    try:
        with pytest.raises(FunctionFailed, match=r"did not answer within 0\.3 s") as failed:
            await EdgeFunction(project, seconds=5).ping(within=0.3)
    finally:
        supabase.functions.change(boot_delay_seconds=0)
    assert failed.value.kind == "timed_out"


async def test_a_function_of_another_contract_is_told_so(project: AsyncClient) -> None:
    with pytest.raises(FunctionFailed, match=r"does not answer as docs/edge-function\.md says"):
        await EdgeFunction(project, name="stranger", seconds=5).ping(within=5)
