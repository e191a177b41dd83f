"""A record is refused where it enters, with words that say what is wrong with it."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from kvitt.domain.records import Record
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


def test_an_amount_finer_than_its_currency_is_refused() -> None:
    assert "0.001 is finer than NOK is" in problems(changed(lines=lines("0.001", "-0.001")))
    assert "1.5 is finer than JPY is" in problems(
        changed(currency="JPY", lines=lines("1.5", "-1.5"))
    )


def test_an_amount_that_no_books_can_hold_is_refused() -> None:
    assert "larger than an amount can be" in problems(changed(lines=lines("1e30", "-1e30")))


def test_one_line_is_no_voucher() -> None:
    assert "lines.Tuple should have at least 2 items" in problems(changed(lines=lines("1")))


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
