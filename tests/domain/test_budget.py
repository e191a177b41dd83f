"""How many requests a client reserves at a time, and what a month will come to."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvitt.domain.budget import forecast, next_lot

NOVEMBER = date(2026, 11, 1)


@given(st.integers(0, 10**6), st.integers(1, 8))
def test_a_lot_is_never_empty_nor_larger_than_what_was_spent_already(
    spent: int, first: int
) -> None:
    assert 1 <= next_lot(spent, first=first) <= max(spent, first)


@given(st.integers(1, 100_000))
def test_the_ledger_is_asked_ever_more_rarely(requests: int) -> None:
    spent = asked = 0
    while spent < requests:
        spent += next_lot(spent, first=8)
        asked += 1
    assert asked <= 6 + requests / 128


@given(st.integers(0, 10**6), st.datetimes(datetime(2026, 11, 1), datetime(2026, 12, 31)))  # noqa: DTZ001 - hypothesis adds the zone
def test_a_month_never_comes_to_less_than_was_spent(spent: int, at: datetime) -> None:
    assert forecast(spent, month=NOVEMBER, at=at.replace(tzinfo=UTC)) >= spent


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (datetime(2026, 11, 1, 0, 1, tzinfo=UTC), 3000),  # less than a day says nothing yet
        (datetime(2026, 11, 2, tzinfo=UTC), 3000),
        (datetime(2026, 11, 16, tzinfo=UTC), 200),
        (datetime(2026, 12, 24, tzinfo=UTC), 100),
    ],
)
def test_a_month_goes_on_at_the_pace_that_it_has(at: datetime, expected: int) -> None:
    assert forecast(100, month=NOVEMBER, at=at) == expected


def test_a_month_begins_and_ends_in_utc() -> None:
    oslo_new_year = datetime(2027, 1, 1, tzinfo=UTC) - timedelta(hours=1)
    assert forecast(744, month=date(2026, 12, 1), at=oslo_new_year) == 745
