"""A period's names: the key that makes it one, and the reference that fits into the books."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from kvitt.domain.periods import Period, PeriodState, key_of, reference_of
from tests.cast import CAST, FJORDBY, MINUTE, NORDVEST

DUE = datetime(2026, 11, 24, 5, tzinfo=UTC)
EPOCH = datetime(2020, 1, 1, tzinfo=UTC)
minutes = st.integers(0, 36**5 - 1).map(lambda minute: EPOCH + minute * MINUTE)
identifiers = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)


def test_the_key_names_integration_and_due_time_in_utc() -> None:
    oslo = DUE.astimezone(timezone(timedelta(hours=1)))
    assert key_of(NORDVEST.id, oslo) == key_of(NORDVEST.id, DUE)
    assert key_of(NORDVEST.id, DUE) == "nordvest-xledger@2026-11-24T05:00Z"


@given(identifiers, minutes)
def test_a_reference_has_nine_plain_characters_and_is_always_the_same(
    integration: str, due_at: datetime
) -> None:
    reference = reference_of(integration, due_at)
    assert re.fullmatch("[A-Z0-9]{9}", reference)
    assert reference_of(integration, due_at.astimezone(timezone(timedelta(hours=-5)))) == reference


@given(identifiers, minutes, minutes)
def test_two_periods_of_an_integration_never_share_a_reference(
    integration: str, one: datetime, two: datetime
) -> None:
    same = reference_of(integration, one) == reference_of(integration, two)
    assert same == (one == two)


def test_neighbouring_minutes_have_neighbouring_references() -> None:
    names = [reference_of(NORDVEST.id, DUE + n * MINUTE) for n in range(100)]
    assert names == sorted(set(names))


def test_the_integrations_of_the_cast_have_references_of_their_own() -> None:
    assert len({reference_of(who.id, DUE) for who in CAST}) == len(CAST)


def test_references_stay_what_they_are_in_books_that_are_written_already() -> None:
    assert reference_of(NORDVEST.id, DUE) == "O6O725R4C"
    assert reference_of(FJORDBY.id, DUE) == "QJMH25R4C"


def test_a_period_knows_its_reference_and_when_it_is_finished() -> None:
    period = Period(
        integration_id=FJORDBY.id,
        key=key_of(FJORDBY.id, DUE),
        opens_at=DUE - timedelta(days=1),
        due_at=DUE,
        state=PeriodState.DUE,
        fence=0,
    )
    assert period.reference == reference_of(FJORDBY.id, DUE)
    finished = {state for state in PeriodState if state.finished}
    assert finished == {PeriodState.VERIFIED, PeriodState.SKIPPED}
