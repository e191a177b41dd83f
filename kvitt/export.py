"""Export: brings a frozen batch into a vendor's books, each voucher once.

A chunk goes intent row → call → outcome. A call without a reply is read back before anything else
is sent. A voucher that the vendor will not have is set aside with the vendor's own words, and the
rest goes without it; where the vendor does not say which one it is, it is found by halving.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from kvitt.attempts import failed, suspended
from kvitt.domain.errors import LedgerRefused, Refused, Uncertain, Unsent
from kvitt.domain.money import Totals
from kvitt.domain.reconcile import compare
from kvitt.domain.vouchers import Voucher, totals_of, voucher_of
from kvitt.ports import Chunk, ChunkState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from kvitt.attempts import Attempt
    from kvitt.ports import Vendor

T = TypeVar("T")

_CHUNK_PAGE = 500
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


class _Export:
    """The export of one batch, by one attempt."""

    def __init__(self, this: Attempt, vendor: Vendor) -> None:
        self._this = this
        self._vendor = vendor
        self._settle = this.integration.settle_time(vendor.habits.settle)
        # How many vouchers go in one call: fewer while one that is to blame is looked for.
        self._vouchers = vendor.habits.chunk_vouchers
        self._lines = min(
            vendor.habits.chunk_lines, this.integration.limits.chunk_lines or _ANY_NUMBER
        )

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
        misfits = await self._vendor.misfits(
            book_currency=this.integration.book_currency, today=first[0].posting_date
        )
        if misfits:
            raise await failed(this, _misfit_words(misfits))
        await this.ledger.mark_fitted(this.period, this.integration)

    # -- lines -------------------------------------------------------------------------------------

    async def finish_begun_chunks(self) -> int:
        """Bring the chunks of earlier attempts to their end; returns the last sequence of them."""
        ledger, last, number = self._this.ledger, 0, 0
        while chunks := await ledger.read_chunks(
            self._this.period, after=number, limit=_CHUNK_PAGE
        ):
            for chunk in chunks:
                number = chunk.number
                if chunk.first_sequence is not None and chunk.last_sequence is not None:
                    last = chunk.last_sequence
                    if chunk.state is not ChunkState.CONFIRMED:
                        last = await self._finish(chunk, chunk.first_sequence, last)
        return last

    async def send_all(self, *, after: int) -> None:
        """Send what no chunk has yet, in the batch's order."""
        most = self._vendor.habits.chunk_vouchers
        while vouchers := await self._read(after, records=self._vouchers, lines=self._lines):
            after = vouchers[-1].sequence
            vouchers = await self._without_objections(vouchers)
            if vouchers:
                after = await self._send(
                    vouchers[0].sequence, vouchers[-1].sequence, vouchers, vouchers
                )
                self._vouchers = min(most, self._vouchers * 2)

    async def _finish(self, chunk: Chunk, first: int, last: int) -> int:
        span = await self._read(first - 1, records=last - first + 1, lines=_ANY_NUMBER)
        vouchers = [voucher for voucher in span if voucher.sequence <= last]
        missing = vouchers
        if chunk.state is ChunkState.UNCERTAIN:
            missing = await self._look(chunk, vouchers)
        elif chunk.sends > 1 or chunk.absences:
            # What was sent last may have been a part of it, with the other part there already.
            missing = await self._missing(vouchers)
        return await self._send(first, last, vouchers, missing)

    async def _read(self, after: int, *, records: int, lines: int) -> list[Voucher]:
        this = self._this
        try:
            taken = await this.ledger.read_batch(
                this.period, after=after, records=records, lines=lines
            )
        except LedgerRefused as error:
            raise await failed(this, f"its batch cannot be read: {error}") from error
        return [voucher_of(r, this.integration, due_at=this.period.due_at) for r in taken]

    async def _without_objections(self, vouchers: Sequence[Voucher]) -> list[Voucher]:
        """Set aside what the vendor is known not to take, before anything of it is sent."""
        objections = {
            voucher.sequence: objection
            for voucher in vouchers
            if (objection := self._vendor.objection(self._this.period, voucher)) is not None
        }
        await self._set_aside(objections)
        return [voucher for voucher in vouchers if voucher.sequence not in objections]

    async def _send(
        self, first: int, last: int, vouchers: Sequence[Voucher], missing: Sequence[Voucher]
    ) -> int:
        """Bring a chunk of vouchers to its end; returns the last sequence that it has then.

        `missing` are those of them that are not in the books yet, which is what is sent.
        """
        while vouchers:
            intent = await self._intend(first, last, vouchers)
            if intent.state is ChunkState.CONFIRMED:
                break
            if not missing:
                await self._decide(intent, "confirmed", detail="found when read back")
                break
            try:
                chunk = await self._call_to_send(intent, missing)
            except Refused as error:
                last, vouchers, missing = await self._without_culprits(
                    error, last, vouchers, missing
                )
                continue
            if chunk.state is ChunkState.CONFIRMED:
                break
            missing = await self._look(chunk, vouchers)
        return last

    async def _intend(self, first: int, last: int, vouchers: Sequence[Voucher]) -> Chunk:
        intent = await self._this.ledger.intend(
            self._this.period, "lines", first, last, totals_of(vouchers), self._settle
        )
        assert intent is not None, "only a posting can turn out to have nothing to do"  # noqa: S101
        return intent

    async def _call_to_send(self, intent: Chunk, missing: Sequence[Voucher]) -> Chunk:
        begins = intent.number == 1 and intent.sends == 1

        async def call() -> Mapping[str, Any]:
            return await self._vendor.send(
                self._this.period, missing, begins=begins, guard=self._this.check
            )

        return await self._call(intent, call)

    async def _call(
        self, intent: Chunk, call: Callable[[], Awaitable[Mapping[str, Any] | None]]
    ) -> Chunk:
        """Make the call that an intent row announces, and write down its outcome.

        LeaseLost passes through, and the intent stays: whoever comes next treats it as uncertain.
        """
        if intent.state is not ChunkState.INTENDED:
            return intent
        try:
            reference = await call()
        except Unsent as error:
            await self._decide(intent, "unsent", detail=str(error))
            raise
        except Refused as error:
            await self._decide(intent, "refused", detail=str(error))
            raise
        except Uncertain as error:
            return await self._decide(intent, "uncertain", detail=str(error))
        return await self._this.ledger.settle_chunk(
            self._this.period, intent.number, "confirmed", reference=reference
        )

    async def _decide(self, chunk: Chunk, outcome: str, *, detail: str) -> Chunk:
        return await self._this.ledger.settle_chunk(
            self._this.period, chunk.number, outcome, detail=detail
        )

    # -- reading back ------------------------------------------------------------------------------

    async def _look(self, chunk: Chunk, vouchers: Sequence[Voucher]) -> Sequence[Voucher]:
        """Read back a chunk whose reply is missing; returns what of it is to be sent again.

        What is there is confirmed at once. What is not there may still come: until the ledger says
        that it will not, the period waits (PeriodUncertain).
        """
        missing = await self._missing(vouchers)
        if not missing:
            await self._decide(chunk, "confirmed", detail="found when read back")
            return missing
        if (await self._absent(chunk)).state is ChunkState.UNCERTAIN:
            there = len(vouchers) - len(missing)
            raise await suspended(
                self._this,
                f"vouchers {vouchers[0].sequence} to {vouchers[-1].sequence}: {there} of "
                f"{len(vouchers)} are in the books",
            )
        return missing

    async def _missing(self, vouchers: Sequence[Voucher]) -> Sequence[Voucher]:
        """Return those vouchers that the books do not hold; what differs there is for a person."""
        if not vouchers:
            return vouchers
        first, last = vouchers[0].sequence, vouchers[-1].sequence
        reading = self._vendor.find(self._this.period, first=first, last=last)
        there = compare(vouchers, await read_back(self._this, reading))
        if there.contradictions:
            raise await failed(
                self._this,
                "the books hold something else than was sent: "
                + "; ".join(there.contradictions[:5]),
            )
        return there.missing

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

    async def _without_culprits(
        self, error: Refused, last: int, vouchers: Sequence[Voucher], missing: Sequence[Voucher]
    ) -> tuple[int, Sequence[Voucher], Sequence[Voucher]]:
        """Return the chunk that is left when those that the vendor refuses are gone.

        Nothing of a refused call was executed. Where nobody is named, the first half goes alone;
        but never half of what is in the books in part: what stays behind would be sent twice.
        """
        sent = {voucher.sequence for voucher in missing}
        culprits = {s: words for s, words in error.culprits.items() if s in sent}
        if not culprits and error.of_content:
            if len(missing) == 1:
                culprits = {missing[0].sequence: str(error)}
            elif len(missing) == len(vouchers):
                half = vouchers[: len(vouchers) // 2]
                self._vouchers = len(half)
                return half[-1].sequence, half, half
        if not culprits:
            raise await failed(self._this, f"the vendor refused it: {error}") from error
        await self._set_aside(culprits)
        return (
            last,
            [voucher for voucher in vouchers if voucher.sequence not in culprits],
            [voucher for voucher in missing if voucher.sequence not in culprits],
        )

    async def _set_aside(self, reasons: Mapping[int, str]) -> None:
        if not reasons:
            return
        this = self._this
        try:
            await this.ledger.set_aside(
                this.period, reasons, most=this.integration.limits.set_aside
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
                if not error.culprits:
                    raise await failed(this, f"the vendor refused it: {error}") from error
                await self._set_aside(error.culprits)
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


def _misfit_words(misfits: Sequence[str]) -> str:
    """Name what does not fit; `failed` says how it goes on when that is mended."""
    return (
        f"nothing was sent, as the accounting system is not set up for it: {'; '.join(misfits)}. "
        "If it is to stay as it is, say so with --accept-set-up beside the reason"
    )
