"""A period of which the books hold a part: it stays where it began, and leaves nothing behind."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import respx

from kvitt import sync as way
from kvitt.domain.errors import LedgerRefused, PeriodFailed, PeriodPostponed, PeriodUncertain
from kvitt.ledger import SupabaseLedger
from kvitt.ports import Trigger
from tests.cast import HOUR, another, claim_for_travel
from tests.sync.driver import working
from tests.sync.scene import LONG_ENOUGH

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.sync.scene import Books, Scene

    SetScene = Callable[..., Awaitable[Scene]]


async def half_sent(it: Scene) -> None:
    """Have half of the batch arrive, and the rest be turned away when it is sent again."""
    it.books.fault("half-batch")
    await it.is_uncertain()
    again = it.books.first_write if it.books.vendor == "xledger" else "batch"
    it.books.fault("rate-limit", on=again, times=50)
    for _ in range(3):
        it.stage.time_passes(LONG_ENOUGH)
        try:
            await it.run()
        except PeriodUncertain:
            continue
        except PeriodPostponed:
            break
    it.books.http.delete(f"{it.books.url}/_sandbox/faults").raise_for_status()
    assert it.stage.chunks("state, sends") == [("unsent", 2)]


@pytest.mark.usefixtures("no_waiting")
async def test_a_period_that_is_half_in_the_books_does_not_move_to_another_company(
    scene: SetScene, books: Books
) -> None:
    it = await scene(books)
    await it.approve(2)
    await half_sent(it)
    own = it.stage.integration
    with pytest.raises(LedgerRefused, match=r"cannot change while period .* is half exported"):
        await it.stage.ledger.save_integration(another(own, id=own.id, connection="elsewhere"))
    await it.receipt_after_waiting()
    assert it.audit().clean


@pytest.mark.usefixtures("no_waiting")
async def test_who_skips_a_period_that_is_half_in_the_books_is_told(
    scene: SetScene, xledger: Books
) -> None:
    it = await scene(xledger)
    await it.approve(2)
    await half_sent(it)
    it.stage.time_passes(LONG_ENOUGH)
    xledger.fault("status", status=400, on=xledger.first_write)
    with pytest.raises(PeriodFailed):
        await it.run()
    answer = await it.stage.ledger.skip(
        it.stage.id, it.stage.due[0], who="Inger", reason="the year is closed"
    )
    assert answer == (2, 0, 2)


async def test_what_is_left_of_a_voucher_that_was_set_aside_is_taken_back_before_posting(
    scene: SetScene, business_central: Books
) -> None:
    it = await scene(business_central)
    business_central.add_account("7999")
    at = it.stage.due[0] - HOUR / 2
    claims = [claim_for_travel(it.stage.id, n, at + timedelta(seconds=n)) for n in range(3)]
    [cost, debt] = claims[1].lines
    claims[1] = claims[1].model_copy(
        update={"lines": (cost.model_copy(update={"account": "7999"}), debt)}
    )
    await it.stage.ledger.add_records(claims)
    business_central.fault("half-batch")  # the second claim is there with one of its lines
    await it.is_uncertain()
    business_central.block("7999")
    it.stage.time_passes(LONG_ENOUGH)
    receipt = await asyncio.wait_for(it.receipt_with_some_set_aside(), 30)
    assert [aside["record"] for aside in receipt["set_aside"]] == [claims[1].id]
    assert receipt["read_back"]["vouchers"] == 2
    it.records += [claims[0], claims[2]]
    assert it.audit().clean


async def test_what_a_stricter_mapping_objects_to_is_taken_back_before_posting(
    scene: SetScene, business_central: Books
) -> None:
    it = await scene(business_central)
    await it.approve(3)
    business_central.fault("half-batch")
    await it.is_uncertain()
    it.stage.time_passes(LONG_ENOUGH)
    business_central.fault("status", status=403, on="batch")
    with pytest.raises(PeriodFailed):
        await it.run()
    own = it.stage.integration
    strict = {"values": {"cost_centre": {"99": "99"}}, "strict": ["dimensions", "values"]}
    mapping = {**own.mapping.model_dump(mode="json"), **strict}
    await it.stage.ledger.save_integration(another(own, id=own.id, mapping=mapping))
    await it.stage.mend()
    receipt = await asyncio.wait_for(it.receipt_with_some_set_aside(), 30)
    assert business_central.lines("staged") == []
    assert receipt["sent"]["vouchers"] == receipt["read_back"]["vouchers"] == 1


async def test_a_posting_that_blames_those_who_are_gone_stops_for_a_person(
    scene: SetScene, business_central: Books
) -> None:
    it = await scene(business_central)
    await it.approve(2)
    period = await it.stage.ledger.read_period(it.stage.id, it.stage.due[0])
    words = f"Document No. {period.reference}-000001 cannot be posted."
    said = {"error": {"code": "Application_DialogException", "message": words}}
    with respx.mock(assert_all_called=False) as vendor:
        post = vendor.post(url__regex=r".*NAV\.post$").respond(400, json=said)
        vendor.route(host="127.0.0.1").pass_through()
        with pytest.raises(PeriodFailed, match="cannot be posted"):
            await asyncio.wait_for(it.run(), 30)
    assert post.call_count == 2


async def test_a_period_that_is_asked_for_out_of_turn_leaves_the_earlier_ones_theirs(
    scene: SetScene, xledger: Books
) -> None:
    it = await scene(xledger, periods=2)
    await it.approve(2, period=0)
    await it.approve(1, period=1)
    ledger = SupabaseLedger(it.project)
    answer = await way.claim(ledger, it.stage.id, Trigger(), due_at=it.stage.due[1])
    async with working(it.project, xledger.connection, answer) as (attempt, collector, vendor):
        await way.collect(attempt, collector)
        await way.export(attempt, vendor)
        later = await way.verify(attempt, vendor)
    earlier = await it.receipt()
    assert (later["taken"]["vouchers"], earlier["taken"]["vouchers"]) == (1, 2)
    assert it.audit().clean
