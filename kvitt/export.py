"""Export: brings a frozen batch into a vendor's books, each voucher once.

A chunk goes intent row → call → outcome. Several are under way at a time where the vendor takes
that, with the next ones intended and built already, so that no call waits for our bookkeeping. A
call without a reply is read back before anything else is sent. A voucher that the vendor will not
have is set aside with the vendor's own words, and the rest goes without it; where the vendor does
not say which one it is, it is found by halving. Where a vendor may have taken the rest of what it
refused, it is read back first: what it named and is not there is set aside; where it named nobody,
what is not there goes one voucher at a time.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, aclosing, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from kvitt.attempts import failed, suspended
from kvitt.domain.chunks import cut
from kvitt.domain.errors import KvittError, LedgerRefused, Refused, Uncertain, Unsent
from kvitt.domain.money import Totals
from kvitt.domain.patience import LONGEST_WISH
from kvitt.domain.reconcile import compare
from kvitt.domain.vouchers import Voucher, totals_of, voucher_of
from kvitt.ports import Chunk, ChunkState, Intent

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        Awaitable,
        Callable,
        Collection,
        Generator,
        Mapping,
        Sequence,
    )

    from kvitt.attempts import Attempt
    from kvitt.domain.errors import PeriodFailed
    from kvitt.domain.reconcile import Comparison
    from kvitt.ports import Guard, Vendor

    Confirm = Callable[[int, Mapping[str, Any] | None], Awaitable[Chunk]]

T = TypeVar("T")

_CHUNK_PAGE = 500
# How many lines are read from the ledger at a time, at most: some chunks of any vendor. How many
# vouchers are mapped before the calls under way have their turn.
_READ_AHEAD, _MAPPED = 500, 10
# Seconds that a call to the ledger waits for what else is to be written.
_GATHER = 0.01
_ANY_NUMBER = 2**31 - 1
_TOO_MANY_SET_ASIDE = "KV006"


async def export(this: Attempt, vendor: Vendor) -> int:
    """Bring each voucher of the batch into the vendor's books; returns how many are there.

    Before the first of an integration, the vendor's set-up is looked at.

    Raises PeriodUncertain, PeriodFailed, LeaseLost, or Unsent when the vendor could not be asked.
    """
    work = _Export(this, vendor)
    if not this.fitted:
        await work.fit()
    await work.send_all(after=await work.finish_begun_chunks())
    if vendor.habits.posts:
        await work.post()
    return await this.ledger.finish_export(this.period)


async def read_back(this: Attempt, reading: Awaitable[T]) -> T:
    """Read a vendor's books. What it cannot make sense of, and says so, is for a person."""
    try:
        return await reading
    except Refused as error:
        raise await failed(this, f"its books could not be read back: {error}") from error


@dataclass(frozen=True, kw_only=True, slots=True)
class _Span:
    """Vouchers `first` to `last`, without those set aside, that go in one call.

    `missing` are those of them that are not in the books yet, which is what is sent.
    """

    first: int
    last: int
    vouchers: Sequence[Voucher]
    missing: Sequence[Voucher]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Hindrance:
    """A call that did not simply succeed: refused or unsent, as `error` says; else see the chunk.

    That is uncertain, as the reply is missing, or unsent, as the call was not begun.
    """

    span: _Span
    chunk: Chunk
    error: Refused | Unsent | None


class _InTheWay(Exception):
    """A call is not begun, because of what came of another one."""


class _Calls:
    """Calls side by side: under way, or intended and built, and waiting for a place at the vendor.

    Twice as many as the vendor takes at a time, so that the next ones are there in time.
    """

    def __init__(self, check: Guard, at_once: int, *, last: int) -> None:
        self.room = asyncio.Semaphore(2 * at_once)
        self.last = last  # the last voucher that has a chunk
        self.hindered = False  # known before it is written down, and is a hindrance
        self.hindrances: list[_Hindrance] = []
        self.stop: KvittError | None = None
        self._check = check

    @contextmanager
    def one(self) -> Generator[Guard]:
        """Make one of them; its guard does not let it begin behind one that did not succeed."""
        begun = False

        def guard() -> None:
            nonlocal begun
            if self.hindered and not begun:
                raise _InTheWay
            self._check()
            begun = True

        try:
            yield guard
        except BaseException:
            self.hindered = True
            raise

    def stopped(self, error: KvittError) -> None:
        """Begin nothing more, and let those under way come to their end."""
        self.hindered = True
        self.stop = self.stop or error


