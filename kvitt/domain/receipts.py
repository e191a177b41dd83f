"""Receipts, for people: the same facts as text and as Markdown.

A receipt is what the ledger wrote when the period was settled, a JSON object with the keys of
`kvitt.receipt` in the schema. Nothing is computed here, only shown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from collections.abc import Iterator

Receipt = Mapping[str, Any]

_SHORT = 60


def as_text(receipt: Receipt) -> str:
    """Return a receipt for a terminal."""
    lines = [
        f"Receipt {receipt['key']}",
        f"  {receipt['organisation']} → {receipt['vendor']} ({receipt['connection']})",
        f"  period        {_interval(receipt)}",
    ]
    lines += [f"  {name:<13} {value}" for name, value in _rows(receipt)]
    return "\n".join(lines)


def as_markdown(receipt: Receipt) -> str:
    """Return a receipt for the Prefect UI."""
    rows = [("period", _interval(receipt)), *_rows(receipt)]
    table = "\n".join(f"| {name} | {_in_a_cell(value)} |" for name, value in rows)
    return (
        f"# {receipt['organisation']}: {receipt['vendor']}\n\n`{receipt['key']}`\n\n"
        f"| | |\n|---|---|\n{table}\n"
    )


def _in_a_cell(text: str) -> str:
    """Keep what others wrote from being read as Markdown or as the end of a cell."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", text)


def _rows(receipt: Receipt) -> Iterator[tuple[str, str]]:
    currency = receipt["book_currency"]
    yield "taken", _totals(receipt["taken"], currency)
    for aside in receipt["set_aside"]:
        yield "set aside", _set_aside(aside, currency)
    yield "sent", _totals(receipt["sent"], currency)
    yield "read back", _totals(receipt["read_back"], currency)
    if staged := receipt["read_back"].get("staged"):
        yield "not final yet", f"{staged} of these lines, until {receipt['vendor']} posts them"
    yield "started", _started(receipt)
    yield "cold starts", _cold_starts(receipt["cold_starts"])
    yield "attempts", str(len(receipt["attempts"]))
    yield "requests", ", ".join(f"{n} {what}" for what, n in receipt["requests"].items()) or "none"
    for resent in receipt["resent"]:
        yield "uncertain", f"chunk {resent['chunk']}: {resent['detail']}, sent {resent['sends']} x"
    for decision in receipt["decisions"]:
        yield "decided", f"{decision['decision']} by {decision['who']}: {decision['reason']}"
    yield "settled", _local(receipt["settled_at"], receipt["time_zone"])


def _started(receipt: Receipt) -> str:
    """Say how late, and where the time went: queue and start make up the drift."""
    drift = receipt["drift"]
    words = f"{_duration(receipt['drift_seconds'])} after it was due"
    words += f" ({_seconds(drift['queue_seconds'])} until a worker took it up"
    words += f", {_seconds(drift['start_seconds'])} to start"
    if drift["warm_up_seconds"] is not None:
        words += f"; then {_seconds(drift['warm_up_seconds'])} to warm up"
    return words + ")"


def _seconds(seconds: float) -> str:
    """Return a short time to a tenth of a second, and a long one in words."""
    return f"{seconds:.1f} s" if seconds < _SHORT else _duration(seconds)


def _set_aside(aside: Mapping[str, Any], currency: str) -> str:
    voucher = f"voucher {aside['voucher_number']} (record {aside['record']})"
    return f"{voucher}, {_amount(aside['booked'])} {currency}: {aside['reason']}"


def _totals(totals: Mapping[str, Any], currency: str) -> str:
    words = f"{totals['vouchers']} vouchers, {totals['lines']} lines, "
    words += f"{_amount(totals['booked'])} {currency}"
    foreign = {c: a for c, a in totals.get("original", {}).items() if c != currency}
    if foreign:
        words += f" (of which {', '.join(f'{_amount(a)} {c}' for c, a in foreign.items())})"
    return f"{words}, checksum {totals['checksum']:015x}"


def _amount(amount: str) -> str:
    return f"{Decimal(amount):,.2f}" if Decimal(amount) == round(Decimal(amount), 2) else amount


_CONSEQUENCES = {
    "warm-up": "the warm-up took {cost} longer",
    "slow page": "a page waited for it",
    "called again": "the page was asked for again after {cost}",
    "page halved": "the page of {page} was halved after {cost}",
    "period waits": "the period had to wait",
}


def _cold_starts(cold_starts: list[Mapping[str, Any]]) -> str:
    return ", ".join(_cold_start(c) for c in cold_starts) or "none"


def _cold_start(cold: Mapping[str, Any]) -> str:
    """Say how it was, and what came of it; of older receipts, that is not known."""
    boot = "?" if cold["boot_ms"] is None else cold["boot_ms"]
    words = f"{boot} ms to boot, {cold['reply_ms']} ms to answer"
    if cold.get("consequence"):
        cost = _seconds((cold["cost_ms"] or 0) / 1000)
        words += "; " + _CONSEQUENCES[cold["consequence"]].format(cost=cost, page=cold["page"])
    return f"{cold['kind']} ({words})"


def _duration(seconds: float) -> str:
    """Return a length of time in its two largest units."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    largest = next((i for i, (n, _) in enumerate(parts) if n), len(parts))
    told = [f"{n} {unit}" for n, unit in parts[largest : largest + 2] if n]
    return " ".join(told) or "less than a second"


def _interval(receipt: Receipt) -> str:
    zone = receipt["time_zone"]
    return f"{_local(receipt['opens_at'], zone)} to {_local(receipt['due_at'], zone)}, {zone}"


def _local(moment: str, zone: str) -> str:
    return f"{datetime.fromisoformat(moment).astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M}"
