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
    "read_back": {"vouchers": 40, "lines": 123, "booked": "284115.50"},
    "drift_seconds": 3.25,
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
    assert f"taken         {sides}{foreign}\n" in text
    assert f"sent          {sides}{foreign}\n" in text
    assert f"read back     {sides}\n" in text


def test_times_are_those_on_the_organisations_clocks() -> None:
    assert "2026-11-23 06:00 to 2026-11-24 06:00, Europe/Oslo" in shown()
    assert "2026-11-24 06:02" in shown()


def test_requests_are_told_by_purpose() -> None:
    assert "2 export, 1 read-back" in shown()
    assert "requests      none" in shown(requests={})


@pytest.mark.parametrize(("boot_ms", "told"), [(31, "31"), (0, "0"), (None, "?")])
def test_a_cold_start_is_told_with_what_it_cost(boot_ms: int | None, told: str) -> None:
    cold = {"kind": "booted", "boot_ms": boot_ms, "reply_ms": 184.2}
    assert f"booted ({told} ms to boot, 184.2 ms to answer)" in shown(cold_starts=[cold])
    assert "cold starts   none" in shown()


def test_what_was_uncertain_is_told() -> None:
    resent = {"chunk": 2, "sends": 1, "detail": "found when read back"}
    assert "chunk 2: found when read back, sent 1 x" in shown(resent=[resent])


def test_an_amount_with_more_decimals_than_usual_is_shown_whole() -> None:
    assert "0.1234 NOK" in shown(taken={**TOTALS, "booked": "0.1234", "original": {}})


def test_markdown_says_the_same() -> None:
    page = as_markdown(RECEIPT)
    assert page.startswith("# Teater Nordvest: xledger\n\n`nordvest-xledger@2026-11-24T05:00Z`")
    assert "| read back | 40 vouchers, 123 lines, 284,115.50 NOK |" in page
    assert all(line.count("|") == 3 for line in page.splitlines()[4:])
