"""The mapping on the way of a period: what the books show, and what a change of it may not do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from kvitt.domain.errors import PeriodFailed
from kvitt.domain.records import Record
from tests.cast import HOUR, MINUTE, another, claim_for_travel, claim_from_abroad
from tests.sync.scene import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.sync.scene import Books, Scene

    SetScene = Callable[..., Awaitable[Scene]]


async def change(it: Scene, *, may_set_aside: int = 25, **mapping: Any) -> None:
    """Save the integration with some of its mapping changed."""
    own = it.stage.integration
    words = {**own.mapping.model_dump(mode="json"), **mapping}
    limits = {**own.limits.model_dump(), "set_aside": may_set_aside}
    changed = another(own, id=own.id, mapping=words, limits=limits)
    await it.stage.ledger.save_integration(changed)


def accounts(it: Scene, where: str = "posted") -> list[str]:
    return sorted(line["account"] for line in it.books.lines(where))


def odd_claim(it: Scene, number: int, account: str) -> Record:
    """Return a claim on an account that the app never named before."""
    record = claim_for_travel(it.stage.id, number, it.stage.due[0] - HOUR / 2)
    cost, owed = record.lines
    return record.model_copy(update={"lines": (cost.model_copy(update={"account": account}), owed)})


async def test_the_books_show_what_the_mapping_says(scene: SetScene, books: Books) -> None:
    it = await scene(books)
    [dimension] = [
        name
        for word, name in it.stage.integration.mapping.dimensions.items()
        if word == "cost_centre"
    ]
    await change(
        it,
        values={"cost_centre": {"sales": "20", "office": "10"}},
        defaults={"accounts": {"travel": {"dimensions": {"cost_centre": "office"}}}},
        text="{line_text} {amount} {currency} ({record})",
        posting_date="period",
    )
    abroad = claim_from_abroad(it.stage.id, 1, it.stage.due[0] - HOUR / 2)
    meals = abroad.lines[1].model_copy(update={"dimensions": {"cost_centre": "sales"}})
    abroad = abroad.model_copy(update={"lines": (abroad.lines[0], meals, abroad.lines[2])})
    await it.stage.ledger.add_records([abroad])
    await it.receipt()
    if books.vendor == "xledger":
        books.run_jobs()
    day = it.stage.integration.local(it.stage.due[0]).date().isoformat()
    seen = {line["account"]: line for line in books.lines("posted")}
    assert seen["7140"]["text"] == "Line of 1 100.00 EUR (2026-0001)"
    assert seen["7140"]["dimensions"][dimension] == "10"
    assert seen["7150"]["dimensions"][dimension] == "20"
    assert {line["date"] for line in seen.values()} == {day}


async def test_a_word_that_a_strict_list_does_not_have_is_set_aside_before_anything_is_sent(
    scene: SetScene, books: Books
) -> None:
    it = await scene(books)
    await change(it, strict=["accounts"])
    await it.approve(2)
    await it.stage.ledger.add_records([odd_claim(it, 700, "hotel")])
    receipt = await it.run()
    assert isinstance(receipt, dict)
    [aside] = receipt["set_aside"]
    assert "has the account 'hotel', which mapping.accounts does not list" in aside["reason"]
    assert (receipt["taken"]["vouchers"], receipt["sent"]["vouchers"]) == (3, 2)
    assert it.audit().clean


async def test_a_mapping_that_changes_while_a_call_is_open_changes_nothing_of_its_period(
    scene: SetScene, books: Books
) -> None:
    it = await scene(books, chunk_lines=2)
    await it.approve(3)
    books.fault("late-commit", commit_after=0.5)
    await it.is_uncertain()
    await until(lambda: bool(books.lines("staged")), "the vendor commits")
    await change(it, accounts={"travel": "7150", "owed-to-staff": "2910"}, text="Changed")
    await it.receipt_after_waiting()
    assert it.audit().clean
    assert "Changed" not in {line["text"] for line in books.lines("posted")}


async def test_what_never_arrived_is_sent_again_in_the_words_in_which_it_was_sent(
    scene: SetScene, books: Books
) -> None:
    it = await scene(books)
    await it.approve(2)
    books.fault("drop-before")
    await it.is_uncertain()
    await change(it, accounts={"travel": "7150", "owed-to-staff": "2910"}, text="Changed")
    await it.receipt_after_waiting()
    assert it.audit().clean


async def test_a_mended_period_goes_on_in_the_words_of_the_mended_mapping(
    scene: SetScene, books: Books
) -> None:
    it = await scene(books, chunk_lines=2, set_aside=0)
    if books.vendor == "xledger":
        books.change(unknown_codes="import")
    await it.approve(1)
    await it.stage.ledger.add_records([odd_claim(it, 700, "hotel")])
    with pytest.raises(PeriodFailed, match=r"(?i)hotel"):
        await it.run()
    await change(it, accounts={**it.stage.integration.mapping.accounts, "hotel": "6860"})
    await it.stage.mend()
    await it.receipt()
    if books.vendor == "xledger":
        books.run_jobs()
    assert {"6860", "7140"} <= set(accounts(it))


async def test_what_the_mended_mapping_objects_to_is_set_aside_though_it_was_tried_before(
    scene: SetScene, books: Books
) -> None:
    it = await scene(books, set_aside=0)
    if books.vendor == "xledger":
        books.change(unknown_codes="import")
    await it.stage.ledger.add_records([odd_claim(it, 700, "hotel")])
    with pytest.raises(PeriodFailed, match=r"(?i)hotel"):
        await it.run()
    await change(it, strict=["accounts"])
    await it.stage.mend()
    receipt = await it.run()
    assert isinstance(receipt, dict)
    assert receipt["sent"]["vouchers"] == 0
    assert "mapping.accounts does not list" in receipt["set_aside"][0]["reason"]


async def test_a_rounded_claim_from_abroad_is_booked_to_the_last_decimal(
    scene: SetScene, books: Books
) -> None:
    it = await scene(books)
    await change(it, rounding={"account": "7770", "text": "Avrunding"})
    plain = claim_from_abroad(it.stage.id, 1, it.stage.due[0] - MINUTE)
    lines = [
        {"account": "travel", "amount": "0.50", "book_amount": "5.815", "text": "Tog"},
        {"account": "meals", "amount": "0.50", "book_amount": "5.815", "text": "Lunsj"},
        {"account": "owed-to-staff", "amount": "-1.00", "book_amount": "-11.63", "text": "Utlegg"},
    ]
    record = Record.model_validate({**plain.model_dump(), "lines": lines})
    await it.stage.ledger.add_records([record])
    receipt = await it.receipt()
    if books.vendor == "xledger":
        books.run_jobs()
        assert receipt["read_back"]["original"] == {"EUR": "1.00"}
    assert receipt["read_back"]["booked"] == "11.64"
    [difference] = [line for line in books.lines("posted") if line["account"] == "7770"]
    assert float(difference["amount"]) == -0.01
    assert difference["text"] == "Avrunding"
