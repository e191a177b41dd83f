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
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from kvitt.attempts import LEASE, Answer, Attempt, attempt, claim, failed_words, now
from kvitt.domain.errors import FunctionFailed, PeriodFailed, PeriodStopped, PeriodUncertain
from kvitt.domain.money import Totals
from kvitt.domain.pages import PageSize, first_page
from kvitt.domain.periods import PeriodState
from kvitt.domain.vouchers import Voucher, voucher_of
from kvitt.domain.warmth import Warming
from kvitt.export import export, read_back
from kvitt.ports import ColdStart, ColdStartKind, Consequence

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from kvitt.domain.integrations import Integration
    from kvitt.domain.periods import Period
    from kvitt.ports import Collector, Ledger, Page, Vendor

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
_SHORTEST_PING = 1.0
_MOST_PINGS = 20
_FUNCTION_TRIES = 5
_PREVIEW_PAGE = 200


# -- warm up ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Warmth:
    """What the warm-up saw. `wanted`: how many warm answers in a row it wanted in the end."""

    pings: int
    cold_starts: int
    wanted: int
    warm: bool


async def warm_up(this: Attempt, collector: Collector) -> Warmth:
    """Ping the function until it answers warm, or its time is up. Never stops the period."""
    if not this.integration.limits.warm_up:
        return Warmth(pings=0, cold_starts=0, wanted=0, warm=False)
    began = now()
    warmth = await _warm(this, collector)
    await this.ledger.record_warm_up(this.id, timedelta(seconds=now() - began))
    return warmth


async def _warm(this: Attempt, collector: Collector) -> Warmth:
    warming = Warming(habit=await this.ledger.function_habit(collector.name))
    until, pings = now() + this.integration.limits.warm_up, 0
    while not warming.warm and pings < _MOST_PINGS and now() < until:
        pings += 1
        try:
            seen = await _ping(this, collector, until - now())
        except FunctionFailed:
            break  # not for want of warmth: `collect` meets it again, and says what it is
        if seen is None:
            warming.met_warm()
        else:
            await _note_cold(this, collector, warming, seen)
    return Warmth(
        pings=pings,
        cold_starts=warming.boots + warming.failures,
        wanted=warming.wanted,
        warm=warming.warm,
    )


async def _note_cold(
    this: Attempt, collector: Collector, warming: Warming, seen: ColdStart
) -> None:
    """Write down that a ping met a cold start, and wait where it failed."""
    pause = 0.0
    if seen.kind is ColdStartKind.BOOTED:
        warming.met_boot()
    else:
        pause = warming.met_failure()
    seen = replace(seen, cost_ms=seen.reply_ms + pause * 1000)
    await this.ledger.record_cold_start(this.period, this.id, collector.name, seen)
    await asyncio.sleep(pause)


async def _ping(this: Attempt, collector: Collector, left: float) -> ColdStart | None:
    """One ping: None when it was warm, else how it was not. Raises what has another cause."""
    within, began = min(this.integration.timeouts.ping, max(left, _SHORTEST_PING)), now()
    try:
        pong = await collector.ping(within=within)
    except FunctionFailed as error:
        if error.kind is None:
            raise
        return _failed_start(error, error.kind, began)
    if not pong.booted:
        return None
    return ColdStart(
        kind=ColdStartKind.BOOTED,
        reply_ms=pong.reply_ms,
        boot_ms=pong.boot_ms,
        consequence=Consequence.WARM_UP,
    )


def _failed_start(error: FunctionFailed, kind: str, began: float) -> ColdStart:
    return ColdStart(
        kind=ColdStartKind(kind),
        reply_ms=_ms_since(began),
        consequence=Consequence.WARM_UP,
        detail=str(error),
    )


def _ms_since(began: float) -> float:
    return round((now() - began) * 1000, 1)


# -- collect ---------------------------------------------------------------------------------------


