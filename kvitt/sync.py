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
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID, uuid4

from kvitt.domain.errors import (
    FunctionFailed,
    KvittError,
    LeaseLost,
    LedgerRefused,
    LedgerUnavailable,
    PeriodFailed,
    PeriodStopped,
    PeriodUncertain,
    Refused,
    Uncertain,
    Unsent,
)
from kvitt.domain.money import Totals
from kvitt.domain.periods import PeriodState
from kvitt.domain.reconcile import compare
from kvitt.domain.vouchers import Voucher, totals_of, voucher_of
from kvitt.ports import Chunk, ChunkState, Claim, ClaimOutcome, ColdStart, ColdStartKind, Trigger

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence

    from kvitt.domain.integrations import Integration
    from kvitt.domain.periods import Period
    from kvitt.ports import Collector, Ledger, Pong, Vendor

T = TypeVar("T")

LEASE = timedelta(seconds=120)
_PAUSE_SECONDS = 1.0
_MOST_PINGS = 20
_FUNCTION_TRIES = 5
_CHUNK_PAGE = 500
_PREVIEW_PAGE = 200


@dataclass(kw_only=True, slots=True)
class Attempt:
    """One try at a claimed period, and what it works with.

    `requests` counts what the vendor was asked, by purpose; whoever opens the vendor sets it.
    `check` raises LeaseLost unless the lease surely holds; it is asked right before each request
    that writes to a vendor.
    """

    id: UUID
    integration: Integration
    period: Period
    ledger: Ledger
    check: Callable[[], None]
    requests: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What came of asking for a period. The lease, if it was given, surely holds to `deadline`."""

    attempt: UUID
    claim: Claim
    lease: timedelta
    deadline: float


# A lease goes on while a machine sleeps, so it is held against a clock that does as well: on Linux
# the monotonic one stands still then, on macOS it does not.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def _now() -> float:
    return time.clock_gettime(_CLOCK)


async def claim(
    ledger: Ledger,
    integration: str,
    trigger: Trigger,
    *,
    due_at: datetime | None = None,
    lease: timedelta = LEASE,
) -> Answer:
    """Ask for a period: the one that is due at a time, or the oldest that is due and unfinished."""
    attempt = uuid4()
    # The ledger counts from a later moment than this one, so that ours ends first.
    asked = _now()
    answer = await ledger.claim(integration, attempt, trigger, lease=lease, due_at=due_at)
    deadline = asked + lease.total_seconds()
    return Answer(attempt=attempt, claim=answer, lease=lease, deadline=deadline)


@asynccontextmanager
async def attempt(ledger: Ledger, answer: Answer) -> AsyncGenerator[Attempt]:
    """Hold the lease of a claimed period; on the way out, write down how the attempt ended."""
    claimed = answer.claim
    if claimed.outcome != ClaimOutcome.CLAIMED or not (claimed.period and claimed.integration):
        raise ValueError(f"only a claimed period can be worked on; it is {claimed.outcome}")
    lease = _Lease(ledger, claimed.period, answer.lease, answer.deadline)
    this = Attempt(
        id=answer.attempt,
        integration=claimed.integration,
        period=claimed.period,
        ledger=ledger,
        check=lease.check,
    )
    keeper = asyncio.create_task(lease.keep())
    try:
        yield this
    except BaseException as error:
        await _close(this, _outcome_of(error), str(error) or type(error).__name__)
        raise
    else:
        await ledger.close(this.id, "settled", None, this.requests)
    finally:
        keeper.cancel()


async def _close(this: Attempt, outcome: str, detail: str) -> None:
    """Say how it ended, if that can be said; the lease runs out by itself if not."""
    try:
        await this.ledger.close(this.id, outcome, detail, this.requests)
    except (KvittError, asyncio.CancelledError):
        return


def _outcome_of(error: BaseException) -> str:
    match error:
        case PeriodUncertain():
            return "uncertain"
        case PeriodFailed():
            return "failed"
        case _:
            return "interrupted"


class _Lease:
    """Keeps a lease, and knows without asking until when it surely holds."""

    def __init__(self, ledger: Ledger, period: Period, length: timedelta, deadline: float) -> None:
        self._ledger = ledger
        self._period = period
        self._length = length
        self._deadline = deadline
        self._lost: LeaseLost | None = None

    def check(self) -> None:
        """Raise LeaseLost unless the lease holds now, by our own monotonic clock.

        A process that was stopped and goes on much later learns it here, before it sends.
        """
        if self._lost is not None:
            raise self._lost
        if _now() >= self._deadline:
            raise LeaseLost(
                f"period {self._period.key}: the lease of attempt {self._period.fence} ran out "
                "before it could be renewed; nothing more is sent, the next run goes on"
            )

    async def keep(self) -> None:
        """Renew four times as often as needed, until it is lost."""
        while True:
            await asyncio.sleep(self._length.total_seconds() / 4)
            asked = _now()
            try:
                await self._ledger.renew(self._period, self._length)
            except LeaseLost as lost:
                self._lost = lost
                return
            except LedgerUnavailable:
                continue  # the deadline stands, and decides
            self._deadline = asked + self._length.total_seconds()


# -- warm up ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Warmth:
    """What the warm-up saw."""

    pings: int
    cold_starts: int
    warm: bool


async def warm_up(this: Attempt, collector: Collector) -> Warmth:
    """Ping the function until it answers warm, or its time is up. Never stops the period."""
    until = _now() + this.integration.limits.warm_up
    pings = cold = 0
    while pings < _MOST_PINGS and _now() < until:
        pings += 1
        seen = await _ping(collector)
        if seen is None:
            return Warmth(pings=pings, cold_starts=cold, warm=True)
        cold += 1
        await this.ledger.record_cold_start(this.period, this.id, collector.name, seen)
        if seen.kind is not ColdStartKind.BOOTED:
            await asyncio.sleep(_PAUSE_SECONDS)
    return Warmth(pings=pings, cold_starts=cold, warm=False)


async def _ping(collector: Collector) -> ColdStart | None:
    """One ping: None when it was warm, else how it was not."""
    began = _now()
    try:
        pong = await collector.ping()
    except FunctionFailed as error:
        return _failed_start(error, began)
    return _booted(pong) if pong.booted else None


def _booted(pong: Pong) -> ColdStart:
    return ColdStart(kind=ColdStartKind.BOOTED, reply_ms=pong.reply_ms, boot_ms=pong.boot_ms)


def _failed_start(error: FunctionFailed, began: float) -> ColdStart:
    return ColdStart(
        kind=ColdStartKind(error.kind or ColdStartKind.BOOT_ERROR),
        reply_ms=round((_now() - began) * 1000, 1),
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
        began = _now()
        try:
            answer = await collector.collect(this.period, page=page)
        except FunctionFailed as error:
            failures += 1
            await _note_failure(this, collector, error, began)
            if failures >= _FUNCTION_TRIES:
                raise _gave_up(this, error, failures) from error
            page = await _after_failure(this, collector, error, page)
            continue
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
        seen = _failed_start(error, began)
        await this.ledger.record_cold_start(this.period, this.id, collector.name, seen)


async def _after_failure(
    this: Attempt, collector: Collector, error: FunctionFailed, page: int
) -> int:
    if error.kind == ColdStartKind.OUT_OF_MEMORY:
        return max(1, page // 2)
    await asyncio.sleep(_PAUSE_SECONDS)
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
    after = 0
    while records := await ledger.preview_batch(period, after=after, limit=_PREVIEW_PAGE):
        for record in records:
            yield voucher_of(record, integration, due_at=period.due_at)
        after = records[-1].sequence


# -- export ----------------------------------------------------------------------------------------


async def export(this: Attempt, vendor: Vendor) -> int:
    """Bring each voucher of the batch into the vendor's books, once; returns how many there are.

    Raises PeriodUncertain, PeriodFailed, LeaseLost, or Unsent when the vendor could not be asked.
    """
    sent = await _finish_begun_chunks(this, vendor)
    while vouchers := await _read_vouchers(this, after=sent, vendor=vendor):
        await _send(this, vendor, vouchers, vouchers)
        sent = vouchers[-1].sequence
    if vendor.habits.posts and sent:
        await _post(this, vendor)
    await this.ledger.finish_export(this.period)
    return sent


async def _finish_begun_chunks(this: Attempt, vendor: Vendor) -> int:
    """Bring the chunks of earlier attempts to their end; returns the last sequence they hold."""
    sent = number = 0
    while chunks := await this.ledger.read_chunks(this.period, after=number, limit=_CHUNK_PAGE):
        for chunk in chunks:
            number = chunk.number
            if chunk.first_sequence is None or chunk.last_sequence is None:
                continue
            if chunk.state is not ChunkState.CONFIRMED:
                await _finish(this, vendor, chunk, chunk.first_sequence, chunk.last_sequence)
            sent = chunk.last_sequence
    return sent


async def _finish(this: Attempt, vendor: Vendor, chunk: Chunk, first: int, last: int) -> None:
    vouchers = await _read_vouchers(this, after=first - 1, count=last - first + 1)
    if chunk.state is ChunkState.UNCERTAIN:
        await _look(this, vendor, chunk, vouchers)
    else:
        await _send(this, vendor, vouchers, vouchers)


async def _read_vouchers(
    this: Attempt, *, after: int, vendor: Vendor | None = None, count: int | None = None
) -> list[Voucher]:
    """Read what one call is to carry: by the vendor's limits, or as many as a chunk has."""
    try:
        records = await this.ledger.read_batch(
            this.period,
            after=after,
            records=vendor.habits.chunk_vouchers if vendor else count or 1,
            lines=_lines_of_a_chunk(this, vendor) if vendor else _ANY_NUMBER_OF_LINES,
        )
    except LedgerRefused as error:
        raise await _failed(this, f"its batch cannot be read: {error}") from error
    return [voucher_of(r, this.integration, due_at=this.period.due_at) for r in records]


