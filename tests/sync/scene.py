"""An integration, its vendor's books, and what a test does with both."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from kvitt.domain.errors import PeriodUncertain
from kvitt.domain.follow_ups import FollowUp
from kvitt.follow_up import PutOff, follow_up
from sandbox.audit import audit
from sandbox.vendors.simulators import SIMULATORS
from tests.cast import HOUR, claim_for_travel, claim_from_abroad, invoice_for_posters
from tests.sync.driver import Connection, bring_up_to_date

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    import httpx
    from supabase import AsyncClient

    from kvitt.domain.integrations import Integration
    from kvitt.domain.records import Record
    from kvitt.ports import Claim, Vendor
    from sandbox.audit import Findings
    from tests.cast import Stage

_numbers = count(50_000)

# What both vendors need to be left alone before what they show means something.
LONG_ENOUGH = timedelta(minutes=18)
# After which each look is due, however often it was looked before.
HALF_A_DAY = timedelta(hours=12)


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until something is so."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, f"still not so: {what}"
        await asyncio.sleep(0.02)


@dataclass(frozen=True, kw_only=True)
class Books:
    """One company in a vendor's books. `first_write` is the operation that brings vouchers."""

    connection: Connection
    url: str
    company: str
    first_write: str
    http: httpx.Client
    _before: Mapping[str, int] = field(default_factory=dict[str, int])

    @classmethod
    def of_a_new_company(cls, http: httpx.Client, vendor: str, url: str) -> Self:
        """Found a company, with the accounts of the cast, in books without limits and faults."""
        http.delete(f"{url}/_sandbox/faults").raise_for_status()
        kind = SIMULATORS[vendor]
        company = kind.company_of(next(_numbers))
        wishes = {**kind.found(company), "settings": {**kind.unlimited, **_AT_ONCE.get(vendor, {})}}
        http.post(f"{url}/_sandbox/setup", json=wishes).raise_for_status()
        return cls(
            connection=Connection(vendor=vendor, settings=kind.connect(url, company)),
            url=url,
            company=company,
            first_write=kind.writes,
            http=http,
            _before=http.get(f"{url}/_sandbox/requests").json()["operations"],
        )

    @property
    def vendor(self) -> str:
        return self.connection.vendor

    def fault(self, fault: str, *, on: str = "", **other: Any) -> None:
        """Let something go wrong, with the first write unless told else."""
        self._post("faults", {"on": on or self.first_write, "fault": fault, **other})

    def change(self, **settings: Any) -> None:
        self._post("setup", {"settings": settings})

    def add_account(self, number: str) -> None:
        """Open an account in this company."""
        self._post("setup", SIMULATORS[self.vendor].account(self.company, number, False))  # noqa: FBT003

    def block(self, number: str) -> None:
        """Close an account of this company for bookings."""
        self._post("setup", SIMULATORS[self.vendor].account(self.company, number, True))  # noqa: FBT003

    def calls(self) -> dict[str, int]:
        """Return how often each operation was called since the company was founded."""
        now = self.http.get(f"{self.url}/_sandbox/requests").json()["operations"]
        return dict(Counter(now) - Counter(self._before))

    def lines(self, where: str) -> list[dict[str, Any]]:
        """Return this company's lines that are staged or posted."""
        rows = self.http.get(f"{self.url}/_sandbox/books").json()[where]
        return [row for row in rows if row["company"] == self.company]

    def run_jobs(self) -> None:
        """Let the vendor's own jobs run: Xledger posts what is staged."""
        self._post("jobs", None)

    def _post(self, what: str, content: Any) -> None:
        self.http.post(f"{self.url}/_sandbox/{what}", json=content).raise_for_status()


# What a test that has asked for something else finds again as it was.
_AT_ONCE: dict[str, dict[str, Any]] = {
    "xledger": {"transit_seconds": 0, "posting_interval_seconds": 0, "unknown_codes": "posting"}
}


