"""Plays a year at one vendor, and audits it.

Twelve periods of a month each are exported in order. In each, some vouchers are set aside, since
their account is not there or is closed. Then the accounts are opened, and a person lets what was
set aside go again, with a period that is due last.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import httpx

from kvitt import sync as way
from kvitt.edge import EdgeFunction
from kvitt.ledger import SupabaseLedger
from kvitt.ports import ClaimOutcome, Trigger
from kvitt.project import open_project
from sandbox.vendors.simulators import SIMULATORS
from tests.crash.auditor import audit
from tests.year import approvals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from supabase import AsyncClient

    from sandbox.ground import Books, Ground
    from tests.year.approvals import Month, Record

_PERIODS = 12
_SET_ASIDE = 1000


@dataclass(kw_only=True)
class Outcome:
    """What came of a year. `wrong` is what the auditor found, by kind; sums are debit sides."""

    vendor: str
    vouchers: int = 0
    lines: int = 0
    set_aside: int = 0
    mended: int = 0
    booked: Decimal = Decimal(0)
    receipts: Decimal = Decimal(0)
    originals: dict[str, Decimal] = field(default_factory=dict[str, Decimal])
    requests: Counter[str] = field(default_factory=Counter[str])
    wrong: dict[str, int] = field(default_factory=dict[str, int])
    seconds: float = 0


async def play(
    ground: Ground,
    vendor: str,
    vouchers: int,
    *,
    seed: int,
    say: Callable[[str], None],
    mend: bool = True,
) -> Outcome:
    """Export a year of so many vouchers, and audit it. To mend takes up to a minute."""
    began, name = time.monotonic(), f"year-{vendor}"
    books = ground.books(vendor, name, **SIMULATORS[vendor].prompt)
    _close(books, closed=True)
    due = _month_ends()
    ground.save(name, vendor, set_aside=_SET_ASIDE)
    ground.plan(name, due[0] - timedelta(days=30), due)
    year = list(approvals.months(name, due, vouchers // _PERIODS, seed=seed))
    for month in year:
        ground.add(month.records)
    outcome = Outcome(vendor=vendor)
    say(f"{vendor}: {sum(len(month.records) for month in year):,} vouchers are approved")
    batches = {month.due: _kept(month) for month in year}
    async with open_project(ground.supabase.url, ground.supabase.secret_key) as project:
        for month in year:
            receipt = await _settle(project, books, name)
            _count(receipt, outcome)
            say(f"{vendor}: {month.due:%Y-%m} is settled, {receipt['sent']['lines']:,} lines")
        if mend:
            _close(books, closed=False)
            last, again = await _mend(ground, SupabaseLedger(project), name, year, after=due[-1])
            say(f"{vendor}: {len(again)} vouchers go again with a period of their own")
            _count(await _settle(project, books, name), outcome)
            batches[last], outcome.mended = again, len(again)
    _audit(books, batches, outcome)
    outcome.seconds = time.monotonic() - began
    return outcome


def _month_ends() -> list[datetime]:
    """Return when the periods are due: at five on the first of each of the last twelve months."""
    first = datetime.now(UTC).replace(day=1, hour=5, minute=0, second=0, microsecond=0)
    return [_months_before(first, back) for back in range(_PERIODS, 0, -1)]


def _months_before(moment: datetime, months: int) -> datetime:
    years, month = divmod(moment.month - 1 - months, 12)
    return moment.replace(year=moment.year + years, month=month + 1)


def _kept(month: Month) -> list[Record | None]:
    """Return what of a month has to be in the books, with gaps where it was set aside."""
    aside = set(month.mistaken)
    return [None if place in aside else record for place, record in enumerate(month.records)]


async def _settle(project: AsyncClient, books: Books, integration: str) -> dict[str, Any]:
    """Work on the oldest period until it is settled; returns the receipt."""
    ledger = SupabaseLedger(project)
    answer = await way.claim(ledger, integration, Trigger())
    if answer.claim.outcome is not ClaimOutcome.CLAIMED:
        raise RuntimeError(f"{integration}: {answer.claim.outcome} {answer.claim.period}")
    async with way.attempt(ledger, answer) as this:
        timeouts = this.integration.timeouts
        async with books.open(timeouts) as vendor:
            this.requests = vendor.requests
            await way.collect(this, EdgeFunction(project, seconds=timeouts.function))
            await way.export(this, vendor)
            return await way.verify(this, vendor)


async def _mend(
    ground: Ground,
    ledger: SupabaseLedger,
    integration: str,
    year: Sequence[Month],
    *,
    after: datetime,
) -> tuple[datetime, list[Record]]:
    """Let what was set aside go again; returns when that is due, and what it is."""
    aside = [month.records[place] for month in year for place in month.mistaken]
    for record in aside:
        await ledger.mend_record(
            integration, record["id"], who="Inger", reason="the account is open now"
        )
    due = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
    ground.plan(integration, after, [due])
    await asyncio.sleep((due - datetime.now(UTC)).total_seconds() + 0.1)
    return due, [{**record, "id": f"{record['id']}~2"} for record in aside]


def _count(receipt: Mapping[str, Any], outcome: Outcome) -> None:
    outcome.vouchers += receipt["read_back"]["vouchers"]
    outcome.lines += receipt["read_back"]["lines"]
    outcome.set_aside += len(receipt["set_aside"])
    outcome.receipts += Decimal(receipt["read_back"]["booked"])
    outcome.requests.update(receipt["requests"])


def _close(books: Books, *, closed: bool) -> None:
    """Close an account at the vendor; or open it, and the one that was not there."""
    wish = SIMULATORS[books.vendor].account
    wishes = [wish(books.company, approvals.CLOSED, closed)]
    if not closed:
        wishes.append(wish(books.company, approvals.UNKNOWN, closed))
    for each in wishes:
        httpx.post(f"{books.url}/_sandbox/setup", json=each, trust_env=False).raise_for_status()


def _audit(
    books: Books, batches: Mapping[datetime, Sequence[Record | None]], outcome: Outcome
) -> None:
    """Compare the books with what was approved: line by line, and the sums to the øre."""
    with httpx.Client(base_url=books.url, trust_env=False, timeout=600) as simulator:
        simulator.post("/_sandbox/jobs").raise_for_status()
        held = simulator.get("/_sandbox/books").raise_for_status().json(parse_float=Decimal)
    outcome.wrong = audit(batches, held, books.company).wrong
    lines = [line for line in held["posted"] if line["company"] == books.company]
    outcome.booked = sum((max(Decimal(line["amount"]), Decimal(0)) for line in lines), Decimal(0))
    approved = [record for batch in batches.values() for record in batch if record]
    if outcome.booked != _debit(approved, "book_amount"):
        outcome.wrong["sum"] = 1
    for line in lines:
        if currency := line.get("currency"):
            share = max(Decimal(line["original"]), Decimal(0))
            outcome.originals[currency] = outcome.originals.get(currency, Decimal(0)) + share
    for currency, total in outcome.originals.items():
        own = [record for record in approved if record["currency"] == currency]
        if total != _debit(own, "amount"):
            outcome.wrong[currency] = 1


def _debit(records: Sequence[Record], amount: str) -> Decimal:
    """Sum the debit side of records; in the book currency there is one amount only."""
    amounts = (
        Decimal(line.get(amount) or line["amount"])
        for record in records
        for line in record["lines"]
    )
    return sum((each for each in amounts if each > 0), Decimal(0))
