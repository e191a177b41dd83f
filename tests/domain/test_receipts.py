"""A receipt is read by people: on a terminal, and in Prefect's UI."""

from __future__ import annotations

from typing import Any

import pytest

from kvitt.domain.receipts import as_markdown, as_text

TOTALS = {
    "vouchers": 40,
    "lines": 123,
    "booked": "284115.5",
    "original": {"EUR": "1234.5", "NOK": "269752.7"},
    "checksum": 0x0BC5_7D1E_2F3A_401,
}
RECEIPT: dict[str, Any] = {
    "key": "nordvest-xledger@2026-11-24T05:00Z",
    "integration": "nordvest-xledger",
    "organisation": "Teater Nordvest",
    "vendor": "xledger",
    "connection": "nordvest",
    "book_currency": "NOK",
    "time_zone": "Europe/Oslo",
    "opens_at": "2026-11-23T05:00:00+00:00",
    "due_at": "2026-11-24T05:00:00+00:00",
    "settled_at": "2026-11-24T05:02:11.5+00:00",
    "taken": TOTALS,
    "sent": TOTALS,
    "read_back": {
        "vouchers": 40,
        "lines": 123,
        "booked": "284115.50",
        "checksum": 0x0BC5_7D1E_2F3A_401,
    },
    "set_aside": [],
    "decisions": [],
    "drift_seconds": 3.25,
    "drift": {"queue_seconds": 3.0, "start_seconds": 0.25, "warm_up_seconds": 0.4},
    "cold_starts": [],
    "attempts": [{"trigger": "schedule", "outcome": "settled"}],
    "requests": {"export": 2, "read-back": 1},
    "resent": [],
}


def shown(**changes: Any) -> str:
    return as_text({**RECEIPT, **changes})


def test_a_receipt_says_what_was_taken_sent_and_read_back() -> None:
    text = shown()
    assert "Receipt nordvest-xledger@2026-11-24T05:00Z" in text
    assert "Teater Nordvest → xledger (nordvest)" in text
    sides = "40 vouchers, 123 lines, 284,115.50 NOK"
    foreign = " (of which 1,234.50 EUR)"
    checksum = ", checksum 0bc57d1e2f3a401"
    assert f"taken         {sides}{foreign}{checksum}\n" in text
    assert f"sent          {sides}{foreign}{checksum}\n" in text
    assert f"read back     {sides}{checksum}\n" in text


def test_what_was_set_aside_is_named_with_the_vendors_words() -> None:
    aside = {
        "record": "2026-0413",
        "voucher_number": 12,
        "booked": "1249",
        "reason": "Account 7140 is blocked",
    }
    told = "voucher 12 (record 2026-0413), 1,249.00 NOK: Account 7140 is blocked"
    assert f"set aside     {told}\n" in shown(set_aside=[aside])


def test_what_people_decided_is_told_with_who_and_why() -> None:
    decision = {"decision": "mend", "who": "kari", "reason": "account 7140 is open again"}
    told = "decided       mend by kari: account 7140 is open again\n"
    assert told in shown(decisions=[decision])


def test_lines_that_the_vendor_has_yet_to_post_are_told() -> None:
    waiting = {**RECEIPT["read_back"], "staged": 3}
    assert "not final yet 3 of these lines, until xledger posts them" in shown(read_back=waiting)


def test_times_are_those_on_the_organisations_clocks() -> None:
    assert "2026-11-23 06:00 to 2026-11-24 06:00, Europe/Oslo" in shown()
    assert "2026-11-24 06:02" in shown()


def test_a_start_is_told_with_where_the_time_went() -> None:
    parts = "3.0 s until a worker took it up, 0.2 s to start; then 0.4 s to warm up"
    assert f"started       3 s after it was due ({parts})\n" in shown()


def test_a_start_that_nobody_warmed_up_for_says_nothing_of_it() -> None:
    drift = {"queue_seconds": 7260, "start_seconds": 1.5, "warm_up_seconds": None}
    told = "2 h 1 min after it was due (2 h 1 min until a worker took it up, 1.5 s to start)"
    assert f"started       {told}\n" in shown(drift_seconds=7261.5, drift=drift)


def test_requests_are_told_by_purpose() -> None:
    assert "2 export, 1 read-back" in shown()
    assert "requests      none" in shown(requests={})


@pytest.mark.parametrize(("boot_ms", "told"), [(31, "31"), (0, "0"), (None, "?")])
def test_a_cold_start_is_told_with_what_it_cost(boot_ms: int | None, told: str) -> None:
    cold = {"kind": "booted", "boot_ms": boot_ms, "reply_ms": 184.2}
    assert f"booted ({told} ms to boot, 184.2 ms to answer)" in shown(cold_starts=[cold])
    assert "cold starts   none" in shown()


@pytest.mark.parametrize(
    ("consequence", "told"),
    [
        ("warm-up", "the warm-up took 1.2 s longer"),
        ("slow page", "a page waited for it"),
        ("called again", "the page was asked for again after 1.2 s"),
        ("page halved", "the page of 500 was halved after 1.2 s"),
        ("period waits", "the period had to wait"),
    ],
)
def test_a_cold_start_is_told_with_what_came_of_it(consequence: str, told: str) -> None:
    cold = {"kind": "timed_out", "boot_ms": None, "reply_ms": 200, "cost_ms": 1200, "page": 500}
    words = f"timed_out (? ms to boot, 200 ms to answer; {told})"
    assert words in shown(cold_starts=[{**cold, "consequence": consequence}])


def test_what_was_uncertain_is_told() -> None:
    resent = {"chunk": 2, "sends": 1, "detail": "found when read back"}
    assert "chunk 2: found when read back, sent 1 x" in shown(resent=[resent])


def test_an_amount_with_more_decimals_than_usual_is_shown_whole() -> None:
    assert "0.1234 NOK" in shown(taken={**TOTALS, "booked": "0.1234", "original": {}})


def test_markdown_says_the_same() -> None:
    page = as_markdown(RECEIPT)
    assert page.startswith("# Teater Nordvest: xledger\n\n`nordvest-xledger@2026-11-24T05:00Z`")
    assert (
        "| read back | 40 vouchers, 123 lines, 284,115.50 NOK, checksum 0bc57d1e2f3a401 |" in page
    )
    assert all(line.count("|") == 3 for line in page.splitlines()[4:])