@dataclass(kw_only=True)
class Scene:
    """One integration with its books. `records` is what was approved so far."""

    stage: Stage
    books: Books
    project: AsyncClient
    records: list[Record] = field(default_factory=list["Record"])

    async def approve(self, number: int, *, period: int = 0) -> None:
        self.records += await self.stage.approve(number, period=period)

    async def approve_one_of_each(self) -> None:
        """Approve a claim for travel, one from abroad, and an invoice."""
        at = self.stage.due[0] - HOUR / 2
        further = [
            claim_from_abroad(self.stage.id, 901, at),
            invoice_for_posters(self.stage.id, 902, at),
        ]
        await self.approve(1)
        await self.stage.ledger.add_records(further)
        self.records += further

    def odd_claim(self, number: int, accounts: Mapping[str, str]) -> Record:
        """Return a claim for travel with other accounts in the place of some."""
        odd = claim_for_travel(self.stage.id, number, self.stage.due[0] - HOUR / 2)
        lines = tuple(
            line.model_copy(update={"account": accounts.get(line.account, line.account)})
            for line in odd.lines
        )
        return odd.model_copy(update={"lines": lines})

    async def run(self, **how: Any) -> dict[str, Any] | Claim:
        """Do what one run does."""
        return await bring_up_to_date(self.project, self.books.connection, self.stage.id, **how)

    async def receipt(self, **how: Any) -> dict[str, Any]:
        """Run, which must end with a receipt."""
        receipt = await self.run(**how)
        assert isinstance(receipt, dict), receipt
        assert receipt["taken"] == receipt["sent"]
        return receipt

    async def receipt_with_some_set_aside(self) -> dict[str, Any]:
        """Run, which must end with a receipt of what was not set aside."""
        receipt = await self.run()
        assert isinstance(receipt, dict), receipt
        assert receipt["set_aside"]
        return receipt

    async def receipt_after_waiting(self) -> dict[str, Any]:
        """Run again when the vendor has had its time: it may need two looks, and then one more."""
        for _ in range(2):
            self.stage.time_passes(LONG_ENOUGH)
            try:
                return await self.receipt()
            except PeriodUncertain:
                continue
        self.stage.time_passes(LONG_ENOUGH)
        return await self.receipt()

    async def is_uncertain(self) -> str:
        """Run, which must end uncertain; returns the reason, which the ledger has too."""
        with pytest.raises(PeriodUncertain) as stopped:
            await self.run()
        state, reason = self.stage.period("state, reason")
        assert state == "uncertain"
        assert reason in str(stopped.value)
        return reason

    async def look(self) -> FollowUp | PutOff | None:
        """Do what one run of the follow-up does; returns what came of this scene's own look."""
        seen = [result async for result in follow_up(self.stage.ledger, self._open)]
        own = [it for it in seen if self.stage.id in (it.why if isinstance(it, PutOff) else it.key)]
        return own[-1] if own else None

    async def looked(self, *, after: timedelta = HALF_A_DAY) -> FollowUp:
        """Let time pass until a look is due, and make it, which must succeed."""
        self.stage.time_passes(after)
        seen = await self.look()
        assert isinstance(seen, FollowUp), seen
        return seen

    @asynccontextmanager
    async def _open(self, integration: Integration) -> AsyncGenerator[Vendor]:
        if integration.connection != self.books.company:
            raise LookupError("it belongs to another test")
        async with self.books.connection.open(integration.timeouts) as vendor:
            yield vendor

    def audit(self) -> Findings:
        """Compare the books with what was approved, once everything is posted."""
        self.books.run_jobs()
        assert self.books.lines("staged") == []
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "records.jsonl"
            told = [record.model_dump(mode="json", exclude_none=True) for record in self.records]
            file.write_text("".join(json.dumps(record) + "\n" for record in told))
            mapping = self.stage.integration.mapping.model_dump()
            return audit(self.books.url, file, mapping, self.books.company)
