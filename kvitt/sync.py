"""The way of a period: claim → warm up → collect → export → verify, over the ports.

1. `claim` asks the ledger for the period; only a claimed one is worked on.
2. `Attempt` holds the lease while the rest happens, and writes down how it ended.
3. `warm_up` pings the Edge Function until it answers warm; it may give up, the rest goes on.
4. `collect` has the function freeze the batch, page by page.
5. `export` sends the batch in chunks: intent row → call → outcome. A call without a reply is read
   back before anything else is sent.
6. `verify` reads back the totals and settles the period: a receipt, or a reason.

Each step begins by asking what is done already, so that any of them may be the first one after a
crash. Sent is decided by the ledger and by the vendor's books, never by memory.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kvitt.attempts import LEASE, Answer, Attempt, attempt, claim, failed_words, now
from kvitt.domain.errors import FunctionFailed, PeriodFailed, PeriodStopped, PeriodUncertain
from kvitt.domain.money import Totals
from kvitt.domain.periods import PeriodState
from kvitt.domain.vouchers import Voucher, voucher_of
from kvitt.export import export, read_back
from kvitt.ports import ColdStart, ColdStartKind

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from kvitt.domain.integrations import Integration
    from kvitt.domain.periods import Period
    from kvitt.ports import Collector, Ledger, Pong, Vendor

__all__ = [
    "LEASE",
    "Answer",
    "Attempt",
    "Warmth",
    "attempt",
    "claim",
    "collect",
    "export",
    "preview",
    "verify",
    "warm_up",
]

_PAUSE_SECONDS = 1.0
_MOST_PINGS = 20
_FUNCTION_TRIES = 5
_PREVIEW_PAGE = 200


# -- warm up ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Warmth:
    """What the warm-up saw."""

    pings: int
    cold_starts: int
    warm: bool


async def warm_up(this: Attempt, collector: Collector) -> Warmth:
    """Ping the function until it answers warm, or its time is up. Never stops the period."""
    until = now() + this.integration.limits.warm_up
    pings = cold = 0
    while pings < _MOST_PINGS and now() < until:
        pings += 1
        try:
            seen = await _ping(collector)
        except FunctionFailed:
            break  # not for want of warmth: `collect` meets it again, and says what it is
        if seen is None:
            return Warmth(pings=pings, cold_starts=cold, warm=True)
        cold += 1
        await this.ledger.record_cold_start(this.period, this.id, collector.name, seen)
        if seen.kind is not ColdStartKind.BOOTED:
            await asyncio.sleep(_PAUSE_SECONDS)
    return Warmth(pings=pings, cold_starts=cold, warm=False)


async def _ping(collector: Collector) -> ColdStart | None:
    """One ping: None when it was warm, else how it was not. Raises what has another cause."""
    began = now()
    try:
        pong = await collector.ping()
    except FunctionFailed as error:
        if error.kind is None:
            raise
        return _failed_start(error, error.kind, began)
    return _booted(pong) if pong.booted else None


def _booted(pong: Pong) -> ColdStart:
    return ColdStart(kind=ColdStartKind.BOOTED, reply_ms=pong.reply_ms, boot_ms=pong.boot_ms)


def _failed_start(error: FunctionFailed, kind: str, began: float) -> ColdStart:
    return ColdStart(
        kind=ColdStartKind(kind),
        reply_ms=round((now() - began) * 1000, 1),
        detail=str(error),
    )


# -- collect ---------------------------------------------------------------------------------------


async def collect(this: Attempt, collector: Collector) -> int:
    """Have the function freeze the batch, a page at a time; returns how many records it holds.

    At a memory or CPU limit the page is halved; after a boot error or a time-out it is warmed up
    and goes on. Raises FunctionFailed when it fails too often in a row: the period stays as it is,
    and the next run goes on.
    """
    if this.period.state not in (PeriodState.COLLECTING, PeriodState.DUE):
        return this.period.record_count
    page, failures = this.integration.limits.page_records, 0
    while True:
        began = now()
        try:
            answer = await collector.collect(this.period, page=page)
        except FunctionFailed as error:
            failures += 1
            await _note_failure(this, collector, error, began)
            if failures >= _FUNCTION_TRIES:
                raise _gave_up(this, error, failures) from error
            page = await _after_failure(this, collector, error, page)
            continue
        this.postponed = 0
        if answer.done:
            return answer.total
        if not answer.taken:
            raise FunctionFailed(
                f"period {this.period.key}: Edge Function {collector.name} took no record and is "
                "not done, so it would go on for ever; see docs/edge-function.md"
            )
        failures = 0


async def _note_failure(
    this: Attempt, collector: Collector, error: FunctionFailed, began: float
) -> None:
    if error.kind is not None:
        seen = _failed_start(error, error.kind, began)
        await this.ledger.record_cold_start(this.period, this.id, collector.name, seen)


async def _after_failure(
    this: Attempt, collector: Collector, error: FunctionFailed, page: int
) -> int:
    if error.kind == ColdStartKind.OUT_OF_MEMORY:
        return max(1, page // 2)
    await asyncio.sleep(_PAUSE_SECONDS)
    if error.kind is not None:
        await warm_up(this, collector)
    return page


def _gave_up(this: Attempt, error: FunctionFailed, failures: int) -> FunctionFailed:
    return FunctionFailed(
        f"period {this.period.key}: its batch could not be collected, {failures} tries in a row "
        f"failed, the last one so: {error}. Nothing was sent; the next run goes on from here. See "
        "the function's logs in Supabase",
        kind=error.kind,
    )


# -- preview ---------------------------------------------------------------------------------------


async def preview(
    ledger: Ledger, integration: Integration, period: Period
) -> AsyncGenerator[Voucher]:
    """Yield the vouchers of a period as they were sent, or would be now. Changes nothing."""
    integration, after = integration.as_of(period), 0
    while records := await ledger.preview_batch(period, after=after, limit=_PREVIEW_PAGE):
        for record in records:
            yield voucher_of(record, integration, due_at=period.due_at)
        after = records[-1].sequence


# -- verify ----------------------------------------------------------------------------------------


async def verify(this: Attempt, vendor: Vendor) -> dict[str, Any]:
    """Read back what the books hold of the period, and settle it; returns the receipt.

    An empty period asks the vendor nothing. Raises PeriodFailed where the books show something else
    than was sent, PeriodUncertain where they may not show it yet.
    """
    period = await this.ledger.read_period(this.period.integration_id, this.period.due_at)
    shown = Totals()
    if period.record_count:
        shown = await read_back(this, vendor.totals(this.period))
    gap = this.integration.absence_gap(vendor.habits.gap)
    receipt = await this.ledger.settle(this.period, shown, vendor.requests, gap=gap)
    if receipt is not None:
        return receipt
    raise _stopped(await this.ledger.read_period(period.integration_id, period.due_at))


def _stopped(period: Period) -> PeriodStopped:
    reason = period.reason or "no reason is written down"
    if period.state is PeriodState.UNCERTAIN and period.not_before is not None:
        return PeriodUncertain(
            f"period {period.key} is uncertain: {reason} It is read again after "
            f"{period.not_before:%Y-%m-%d %H:%M:%S} UTC",
            not_before=period.not_before,
        )
    return PeriodFailed(failed_words(period, reason))
