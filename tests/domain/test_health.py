"""How long to wait before the next probe, and who is probed at all."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvitt.domain.health import (
    BETWEEN_PROBES,
    FIRST_COOL_DOWN,
    HEADINGS,
    INTERVAL,
    LONGEST_BACK_OFF,
    LONGEST_COOL_DOWN,
    PROBES_A_MONTH,
    Connection,
    Mode,
    ModeChange,
    State,
    as_markdown,
    as_rows,
    cool_down,
    default_mode,
    wait_before_next_probe,
)
from kvitt.domain.patience import LONGEST_WISH
from tests.cast import HOUR, MINUTE

NOW = datetime(2026, 11, 25, 8, tzinfo=UTC)
counts = st.integers(0, 10_000)
chances = st.floats(0, 1, exclude_max=True)
wishes = st.none() | st.timedeltas(timedelta(0), timedelta(days=400))


def connection(**changes: Any) -> Connection:
    return Connection(vendor="xledger", connection="nordvest", now=NOW, **changes)


# -- waiting ---------------------------------------------------------------------------------------


def test_it_is_probed_three_times_at_the_usual_pace_then_ever_more_rarely() -> None:
    waits = [wait_before_next_probe(failures, chance=0) for failures in range(1, 9)]
    quarters = [(wait + MINUTE) / INTERVAL for wait in waits]
    assert quarters == [1, 1, 2, 4, 8, 16, 16, 16]


@given(counts, wishes, chances)
def test_the_next_probe_is_never_too_early_and_never_far_away(
    failures: int, wish: timedelta | None, chance: float
) -> None:
    wait = wait_before_next_probe(failures, wish=wish, chance=chance)
    asked = min(wish or timedelta(0), LONGEST_WISH)
    assert max(BETWEEN_PROBES, asked) <= wait <= max(LONGEST_BACK_OFF, asked)


@given(counts, wishes, chances)
def test_one_failure_more_is_never_answered_with_a_shorter_wait(
    failures: int, wish: timedelta | None, chance: float
) -> None:
    one, more = (
        wait_before_next_probe(number, wish=wish, chance=chance)
        for number in (failures, failures + 1)
    )
    assert one <= more


@given(st.integers(4, 10_000), chances, chances)
def test_those_that_failed_together_do_not_come_back_together(
    failures: int, one: float, other: float
) -> None:
    waits = [wait_before_next_probe(failures, chance=chance) for chance in (one, other)]
    assert (waits[0] == waits[1]) == (abs(one - other) < 1e-9)


def test_cool_downs_double_up_to_a_day() -> None:
    hours = [cool_down(before, chance=0) / HOUR for before in range(7)]
    assert hours == [1, 2, 4, 8, 16, 24, 24]


@given(counts, wishes, chances)
def test_a_cool_down_lasts_as_long_as_the_vendor_asks(
    before: int, wish: timedelta | None, chance: float
) -> None:
    length = cool_down(before, wish=wish, chance=chance)
    asked = min(wish or timedelta(0), LONGEST_WISH)
    assert max(FIRST_COOL_DOWN, asked) <= length
    assert length <= max(LONGEST_COOL_DOWN, asked) + LONGEST_COOL_DOWN / 2


def test_cool_downs_count_in_a_row_until_a_day_was_calm() -> None:
    since = {"mode": Mode.ACTIVE, "cool_downs": 3}
    assert connection(**since, mode_since=NOW - 23 * HOUR).cool_downs_in_a_row == 3
    assert connection(**since, mode_since=NOW - 24 * HOUR).cool_downs_in_a_row == 0
    under_way = {**since, "mode": Mode.PASSIVE, "mode_since": NOW - 48 * HOUR}
    assert connection(**under_way).cool_downs_in_a_row == 2
    by_hand = {**under_way, "cool_downs": 0}
    assert connection(**by_hand).cool_downs_in_a_row == 0


# -- the default -----------------------------------------------------------------------------------


def test_where_probes_would_eat_the_allowance_passive_is_the_default_and_says_why() -> None:
    """backend.ai #14720: readiness probes alone exceeded the limit."""
    mode, reason = default_mode(5_000, 0.05)
    assert mode is Mode.PASSIVE
    assert reason == (
        "by default: a probe each 15 minutes is 2,976 requests a month, more than 5% of the 5,000 "
        "that it may spend"
    )
    assert default_mode(None, 0.05)[0] is Mode.ACTIVE


@given(st.none() | st.integers(1, 10**9), st.floats(0, 1))
def test_by_default_probes_never_take_more_than_their_share(
    requests: int | None, share: float
) -> None:
    mode, reason = default_mode(requests, share)
    fits = requests is None or requests * share >= PROBES_A_MONTH
    assert (mode is Mode.ACTIVE) == fits
    assert reason


def test_a_default_changes_with_the_budget_and_never_what_somebody_has_said() -> None:
    new = connection(requests=5_000, probe_share=0.05)
    default = new.changed_default
    assert default is not None
    assert default["mode"] is Mode.PASSIVE
    as_it_is = {"mode": Mode.PASSIVE, "mode_reason": default["reason"], "by_default": True}
    assert connection(requests=5_000, probe_share=0.05, **as_it_is).changed_default is None
    richer = connection(requests=100_000, probe_share=0.05, **as_it_is).changed_default
    assert richer is not None
    assert richer["mode"] is Mode.ACTIVE
    told = {**as_it_is, "by_default": False}
    assert connection(requests=100_000, probe_share=0.05, **told).changed_default is None


# -- for people ------------------------------------------------------------------------------------


def test_the_table_begins_with_what_needs_somebody() -> None:
    well = connection(state=State.HEALTHY, mode=Mode.ACTIVE, by_default=True, next_probe_at=NOW)
    ill = well.model_copy(
        update={"connection": "tour", "state": State.UNHEALTHY, "why": "HTTP 503 | away"}
    )
    rows = as_rows([well, ill])
    assert [row[0] for row in rows] == ["xledger/tour", "xledger/nordvest"]
    assert rows[1] == ("xledger/nordvest", "active", "healthy", "", "", "2026-11-25 08:00")
    assert "HTTP 503 / away" in as_markdown([ill])


@pytest.mark.parametrize(
    ("trial_at", "shown"), [(None, "none"), (NOW + HOUR, "2026-11-25 09:00 (trial)")]
)
def test_a_passive_one_says_who_since_when_why_and_whether_it_ends(
    trial_at: datetime | None, shown: str
) -> None:
    [row] = as_rows(
        [
            connection(
                mode=Mode.PASSIVE,
                mode_by="kari",
                mode_reason="it is moved",
                mode_since=NOW,
                trial_at=trial_at,
                next_probe_at=NOW,
            )
        ]
    )
    assert row[1] == "passive since 2026-11-25 08:00 by kari: it is moved"
    assert row[2] == "unknown"
    assert row[5] == shown


def test_what_a_person_wrote_on_two_lines_stays_in_its_row_of_the_table() -> None:
    told = connection(
        mode=Mode.PASSIVE, mode_by="kari", mode_reason="moved\n| by us", mode_since=NOW
    )
    assert as_markdown([told]).splitlines()[2].count("|") == len(HEADINGS) + 1


def test_a_change_of_mode_says_it_in_a_sentence() -> None:
    change = ModeChange(
        id=1,
        vendor="xledger",
        connection=None,
        was=None,
        became=Mode.PASSIVE,
        reason="a busy month",
        who="kari",
        changed_at=NOW,
    )
    told = "all connections of xledger: passive, by kari: a busy month"
    assert change.payload()["text"] == told
