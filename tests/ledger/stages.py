"""How far a period has come when a test begins."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from itertools import count
from typing import TYPE_CHECKING, Any

from kvitt.domain.money import Totals, checksum_of
from tests.cast import LEASE, debit_of
from tests.ledger.protocol import SETTLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvitt.domain.budget import Purpose
    from kvitt.domain.periods import Period
    from kvitt.domain.records import Record
    from kvitt.ports import Budget, Chunk
    from tests.cast import Stage

ALLOWANCE = 5_000
_connections = count(1)
LEASE_RAN_OUT = LEASE + timedelta(seconds=1)


async def collect(stage: Stage, period: Period, limit: int = 100) -> dict[str, Any]:
    """Take a page of records, as the Edge Function does."""
    return await stage.ledger._call(
        "collect_page",
        p_integration=stage.id,
        p_due=period.due_at.isoformat(),
        p_fence=period.fence,
        p_limit=limit,
    )


async def frozen(stage: Stage, records: int = 3, *, period: int = 0) -> Period:
    """Approve records, claim their period, and freeze its batch."""
    await stage.approve(records, period=period)
    held = await stage.claimed(due_at=stage.due[period])
    await collect(stage, held)
    return held


def totals(records: Sequence[Record], *, first: int = 1) -> Totals:
    """Count what a call carries, its first voucher having that place in the batch."""
    booked = debit_of(*records)
    return Totals(
        vouchers=len(records),
        lines=sum(len(record.lines) for record in records),
        booked=booked,
        original={"NOK": booked} if records else {},
        checksum=sum(
            checksum_of(sequence, len(record.lines), debit_of(record))
            for sequence, record in enumerate(records, first)
        )
        % 2**60,
    )


async def intend(
    stage: Stage, period: Period, first: int, last: int, what: Totals | None = None
) -> Chunk:
    """Write down that some vouchers are about to be sent."""
    what = what or Totals(vouchers=last - first + 1, booked=Decimal(1))
    chunk = await stage.ledger.intend(period, "lines", first, last, what, SETTLE)
    assert chunk is not None
    return chunk


async def post(stage: Stage, period: Period) -> Chunk:
    """Write down that the journal is about to be posted."""
    chunk = await stage.ledger.intend(period, "post", None, None, Totals(), SETTLE)
    assert chunk is not None
    return chunk


def a_connection() -> str:
    """Name a connection that nobody else spends from."""
    return f"connection-{next(_connections)}"


def budget(**stated: Any) -> dict[str, Any]:
    """State the budget of a connection of its own, for an integration."""
    return {"connection": a_connection(), "limits": {"budget": stated}}


async def spend(purse: Budget, purpose: Purpose, times: int = 1) -> None:
    """Spend requests of a vendor whose allowance is the usual one."""
    for _ in range(times):
        await purse.spend(purpose, allowance=ALLOWANCE)


async def close(stage: Stage, outcome: str) -> None:
    """End the attempt that holds the lease."""
    holders = (
        "select holder from kvitt.periods where integration_id = %(id)s and holder is not null"
    )
    [[attempt]] = stage.ask(holders)
    await stage.ledger.close(attempt, outcome, None, {})
