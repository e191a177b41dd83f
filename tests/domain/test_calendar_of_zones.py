"""The calendar of each zone whose clocks do something unusual, against a count of the minutes.

The other computation uses no cron library: it counts the minutes of real time, reads the clock on
the wall, and decides by Debian cron's rules whether a job is due.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvitt.domain.calendar import due_before, due_times, due_times_between

# Minutes since 2024 began. Seven years, with a day more at each end.
EPOCH = datetime(2024, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
END = (datetime(2031, 1, 1, tzinfo=UTC) - EPOCH) // MINUTE
DAY = 24 * 60

# Half-hour and two-hour shifts, southern summers, Ramadan, midnight, shifts that were given up.
ZONES = [
    "Europe/Oslo",
    "Europe/London",
    "America/New_York",
    "America/St_Johns",
    "America/Santiago",
    "America/Havana",
    "America/Nuuk",
    "Australia/Lord_Howe",
    "Australia/Adelaide",
    "Pacific/Apia",
    "Pacific/Chatham",
    "Africa/Casablanca",
    "Africa/Cairo",
    "Asia/Gaza",
    "Asia/Beirut",
    "Asia/Tehran",
    "Asia/Kathmandu",
    "Antarctica/Troll",
    "UTC",
]

# The last day of a month, as cronsim writes it, and the end of that day.
LAST_DAY, MONTH_END = "0 0 L * *", "0 0 1 * *"


@cache
def stretches(zone: str) -> list[tuple[int, int, int]]:
    """Return the stretches of time in which a zone's clocks do not change: from, to, offset."""
    there, found, since = ZoneInfo(zone), list[tuple[int, int, int]](), -DAY
    offset = _offset(there, since)
    for minute in range(-DAY, END + DAY, 15):  # the zones' rules know no finer times
        if (new := _offset(there, minute)) != offset:
            found.append((since, minute, offset))
            since, offset = minute, new
    return [*found, (since, END + DAY, offset)]


def _offset(zone: ZoneInfo, minute: int) -> int:
    shift = (EPOCH + minute * MINUTE).astimezone(zone).utcoffset()
    assert shift is not None
    return shift // MINUTE


def each(minutes: int, zone: str, since: int = 0, until: int = END) -> list[int]:
    """Return the minutes at which a job with `*` in the hour is due: each that shows it."""
    return [
        minute
        for begins, ends, offset in stretches(zone)
        for minute in range(max(begins, since + 1), min(ends, until))
        if (minute + offset) % minutes == 0
    ]


def at(time: int, zone: str) -> list[int]:
    """Return the minutes at which a job at one time of the day is due: once on each day.

    Where the clock skips the time, right after the gap. Where it shows it twice, the first time.
    """
    found: list[int] = []
    shown = -2 * DAY  # how far the clock on the wall has come
    for begins, ends, offset in stretches(zone):
        skipped = range(shown + 1, begins + offset)
        if found and any(wall % DAY == time for wall in skipped):
            found.append(begins)
        first = begins + (time - begins - offset) % DAY
        found += [m for m in range(first, ends, DAY) if m + offset > shown]
        shown = max(shown, ends + offset - 1)
    return [minute for minute in found if 0 < minute < END]


@cache
def half_past_two(zone: str) -> list[int]:
    return at(150, zone)


def changes(zone: str) -> list[int]:
    return [begins for begins, _, _ in stretches(zone)[1:] if 2 * DAY < begins < END - 2 * DAY]


def computed(cron: str, zone: str, since: int = 0, until: int = END) -> list[int]:
    after, last = EPOCH + since * MINUTE, EPOCH + (until - 1) * MINUTE
    return [
        (due - EPOCH) // MINUTE for due in due_times_between(cron, zone, after=after, until=last)
    ]


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize(("cron", "minutes"), [("0 * * * *", 60), ("*/15 * * * *", 15)])
def test_each_is_each_in_real_time_around_all_changes_of_seven_years(
    zone: str, cron: str, minutes: int
) -> None:
    for change in changes(zone):
        since, until = change - DAY, change + DAY
        assert computed(cron, zone, since, until) == each(minutes, zone, since, until)


def test_each_hour_is_each_real_hour_for_seven_years() -> None:
    assert computed("0 * * * *", "Europe/Oslo") == each(60, "Europe/Oslo")


@pytest.mark.parametrize("zone", ZONES)
def test_half_past_two_comes_once_a_day_for_seven_years(zone: str) -> None:
    found = computed("30 2 * * *", zone)
    assert found == at(150, zone)
    assert len(found) == END // DAY


@pytest.mark.parametrize("zone", ZONES)
def test_the_end_of_the_month_comes_once_a_month_for_seven_years(zone: str) -> None:
    midnights = at(0, zone)
    offsets = {m: o for begins, ends, o in stretches(zone) for m in midnights if begins <= m < ends}
    on_wall = {m: EPOCH + (m + offsets[m]) * MINUTE for m in midnights}
    firsts = [m for m in midnights if on_wall[m].day == 1]
    lasts = [m for m in midnights if (on_wall[m] + DAY * MINUTE).day == 1]
    assert computed(MONTH_END, zone) == firsts
    assert computed(LAST_DAY, zone) == lasts
    # The zone says whether a first or last one lies just outside of the seven years.
    assert {len(firsts), len(lasts)} <= {83, 84}


@given(data=st.data())
@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("cron", ["0 */6 * * *", "30 2 * * *"])
def test_what_is_due_does_not_hang_on_where_it_is_asked_from(
    zone: str, cron: str, data: st.DataObject
) -> None:
    begins = data.draw(st.sampled_from(changes(zone) or [END // 2]))
    since = begins + data.draw(st.integers(-DAY, DAY))
    until = since + 3 * DAY
    oracle = each(360, zone, since, until) if "*/6" in cron else half_past_two(zone)
    assert computed(cron, zone, since, until) == [m for m in oracle if since < m < until]


@pytest.mark.parametrize(
    ("after", "then"),
    [("2024-04-06T15:01:26Z", "2024-04-06T19:30Z"), ("2024-10-05T15:30:32Z", "2024-10-05T19:00Z")],
)
def test_a_change_by_half_an_hour_just_now_hides_nothing(after: str, then: str) -> None:
    due = due_times("0 */6 * * *", "Australia/Lord_Howe", after=datetime.fromisoformat(after))
    assert next(due) == datetime.fromisoformat(then)


@pytest.mark.parametrize("zone", ZONES)
def test_each_period_opens_when_the_one_before_it_is_due(zone: str) -> None:
    for cron in ("30 2 * * *", "*/15 * * * *"):
        for change in changes(zone)[:4]:
            due = [
                EPOCH + m * MINUTE for m in computed(cron, zone, change - DAY // 4, change + DAY)
            ]
            for opens, closes in pairwise(due):
                assert due_before(cron, zone, due=closes) == opens
