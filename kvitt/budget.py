"""The budget of a connection, as one client of its vendor spends it.

Requests are reserved from the ledger before they are made, in lots; what is left of the last lot is
given back when the client closes. What a killed process had reserved counts as spent: so the ledger
never counts less than was asked, at the price of some requests counted in vain.

A lot belongs to one month. Once that is over, by the ledger's clock, what is left of it is given
back, and the next one is of the new month.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from kvitt.attempts import now
from kvitt.domain.budget import Purpose, next_lot
from kvitt.domain.errors import BudgetSpent, KvittError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from kvitt.ports import Grant, Ledger

_logger = logging.getLogger("kvitt")

# A probe goes alone, and a period of the usual size needs fewer than eight.
_FIRST_LOT, _FIRST_PROBES = 8, 1


@dataclass(kw_only=True, slots=True)
class _Lot:
    """What this client has reserved, in all, and spent of it; its month `ends` by our clock."""

    probes: bool
    id: UUID = field(default_factory=uuid4)
    reserved: int = 0
    spent: Counter[str] = field(default_factory=Counter[str])
    ends: float = 0
    asked: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def left(self) -> int:
        return self.reserved - self.spent.total()

    @property
    def wanted(self) -> int:
        first = _FIRST_PROBES if self.probes else _FIRST_LOT
        return self.spent.total() + next_lot(self.spent.total(), first=first)


class MonthlyBudget:
    """What one client may ask of a vendor (`ports.Budget`). See `open_budget`.

    `warning` is set once, for the client that came upon the last part of the month's requests.
    """

    def __init__(
        self,
        ledger: Ledger,
        vendor: str,
        connection: str,
        *,
        backfill: bool = False,
        clock: Callable[[], float] = now,
    ) -> None:
        self.vendor = vendor
        self.connection = connection
        self._backfill = backfill
        self.warning: str | None = None
        self._ledger = ledger
        self._clock = clock
        self._probes, self._others = _Lot(probes=True), _Lot(probes=False)

    async def spend(self, purpose: Purpose, *, allowance: int | None) -> Callable[[], None]:
        """Take one request out; returns what puts it back, if it never leaves.

        `allowance` is what the vendor documents for a month, if it does. Raises BudgetSpent, and
        LedgerUnavailable where the ledger cannot be asked for more.
        """
        lot = self._lot(purpose)
        async with lot.lock:
            if lot.asked and self._clock() >= lot.ends:
                await self._give_back(lot)
            if lot.left <= 0:
                await self._reserve(lot, allowance)
            lot.spent[purpose] += 1
            return partial(lot.spent.subtract, {purpose.value: 1})

    async def close(self) -> None:
        """Give back what is left; where that cannot be said, it stays counted as spent."""
        for lot in (self._probes, self._others):
            try:
                await self._give_back(lot)
            except KvittError as error:
                words = "%d requests that were not made stay counted for %s/%s: %s"
                _logger.warning(words, lot.left, self.vendor, self.connection, error)

    def _lot(self, purpose: Purpose) -> _Lot:
        return self._probes if purpose is Purpose.PROBE else self._others

    async def _reserve(self, lot: _Lot, allowance: int | None) -> None:
        grant = await self._ask(lot, allowance)
        if grant.seconds <= 0:  # the month ended just now
            await self._give_back(lot)
            grant = await self._ask(lot, allowance)
        if grant.warned and self.warning is None:
            self.warning = self._words_of_warning(grant)
            _logger.warning("%s", self.warning)
        if lot.left <= 0:
            raise BudgetSpent(
                self._words_of_refusal(lot, grant), retry_after=timedelta(seconds=grant.seconds)
            )

    async def _ask(self, lot: _Lot, allowance: int | None) -> Grant:
        # Counted from before the ledger looks at its clock, so that our month never ends later.
        asked = self._clock()
        grant = await self._ledger.reserve_requests(
            lot.id,
            self.vendor,
            self.connection,
            probes=lot.probes,
            wanted=lot.wanted,
            spent=lot.spent,
            allowance=allowance,
            backfill=self._backfill,
        )
        lot.asked, lot.reserved, lot.ends = True, grant.reserved, asked + grant.seconds
        return grant

    async def _give_back(self, lot: _Lot) -> None:
        if lot.asked:
            await self._ledger.return_requests(lot.id, lot.spent)
        lot.id, lot.reserved, lot.spent, lot.asked = uuid4(), 0, Counter(), False

    def _words_of_refusal(self, lot: _Lot, grant: Grant) -> str:
        budget = f"the budget of {self.vendor}/{self.connection} for {grant.month:%Y-%m}"
        counted = f"{grant.counted:,} of {grant.allowance or 0:,} requests"
        if lot.probes:
            return f"{budget} has nothing left for probes ({counted} are spent). Exports go on"
        if self._backfill and grant.counted < (grant.allowance or 0):
            return (
                f"{budget} has nothing left for past periods that are filled in ({counted} are "
                "spent): the rest is kept for the schedule's own. Nothing was asked of the vendor. "
                "It goes on in the new month (UTC), or as soon as its integrations allow more: "
                "limits.budget.backfill_share, requests or paid"
            )
        return (
            f"{budget} is spent ({counted}), and the rest would be paid for. Nothing was asked of "
            "the vendor. It goes on in the new month (UTC), or as soon as its integrations allow "
            "more: limits.budget.requests, or limits.budget.paid: true"
        )

    def _words_of_warning(self, grant: Grant) -> str:
        return (
            f"the budget of {self.vendor}/{self.connection} for {grant.month:%Y-%m} is nearly "
            f"spent: {grant.counted:,} of {grant.allowance or 0:,} requests. See `kvitt budget "
            f"{self.connection}`; what counts is limits.budget of its integrations"
        )


class Allotment:
    """What was reserved for a client by somebody else, as for a probe (`ports.Budget`).

    A client that is kept gets one grant after the other; each counts by itself.
    """

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()
        self._granted = 0

    def refill(self, granted: int) -> None:
        """Begin anew, with so many requests."""
        self.spent, self._granted = Counter(), granted

    async def spend(self, purpose: Purpose, *, allowance: int | None) -> Callable[[], None]:
        """Take one request out; returns what puts it back. Raises BudgetSpent."""
        del allowance
        if self.spent.total() >= self._granted:
            raise BudgetSpent("no request is left of what was reserved for this probe")
        self.spent[purpose] += 1
        return partial(self.spent.subtract, {purpose.value: 1})


@asynccontextmanager
async def open_budget(
    ledger: Ledger, vendor: str, connection: str, *, backfill: bool = False
) -> AsyncGenerator[MonthlyBudget]:
    """Open the budget of a connection for one client of its vendor; nothing is reserved yet.

    With `backfill`, for a past period that is filled in: it leaves room for the schedule's own.
    """
    budget = MonthlyBudget(ledger, vendor, connection, backfill=backfill)
    try:
        yield budget
    finally:
        await budget.close()
