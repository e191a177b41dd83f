"""Amounts pass through JSON without becoming binary floats."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from kvitt.vendors import exact_json

amounts = some.decimals(allow_nan=False, allow_infinity=False, places=4)
values = some.recursive(
    some.none() | some.booleans() | some.integers() | some.text() | amounts,
    lambda inner: some.lists(inner) | some.dictionaries(some.text(), inner),
)


@given(values)
def test_what_is_written_is_read_again(value: Any) -> None:
    assert exact_json.loads(exact_json.dumps(value)) == value


@given(values)
def test_what_is_written_is_json(value: Any) -> None:
    json.loads(exact_json.dumps(value))


@given(amounts)
def test_an_amount_keeps_each_digit_and_is_a_number(amount: Decimal) -> None:
    assert exact_json.dumps({"amount": amount}) == f'{{"amount":{amount:f}}}'


def test_a_float_is_refused() -> None:
    with pytest.raises(TypeError, match=r"0\.1 is a binary float"):
        exact_json.dumps([0.1])


@pytest.mark.parametrize("text", ["NaN", '{"amount": Infinity}', "", "<html>"])
def test_what_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json's own words
        exact_json.loads(text)
