"""What a mid-sized organisation approves in a year: six currencies, corrections, and some mistakes.

Made from a seed. Foreign claims are converted line by line by the app, which puts what is left over
from rounding on the line that pays back.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Any

from sandbox.vendors.setup import COST_CENTRES, PEOPLE, PROJECTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Record = dict[str, Any]

RATES = {
    "NOK": Decimal(1),
    "EUR": Decimal("11.6345"),
    "USD": Decimal("10.7219"),
    "GBP": Decimal("13.9102"),
    "SEK": Decimal("1.0155"),
    "DKK": Decimal("1.5598"),
}
UNKNOWN, CLOSED = "UNOPENED", "6540"
_EXPENSES = ("travel", "meals", "course", "office")
_CENT = Decimal("0.01")
_FOREIGN, _CORRECTED, _MISTAKEN = 0.4, 0.02, 0.002


@dataclass(frozen=True, kw_only=True)
class Month:
    """One period's approvals, in the order in which they are taken.

    `mistaken` are the places of those that no vendor takes: of an account that is not there, or
    that is closed.
    """

    due: datetime
    records: Sequence[Record]
    mistaken: Sequence[int]


def months(
    integration: str, due: Sequence[datetime], vouchers: int, *, seed: int
) -> Iterator[Month]:
    """Yield the months of a year, each with its share of the vouchers."""
    dice = random.Random(f"{integration} {seed}")  # noqa: S311 - a story, not a secret
    to_correct: list[Record] = []
    for number, moment in enumerate(due, 1):
        new = [_claim(integration, dice, f"{number:02d}-{n:05d}") for n in range(vouchers)]
        records = [pair for wrong in to_correct for pair in _correction(wrong, dice)] + new
        mistaken = sorted(dice.sample(range(len(records)), max(1, round(len(records) * _MISTAKEN))))
        for place in mistaken:
            records[place] = _with_a_mistake(records[place], dice)
        _date(records, moment)
        to_correct = [
            record
            for place, record in enumerate(records)
            if place not in mistaken and record in new and dice.random() < _CORRECTED
        ]
        yield Month(due=moment, records=records, mistaken=mistaken)


def _claim(integration: str, dice: random.Random, name: str) -> Record:
    foreign = dice.random() < _FOREIGN
    currency = dice.choice([c for c in RATES if c != "NOK"]) if foreign else "NOK"
    person, called = dice.choice(sorted(PEOPLE.items()))
    expenses = [_expense(dice) for _ in range(dice.randint(1, 4))]
    owed = {"account": "owed-to-staff", "party": person, "text": f"Utlegg {called}"}
    owed["amount"] = str(-sum(Decimal(line["amount"]) for line in expenses))
    record = {
        "integration": integration,
        "id": f"CLAIM-{name}",
        "kind": "expense-claim",
        "currency": currency,
        "text": f"Reiseregning {called}",
        "lines": [*expenses, owed],
    }
    return _converted(record)


def _expense(dice: random.Random) -> dict[str, Any]:
    dimensions = {"cost_centre": dice.choice(sorted(COST_CENTRES))}
    if dice.random() < 0.5:
        dimensions["project"] = dice.choice(sorted(PROJECTS))
    return {
        "account": dice.choice(_EXPENSES),
        "amount": str(Decimal(dice.randint(100, 890_000)) / 100),
        "text": "Utlegg",
        "dimensions": dimensions,
    }


def _converted(record: Record) -> Record:
    """Give each line of a foreign claim its amount in the books, so that they sum to 0 there."""
    if record["currency"] == "NOK":
        return record
    rate = RATES[record["currency"]]
    *expenses, owed = record["lines"]
    booked = [(Decimal(line["amount"]) * rate).quantize(_CENT, ROUND_HALF_UP) for line in expenses]
    lines = [
        {**line, "book_amount": str(amount)} for line, amount in zip(expenses, booked, strict=True)
    ]
    return {**record, "lines": [*lines, {**owed, "book_amount": str(-sum(booked))}]}


def _correction(wrong: Record, dice: random.Random) -> Iterator[Record]:
    """Yield what takes a record back, line by line, and what is right instead."""
    reversing = [
        {**line, **{k: _negated(line[k]) for k in ("amount", "book_amount") if k in line}}
        for line in wrong["lines"]
    ]
    yield {**wrong, "id": f"{wrong['id']}-R", "kind": "reversal", "lines": reversing}
    right = _claim(wrong["integration"], dice, f"{wrong['id'].removeprefix('CLAIM-')}-2")
    yield {**right, "kind": "correction"}


def _negated(amount: str) -> str:
    return amount.removeprefix("-") if amount.startswith("-") else f"-{amount}"


def _with_a_mistake(record: Record, dice: random.Random) -> Record:
    first, *rest = record["lines"]
    return {**record, "lines": [{**first, "account": dice.choice([UNKNOWN, CLOSED])}, *rest]}


def _date(records: list[Record], due: datetime) -> None:
    """Approve them one after another in the month before a period is due, and date them there."""
    for place, record in enumerate(records):
        approved_at = due - timedelta(days=27) + timedelta(seconds=place)
        record["approved_at"] = approved_at.isoformat()
        record["voucher_date"] = (approved_at + timedelta(days=place % 25)).date().isoformat()
