"""How many warm answers are wanted, and how long a failed start is waited for."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvitt.domain.warmth import MOST_ANSWERS, Habit, Warming

HABITS = st.builds(
    Habit,
    boots=st.integers(min_value=0, max_value=1000),
    boot_seconds=st.floats(min_value=0, max_value=500),
)
PINGS = st.lists(st.sampled_from(["warm", "boot", "failure"]), max_size=60)


def after(pings: list[str], habit: Habit = Habit()) -> Warming:  # noqa: B008 - it is frozen
    warming = Warming(habit=habit)
    for ping in pings:
        {"warm": warming.met_warm, "boot": warming.met_boot, "failure": warming.met_failure}[ping]()
    return warming


@pytest.mark.parametrize(
    ("boots_before", "pings"),
    [
        (0, ["warm"]),
        (1, ["boot", "warm"]),
        (1, ["failure", "failure", "boot", "warm"]),
        (3, ["warm", "warm", "warm"]),
        (0, ["boot", "boot", "boot", "warm", "warm", "warm"]),
        (0, ["boot", "warm"]),
        (2, ["warm", "boot", "warm", "warm"]),
    ],
)
def test_it_is_warm_after_as_many_answers_as_workers_were_seen(
    boots_before: int, pings: list[str]
) -> None:
    habit = Habit(boots=boots_before)
    assert after(pings, habit).warm
    assert not after(pings[:-1], habit).warm


@given(HABITS, PINGS)
def test_it_is_never_warm_right_after_a_cold_start(habit: Habit, pings: list[str]) -> None:
    assert not after([*pings, "boot"], habit).warm
    assert not after([*pings, "failure"], habit).warm


@given(HABITS, PINGS)
def test_five_warm_answers_are_enough_whatever_was_before(habit: Habit, pings: list[str]) -> None:
    assert after([*pings, *["warm"] * MOST_ANSWERS], habit).warm


@given(HABITS, st.integers(min_value=2, max_value=100))
def test_a_pause_is_as_long_as_a_boot_and_grows_to_ten_seconds(habit: Habit, number: int) -> None:
    warming = Warming(habit=habit)
    pauses = [warming.met_failure() for _ in range(number)]
    assert all(1 <= shorter <= longer <= 10 for shorter, longer in pairwise(pauses))
    assert pauses[0] == min(max(habit.boot_seconds, 1), 10)
    warming.met_boot()
    assert warming.met_failure() == pauses[0]
