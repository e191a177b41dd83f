"""The batch: which records a period takes, in which order, under which numbers."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from kvitt.domain.errors import LedgerRefused
from tests.cast import HOUR, NORDVEST, claim_for_travel, claim_from_abroad
from tests.ledger.stages import LEASE_RAN_OUT, close, collect, frozen

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from kvitt.domain.records import TakenRecord
    from tests.cast import Stage

    Enrol = Callable[..., Awaitable[Stage]]

SECOND = timedelta(seconds=1)


def taken(stage: Stage, columns: str = "id") -> list[Any]:
    rows = stage.ask(
        f"select {columns} from kvitt.records where integration_id = %(id)s"  # noqa: S608 - our own words
        " and period_due_at is not null order by period_due_at, sequence"
    )
    return [row[0] if len(row) == 1 else row for row in rows]


async def test_a_batch_is_taken_page_by_page_and_then_frozen(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    await stage.approve(5)
    period = await stage.claimed()
    pages = [await collect(stage, period, 2) for _ in range(3)]
    assert [(p["taken"], p["total"], p["done"]) for p in pages] == [
        (2, 2, False),
        (2, 4, False),
        (1, 5, True),
    ]
    assert {page["key"] for page in pages} == {period.key}
    assert stage.period("state, record_count, taken -> 'lines'") == ("collected", 5, 10)


async def test_a_page_that_is_just_full_may_not_be_the_last(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    await stage.approve(4)
    period = await stage.claimed()
    pages = [await collect(stage, period, 4) for _ in range(2)]
    assert [(p["taken"], p["done"]) for p in pages] == [(4, False), (0, True)]


async def test_a_period_without_records_is_frozen_empty(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    page = await collect(stage, await stage.claimed())
    assert (page["taken"], page["total"], page["done"]) == (0, 0, True)


async def test_after_the_freeze_nothing_more_is_taken(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    period = await frozen(stage, 2)
    await stage.approve(3)
    again = await collect(stage, period)
    assert (again["taken"], again["total"], again["done"]) == (0, 2, True)
    assert len(taken(stage)) == 2


async def test_what_was_approved_late_is_taken_by_the_next_period(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST, periods=2)
    await frozen(stage, 2)
    await stage.approve(1)  # approved in the first period, handed in after its freeze
    await close(stage, "interrupted")
    await collect(stage, await stage.claimed(due_at=stage.due[1]))
    assert taken(stage, "id, period_due_at") == [
        ("2026-0001", stage.due[0]),
        ("2026-0002", stage.due[0]),
        ("2026-0003", stage.due[1]),
    ]


async def test_a_record_approved_when_the_period_is_due_belongs_to_the_next(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    moments = [stage.due[0] - timedelta(microseconds=1), stage.due[0]]
    await stage.ledger.add_records(
        [claim_for_travel(stage.id, number, at) for number, at in enumerate(moments)]
    )
    await collect(stage, await stage.claimed())
    assert taken(stage) == ["2026-0000"]


async def test_records_are_taken_in_the_order_of_their_approval(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    began = stage.due[0] - HOUR
    order = [3, 1, 4, 2]
    await stage.ledger.add_records(
        [claim_for_travel(stage.id, n, began + place * SECOND) for place, n in enumerate(order)]
    )
    await stage.ledger.add_records([claim_for_travel(stage.id, n, began) for n in (9, 8)])
    period = await stage.claimed()
    for _ in range(4):
        await collect(stage, period, 2)
    names = [f"2026-000{n}" for n in (3, 8, 9, 1, 4, 2)]
    assert taken(stage, "id, sequence") == list(zip(names, range(1, 7), strict=True))


async def test_voucher_numbers_go_on_from_period_to_period_without_a_gap(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST, periods=3)
    for period, count in enumerate((3, 0, 4)):
        await frozen(stage, count, period=period)
        await close(stage, "interrupted")
    assert taken(stage, "voucher_number") == list(range(1, 8))
    assert taken(stage, "sequence") == [1, 2, 3, 1, 2, 3, 4]


async def test_each_integration_counts_its_vouchers_itself(enrol: Enrol) -> None:
    one, other = await enrol(NORDVEST), await enrol(NORDVEST)
    await frozen(one, 3)
    await frozen(other, 2)
    assert taken(other, "voucher_number") == [1, 2]


async def test_collectors_at_the_same_time_take_each_record_once(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    await stage.approve(60)
    period = await stage.claimed()
    pages = await asyncio.gather(*(collect(stage, period, 7) for _ in range(12)))
    assert sum(page["taken"] for page in pages) == 60
    assert taken(stage, "sequence, voucher_number") == [(n, n) for n in range(1, 61)]
    assert stage.period("record_count, taken -> 'lines'") == (60, 120)


async def test_records_that_arrive_meanwhile_are_taken_by_one_period_each(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST, periods=2)
    await stage.approve(20)
    period = await stage.claimed()

    async def collect_all() -> None:
        while not (await collect(stage, period, 3))["done"]:
            pass

    await asyncio.gather(collect_all(), *(stage.approve(5) for _ in range(8)))
    await close(stage, "interrupted")
    await collect(stage, await stage.claimed(due_at=stage.due[1]))
    assert sorted(taken(stage)) == [f"2026-{n:04d}" for n in range(1, 61)]
    assert taken(stage, "voucher_number") == list(range(1, 61))


async def test_a_successor_goes_on_where_the_last_collector_stopped(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    await stage.approve(5)
    await collect(stage, await stage.claimed(), 2)
    stage.time_passes(LEASE_RAN_OUT)
    period = await stage.claimed()
    assert period.record_count == 2
    assert (await collect(stage, period))["total"] == 5
    assert taken(stage, "sequence") == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("limit", [0, -1])
async def test_a_page_of_nothing_is_refused(enrol: Enrol, limit: int) -> None:
    stage = await enrol(NORDVEST)
    with pytest.raises(LedgerRefused, match="a page holds at least 1 record"):
        await collect(stage, await stage.claimed(), limit)


# -- reading it ------------------------------------------------------------------------------------


async def batch(stage: Stage, **limits: int) -> list[TakenRecord]:
    period = await stage.ledger.read_period(stage.id, stage.due[0])
    limits = {"after": 0, "records": 100, "lines": 1000, **limits}
    return await stage.ledger.read_batch(period, **limits)


async def test_a_batch_is_read_as_it_was_approved(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    record = claim_from_abroad(stage.id, 7, stage.due[0] - HOUR / 2)
    await stage.ledger.add_records([record])
    await collect(stage, await stage.claimed())
    [read] = await batch(stage)
    assert (read.id, read.sequence, read.voucher_number) == ("2026-0007", 1, 1)
    assert (read.currency, read.text, read.voucher_date) == ("EUR", "Claim 7", record.voucher_date)
    assert [line.number for line in read.lines] == [1, 2, 3]
    for line, approved in zip(read.lines, record.lines, strict=True):
        assert line.model_dump(exclude={"number"}) == approved.model_dump()


async def test_a_batch_of_home_currency_has_book_amounts_too(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    await frozen(stage, 1)
    [read] = await batch(stage)
    assert [line.book_amount for line in read.lines] == [line.amount for line in read.lines]


@pytest.mark.parametrize(
    ("limits", "sequences"),
    [
        ({}, [1, 2, 3, 4, 5]),
        ({"after": 2}, [3, 4, 5]),
        ({"after": 5}, []),
        ({"records": 2}, [1, 2]),
        ({"after": 3, "records": 2}, [4, 5]),
        ({"lines": 4}, [1, 2]),
        ({"lines": 5}, [1, 2]),
        ({"lines": 1}, [1]),  # one at least, or it would never come to an end
        ({"after": 1, "lines": 1}, [2]),
        ({"records": 1, "lines": 4}, [1]),
    ],
)
async def test_as_many_whole_records_are_read_as_fit_both_limits(
    enrol: Enrol, limits: dict[str, int], sequences: list[int]
) -> None:
    stage = await enrol(NORDVEST)
    await frozen(stage, 5)
    assert [record.sequence for record in await batch(stage, **limits)] == sequences


async def test_a_period_that_is_not_there_is_named(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    with pytest.raises(LedgerRefused, match=f"{stage.id} has no period due at"):
        await stage.ledger.read_period(stage.id, stage.due[0] - HOUR)