_ANY_NUMBER_OF_LINES = 2**31 - 1


def _lines_of_a_chunk(this: Attempt, vendor: Vendor) -> int:
    return min(vendor.habits.chunk_lines, this.integration.limits.chunk_lines or 2**31 - 1)


async def _send(
    this: Attempt, vendor: Vendor, chunk_vouchers: Sequence[Voucher], missing: Sequence[Voucher]
) -> None:
    """Write the intent, call, write what came of it. `missing` is what of the chunk is sent."""
    intent = await this.ledger.intend(
        this.period,
        "lines",
        chunk_vouchers[0].sequence,
        chunk_vouchers[-1].sequence,
        totals_of(chunk_vouchers),
        this.integration.settle_time(vendor.habits.settle),
    )
    if intent.state is ChunkState.CONFIRMED:
        return
    chunk = await _call(this, intent, lambda: vendor.send(this.period, missing, guard=this.check))
    if chunk.state is ChunkState.UNCERTAIN:
        await _look(this, vendor, chunk, chunk_vouchers)


async def _call(this: Attempt, intent: Chunk, call: Callable[[], Any]) -> Chunk:
    """Make the call that an intent row announces, and write down its outcome.

    LeaseLost passes through, and the intent stays: whoever comes next treats it as uncertain.
    """
    if intent.state is not ChunkState.INTENDED:
        return intent
    try:
        reference: Mapping[str, Any] | None = await call()
    except Unsent as error:
        await _decide(this, intent, "unsent", detail=str(error))
        raise
    except Refused as error:
        await _decide(this, intent, "refused", detail=str(error))
        raise await _failed(this, f"the vendor refused it: {error}") from error
    except Uncertain as error:
        return await _decide(this, intent, "uncertain", detail=str(error))
    return await this.ledger.settle_chunk(
        this.period, intent.number, "confirmed", reference=reference
    )


