"""A settled period that is followed up, and the looks at it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from kvitt.domain.money import Totals
from kvitt.ports import Look, Place, Standing, Whereabouts
from tests.cast import NORDVEST
from tests.ledger.stages import close, collect, intend, totals

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from kvitt.domain.follow_ups import FollowUp
    from kvitt.domain.records import Record
    from kvitt.ledger import SupabaseLedger
    from tests.cast import Stage

LEASE, GAP = timedelta(minutes=10), timedelta(minutes=3)
REFUSED = Whereabouts(place=Place.REFUSED, reason="Account 7140 is closed.")
NEITHER = Whereabouts(place=Place.NEITHER)
_connections = count(1)


async def settled_with_waiting_lines(
    enrol: Callable[..., Awaitable[Stage]],
    vouchers: int = 2,
    *,
    staged: int = 4,
    after: timedelta = LEASE,
) -> Followed:
    """Settle a period of an integration that nobody shares a connection with, some time ago."""
    stage = await enrol(NORDVEST, connection=f"follow-ups-{next(_connections)}")
    records = await stage.approve(vouchers)
    period = await stage.claimed()
    await collect(stage, period)
    sent = totals(records)
    await intend(stage, period, 1, vouchers, sent)
    await stage.ledger.settle_chunk(period, 1, "confirmed")
    shown = sent.model_copy(update={"staged": staged})
    assert await stage.ledger.settle(period, shown, {}) is not None
    await close(stage, "settled")
    stage.time_passes(after)
    return Followed(stage=stage, sent=sent, records=records)


@dataclass(kw_only=True)
class Followed:
    """A settled period that is followed up, and what was sent of it."""

    stage: Stage
    sent: Totals
    records: list[Record]

    @property
    def ledger(self) -> SupabaseLedger:
        return self.stage.ledger

    async def claim(self, looker: UUID | None = None) -> tuple[UUID, Look] | None:
        """Ask for looks until it is this period's turn; other tests' ones are put off."""
        while True:
            who = looker or uuid4()
            due = await self.ledger.claim_looks(who, LEASE)
            if due is None:
                return None
            if due.integration.id == self.stage.id:
                return who, due.looks[0]
            await self.ledger.put_off_looks(who, "it belongs to another test", LEASE)

    async def record(
        self,
        who: UUID,
        look: Look,
        *,
        posted: Totals | None = None,
        held: Totals | None = None,
        **vouchers: Whereabouts,
    ) -> FollowUp:
        """Write down what a look saw: by default all of it staged."""
        standing = Standing(
            posted=posted or Totals(),
            held=self.sent if held is None else held,
            vouchers={int(name[1:]): where for name, where in vouchers.items()},
        )
        return await self.ledger.record_look(
            who, look, standing, gap=GAP, requests={"read-back": 1}
        )

    async def look(self, **seen: Totals | Whereabouts) -> FollowUp:
        """Make a look that is due."""
        claimed = await self.claim()
        assert claimed is not None, "no look is due"
        return await self.record(*claimed, **seen)  # type: ignore[arg-type]

    async def is_due(self) -> bool:
        """Whether a look is due; it is claimed then."""
        return await self.claim() is not None
