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


def _cold_starts(cold_starts: list[Mapping[str, Any]]) -> str:
    if not cold_starts:
        return "none"
    return ", ".join(
        f"{c['kind']} ({'?' if c['boot_ms'] is None else c['boot_ms']} ms to boot, "
        f"{c['reply_ms']} ms to answer)"
        for c in cold_starts
    )


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
