"""Where a reply is missing: the books are asked, the vendor is given its time, nothing is twice."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from kvitt.domain.errors import PeriodFailed, PeriodPostponed
from kvitt.ports import Claim, ClaimOutcome
from tests.cast import HOUR, claim_for_travel
from tests.sync.scene import LONG_ENOUGH, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.sync.scene import Books, Scene

    SetScene = Callable[..., Awaitable[Scene]]

MINUTE = timedelta(minutes=1)


async def test_what_arrived_without_a_reply_is_found_and_confirmed_at_once(
    scene: SetScene, books: Books
) -> None:
    it = await scene(books)
    await it.approve(3)
    books.fault("reply-lost")
    receipt = await it.receipt()
    assert books.calls()[books.first_write] == 1
    assert receipt["resent"] == [{"chunk": 1, "sends": 1, "detail": "found when read back"}]
    assert len(receipt["attempts"]) == 1
    assert it.audit().clean


@pytest.mark.parametrize("fault", ["malformed", "truncated"])
async def test_a_reply_that_cannot_be_read_is_no_reply(
    scene: SetScene, books: Books, fault: str
) -> None:
    it = await scene(books)
    await it.approve(3)
    books.fault(fault)
    await it.receipt()
    assert books.calls()[books.first_write] == 1
    assert it.audit().clean


async def test_what_the_vendor_commits_late_is_waited_for_and_not_sent_again(
    scene: SetScene, books: Books
) -> None:
    it = await scene(books)
    await it.approve(3)
    books.fault("late-commit", commit_after=0.5)
    assert await it.is_uncertain() == "vouchers 1 to 3: 0 of 3 are in the books"
    again = await it.run()
    assert isinstance(again, Claim)
    assert again.outcome is ClaimOutcome.WAITING
    await until(lambda: bool(books.lines("staged")), "the vendor commits")
    receipt = await it.receipt_after_waiting()
    assert books.calls()[books.first_write] == 1
    assert [attempt["outcome"] for attempt in receipt["attempts"]] == ["uncertain", "settled"]
    assert it.audit().clean


async def test_what_never_arrived_is_sent_once_more_when_that_is_certain(
    scene: SetScene, books: Books
) -> None:
    it = await scene(books)
    await it.approve(3)
    books.fault("drop-before")
    await it.is_uncertain()
    it.stage.time_passes(MINUTE)
    assert isinstance(await it.run(), Claim)
    assert books.calls()[books.first_write] == 1
    receipt = await it.receipt_after_waiting()
    assert books.calls()[books.first_write] == 2
    assert receipt["resent"][0]["sends"] == 2
    assert it.audit().clean


async def test_of_a_chunk_that_arrived_in_part_only_the_rest_is_sent(
    scene: SetScene, books: Books
) -> None:
    it = await scene(books)
    await it.approve(2)
    books.fault("half-batch")
    assert await it.is_uncertain() == "vouchers 1 to 2: 1 of 2 are in the books"
    assert len(books.lines("staged")) == 2
    await it.receipt_after_waiting()
    assert it.audit().clean


async def test_a_voucher_that_arrived_in_part_is_taken_back_or_stops_for_a_person(
    scene: SetScene, books: Books
) -> None:
    it = await scene(books)
    await it.approve(1)
    books.fault("half-batch")
    if books.vendor == "business-central":  # a staged voucher that does not balance can be deleted
        assert "0 of 1 are in the books" in await it.is_uncertain()
        receipt = await it.receipt_after_waiting()
        assert receipt["read_back"]["lines"] == 2
        assert it.audit().clean
        return
    assert await it.is_uncertain() == "vouchers 1 to 1: 1 of 1 are in the books, 1 of them in part"
    it.stage.time_passes(LONG_ENOUGH)
    await it.is_uncertain()  # the rest of it may be on its way: one look more
    it.stage.time_passes(LONG_ENOUGH)
    for _ in range(2):  # a person who lets it go on without mending it learns the same
        with pytest.raises(PeriodFailed, match="the books show 1 of 513"):
            await it.run()
        assert it.stage.state() == "failed"
        await it.stage.mend()
    assert books.calls()[books.first_write] == 1


async def test_a_long_voucher_of_which_a_balanced_part_arrived_is_begun_anew(
    scene: SetScene, business_central: Books
) -> None:
    it = await scene(business_central)
    small = claim_for_travel(it.stage.id, 1, it.stage.due[0] - HOUR / 2)
    long = claim_for_travel(it.stage.id, 2, it.stage.due[0] - HOUR / 3)
    long = long.model_copy(update={"lines": long.lines * 60})
    it.records += [small, long]
    await it.stage.ledger.add_records(it.records)
    business_central.fault("drop-before", on="batch", nth=2)
    assert await it.is_uncertain() == "vouchers 2 to 2: 0 of 1 are in the books"
    assert len(business_central.lines("staged")) == 102
    receipt = await it.receipt_after_waiting()
    assert receipt["read_back"]["lines"] == 122
    assert it.audit().clean


async def test_after_a_lost_call_no_other_one_is_begun(scene: SetScene, books: Books) -> None:
    it = await scene(books, chunk_lines=2, at_once=1)
    await it.approve(4)
    later = "addGLImportItems" if books.vendor == "xledger" else "batch"
    books.fault("drop-before", on=later, nth=2 if books.vendor == "xledger" else 1)
    await it.is_uncertain()
    assert it.stage.chunks("state, sends") == [("confirmed", 1), ("uncertain", 1), ("unsent", 0)]
    await it.receipt_after_waiting()
    assert it.stage.chunks()[:4] == ["confirmed"] * 4
    assert it.stage.chunks("sends")[:4] == [1, 2, 1, 1]
    assert it.audit().clean


async def test_calls_beside_a_lost_one_are_not_cut_off(scene: SetScene, books: Books) -> None:
    it = await scene(books, chunk_lines=2)
    await it.approve(6)
    later = "addGLImportItems" if books.vendor == "xledger" else "batch"
    books.fault("slow", on=later, nth=2, delay=0.5)
    books.fault("reply-lost", on=later, nth=3)
    receipt = await it.receipt()
    assert it.stage.chunks("sends")[:6] == [1] * 6
    assert [resent["detail"] for resent in receipt["resent"]] == ["found when read back"]
    assert it.audit().clean


@pytest.mark.usefixtures("no_waiting")
async def test_where_the_books_cannot_be_read_nothing_is_sent_again(
    scene: SetScene, books: Books
) -> None:
    it = await scene(books)
    await it.approve(2)
    reads = "glImportItems" if books.vendor == "xledger" else "journals.list"
    books.fault("reply-lost")
    books.fault("status", on=reads, status=503, times=3)
    with pytest.raises(PeriodPostponed):
        await it.run()
    assert it.stage.chunks() == ["uncertain"]
    await it.receipt_after_waiting()
    assert books.calls()[books.first_write] == 1
    assert it.audit().clean


@pytest.mark.parametrize("fault", ["reply-lost", "late-commit"])
async def test_a_posting_without_a_reply_is_found_posted(
    scene: SetScene, business_central: Books, fault: str
) -> None:
    it = await scene(business_central)
    await it.approve(2)
    business_central.fault(fault, on="post", commit_after=0.3)
    if fault == "late-commit":
        assert await it.is_uncertain() == "it is not known whether the journal was posted"
        await until(lambda: bool(business_central.lines("posted")), "the journal is posted")
        await it.receipt_after_waiting()
    else:
        await it.receipt()
    assert business_central.calls()["post"] == 1
    assert it.audit().clean


async def test_a_posting_that_never_arrived_is_made_once_more(
    scene: SetScene, business_central: Books
) -> None:
    it = await scene(business_central)
    await it.approve(2)
    business_central.fault("drop-before", on="post")
    await it.is_uncertain()
    await it.receipt_after_waiting()
    assert business_central.calls()["post"] == 2
    assert it.audit().clean


async def test_rows_that_are_nowhere_while_the_vendor_moves_them_are_not_sent_again(
    scene: SetScene, xledger: Books
) -> None:
    it = await scene(xledger)
    await it.approve(3)
    xledger.fault("reply-lost", delay=0.6)
    assert await _uncertain_while_rows_move(it) == "vouchers 1 to 3: 0 of 3 are in the books"
    await it.receipt_after_waiting()
    assert xledger.calls()["addGLImportItems"] == 1
    assert it.audit().clean


async def test_totals_that_are_read_while_rows_move_are_read_again_later(
    scene: SetScene, xledger: Books
) -> None:
    it = await scene(xledger)
    await it.approve(3)
    xledger.fault("slow", delay=0.6)
    assert "Read back: 0 vouchers, 0 lines" in await _uncertain_while_rows_move(it)
    receipt = await it.receipt_after_waiting()
    assert len(receipt["attempts"]) == 2
    assert xledger.calls()["addGLImportItems"] == 1
    assert it.audit().clean


async def _uncertain_while_rows_move(it: Scene) -> str:
    """Run, and let the posting job take the rows before the reply is there or lost."""
    it.books.change(transit_seconds=1.5)
    run = asyncio.create_task(it.is_uncertain())
    await until(lambda: bool(it.books.lines("staged")), "the rows are staged")
    reason, _ = await asyncio.gather(run, asyncio.to_thread(it.books.run_jobs))
    it.books.change(transit_seconds=0)
    return reason