async def _decide(this: Attempt, chunk: Chunk, outcome: str, *, detail: str) -> Chunk:
    return await this.ledger.settle_chunk(this.period, chunk.number, outcome, detail=detail)


async def _look(this: Attempt, vendor: Vendor, chunk: Chunk, vouchers: Sequence[Voucher]) -> None:
    """Read back a chunk whose reply is missing; what is there is confirmed at once."""
    first, last = vouchers[0].sequence, vouchers[-1].sequence
    found = await _read(this, vendor.find(this.period, first=first, last=last))
    there = compare(vouchers, found)
    if there.contradictions:
        raise await _failed(
            this,
            "the books hold something else than was sent: " + "; ".join(there.contradictions[:5]),
        )
    if there.complete:
        await _decide(this, chunk, "confirmed", detail="found when read back")
        return
    if (await _absent(this, vendor, chunk)).state is ChunkState.UNCERTAIN:
        raise await _waits(
            this, f"vouchers {first} to {last}: {there.present} of {len(vouchers)} are in the books"
        )
    await _send(this, vendor, vouchers, there.missing)


async def _read(this: Attempt, reading: Awaitable[T]) -> T:
    """Read a vendor's books. What it cannot make sense of, and says so, is for a person."""
    try:
        return await reading
    except Refused as error:
        raise await _failed(this, f"its books could not be read back: {error}") from error


