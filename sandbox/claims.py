"""A believable set of approved vouchers, in the format of docs/records.md.

Made from a seed, so that a run can be had again. Two organisations, the ones whose accounts the
vendor simulators know: a sports club and a theatre. Employees lay out money and get it back; the
club owes suppliers; the theatre's tours go abroad, so some of its claims are in euro.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Any

from sandbox.vendors.setup import COST_CENTRES, PEOPLE, PROJECTS, SUPPLIERS

if TYPE_CHECKING:
    from collections.abc import Iterator

_CENT = Decimal("0.01")
_EURO = Decimal("11.6345")
_VAT = Decimal("0.25")

_EXPENSES = {
    "travel": ("Tog Oslo-Bergen", "Drosje til flyplassen", "Buss til kamp", "Kjøregodtgjørelse"),
    "meals": ("Diett", "Middag med gjestespill", "Lunsj på reise"),
    "course": ("Trenerkurs", "Førstehjelpskurs", "Sceneteknisk kurs"),
    "office": ("Papir og toner", "Skilt til arrangement"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Organisation:
    """Who approves. `accounts` are the app's own words, which the mapping translates."""

    integration: str
    foreign: bool


CLUB = Organisation(integration="fjordby-business-central", foreign=False)
THEATRE = Organisation(integration="nordvest-xledger", foreign=True)


def approved(
    who: Organisation, count: int, *, before: datetime, seed: int = 1
) -> Iterator[dict[str, Any]]:
    """Yield approved records, the last one approved shortly before a time (UTC)."""
    dice = random.Random(f"{who.integration} {seed}")  # noqa: S311 - a story, not a secret
    for number in range(1, count + 1):
        approved_at = before - timedelta(hours=2 * (count - number) + 1)
        yield {
            "integration": who.integration,
            "id": f"{approved_at:%Y}-{number:04d}",
            "approved_at": approved_at.isoformat(),
            **_voucher(who, dice, approved_at),
        }


def _voucher(who: Organisation, dice: random.Random, approved_at: datetime) -> dict[str, Any]:
    day = (approved_at - timedelta(days=dice.randint(1, 20))).date().isoformat()
    if dice.random() < 0.2:  # noqa: PLR2004 - one in five is a supplier's invoice
        return {"kind": "payout", "voucher_date": day, **_invoice(dice)}
    currency = "EUR" if who.foreign and dice.random() < 0.3 else "NOK"  # noqa: PLR2004
    return {"kind": "expense-claim", "voucher_date": day, **_claim(dice, currency)}


def _claim(dice: random.Random, currency: str) -> dict[str, Any]:
    """Make a claim of several expenses, paid back to one person."""
    number, name = dice.choice(sorted(PEOPLE.items()))
    expenses = [_expense(dice, currency) for _ in range(dice.randint(1, 4))]
    owed = {"account": "owed-to-staff", "party": number, "text": f"Utlegg {name}"}
    return {
        "currency": currency,
        "text": f"Reiseregning {name}",
        "lines": [*expenses, _balancing(owed, expenses, currency)],
    }


def _expense(dice: random.Random, currency: str) -> dict[str, Any]:
    account = dice.choice(sorted(_EXPENSES))
    line: dict[str, Any] = {
        "account": account,
        "amount": _amount(dice),
        "text": dice.choice(_EXPENSES[account]),
        "dimensions": _dimensions(dice),
    }
    return _booked(line, currency)


def _invoice(dice: random.Random) -> dict[str, Any]:
    """Make a supplier's invoice, with value added tax on a line of its own."""
    number, name = dice.choice(sorted(SUPPLIERS.items()))
    net = _amount(dice)
    vat = (net * _VAT).quantize(_CENT, ROUND_HALF_UP)
    lines = [
        {"account": "advertising", "amount": net, "text": name, "dimensions": _dimensions(dice)},
        {"account": "input-vat", "amount": vat, "text": "25 % mva"},
    ]
    owed = {"account": "owed-to-suppliers", "party": number, "text": name}
    return {
        "currency": "NOK",
        "text": f"Faktura {name}",
        "lines": [*(_booked(x, "NOK") for x in lines), _balancing(owed, lines, "NOK")],
    }


def _dimensions(dice: random.Random) -> dict[str, str]:
    given = {"cost_centre": dice.choice(sorted(COST_CENTRES))}
    if dice.random() < 0.5:  # noqa: PLR2004 - half of them belong to a project
        given["project"] = dice.choice(sorted(PROJECTS))
    return given


def _amount(dice: random.Random) -> Decimal:
    return (Decimal(dice.randint(4_500, 890_000)) / 100).quantize(_CENT)


def _booked(line: dict[str, Any], currency: str) -> dict[str, Any]:
    """Add what goes into the books; amounts become strings, as in the file."""
    amount = Decimal(line["amount"])
    told = {**line, "amount": str(amount)}
    if currency != "NOK":
        told["book_amount"] = str((amount * _EURO).quantize(_CENT, ROUND_HALF_UP))
    return told


def _balancing(owed: dict[str, Any], lines: list[dict[str, Any]], currency: str) -> dict[str, Any]:
    amount = -sum(Decimal(line["amount"]) for line in lines)
    told = {**owed, "amount": str(amount)}
    if currency != "NOK":
        told["book_amount"] = str(-sum(Decimal(line["book_amount"]) for line in lines))
    return told
