"""The way of a period where nothing goes wrong: what it costs, and that it happens once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kvitt import sync as way
from kvitt.ledger import SupabaseLedger
from kvitt.ports import Claim, ClaimOutcome, Trigger
from sandbox.vendors.simulators import SIMULATORS
from tests.sync.driver import working

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.sync.scene import Books, Scene

    SetScene = Callable[..., Awaitable[Scene]]

COSTS = {
    "xledger": (
        {"export": 1, "read-back": 2},
        {"addGLImportItems": 1, "glImportItems": 1, "journalEntries": 1},
    ),
    "dataverse": (
        {"token": 1, "export": 1, "read-back": 1},
        {"token": 1, "batch": 1, "rows.list": 1},
    ),
    "business-central": (
        {"token": 1, "export": 2, "read-back": 1},
        {"token": 1, "journals.create": 1, "post": 1, "generalLedgerEntries.list": 1},
    ),
}


@pytest.fixture(params=sorted(SIMULATORS))
def books(open_books: Callable[[str], Books], request: pytest.FixtureRequest) -> Books:
    """Each vendor's, in turn."""
    return open_books(request.param)


async def test_what_was_approved_is_in_the_books_once_and_the_receipt_proves_it(
    scene: SetScene, books: Books
) -> None:
    it = await scene(books)
    await it.approve_one_of_each()
    receipt = await it.receipt()
    assert receipt["taken"]["vouchers"] == receipt["read_back"]["vouchers"] == 3
    assert receipt["taken"]["original"] == {"EUR": "120.1", "NOK": "5513.4"}
    assert receipt["taken"]["booked"] == "6910.7"
    findings = it.audit()
    assert (findings.clean, findings.lines) == (True, 8), findings.summary


async def test_nothing_is_asked_of_the_vendor_that_is_not_needed(
    scene: SetScene, books: Books
) -> None:
    it = await scene(books)
    await it.approve(5)
    receipt = await it.receipt()
    assert (receipt["requests"], books.calls()) == COSTS[books.vendor]


async def test_a_large_batch_goes_in_chunks_that_follow_one_another(
    scene: SetScene, books: Books
) -> None:
    it = await scene(books, chunk_lines=6, page_records=4)
    await it.approve(8)
    receipt = await it.receipt()
    assert receipt["taken"]["vouchers"] == 8
    chunks = it.stage.chunks("first_sequence, last_sequence, state, sends")
    assert chunks[:3] == [
        (1, 3, "confirmed", 1),
        (4, 6, "confirmed", 1),
        (7, 8, "confirmed", 1),
    ]
    assert it.audit().clean


async def test_a_period_without_records_asks_the_vendor_nothing(
    scene: SetScene, books: Books
) -> None:
    it = await scene(books)
    receipt = await it.receipt()
    assert receipt["taken"]["vouchers"] == 0
    assert receipt["requests"] == books.calls() == {}


async def test_a_second_run_finds_the_period_settled_and_asks_the_vendor_nothing(
    scene: SetScene, books: Books
) -> None:
    it = await scene(books)
    await it.approve(2)
    receipt = await it.receipt()
    before = books.calls()
    again = await it.run()
    assert isinstance(again, Claim)
    assert again.outcome is ClaimOutcome.SETTLED
    assert again.period is not None
    assert again.period.receipt == receipt
    assert books.calls() == before
    assert it.audit().clean


async def test_periods_that_were_missed_are_caught_up_in_order(
    scene: SetScene, books: Books
) -> None:
    it = await scene(books, periods=3)
    for period, number in enumerate((2, 0, 3)):
        await it.approve(number, period=period)
    receipts = [await it.receipt() for _ in range(3)]
    assert [receipt["taken"]["vouchers"] for receipt in receipts] == [2, 0, 3]
    assert [receipt["drift_seconds"] for receipt in receipts] == sorted(
        (receipt["drift_seconds"] for receipt in receipts), reverse=True
    )
    assert it.audit().clean


async def test_the_attempt_is_written_down_with_what_it_spent(
    scene: SetScene, books: Books
) -> None:
    it = await scene(books)
    await it.approve(1)
    receipt = await it.receipt()
    attempts = "select outcome::text, requests from kvitt.attempts where integration_id = %(id)s"
    assert it.stage.ask(attempts) == [("settled", receipt["requests"])]
    assert it.stage.period("holder, leased_until") == (None, None)


async def test_only_a_claimed_period_is_worked_on(scene: SetScene, books: Books) -> None:
    it = await scene(books, periods=0)
    answer = await way.claim(SupabaseLedger(it.project), it.stage.id, Trigger())
    assert answer.claim.outcome is ClaimOutcome.IDLE
    with pytest.raises(ValueError, match="only a claimed period can be worked on; it is idle"):
        async with working(it.project, books.connection, answer):
            pass