class _Scribe:
    """Writes intents and confirmations down: what comes up at a time in one call to the ledger.

    A call that fails, fails for all that it was to write, and for the intents that wait behind it.
    """

    def __init__(self, this: Attempt, settle: timedelta) -> None:
        self._this = this
        self._settle = settle
        self._pen = asyncio.Lock()
        self._confirmed: dict[int, tuple[Mapping[str, Any], asyncio.Future[Chunk]]] = {}
        self._intended: list[tuple[Intent, asyncio.Future[Chunk]]] = []

    async def intend(self, span: _Span) -> Chunk:
        """Write down a call before it is made; see `ports.Ledger.intend`."""
        written = asyncio.get_running_loop().create_future()
        intent = Intent(first=span.first, last=span.last, totals=totals_of(span.vouchers))
        self._intended.append((intent, written))
        return await self._until(written)

    async def confirm(self, number: int, reference: Mapping[str, Any] | None) -> Chunk:
        """Write down that the vendor took what a call brought."""
        written = asyncio.get_running_loop().create_future()
        self._confirmed[number] = (reference or {}, written)
        return await self._until(written)

    async def _until(self, written: asyncio.Future[Chunk]) -> Chunk:
        """Write what is there to be written, unless somebody else does."""
        async with self._pen:
            if not written.done():
                await asyncio.sleep(_GATHER)
                await self._write()
        return await written

    async def _write(self) -> None:
        confirmed, self._confirmed = self._confirmed, {}
        intended, self._intended = self._intended, []
        written = [*(each for _, each in confirmed.values()), *(each for _, each in intended)]
        try:
            chunks = await self._this.ledger.write_chunks(
                self._this.period,
                {number: reference for number, (reference, _) in confirmed.items()},
                [intent for intent, _ in intended],
                self._settle,
            )
        except KvittError as error:
            # What would be intended behind it does not follow any more, and is no reason to refuse
            # what is confirmed meanwhile.
            behind, self._intended = self._intended, []
            for each in (*written, *(each for _, each in behind)):
                each.set_exception(error)
        except BaseException:
            for each in written:
                each.cancel()
            raise
        else:
            for each, chunk in zip(written, chunks, strict=True):
                each.set_result(chunk)