async def _absent(this: Attempt, vendor: Vendor, chunk: Chunk) -> Chunk:
    """Tell the ledger that something is not there; it decides whether that means anything yet."""
    return await this.ledger.settle_chunk(
        this.period,
        chunk.number,
        "absent",
        absences=vendor.habits.absences,
        gap=this.integration.absence_gap(vendor.habits.gap),
    )


async def _post(this: Attempt, vendor: Vendor) -> None:
    """Have the vendor make the staged lines final: a call like any other, with its intent row."""
    settle = this.integration.settle_time(vendor.habits.settle)
    intent = await this.ledger.intend(this.period, "post", None, None, Totals(), settle)

    async def call() -> None:
        await vendor.post(this.period, guard=this.check)

    chunk = await _call(this, intent, call)
    if chunk.state is not ChunkState.UNCERTAIN:
        return
    if await _read(this, vendor.posted(this.period)):
        await _decide(this, chunk, "confirmed", detail="found posted when read back")
    elif (await _absent(this, vendor, chunk)).state is ChunkState.UNCERTAIN:
        raise await _waits(this, "it is not known whether the journal was posted")
    else:
        await _post(this, vendor)


async def _failed(this: Attempt, reason: str) -> PeriodFailed:
    await this.ledger.fail(this.period, reason)
    return PeriodFailed(_failed_words(this.period.key, reason))


def _failed_words(key: str, reason: str) -> str:
    return (
        f"period {key} failed: {reason}. Mend it, then start this period again: what is in the "
        "books already is not sent again"
    )


async def _waits(this: Attempt, reason: str) -> PeriodUncertain:
    not_before = await this.ledger.suspend(this.period, reason)
    return PeriodUncertain(
        f"period {this.period.key} is uncertain: {reason}. The vendor may still commit what was "
        f"sent, so it waits until {not_before:%Y-%m-%d %H:%M:%S} UTC, then goes on by itself",
        not_before=not_before,
    )


# -- verify ----------------------------------------------------------------------------------------


async def verify(this: Attempt, vendor: Vendor) -> dict[str, Any]:
    """Read back what the books hold of the period, and settle it; returns the receipt.

    An empty period asks the vendor nothing. Raises PeriodFailed where the books show something else
    than was sent, PeriodUncertain where they may not show it yet.
    """
    period = await this.ledger.read_period(this.period.integration_id, this.period.due_at)
    shown = Totals()
    if period.record_count:
        shown = await _read(this, vendor.totals(this.period))
    receipt = await this.ledger.settle(this.period, shown, vendor.requests)
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
    return PeriodFailed(_failed_words(period.key, reason))
