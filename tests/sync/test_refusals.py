"""Where the vendor says no, or the books say something else: what a person is told, and mends."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from kvitt import sync as way
from kvitt.domain.errors import PeriodFailed, PeriodPostponed
from kvitt.domain.vouchers import voucher_of
from kvitt.ports import ClaimOutcome, Trigger
from tests.cast import WATCH
from tests.sync.driver import working
from tests.sync.scene import LONG_ENOUGH

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
    odd = it.odd_claim(700, {"travel": "6999"})
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


@pytest.mark.parametrize("way", ["refuses-all", "is-left-out", "is-left-out-without-data"])
@pytest.mark.parametrize("naming", ["value", "nobody"])
async def test_what_may_be_in_the_books_beside_a_refusal_is_never_sent_twice(
    scene: SetScene, xledger: Books, way: str, naming: str
) -> None:
    it = await scene(_not_known_to_refuse_all(xledger))
    xledger.change(unknown_codes="import", one_bad_node=way, refusals_name=naming)
    await it.approve(2)
    # Each of its nodes is bad, so that nothing of it is left in.
    odd = it.odd_claim(700, {"travel": "6999", "owed-to-staff": "2999"})
    await it.stage.ledger.add_records([odd])
    left = 0 if way == "refuses-all" else 2
    assert await it.is_uncertain() == f"vouchers 1 to 3: {left} of 3 are in the books"
    it.stage.time_passes(LONG_ENOUGH)
    await it.is_uncertain()
    it.stage.time_passes(LONG_ENOUGH)
    receipt = await it.run()
    assert isinstance(receipt, dict)
    [aside] = receipt["set_aside"]
    assert aside["record"] == odd.id
    assert ("6999" if naming == "value" else "The value is not valid") in aside["reason"]
    assert receipt["sent"]["vouchers"] == 2
    xledger.change(unknown_codes="posting", one_bad_node="refuses-all", refusals_name="value")
    assert it.audit().clean


async def test_half_a_voucher_in_the_books_is_for_a_person(scene: SetScene, xledger: Books) -> None:
    it = await scene(_not_known_to_refuse_all(xledger))
    xledger.change(unknown_codes="import", one_bad_node="is-left-out-without-data")
    await it.approve(2)
    await it.stage.ledger.add_records([it.odd_claim(700, {"travel": "6999"})])
    await it.is_uncertain()
    with pytest.raises(PeriodFailed, match="the books hold something else than was sent"):
        await it.receipt_after_waiting()
    xledger.change(unknown_codes="posting", one_bad_node="refuses-all")


async def test_half_of_a_voucher_that_went_alone_is_seen_at_the_end(
    scene: SetScene, xledger: Books
) -> None:
    it = await scene(_not_known_to_refuse_all(xledger))
    xledger.change(unknown_codes="import", one_bad_node="is-left-out-without-data")
    await it.stage.ledger.add_records([it.odd_claim(700, {"travel": "6999"})])
    with pytest.raises(PeriodFailed, match="Sent: 0 vouchers"):
        await it.run()
    xledger.change(unknown_codes="posting", one_bad_node="refuses-all")


async def test_what_was_refused_is_read_back_before_it_is_sent_again(
    scene: SetScene, books: Books
) -> None:
    it = await scene(books, set_aside=0)
    if books.vendor == "xledger":
        books.change(unknown_codes="import")
    odd = it.odd_claim(700, {"travel": "6999"})
    await it.stage.ledger.add_records([odd])
    with pytest.raises(PeriodFailed):
        await it.run()
    assert it.stage.chunks() == ["refused"]
    # The vendor's word was mistaken: it is there after all.
    books.add_account("6999")
    answer = await way.claim(it.stage.ledger, it.stage.id, Trigger())
    assert answer.claim.outcome is ClaimOutcome.FAILED
    await _book_once_more(it)
    before = books.calls()[books.first_write]
    await it.stage.mend()
    await it.receipt()
    assert books.calls()[books.first_write] == before
    assert it.stage.chunks() == (["confirmed"] if books.vendor == "xledger" else ["confirmed"] * 2)


async def test_how_long_a_vendor_wants_to_be_left_alone_is_kept(
    scene: SetScene, books: Books
) -> None:
    it = await scene(books)
    await it.approve(2)
    books.fault("status", status=503, retry_after=7200)
    await it.is_uncertain()
    [seconds] = it.stage.period("extract(epoch from not_before - now())")
    assert 7100 < seconds <= 7200


def _not_known_to_refuse_all(books: Books) -> Books:
    settings = {**books.connection.settings, "all_or_nothing": False}
    return replace(books, connection=replace(books.connection, settings=settings))


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


async def test_a_journal_posted_under_other_numbers_fails_with_the_remedy_and_is_not_sent_again(
    scene: SetScene, business_central: Books
) -> None:
    it = await scene(business_central)
    await it.approve(3)
    business_central.change(posting_number_series="GJ-0009")
    with pytest.raises(PeriodFailed, match="a posting number series gave them others"):
        await it.run()
    [reason] = it.stage.period("reason")
    assert "clear Posting No. Series on the template General" in reason
    business_central.change(posting_number_series=None)
    before = business_central.calls()
    await it.stage.mend()
    with pytest.raises(PeriodFailed, match="a posting number series gave them others"):
        await it.run()
    for write in ("journals.create", "batch", "post"):
        assert business_central.calls().get(write) == before.get(write)
    assert len(business_central.lines("posted")) == 6


@pytest.mark.usefixtures("no_waiting")
async def test_a_period_waits_for_a_job_queue_that_posts_it_and_says_how_to_do_without(
    scene: SetScene, business_central: Books
) -> None:
    it = await scene(business_central)
    await it.approve(3)
    business_central.change(post_with_job_queue=True, job_queue_seconds=3600)
    with pytest.raises(PeriodPostponed, match="Turn it off: General Ledger Setup, Post with Job"):
        await it.run()
    business_central.change(post_with_job_queue=False)
    business_central.run_jobs()
    it.stage.time_passes(LONG_ENOUGH)
    await it.receipt()
    assert business_central.calls()["post"] == 1
    assert it.audit().clean