async def collect(this: Attempt, collector: Collector) -> int:
    """Have the function freeze the batch, a page at a time; returns how many records it holds.

    At a memory or CPU limit the page is halved, which the next period remembers; after a boot error
    or a time-out it is warmed up and goes on. Raises FunctionFailed when it fails too often in a
    row: the period stays as it is, and the next run goes on.
    """
    if this.period.state not in (PeriodState.COLLECTING, PeriodState.DUE):
        return this.period.record_count
    pages, failures = await _Pages.of(this, collector), 0
    while True:
        asked, began = pages.size.records, now()
        try:
            answer = await collector.collect(this.period, page=asked)
        except FunctionFailed as error:
            halves = error.kind == ColdStartKind.OUT_OF_MEMORY and asked > 1
            failures += 0 if halves else 1
            means = _meaning(halves=halves, gives_up=failures >= _FUNCTION_TRIES)
            await _note_failure(this, collector, error, began, page=asked, means=means)
            if means is Consequence.PERIOD_WAITS:
                raise _gave_up(this, error, failures) from error
            if means is Consequence.PAGE_HALVED:
                await pages.too_much()
            else:
                await _wake_again(this, collector, error)
            continue
        this.postponed = failures = 0
        if answer.booted:
            await _note_boot(this, collector, answer, began, page=asked)
        if answer.taken == asked:
            pages.went_well()
        if answer.done:
            await pages.remember()
            return answer.total
        if not answer.taken:
            raise FunctionFailed(
                f"period {this.period.key}: Edge Function {collector.name} took no record and is "
                "not done, so it would go on for ever; see docs/edge-function.md"
            )


def _meaning(*, halves: bool, gives_up: bool) -> Consequence:
    """Say what a failed call means. One whose page can be halved is no failure of the function."""
    if gives_up:
        return Consequence.PERIOD_WAITS
    return Consequence.PAGE_HALVED if halves else Consequence.CALLED_AGAIN


async def _wake_again(this: Attempt, collector: Collector, error: FunctionFailed) -> None:
    await asyncio.sleep(_PAUSE_SECONDS)
    if error.kind is not None:
        await _warm(this, collector)


class _Pages:
    """How many records are asked for at once, as it was learned and is remembered."""

    def __init__(self, this: Attempt, collector: Collector, size: PageSize) -> None:
        self.size = size
        self._remembered = size
        self._this = this
        self._function = collector.name

    @classmethod
    async def of(cls, this: Attempt, collector: Collector) -> _Pages:
        """Begin with what earlier periods have learned, or as the limits say."""
        limits, integration = this.integration.limits, this.period.integration_id
        most, memory_mb = limits.page_records, limits.function_memory
        learned = await this.ledger.learned_page(integration, collector.name, memory_mb=memory_mb)
        size = learned or first_page(most=most, memory_mb=memory_mb)
        return cls(this, collector, size.within(most))

    async def too_much(self) -> None:
        """Ask for half of it from now on; remembered at once, as this attempt may end."""
        self.size = self.size.after_too_much()
        await self.remember()

    def went_well(self) -> None:
        """Ask for more, now and then."""
        self.size = self.size.after_full_page(most=self._this.integration.limits.page_records)

    async def remember(self) -> None:
        """Keep what is new for the next period."""
        if self.size != self._remembered:
            this, memory_mb = self._this, self._this.integration.limits.function_memory
            await this.ledger.remember_page(
                this.period, self._function, self.size, memory_mb=memory_mb
            )
            self._remembered = self.size


async def _note_failure(
    this: Attempt,
    collector: Collector,
    error: FunctionFailed,
    began: float,
    *,
    page: int,
    means: Consequence,
) -> None:
    """Write down a call that failed, if it was for a cold start."""
    if error.kind is not None:
        seen = _failed_start(error, error.kind, began)
        pause = _PAUSE_SECONDS if means is Consequence.CALLED_AGAIN else 0
        cost_ms = seen.reply_ms + pause * 1000
        seen = replace(seen, consequence=means, cost_ms=cost_ms, page=page)
        await this.ledger.record_cold_start(this.period, this.id, collector.name, seen)


async def _note_boot(
    this: Attempt, collector: Collector, answer: Page, began: float, *, page: int
) -> None:
    """Write down that a page waited for a boot: another worker answered than the warmed-up one."""
    seen = ColdStart(
        kind=ColdStartKind.BOOTED,
        reply_ms=_ms_since(began),
        boot_ms=answer.boot_ms,
        consequence=Consequence.SLOW_PAGE,
        cost_ms=answer.boot_ms,
        page=page,
    )
    await this.ledger.record_cold_start(this.period, this.id, collector.name, seen)


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
