"""The calendar has neither gap nor overlap, whatever the clocks of a country do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect.server.schemas.schedules import CronSchedule

from kvitt.domain.calendar import (
    check_cron,
    due_before,
    due_times,
    due_times_between,
    first_due,
    lacking,
)

OSLO, NEW_YORK, LORD_HOWE = "Europe/Oslo", "America/New_York", "Australia/Lord_Howe"

# Moments around which the clocks of one of the zones change; Lord Howe's by half an hour.
CHANGES = [
    datetime(2026, 3, 29, 1, tzinfo=UTC),
    datetime(2026, 10, 25, 1, tzinfo=UTC),
    datetime(2026, 3, 8, 7, tzinfo=UTC),
    datetime(2026, 11, 1, 6, tzinfo=UTC),
    datetime(2026, 4, 4, 15, tzinfo=UTC),
    datetime(2026, 10, 3, 15, 30, tzinfo=UTC),
]
zones = st.sampled_from([OSLO, NEW_YORK, LORD_HOWE])
crons = st.sampled_from(
    [
        "0 6 * * *",
        "30 6 * * 1-5",
        "15 * * * *",
        "*/7 * * * *",
        "*/20 1-3 * * *",
        "30 1 * * *",
        "45 1 * * *",
        "0 2 * * *",
        "15 2 * * *",
        "30 2 * * *",
        "0 3 * * *",
        "10,50 2,3 * * *",
        "0 0 1 * *",
        "30 2 * * 0",
        "0 */5 * * *",
    ]
)
moments = st.builds(
    lambda change, minutes, seconds: change + timedelta(minutes=minutes, seconds=seconds),
    st.sampled_from(CHANGES),
    st.integers(-3 * 24 * 60, 24 * 60),
    st.integers(0, 59),
)


def oslo(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def some(cron: str, zone: str, after: datetime, number: int = 60) -> list[datetime]:
    return list(islice(due_times(cron, zone, after=after), number))


@given(crons, zones, moments)
def test_due_times_are_later_each_and_lie_on_minutes(cron: str, zone: str, after: datetime) -> None:
    found = some(cron, zone, after)
    assert all(earlier < later for earlier, later in pairwise([after, *found]))
    assert all(due.second == due.microsecond == 0 for due in found)
    assert all(due.tzinfo is UTC for due in found)


@given(crons, zones, moments, st.integers(0, 40))
def test_a_calendar_written_on_from_any_due_time_is_the_same(
    cron: str, zone: str, after: datetime, place: int
) -> None:
    found = some(cron, zone, after)
    assert some(cron, zone, found[place], 15) == found[place + 1 : place + 16]


@given(crons, zones, moments)
def test_the_due_time_before_is_the_one_that_came_before(
    cron: str, zone: str, after: datetime
) -> None:
    for opens, due in pairwise(some(cron, zone, after)):
        assert due_before(cron, zone, due=due) == opens


@given(crons, zones, moments, st.integers(1, 3 * 24 * 60), st.integers(1, 3 * 24 * 60))
def test_two_intervals_hold_what_the_whole_holds(
    cron: str, zone: str, after: datetime, first: int, second: int
) -> None:
    middle = after + timedelta(minutes=first)
    until = middle + timedelta(minutes=second)
    parts = [
        *due_times_between(cron, zone, after=after, until=middle),
        *due_times_between(cron, zone, after=middle, until=until),
    ]
    assert parts == due_times_between(cron, zone, after=after, until=until)


@given(crons, zones, moments)
def test_the_first_due_time_may_be_the_asked_one(cron: str, zone: str, after: datetime) -> None:
    due = first_due(cron, zone, at_or_after=after)
    assert due >= after
    assert first_due(cron, zone, at_or_after=due) == due
    assert due == some(cron, zone, after - timedelta(microseconds=1), 1)[0]


def test_a_time_that_spring_skips_comes_right_after_the_gap() -> None:
    found = some("30 2 * * *", OSLO, oslo("2026-03-28T12:00+01:00"), 2)
    assert found == [oslo("2026-03-29T03:00+02:00"), oslo("2026-03-30T02:30+02:00")]


def test_a_time_that_autumn_repeats_comes_once() -> None:
    found = some("30 2 * * *", OSLO, oslo("2026-10-24T12:00+02:00"), 2)
    assert found == [oslo("2026-10-25T02:30+02:00"), oslo("2026-10-26T02:30+01:00")]


def test_each_hour_is_each_real_hour() -> None:
    day = some("15 * * * *", OSLO, oslo("2026-10-24T23:59+02:00"), 25)
    assert day[-1] == oslo("2026-10-25T23:15+01:00")
    assert {later - earlier for earlier, later in pairwise(day)} == {timedelta(hours=1)}


async def lacking_in_prefect(cron: str, since: str, until: str) -> list[datetime]:
    """Return what Prefect's own schedule lacks of the calendar in Oslo, in between."""
    start, end = oslo(since), oslo(until)
    due = due_times_between(cron, OSLO, after=start - timedelta(microseconds=1), until=end)
    return lacking(
        due, await CronSchedule(cron=cron, timezone=OSLO).get_dates(start=start, end=end)
    )


async def test_prefect_lacks_the_hour_that_autumn_repeats() -> None:
    day = "2026-10-25T00:00+02:00", "2026-10-25T06:00+01:00"
    assert await lacking_in_prefect("15 * * * *", *day) == [oslo("2026-10-25T02:15+01:00")]
    assert len(await lacking_in_prefect("*/15 * * * *", *day)) == 4
    assert await lacking_in_prefect("30 2 * * *", *day) == []


async def test_prefect_has_another_time_for_one_that_spring_skips() -> None:
    day = "2026-03-29T00:00+01:00", "2026-03-29T06:00+02:00"
    assert await lacking_in_prefect("30 2 * * *", *day) == [oslo("2026-03-29T03:00+02:00")]
    assert await lacking_in_prefect("15 * * * *", *day) == []


async def test_prefect_lacks_nothing_on_a_day_like_others() -> None:
    day = "2026-06-01T00:00+02:00", "2026-06-02T00:00+02:00"
    assert await lacking_in_prefect("*/20 1-3 * * *", *day) == []


def test_a_morning_stays_a_morning_when_the_clocks_change() -> None:
    found = some("0 6 * * *", OSLO, oslo("2026-10-24T05:00+02:00"), 2)
    assert found == [oslo("2026-10-24T06:00+02:00"), oslo("2026-10-25T06:00+01:00")]


@pytest.mark.parametrize(
    ("cron", "problem"),
    [
        ("0 6 * *", "no cron expression of five fields"),
        ("61 6 * * *", "no cron expression of five fields"),
        ("each morning", "no cron expression of five fields"),
        ("", "no cron expression of five fields"),
        ("0 6 * * * *", "no cron expression of five fields"),
        ("0 6 31 2 *", "never comes due|no cron expression"),
    ],
)
def test_what_is_no_schedule_is_refused(cron: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        check_cron(cron)


def test_the_rarest_schedule_is_one() -> None:
    assert check_cron("0 0 29 2 *") == "0 0 29 2 *"
