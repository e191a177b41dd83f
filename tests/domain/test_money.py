"""Amounts stay what they are, to the last digit."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvitt.domain.money import Totals, checksum_of, is_exact, parse_amount

# Fifteen digits before the point: more than any books hold.
amounts = st.decimals(-(10**14 - 1), 10**14 - 1, places=4)
debits = st.decimals(0, 10**14 - 1, places=4)
currencies = st.sampled_from(["NOK", "EUR", "JPY", "KWD"])
totals = st.builds(
    Totals,
    vouchers=st.integers(0, 10**6),
    lines=st.integers(0, 10**6),
    booked=debits,
    original=st.none() | st.dictionaries(currencies, debits),
    checksum=st.integers(0, 2**60 - 1),
    staged=st.integers(0, 10**6),
)


def total(**shares: str) -> Totals:
    original = {currency: Decimal(amount) for currency, amount in shares.items()}
    return Totals(vouchers=1, lines=2, booked=Decimal(1), original=original)


@given(amounts)
def test_an_amount_is_read_as_it_is_written(amount: Decimal) -> None:
    assert parse_amount(str(amount)) == parse_amount(amount) == amount
    assert parse_amount(format(amount, "f")).as_tuple() == amount.as_tuple()


@pytest.mark.parametrize("value", [0.1, 12.0, float("nan"), True, False])
def test_a_binary_float_is_refused_before_it_can_be_wrong(value: object) -> None:
    with pytest.raises(ValueError, match="not exact: write amounts as strings"):
        parse_amount(value)


@pytest.mark.parametrize("value", ["", "12,50", "NOK 12", "NaN", "Infinity", "-inf", None, {}, []])
def test_what_is_no_amount_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="is no amount"):
        parse_amount(value)


@pytest.mark.parametrize("value", ["1e18", "-1000000000000000000", 10**30, "9" * 40])
def test_what_no_books_can_hold_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="larger than an amount can be"):
        parse_amount(value)


@pytest.mark.parametrize(
    ("amount", "currency", "exact"),
    [
        ("0.10", "NOK", True),
        ("0.100", "NOK", True),
        ("0.101", "NOK", False),
        ("1.5", "JPY", False),
        ("100", "JPY", True),
        ("0.123", "KWD", True),
        ("99999999999999.99", "NOK", True),
    ],
)
def test_an_amount_has_no_more_decimals_than_its_currency(
    amount: str,
    currency: str,
    exact: bool,  # noqa: FBT001 - a column of the table above
) -> None:
    assert is_exact(parse_amount(amount), currency) is exact


@given(totals, totals, totals)
def test_totals_add_up_in_any_order(one: Totals, two: Totals, three: Totals) -> None:
    assert one + two == two + one
    assert (one + two) + three == one + (two + three)


@given(totals)
def test_nothing_added_changes_nothing(one: Totals) -> None:
    assert one + Totals() == one


@given(totals)
def test_totals_survive_the_way_to_the_ledger_and_back(one: Totals) -> None:
    told = json.loads(json.dumps(one.as_json()), parse_float=Decimal)
    assert Totals.model_validate({"original": None, **told}) == one


def test_a_currency_that_only_one_side_has_is_kept() -> None:
    both = total(NOK="10.50", EUR="1") + total(NOK="0.25", SEK="7")
    assert both.original == {"NOK": Decimal("10.75"), "EUR": Decimal(1), "SEK": Decimal(7)}


def test_what_one_side_does_not_show_the_sum_does_not_show() -> None:
    blind = Totals(original=None)
    assert (total(NOK="1") + blind).original is None
    assert "original" not in blind.as_json()


def test_a_checksum_is_of_place_lines_and_amount_and_not_of_how_it_is_written() -> None:
    checksum = checksum_of(7, 2, Decimal("12.50"))
    assert checksum == checksum_of(7, 2, Decimal("12.5")) == checksum_of(7, 2, Decimal("1250E-2"))
    others = {
        checksum_of(8, 2, Decimal("12.5")),
        checksum_of(7, 3, Decimal("12.5")),
        checksum_of(7, 2, Decimal("12.05")),
    }
    assert len(others | {checksum}) == 4
    assert all(0 <= each < 2**60 for each in others)


def test_amounts_leave_as_plain_decimal_strings() -> None:
    large = Totals(booked=Decimal("1E+3"), original={"NOK": Decimal("0.10")})
    assert large.as_json() == {
        "vouchers": 0,
        "lines": 0,
        "booked": "1000",
        "original": {"NOK": "0.10"},
        "checksum": 0,
        "staged": 0,
    }