class _Export:
    """The export of one batch, by one attempt."""

    def __init__(self, this: Attempt, vendor: Vendor) -> None:
        self._this = this
        self._vendor = vendor
        self._settle = this.integration.settle_time(vendor.habits.settle)
        self._scribe = _Scribe(this, self._settle)
        self._most = vendor.habits.chunk_vouchers
        limits = this.integration.limits
        self._lines = min(vendor.habits.chunk_lines, limits.chunk_lines or _ANY_NUMBER)
        self._at_once = min(vendor.habits.at_once, limits.at_once or _ANY_NUMBER)
        vendor.at_most(self._at_once)

    # -- the vendor's set-up -----------------------------------------------------------------------

    async def fit(self) -> None:
        """Stop, before anything is sent, where what is sent could not be posted or read back.

        Once for an integration, and once more when it leads elsewhere: the ledger remembers. A
        batch without vouchers asks the vendor nothing, and leaves the question to a later one.
        """
        this = self._this
        first = await self._read(0, records=1, lines=1)
        if not first:
            return
        due = this.integration.local(this.period.due_at).date()
        misfits = await self._vendor.misfits(
            book_currency=this.integration.book_currency, today=due
        )
        if misfits:
            raise await failed(this, _misfit_words(misfits))
        await this.ledger.mark_fitted(this.period, this.integration)

    # -- lines -------------------------------------------------------------------------------------

    async def finish_begun_chunks(self) -> int:
        """Bring the chunks of earlier attempts to their end; returns the last sequence of them.

        One after another: what is left of them is rare, and each may change what comes next.
        """
        ledger, last, number = self._this.ledger, 0, 0
        while chunks := await ledger.read_chunks(
            self._this.period, after=number, limit=_CHUNK_PAGE
        ):
            for chunk in chunks:
                number = chunk.number
                if chunk.first_sequence is not None and chunk.last_sequence is not None:
                    last = max(last, chunk.last_sequence)
                    if chunk.state is not ChunkState.CONFIRMED:
                        await self._finish(chunk, chunk.first_sequence, chunk.last_sequence)
        return last

    async def send_all(self, *, after: int) -> None:
        """Send what no chunk has yet, in the batch's order.

        Where a call does not simply succeed, no other one is begun before that is overcome.
        """
        hindrances: list[_Hindrance] | None = None
        while hindrances is None or hindrances:
            after, hindrances = await self._send_side_by_side(after)
            for hindrance in hindrances:
                if isinstance(hindrance.error, Unsent):
                    raise hindrance.error
            for hindrance in sorted(hindrances, key=lambda each: each.span.first):
                await self._overcome(hindrance)

    async def _send_side_by_side(self, after: int) -> tuple[int, list[_Hindrance]]:
        """Send chunk after chunk until there is no more, or something is in the way.

        Returns the last sequence that has a chunk, and what is in the way. What stops us between
        two calls waits for those under way: cut off, they would be uncertain.
        """
        calls = _Calls(self._this.check, self._at_once, last=after)
        try:
            async with asyncio.TaskGroup() as group, aclosing(self._spans(after)) as spans:
                try:
                    async for span in spans:
                        await calls.room.acquire()
                        if calls.hindered:
                            break
                        call = self._send_one_of_many(span, calls)
                        if calls.last:
                            group.create_task(call)
                        else:
                            await call  # alone: the others may need what the first of all founds
                except KvittError as error:
                    calls.stopped(error)
        except ExceptionGroup as several:
            raise several.exceptions[0] from None
        if calls.stop is not None:
            raise calls.stop
        return calls.last, calls.hindrances

    async def _send_one_of_many(self, span: _Span, calls: _Calls) -> None:
        error: Refused | Unsent | None = None
        with ExitStack() as room:
            room.callback(calls.room.release)
            if calls.hindered:
                return
            try:
                chunk = intent = await self._scribe.intend(span)
                calls.last = span.last
                try:
                    call = partial(self._send_beside, intent, span, calls, room)
                    chunk = await self._call(intent, call, confirm=self._scribe.confirm)
                except (Refused, Unsent) as said:
                    error = said
            except KvittError as stop:
                calls.stopped(stop)
                return
        if error or chunk.state is not ChunkState.CONFIRMED:
            calls.hindrances.append(_Hindrance(span=span, chunk=chunk, error=error))

    async def _send_beside(
        self, intent: Chunk, span: _Span, calls: _Calls, room: ExitStack
    ) -> Mapping[str, Any]:
        """Make one of several calls; there is room for another when the vendor is done with it."""
        with room, calls.one() as guard:
            return await self._call_to_send(intent, span.missing, guard)

    async def _overcome(self, hindrance: _Hindrance) -> None:
        """Bring a chunk to its end after all; see `_Hindrance`."""
        span = hindrance.span
        if isinstance(hindrance.error, Refused):
            parts = await self._without_culprits(hindrance.error, span)
        elif hindrance.chunk.state is ChunkState.UNCERTAIN:
            parts = await self._look(hindrance.chunk, span)
        else:
            parts = [span]
        for part in parts:
            await self._send(part)

    async def _spans(self, after: int) -> AsyncGenerator[_Span]:
        """Cut the rest of the batch into what goes in one call.

        What the vendor is known not to take is set aside on the way, before anything of it is sent.
        """
        rest: list[Voucher] = []
        async with aclosing(self._pages(after)) as pages:
            async for read in pages:
                vouchers = [*rest, *await self._without_objections(read)]
                if not vouchers:
                    continue
                *whole, rest = cut(vouchers, most=self._most, lines=self._lines)
                for chunk in whole:
                    yield _span(chunk)
        if rest:
            yield _span(rest)

    async def _pages(self, after: int) -> AsyncGenerator[list[Voucher]]:
        """Read the rest of the batch, one page ahead of what is being sent."""
        lines = max(self._lines, _READ_AHEAD)

        def read(after: int) -> asyncio.Task[list[Voucher]]:
            return asyncio.create_task(self._mapped(after, records=lines // 2, lines=lines))

        reading = read(after)
        try:
            while page := await self._readable(reading):
                reading = read(page[-1].sequence)
                yield page
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _finish(self, chunk: Chunk, first: int, last: int) -> None:
        read = await self._read(first - 1, records=last - first + 1, lines=_ANY_NUMBER)
        vouchers = [voucher for voucher in read if voucher.sequence <= last]
        span = _Span(first=first, last=last, vouchers=vouchers, missing=vouchers)
        if chunk.state is ChunkState.UNCERTAIN:
            parts = await self._look(chunk, span)
        elif chunk.state is ChunkState.REFUSED or chunk.sends > 1 or chunk.absences:
            # What was sent last may have been a part of it, with the other part there already; and
            # that nothing of a refused call is there is the vendor's word, and it may be mistaken.
            missing = await self._missing(vouchers)
            parts = await self._parts(chunk, replace(span, missing=missing))
        else:
            parts = [span]
        for part in parts:
            # The mapping of a mended period may object to what went before.
            left = await self._without_objections(part.missing)
            gone = {v.sequence for v in part.missing} - {v.sequence for v in left}
            await self._send(_without(part, gone))

    async def _read(self, after: int, *, records: int, lines: int) -> list[Voucher]:
        return await self._readable(self._mapped(after, records=records, lines=lines))

    async def _readable(self, reading: Awaitable[list[Voucher]]) -> list[Voucher]:
        """Read of the batch. What makes no sense is for a person, once it is its turn."""
        try:
            return await reading
        except LedgerRefused as error:
            raise await failed(self._this, f"its batch cannot be read: {error}") from error

    async def _mapped(self, after: int, *, records: int, lines: int) -> list[Voucher]:
        """Read and map records, and let the calls under way have their turn in between."""
        this, vouchers = self._this, list[Voucher]()
        left = iter(
            await this.ledger.read_batch(this.period, after=after, records=records, lines=lines)
        )
        while some := list(islice(left, _MAPPED)):
            vouchers += [voucher_of(r, this.integration, due_at=this.period.due_at) for r in some]
            await asyncio.sleep(0)
        return vouchers

    async def _without_objections(self, vouchers: Sequence[Voucher]) -> list[Voucher]:
        """Set aside what mapping or vendor are known not to take, before anything of it is sent."""
        objections = {
            voucher.sequence: objection
            for voucher in vouchers
            if (objection := self._objection(voucher)) is not None
        }
        await self._set_aside(objections)
        return [voucher for voucher in vouchers if voucher.sequence not in objections]

    def _objection(self, voucher: Voucher) -> str | None:
        return voucher.objection or self._vendor.objection(self._this.period, voucher)

    async def _send(self, span: _Span) -> None:
        """Bring a chunk to its end, whatever it takes."""
        if not span.vouchers:
            return
        intent = await self._intend(span)
        if intent.state is ChunkState.CONFIRMED:
            return
        if not span.missing:
            await self._decide(intent, "confirmed", detail="found when read back")
            return
        try:
            call = partial(self._call_to_send, intent, span.missing, self._this.check)
            chunk = await self._call(intent, call)
        except Refused as error:
            parts = await self._without_culprits(error, span)
        else:
            confirmed = chunk.state is ChunkState.CONFIRMED
            parts = [] if confirmed else await self._look(chunk, span)
        for part in parts:
            await self._send(part)

    async def _intend(self, span: _Span) -> Chunk:
        intent = await self._this.ledger.intend(
            self._this.period,
            "lines",
            span.first,
            span.last,
            totals_of(span.vouchers),
            self._settle,
        )
        assert intent is not None, "only a posting can turn out to have nothing to do"  # noqa: S101
        return intent

    async def _call_to_send(
        self, intent: Chunk, missing: Sequence[Voucher], guard: Guard
    ) -> Mapping[str, Any]:
        begins = intent.number == 1 and intent.sends == 1
        return await self._vendor.send(self._this.period, missing, begins=begins, guard=guard)

    async def _call(
        self,
        intent: Chunk,
        call: Callable[[], Awaitable[Mapping[str, Any] | None]],
        *,
        confirm: Confirm | None = None,
    ) -> Chunk:
        """Make the call that an intent row announces, and write down its outcome.

        LeaseLost passes through, and the intent stays: whoever comes next treats it as uncertain.
        """
        if intent.state is not ChunkState.INTENDED:
            return intent
        try:
            reference = await call()
        except _InTheWay:
            why = "what went before it is in the way"
            return await self._decide(intent, "unbegun", detail=why)
        except Unsent as error:
            await self._decide(intent, "unsent", detail=str(error))
            raise
        except Refused as error:
            await self._decide(intent, "refused", detail=str(error))
            raise
        except Uncertain as error:
            return await self._this.ledger.settle_chunk(
                self._this.period,
                intent.number,
                "uncertain",
                reference={} if error.refusal is None else {"refused": error.refusal.culprits},
                detail=str(error),
                gap=min(error.retry_after or timedelta(0), LONGEST_WISH),
            )
        self._this.postponed = 0
        return await (confirm or self._confirm)(intent.number, reference)

    async def _confirm(self, number: int, reference: Mapping[str, Any] | None) -> Chunk:
        return await self._this.ledger.settle_chunk(
            self._this.period, number, "confirmed", reference=reference
        )

    async def _decide(self, chunk: Chunk, outcome: str, *, detail: str) -> Chunk:
        return await self._this.ledger.settle_chunk(
            self._this.period, chunk.number, outcome, detail=detail
        )

    # -- reading back ------------------------------------------------------------------------------

    async def _look(self, chunk: Chunk, span: _Span) -> list[_Span]:
        """Read back a chunk whose reply is missing; returns what of it is to be sent again.

        What is there is confirmed at once. What is not there, or not all of it, may still come:
        until the ledger says that it will not, the period waits (PeriodUncertain).
        """
        vouchers = span.vouchers
        there = await self._compared(vouchers)
        if there.complete:
            await self._decide(chunk, "confirmed", detail="found when read back")
            return []
        if (await self._absent(chunk)).state is ChunkState.UNCERTAIN:
            in_part = f", {len(there.short)} of them in part" if there.short else ""
            raise await suspended(
                self._this,
                f"vouchers {vouchers[0].sequence} to {vouchers[-1].sequence}: {there.present} of "
                f"{len(vouchers)} are in the books{in_part}",
            )
        missing = await self._none_short(there)
        return await self._parts(chunk, replace(span, missing=missing))

    async def _parts(self, chunk: Chunk, span: _Span) -> list[_Span]:
        """Return what is left to be sent of a chunk that was read back; see `Chunk.refused`.

        Who was named and is not there is to blame; where that is nobody, each goes alone.
        """
        if chunk.refused is None:
            return [span]
        missing = {voucher.sequence for voucher in span.missing}
        culprits = {s: words for s, words in chunk.refused.items() if s in missing}
        if not culprits:
            return _one_by_one(span)
        await self._set_aside(culprits)
        return [_without(span, culprits)]

    async def _missing(self, vouchers: Sequence[Voucher]) -> Sequence[Voucher]:
        """Return those vouchers that the books do not hold, when nothing can come any more."""
        return await self._none_short(await self._compared(vouchers))

    async def _compared(self, vouchers: Sequence[Voucher]) -> Comparison:
        """Hold vouchers against the books; what no waiting makes right is for a person."""
        if not vouchers:
            return compare(vouchers, {})
        reading = self._vendor.find(self._this.period, vouchers)
        there = compare(vouchers, await read_back(self._this, reading))
        if there.contradictions:
            raise await self._contradicted(there.contradictions)
        return there

    async def _none_short(self, there: Comparison) -> Sequence[Voucher]:
        """Return what is missing. What is there in part, and stays so, is for a person."""
        if there.short:
            raise await self._contradicted(there.short)
        return there.missing

    async def _contradicted(self, words: Sequence[str]) -> PeriodFailed:
        return await failed(
            self._this, "the books hold something else than was sent: " + "; ".join(words[:5])
        )

    async def _absent(self, chunk: Chunk) -> Chunk:
        """Tell the ledger that something is not there; it decides whether that means anything."""
        habits = self._vendor.habits
        return await self._this.ledger.settle_chunk(
            self._this.period,
            chunk.number,
            "absent",
            absences=habits.absences,
            gap=self._this.integration.absence_gap(habits.gap),
        )

    # -- what the vendor will not have -------------------------------------------------------------

    async def _without_culprits(self, error: Refused, span: _Span) -> list[_Span]:
        """Return what is left to be sent when those that the vendor refuses are gone.

        Nothing of a refused call was executed. Where nobody is named, each half goes alone; but
        never half of what is in the books in part: what stays behind would be sent twice.
        """
        sent = {voucher.sequence for voucher in span.missing}
        culprits = {s: words for s, words in error.culprits.items() if s in sent}
        if not culprits and error.of_content:
            if len(span.missing) == 1:
                culprits = {span.missing[0].sequence: str(error)}
            elif len(span.missing) == len(span.vouchers):
                return _halves(span)
        if not culprits:
            raise await failed(self._this, f"the vendor refused it: {error}") from error
        await self._set_aside(culprits)
        return [_without(span, culprits)]

    async def _set_aside(self, reasons: Mapping[int, str]) -> int:
        """Set vouchers aside; returns how many were not before."""
        if not reasons:
            return 0
        this = self._this
        try:
            return await this.ledger.set_aside(
                this.period,
                reasons,
                most=this.integration.limits.set_aside,
                withdraws=self._vendor.habits.posts,
            )
        except LedgerRefused as error:
            if error.code != _TOO_MANY_SET_ASIDE:
                raise
            words = next(iter(reasons.values()))
            raise await failed(
                this,
                f"more than {this.integration.limits.set_aside} of its vouchers are not taken "
                f"(limits.set_aside), so it looks like the set-up and not like them; the last "
                f"one for this: {words}",
            ) from error

    # -- posting -----------------------------------------------------------------------------------

    async def post(self) -> None:
        """Have the vendor make the staged lines final: a call like any other, with its intent row.

        Vouchers for which it refuses to are taken back, and the rest is posted.
        """
        this, vendor = self._this, self._vendor
        while True:
            await self._withdraw()
            intent = await this.ledger.intend(
                this.period, "post", None, None, Totals(), self._settle
            )
            if intent is None or intent.state is ChunkState.CONFIRMED:
                return
            try:
                chunk = await self._call(intent, self._call_to_post)
            except Refused as error:
                # Those that are set aside were taken back: to blame them again is no help.
                if not await self._set_aside(error.culprits):
                    raise await failed(this, f"the vendor refused it: {error}") from error
                continue
            if chunk.state is ChunkState.CONFIRMED:
                return
            if await read_back(this, vendor.posted(this.period)):
                await self._decide(chunk, "confirmed", detail="found posted when read back")
                return
            if (await self._absent(chunk)).state is ChunkState.UNCERTAIN:
                raise await suspended(this, "it is not known whether the journal was posted")

    async def _call_to_post(self) -> None:
        await self._vendor.post(self._this.period, guard=self._this.check)

    async def _withdraw(self) -> None:
        """Take back what was staged before it was set aside. Twice is once: no intent is needed."""
        this = self._this
        sequences = await this.ledger.to_withdraw(this.period)
        if not sequences:
            return
        try:
            await self._vendor.withdraw(this.period, sequences, guard=this.check)
        except Refused as error:
            raise await failed(
                this, f"what was set aside could not be taken back: {error}"
            ) from error
        await this.ledger.withdrawn(this.period, sequences)


def _span(vouchers: Sequence[Voucher]) -> _Span:
    return _Span(
        first=vouchers[0].sequence,
        last=vouchers[-1].sequence,
        vouchers=vouchers,
        missing=vouchers,
    )


def _without(span: _Span, gone: Collection[int]) -> _Span:
    """Return a span without some of its vouchers, by their place in the batch."""
    return replace(
        span,
        vouchers=[each for each in span.vouchers if each.sequence not in gone],
        missing=[each for each in span.missing if each.sequence not in gone],
    )


def _one_by_one(span: _Span) -> list[_Span]:
    """Cut a span so that each part lacks one voucher; what is there already stays beside it."""
    ends = [voucher.sequence for voucher in span.missing[:-1]]
    parts: list[_Span] = []
    for first, last in zip(
        [span.first, *(end + 1 for end in ends)], [*ends, span.last], strict=True
    ):
        parts.append(
            _Span(
                first=first,
                last=last,
                vouchers=[each for each in span.vouchers if first <= each.sequence <= last],
                missing=[each for each in span.missing if first <= each.sequence <= last],
            )
        )
    return parts


def _halves(span: _Span) -> list[_Span]:
    """Cut a span in two. The ledger makes two chunks of it when the first half is intended."""
    middle = len(span.vouchers) // 2
    first, second = span.vouchers[:middle], span.vouchers[middle:]
    last = first[-1].sequence
    return [
        _Span(first=span.first, last=last, vouchers=first, missing=first),
        _Span(first=last + 1, last=span.last, vouchers=second, missing=second),
    ]


def _misfit_words(misfits: Sequence[str]) -> str:
    """Name what does not fit; `failed` says how it goes on when that is mended."""
    return (
        f"nothing was sent, as the accounting system is not set up for it: {'; '.join(misfits)}. "
        "If it is to stay as it is, say so with --accept-set-up beside the reason"
    )
