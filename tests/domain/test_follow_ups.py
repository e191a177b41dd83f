"""A follow-up in words: what a person of finance reads under a receipt, and in a table."""

from __future__ import annotations

from typing import Any

import pytest

from kvitt.domain.follow_ups import FollowUp, as_alert, as_rows, in_brief

VOUCHER: dict[str, Any] = {
    "sequence": 12,
    "record": "2026-0087",
    "voucher_number": 412,
    "place": "refused",
    "reason": "Account 7140 is closed.",
    "absences": 0,
    "deleted_by": None,
    "goes_again": False,
    "closed": False,
    "mended_as": None,
    "untold": False,
}
GONE = {"place": "neither", "deleted_by": "Liv", "goes_again": True, "closed": True}
FOLLOW_UP: dict[str, Any] = {
    "integration": "nordvest-xledger",
    "due_at": "2026-11-24T05:00:00+00:00",
    "key": "nordvest-xledger@2026-11-24T05:00Z",
    "vendor": "xledger",
    "time_zone": "Europe/Oslo",
    "state": "waiting",
    "told": None,
    "looks": 3,
    "looked_at": "2026-11-24T05:40:00+00:00",
    "next_look_at": "2026-11-24T06:15:00+00:00",
    "posted_at": None,
    "note": None,
    "lines": 135,
    "posted": 131,
    "held": 135,
    "vouchers": [],
}
POSTED = {
    "state": "posted",
    "posted_at": "2026-11-24T05:40:00+00:00",
    "next_look_at": None,
    "posted": 135,
}


def followed(**changes: Any) -> FollowUp:
    return FollowUp.model_validate({**FOLLOW_UP, **changes})


def voucher(**changes: Any) -> FollowUp:
    return followed(state="refused", vouchers=[{**VOUCHER, **changes}])


def test_times_are_those_of_the_organisation() -> None:
    assert in_brief(followed(**POSTED)) == "posted 2026-11-24 06:40"
    assert list(as_rows(followed(**POSTED))) == [
        ("posted", "all 135 lines, as seen 2026-11-24 06:40")
    ]


def test_what_waits_is_counted_and_the_next_look_named() -> None:
    [(name, words)] = as_rows(followed())
    seen = "131 of 135 lines are posted, as seen 2026-11-24 06:40"
    assert (name, words) == ("posting", f"{seen}; next look 2026-11-24 07:15")
    assert "not looked at yet" in in_brief(followed(looks=0, looked_at=None))


@pytest.mark.parametrize(
    ("changes", "name", "words"),
    [
        ({}, "refused", "Account 7140 is closed."),
        ({"place": "staged"}, "refused", "waits again; refused before for this: Account 7140"),
        ({"place": "posted"}, "refused", "posted since; refused at first for this: Account 7140"),
        ({"place": "neither"}, "missing", "neither staged nor posted there any more"),
        ({"deleted_by": "Liv"}, "refused", "Liv said that its rows were deleted; they are still"),
        ({**GONE, "closed": False}, "missing", "looked at twice before a copy is sent"),
        ({**GONE, "closed": False, "goes_again": False}, "missing", "that is looked at twice"),
        (
            {**GONE, "mended_as": "2026-0087~2"},
            "sent again",
            "by Liv; it goes again as 2026-0087~2",
        ),
        ({**GONE, "goes_again": False}, "deleted", "its rows were deleted there by Liv"),
    ],
)
def test_a_voucher_is_named_with_its_record_and_what_is_known_of_it(
    changes: dict[str, Any], name: str, words: str
) -> None:
    _, (shown, said) = as_rows(voucher(**changes))
    assert shown == name
    assert said.startswith("voucher 412 (record 2026-0087): ")
    assert words in said


def test_only_what_is_open_is_told_in_brief() -> None:
    assert in_brief(voucher()) == f"refused: {voucher().vouchers[0].words}"
    settled = voucher(place="posted")
    assert "2026-0087" not in in_brief(settled)


@pytest.mark.parametrize(
    ("changes", "news"),
    [
        ({}, False),
        (POSTED, True),
        ({**POSTED, "told": "posted"}, False),
        ({"state": "refused", "told": "waiting"}, True),
        ({"state": "refused", "told": "refused"}, False),
        ({"state": "refused", "told": "refused", "vouchers": [{**VOUCHER, "untold": True}]}, True),
    ],
)
def test_an_event_is_raised_for_what_was_not_told(changes: dict[str, Any], *, news: bool) -> None:
    assert followed(**changes).is_news is news


@pytest.mark.parametrize(
    ("state", "to_do"),
    [
        ("refused", "kvitt mend nordvest-xledger --record RECORD --deleted"),
        ("differs", "Compare the books there with the receipt"),
        ("abandoned", "kvitt look-again nordvest-xledger 2026-11-24T05:00Z"),
    ],
)
def test_an_alert_says_what_happened_to_whom_and_what_to_do(state: str, to_do: str) -> None:
    told = as_alert(followed(state=state, vouchers=[VOUCHER]))
    assert told.startswith(f"xledger: period nordvest-xledger@2026-11-24T05:00Z is {state}: ")
    assert "; voucher 412 (record 2026-0087): Account 7140 is closed. " in told
    assert to_do in told
    assert told.endswith("The receipt: kvitt receipt nordvest-xledger 2026-11-24T05:00Z")


def test_what_could_not_be_seen_is_said() -> None:
    assert ("note", "the token may not read them") in as_rows(
        followed(note="the token may not read them")
    )
    words = dict(as_rows(followed(state="differs", held=131)))["posting"]
    assert words.startswith("135 lines are to be there, and 131 are, seen twice")
    assert "nobody looks any more" in in_brief(followed(state="abandoned", next_look_at=None))
