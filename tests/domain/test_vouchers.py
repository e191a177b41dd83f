"""From the app's words to the accounting system's, and what a call is held against afterwards."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvitt.domain.integrations import Integration
from kvitt.domain.money import Totals
from kvitt.domain.reconcile import FoundVoucher, compare
from kvitt.domain.records import Record, TakenLine, TakenRecord
from kvitt.domain.vouchers import Voucher, debit, totals_of, voucher_of
from tests.cast import (
    AMIR,
    FJORDBY,
    NORDVEST,
    TOUR,
    claim_for_travel,
    claim_from_abroad,
    invoice_for_posters,
)

DUE = datetime(2026, 11, 24, 3, tzinfo=UTC)
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
TRAVEL = claim_for_travel("i", 1, NOON)
ABROAD = claim_from_abroad("i", 2, NOON)
POSTERS = invoice_for_posters("i", 3, NOON)


def taken(record: Record, sequence: int = 1) -> TakenRecord:
    """Return a record as the ledger hands it out."""
    lines = tuple(
        TakenLine(
            number=number,
            book_amount=line.amount if line.book_amount is None else line.book_amount,
            **line.model_dump(exclude={"book_amount"}),
        )
        for number, line in enumerate(record.lines, start=1)
    )
    head = record.model_dump(include={"id", "kind", "voucher_date", "currency", "text"})
    return TakenRecord(**head, sequence=sequence, voucher_number=100 + sequence, lines=lines)


def mapped(record: Record, who: Integration = NORDVEST, **mapping: Any) -> Voucher:
    words = {**who.mapping.model_dump(), **mapping}
    own = Integration.model_validate({**who.model_dump(), "mapping": words})
    return voucher_of(taken(record), own, due_at=DUE)


def found(*vouchers: Voucher) -> dict[int, FoundVoucher]:
    return {
        v.sequence: FoundVoucher(lines=v.totals.lines, booked=v.totals.booked) for v in vouchers
    }


VOUCHERS = [voucher_of(taken(TRAVEL, n), NORDVEST, due_at=DUE) for n in (1, 2, 3)]


def test_the_apps_words_become_the_accounting_systems() -> None:
    voucher = mapped(POSTERS, FJORDBY)
    assert [line.account for line in voucher.lines] == ["7320", "2710", "2400"]
    assert voucher.lines[0].dimensions == {"PROSJEKT": "P-CUP"}
    assert (voucher.record_id, voucher.number, voucher.sequence) == ("2026-0003", 101, 1)


def test_a_word_that_is_not_listed_stays_itself() -> None:
    voucher = mapped(ABROAD, accounts={"travel": "7140"}, parties={AMIR: "20017"})
    assert [line.account for line in voucher.lines] == ["7140", "meals", "owed-to-staff"]
    assert [line.party for line in voucher.lines] == [None, None, "20017"]
    assert mapped(ABROAD).lines[-1].party == AMIR


def test_taxes_are_mapped_and_their_absence_stays() -> None:
    lines = [{"account": "a", "amount": "1", "tax": "high"}, {"account": "b", "amount": "-1"}]
    record = Record.model_validate({**TRAVEL.model_dump(), "lines": lines})
    assert [line.tax for line in mapped(record, taxes={"high": "3"}).lines] == ["3", None]


def test_a_line_without_text_says_what_its_voucher_says() -> None:
    lines = [{"account": "a", "amount": "1", "text": "Tog"}, {"account": "b", "amount": "-1"}]
    record = Record.model_validate({**TRAVEL.model_dump(), "lines": lines})
    assert [line.text for line in mapped(record).lines] == ["Tog", "Claim 1"]


def test_it_is_posted_on_its_own_day_or_on_the_periods() -> None:
    assert mapped(TRAVEL).posting_date == date(2026, 11, 20)
    by_period = mapped(TRAVEL, posting_date="period")
    assert by_period.posting_date == date(2026, 11, 24)
    assert by_period.document_date == date(2026, 11, 20)


def test_the_periods_day_is_the_one_where_the_organisation_is() -> None:
    assert mapped(TRAVEL, TOUR, posting_date="period").posting_date == date(2026, 11, 23)


def test_a_voucher_counts_its_debit_side_in_both_currencies() -> None:
    assert mapped(ABROAD).totals == Totals(
        vouchers=1,
        lines=3,
        booked=Decimal("1397.30"),
        original={"EUR": Decimal("120.10")},
        checksum=0x08DCA01995AD456,  # the first 15 digits of the SHA-256 of "1:3:1397.3"
    )


def test_totals_keep_currencies_apart() -> None:
    total = totals_of([mapped(ABROAD), mapped(TRAVEL), mapped(TRAVEL)])
    assert total.original == {"EUR": Decimal("120.10"), "NOK": Decimal("1026.80")}
    assert total.booked == Decimal("2424.10")


@given(st.lists(st.decimals(-(10**9), 10**9, places=2)))
def test_debit_and_credit_together_are_the_sum(amounts: list[Decimal]) -> None:
    assert debit(amounts) - debit(-amount for amount in amounts) == sum(amounts)


def test_what_is_all_there_as_it_was_sent_is_complete() -> None:
    there = compare(VOUCHERS, found(*VOUCHERS))
    assert there.complete
    assert there.present == 3


def test_what_is_not_there_is_missing_and_contradicts_nothing() -> None:
    there = compare(VOUCHERS, found(VOUCHERS[1]))
    assert [voucher.sequence for voucher in there.missing] == [1, 3]
    assert (there.contradictions, there.present, there.complete) == ((), 1, False)


@pytest.mark.parametrize(
    "shown",
    [FoundVoucher(lines=1, booked=Decimal("513.40")), FoundVoucher(lines=1, booked=Decimal(0))],
)
def test_fewer_lines_of_no_more_than_was_sent_are_short_and_contradict_nothing_yet(
    shown: FoundVoucher,
) -> None:
    there = compare(VOUCHERS, {**found(*VOUCHERS), 2: shown})
    assert there.short == (
        (
            "voucher 102 (record 2026-0001): sent 2 lines of 513.40, "
            f"the books show 1 of {shown.booked}"
        ),
    )
    assert (there.missing, there.contradictions, there.complete) == ((), (), False)


@pytest.mark.parametrize(
    "shown",
    [
        FoundVoucher(lines=4, booked=Decimal("513.40")),
        FoundVoucher(lines=2, booked=Decimal(1)),
        FoundVoucher(lines=1, booked=Decimal("513.41")),
    ],
)
def test_what_is_there_otherwise_is_told_with_both_sides(shown: FoundVoucher) -> None:
    there = compare(VOUCHERS, {**found(*VOUCHERS), 2: shown})
    assert there.contradictions == (
        (
            "voucher 102 (record 2026-0001): sent 2 lines of 513.40, "
            f"the books show {shown.lines} of {shown.booked}"
        ),
    )
    assert not there.complete


def test_other_vouchers_in_the_books_are_not_ours_to_judge() -> None:
    assert compare(VOUCHERS[:1], found(*VOUCHERS)).complete


@given(st.sets(st.integers(1, 3)))
def test_each_voucher_is_either_there_or_missing(there: set[int]) -> None:
    result = compare(VOUCHERS, found(*(v for v in VOUCHERS if v.sequence in there)))
    assert {voucher.sequence for voucher in result.missing} == {1, 2, 3} - there
    assert result.present == len(there)
    assert result.complete == (there == {1, 2, 3})
