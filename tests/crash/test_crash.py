"""The crash matrix in its short form, and the proof that it can fail. `make crash` is the long one.

Without Prefect, whose server alone takes as long to start as all of this; tests/flows has it.
"""

from __future__ import annotations

import pytest

from tests.crash.command import Options, broken_promises, run
from tests.crash.faults import FAULTS, PAST_THE_CHECK

LATE = "late commit, after the first look"
NEED_PREFECT = {"prefect away", "deployed in the middle"}


@pytest.mark.timeout(600)
def test_whatever_breaks_each_record_is_booked_once() -> None:
    tally, summary = run(Options(trials=90, quick=True, rush=6, crowd=4, seed=7))

    assert broken_promises(summary) == {}
    assert summary["trials"] == summary["settled"] + summary["stopped"] == 90
    assert {fault for fault, _ in tally.cells} == set(FAULTS) - NEED_PREFECT
    assert summary["rush"]["processes"] == 60
    assert summary["crowd"]["killed"] > 0


@pytest.mark.timeout(180)
def test_without_the_settle_time_a_late_commit_is_booked_twice() -> None:
    wish = Options(trials=18, vendor="xledger", fault=LATE, settle=0, quick=True, rush=0, crowd=0)

    _, summary = run(wish)

    assert summary["duplicates"] > 0
    assert summary["lost"] == summary["altered"] == 0


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("fault", "settle"), [(LATE, 0), (PAST_THE_CHECK.name, 1)])
def test_where_the_vendor_keeps_names_unique_not_even_that_is_booked_twice(
    fault: str, settle: float
) -> None:
    wish = {"vendor": "dataverse", "fault": fault, "settle": settle}
    _, summary = run(Options(trials=6, quick=True, workers=4, rush=0, crowd=0, **wish))

    assert broken_promises(summary) == {}
    assert summary["settled"] == summary["trials"] == 6
