"""A record is refused where it enters, with words that say what is wrong with it."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from kvitt.domain.integrations import Integration
from kvitt.domain.money import is_exact, minor_units
from kvitt.domain.records import Record, as_taken
from tests.cast import NORDVEST, claim_for_travel, claim_from_abroad, invoice_for_posters

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
TRAVEL = claim_for_travel(NORDVEST.id, 1, NOON)
amounts = st.decimals("0.01", "99999999.99", places=2)


def changed(**changes: Any) -> dict[str, Any]:
    return {**TRAVEL.model_dump(mode="json", exclude_none=True), **changes}


def lines(*amounts: Any, **other: Any) -> list[dict[str, Any]]:
    return [{"account": "travel", "amount": amount, **other} for amount in amounts]


def problems(record: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as refused:
        Record.model_validate(record)
    return "; ".join(
        ".".join(map(str, [*error["loc"], error["msg"]])) for error in refused.value.errors()
    )


@pytest.mark.parametrize(
    "record", [TRAVEL, claim_from_abroad("a", 2, NOON), invoice_for_posters("a", 3, NOON)]
)
def test_what_the_cast_hands_in_passes_and_is_the_same_after_a_journey(record: Record) -> None:
    assert Record.model_validate_json(record.model_dump_json()) == record


@given(st.lists(amounts, min_size=1, max_size=20))
def test_lines_that_sum_to_nothing_balance_to_the_last_cent(debits: list[Decimal]) -> None:
    record = Record.model_validate(changed(lines=lines(*debits, -sum(debits, Decimal(0)))))
    assert sum(line.amount for line in record.lines) == 0


@given(st.lists(amounts, min_size=1, max_size=20), amounts)
def test_lines_that_sum_to_something_say_how_much(debits: list[Decimal], off: Decimal) -> None:
    assume(off != sum(debits))
    record = changed(lines=lines(*debits, off - sum(debits, Decimal(0))))
    assert f"its lines sum to {off:f} NOK, and must sum to 0" in problems(record)


def test_tenths_that_binary_floats_cannot_add_do_balance() -> None:
    Record.model_validate(changed(lines=lines("0.1", "0.2", "-0.3")))


def test_a_binary_float_is_refused_at_its_line() -> None:
    said = problems(changed(lines=lines("0.1", 0.2, "-0.3")))
    assert said.startswith("lines.1.amount.")
    assert "write amounts as strings" in said


def test_a_line_of_nothing_is_refused() -> None:
    assert "lines.1.Value error, a line of 0 books nothing" in problems(
        changed(lines=lines("1", "0.00", "-1"))
    )


def test_an_amount_of_more_decimals_than_any_rule_rounds_is_refused() -> None:
    said = problems(changed(lines=lines("0.000000001", "-0.000000001")))
    assert "0.000000001 has more than 8 decimals" in said


def test_an_amount_that_no_books_can_hold_is_refused() -> None:
    assert "larger than an amount can be" in problems(changed(lines=lines("1e30", "-1e30")))


def test_one_line_is_no_voucher() -> None:
    assert "a voucher has two lines at least" in problems(changed(lines=lines("1")))


def test_book_amounts_balance_by_themselves() -> None:
    foreign = [
        {"account": "travel", "amount": a, "book_amount": b}
        for a, b in (("1", "11.63"), ("-1", "-11.64"))
    ]
    assert "its lines sum to -0.01 in the books" in problems(changed(currency="EUR", lines=foreign))


def test_book_amounts_are_given_on_all_lines_or_on_none() -> None:
    mixed = [*lines("1", book_amount="11.63"), *lines("-1")]
    assert "book_amount is given on some lines only" in problems(
        changed(currency="EUR", lines=mixed)
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"currancy": "NOK"}, "currancy.Extra inputs are not permitted"),
        ({"lines": lines("1", "-1", acount="travel")}, "lines.0.acount.Extra inputs"),
        ({"currency": "kroner"}, "currency.String should match"),
        ({"approved_at": "2026-11-23T12:00:00"}, "approved_at.Input should have timezone info"),
        ({"id": ""}, "id.String should have at least 1 character"),
        ({"id": "x" * 101}, "id.String should have at most 100 characters"),
        ({"integration": "Nordvest"}, "integration.String should match"),
        ({"voucher_date": "24.11.2026"}, "voucher_date.Input should be a valid date"),
        ({"lines": lines("1", "-1", account=" ")}, "lines.0.account.String should have at least 1"),
    ],
)
def test_what_is_wrong_is_named_by_its_field(change: dict[str, Any], said: str) -> None:
    assert said in problems(changed(**change))


def test_an_account_that_was_written_as_a_number_is_a_code() -> None:
    record = Record.model_validate(changed(lines=lines("1", "-1", account=7140)))
    assert record.lines[0].account == "7140"


# -- as the ledger keeps them ----------------------------------------------------------------------

ROUNDING = {"account": "7770", "text": "Avrunding"}
finer = st.decimals("0.01", "99999.99", places=5)


def integration(rule: dict[str, str] | None, books: str = "NOK") -> Integration:
    told = {**NORDVEST.model_dump(), "book_currency": books, "mapping": {"rounding": rule}}
    return Integration.model_validate(told)


def refusal(record: dict[str, Any], rule: dict[str, str] | None = None) -> str:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - what it says is looked at below
        as_taken(Record.model_validate(record), integration(rule))
    return str(refused.value)


def converted(amounts: list[Decimal], rate: Decimal) -> dict[str, Any]:
    """Return a claim in euro, each line converted by itself to more decimals than kroner have."""
    given = [*amounts, -sum(amounts, Decimal(0))]
    return changed(
        currency="EUR",
        lines=[{"account": "a", "amount": a, "book_amount": a * rate} for a in given],
    )


def test_without_a_rule_an_amount_finer_than_its_currency_is_refused() -> None:
    assert "line 1 has 0.001 NOK, finer" in refusal(changed(lines=lines("0.001", "-0.001")))
    assert "line 1 has 1.1634 NOK, finer" in refusal(converted([Decimal("0.1")], Decimal("11.634")))


def test_a_rule_rounds_what_is_booked_and_not_what_was_paid_abroad() -> None:
    paid = changed(
        currency="EUR",
        lines=[*lines("0.001", book_amount="0.01"), *lines("-0.001", book_amount="-0.01")],
    )
    assert "line 1 has 0.001 EUR, finer" in refusal(paid, ROUNDING)


def test_what_rounds_to_nothing_is_refused() -> None:
    said = refusal(changed(lines=lines("1.004", "-0.004", "-1")), ROUNDING)
    assert "line 2 has -0.004 NOK, which rounds to 0" in said


def test_the_difference_is_a_line_on_the_account_that_the_rule_names() -> None:
    record = Record.model_validate(changed(lines=lines("1.005", "1.005", "-2.01")))
    *_, owed, difference = as_taken(record, integration(ROUNDING)).lines
    assert (owed.amount, difference.amount) == (Decimal("-2.01"), Decimal("-0.01"))
    assert (difference.account, difference.text, difference.number) == ("7770", "Avrunding", 4)


def test_a_difference_from_converting_is_nothing_in_the_claims_own_currency() -> None:
    record = Record.model_validate(converted([Decimal("0.5"), Decimal("0.5")], Decimal("11.63")))
    *_, difference = as_taken(record, integration(ROUNDING)).lines
    assert (difference.amount, difference.book_amount) == (Decimal(0), Decimal("-0.01"))


@given(st.lists(finer, min_size=1, max_size=20), st.sampled_from(["NOK", "JPY", "BHD", "CLF"]))
def test_a_rounded_voucher_balances_and_is_as_fine_as_its_currency(
    debits: list[Decimal], books: str
) -> None:
    assume(all(round(debit, minor_units(books)) for debit in debits))
    told = changed(currency=books, lines=lines(*debits, -sum(debits, Decimal(0))))
    record = Record.model_validate(told)
    kept = as_taken(record, integration(ROUNDING, books)).lines
    assert sum(line.amount for line in kept) == sum(line.book_amount for line in kept) == 0
    assert all(line.amount == line.book_amount and is_exact(line.amount, books) for line in kept)
    unit = Decimal(1).scaleb(-minor_units(books))
    for given_line, line in zip(record.lines, kept, strict=False):
        assert abs(line.amount - given_line.amount) <= unit / 2
    assert len(kept) - len(record.lines) in (0, 1)


@given(st.lists(amounts, min_size=1, max_size=20), st.decimals("0.01", "20", places=5))
def test_a_converted_voucher_balances_in_both_currencies(
    debits: list[Decimal], rate: Decimal
) -> None:
    record = Record.model_validate(converted(debits, rate))
    assume(all(abs(line.book_amount or 0) >= Decimal("0.005") for line in record.lines))
    kept = as_taken(record, integration(ROUNDING)).lines
    assert sum(line.amount for line in kept) == sum(line.book_amount for line in kept) == 0
    assert all(is_exact(line.book_amount, "NOK") for line in kept)
    assert [line.amount for line in kept[: len(record.lines)]] == [x.amount for x in record.lines]


@given(st.lists(amounts, min_size=1, max_size=20), st.sampled_from([None, ROUNDING]))
def test_what_is_fine_enough_is_not_touched_rule_or_not(
    debits: list[Decimal], rule: dict[str, str] | None
) -> None:
    record = Record.model_validate(changed(lines=lines(*debits, -sum(debits, Decimal(0)))))
    kept = as_taken(record, integration(rule)).lines
    assert [line.amount for line in kept] == [line.amount for line in record.lines]
