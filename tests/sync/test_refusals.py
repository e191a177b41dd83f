"""Where the vendor says no, or the books say something else: what a person is told, and mends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kvitt import sync as way
from kvitt.domain.errors import PeriodFailed, PeriodPostponed
from kvitt.domain.vouchers import voucher_of
from kvitt.ports import ClaimOutcome, Trigger
from tests.cast import HOUR, WATCH, claim_for_travel
from tests.sync.driver import working

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.sync.scene import Books, Scene

    SetScene = Callable[..., Awaitable[Scene]]


@pytest.mark.usefixtures("no_waiting")
async def test_a_limit_that_stays_leaves_the_chunk_unsent_and_the_next_run_sends_it(
    scene: SetScene, books: Books
) -> None:
    it = await scene(books)
    await it.approve(3)
    books.fault("rate-limit", times=3)
    with pytest.raises(PeriodPostponed, match="the next run asks again"):
        await it.run()
    assert it.stage.chunks() == ["unsent"]
    receipt = await it.receipt()
    assert [attempt["outcome"] for attempt in receipt["attempts"]] == ["postponed", "settled"]
    assert it.audit().clean


async def test_what_the_vendor_refuses_fails_with_its_words_and_goes_on_when_mended(
    scene: SetScene, books: Books
) -> None:
    it = await scene(books, chunk_lines=2, set_aside=0)
    if books.vendor == "xledger":
        books.change(unknown_codes="import")
    await it.approve(1)
    odd = claim_for_travel(it.stage.id, 700, it.stage.due[0] - HOUR / 2)
    lines = tuple(
        line.model_copy(update={"account": "6999"}) if line.account == "travel" else line
        for line in odd.lines
    )
    odd = odd.model_copy(update={"lines": lines})
    await it.stage.ledger.add_records([odd])
    it.records.append(odd)
    with pytest.raises(PeriodFailed, match="6999") as stopped:
        await it.run()
    assert "What is in the books already is not sent again" in str(stopped.value)
    assert it.stage.chunks() == ["confirmed", "refused"]
    [reason] = it.stage.period("reason")
    assert reason.startswith("more than 0 of its vouchers are not taken (limits.set_aside)")
    assert "6999" in reason
    before = books.calls()
    waiting = await way.claim(it.stage.ledger, it.stage.id, WATCH)
    assert waiting.claim.outcome is ClaimOutcome.FAILED
    assert books.calls() == before

    books.add_account("6999")
    await it.stage.mend()
    receipt = await it.receipt()
    assert [attempt["outcome"] for attempt in receipt["attempts"]] == ["failed", "settled"]
    assert it.stage.chunks("sends")[:2] == [1, 2]
    assert it.audit().clean


async def test_books_that_hold_more_than_was_sent_stop_the_period_with_both_sides(
    scene: SetScene, books: Books
) -> None:
    it = await scene(books)
    await it.approve(2)
    answer = await way.claim(it.stage.ledger, it.stage.id, Trigger())
    async with working(it.project, books.connection, answer) as (attempt, collector, vendor):
        await way.collect(attempt, collector)
        await way.export(attempt, vendor)
        await _book_once_more(it)
        with pytest.raises(PeriodFailed) as stopped:
            await way.verify(attempt, vendor)
    words = str(stopped.value)
    assert "Sent: 2 vouchers, 4 lines, 1027.8 booked, checksum " in words
    assert "Read back: 2 vouchers, 6 lines, 1541.2 booked, checksum " in words
    assert it.stage.state() == "failed"
    assert it.audit().foreign


async def _book_once_more(it: Scene) -> None:
    """Book the first voucher again under its own name, as somebody else's retry would.

    Business Central refuses a line number twice, so there it needs a journal of its own.
    """
    period = await it.stage.ledger.read_period(it.stage.id, it.stage.due[0])
    [record] = await it.stage.ledger.read_batch(period, after=0, records=1, lines=99)
    who = it.stage.integration
    voucher = voucher_of(record, who, due_at=period.due_at)
    async with it.books.connection.open(who.timeouts) as vendor:
        await vendor.send(period, [voucher], begins=False, guard=_allow)
        await vendor.post(period, guard=_allow)


def _allow() -> None:
    """Guard nothing."""
