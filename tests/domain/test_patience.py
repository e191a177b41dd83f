"""How long a period waits for who is away: longer each time, never too long, not all at once."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvitt.domain.patience import LONGEST_WISH, wait_before_next_try

FIRST, LONGEST = timedelta(minutes=5), timedelta(hours=1)
CHANCES = st.floats(0, 1)
TIMES = st.integers(0, 10**9)
WISHES = st.timedeltas(timedelta(0), timedelta(days=10_000))


def wait(postponed: int, *, wish: timedelta | None = None, chance: float = 0) -> timedelta:
    return wait_before_next_try(postponed, first=FIRST, longest=LONGEST, wish=wish, chance=chance)


def test_each_wait_is_twice_the_one_before_up_to_the_longest() -> None:
    assert [wait(times).total_seconds() / 60 for times in range(6)] == [5, 10, 20, 40, 60, 60]


@given(TIMES, CHANCES)
def test_a_wait_is_between_four_fifths_of_the_first_and_the_longest(
    postponed: int, chance: float
) -> None:
    assert FIRST * 0.8 <= wait(postponed, chance=chance) <= LONGEST


@given(TIMES, WISHES, CHANCES)
def test_a_vendor_is_never_asked_earlier_than_it_wished(
    postponed: int, wish: timedelta, chance: float
) -> None:
    waited = wait(postponed, wish=wish, chance=chance)
    assert waited >= min(wish, LONGEST_WISH)
    assert waited <= max(LONGEST, min(wish, LONGEST_WISH) + FIRST * 0.2)


def test_a_wish_beyond_a_month_is_a_mistake() -> None:
    assert wait(0, wish=timedelta(days=9999)) == timedelta(days=31)


@pytest.mark.parametrize("wish", [timedelta(0), timedelta(seconds=20)])
def test_a_short_wish_does_not_shorten_our_own_step(wish: timedelta) -> None:
    assert wait(3, wish=wish) == timedelta(minutes=40)


def test_two_hours_of_maintenance_cost_six_attempts_and_not_twenty_four() -> None:
    passed, attempts = timedelta(0), 1
    while passed < timedelta(hours=2):
        passed += wait(attempts - 1)
        attempts += 1
    assert attempts == 6  # the one that met it, four during it, and the one after it
