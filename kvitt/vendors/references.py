"""What a voucher is called in a vendor's books, and how it is found again by that name.

A voucher is `<period's reference>-<sequence>`: nine characters, a hyphen, six digits. Where a
vendor keeps lines and no vouchers, each line adds its number: a hyphen, four digits. All of them
are equally long and in upper case, so that they sort by sequence and survive fields of codes.
"""

from __future__ import annotations

import hashlib
from array import array
from decimal import Decimal
from typing import TYPE_CHECKING

from kvitt.domain.errors import Refused
from kvitt.domain.money import CHECKSUMS, Totals, checksum_of
from kvitt.domain.reconcile import FoundVoucher

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvitt.domain.periods import Period
    from kvitt.domain.vouchers import Voucher

LAST_SEQUENCE = 999_999
# A debit side is kept in ten-thousandths, since no currency has more than four decimals.
_DECIMALS = 4
_CENT = Decimal("0.01")
_DIGEST = 8


def reference_to(period: Period, sequence: int) -> str:
    """Name a voucher by its place in the batch, in 16 characters. Raises Refused past the last."""
    if sequence > LAST_SEQUENCE:
        raise Refused(
            f"period {period.key}: voucher {sequence} has no name in the books, which count to "
            f"{LAST_SEQUENCE:,}. Nothing of it was sent: give the integration shorter periods"
        )
    return f"{period.reference}-{sequence:06d}"


def sequence_in(period: Period, name: str | None) -> int | None:
    """Return which voucher of a period a name means; None for everybody else's names."""
    reference, _, sequence = (name or "").strip().upper().partition("-")
    ours = reference == period.reference and sequence.isdecimal() and len(sequence) == 6  # noqa: PLR2004 - see above
    return int(sequence) if ours else None


def record_in(voucher: Voucher, most: int) -> str:
    """Return the id of a voucher's record for a field of so many characters.

    One that is too long is its beginning, a hyphen and eight digits of a hash of all of it.
    """
    record = voucher.record_id
    if len(record) <= most:
        return record
    digest = hashlib.sha256(record.encode()).hexdigest()[:_DIGEST]
    return f"{record[: most - _DIGEST - 1]}-{digest}"


def line_reference_to(period: Period, sequence: int, number: int) -> str:
    """Name a line of a voucher, in 21 characters up to line 9,999."""
    return f"{reference_to(period, sequence)}-{number:04d}"


def sequence_in_line(period: Period, name: str | None) -> int | None:
    """Return which voucher of a period a line's name means; None for everybody else's names."""
    return sequence_in(period, (name or "").strip().rpartition("-")[0])


class Tally:
    """The lines of vouchers `first` to `last`, added up as they are read, in any order.

    It keeps no line, but 12 bytes a voucher. A voucher that is in the books twice shows as one of
    twice the lines. Iterating gives the sequences of which there are lines.
    """

    def __init__(self, first: int = 0, last: int = LAST_SEQUENCE) -> None:
        self.lines = 0
        self._first = first
        self._last = last
        self._counts = array("I")  # of lines, by place
        self._debits = array("q")  # in ten-thousandths, by place
        # Debits that do not fit there: no real voucher's, but nothing is rounded away unseen.
        self._beyond: dict[int, Decimal] = {}

    def add(self, sequence: int, amount: Decimal) -> None:
        """Count a line of a signed amount, if it is one of the range."""
        if not self._first <= sequence <= self._last:
            return
        place = self._place_for(sequence)
        self.lines += 1
        self._counts[place] += 1
        if amount > 0:
            self._add_debit(place, amount)

    def found(self) -> dict[int, FoundVoucher]:
        """Return each voucher; for a range that is small."""
        return {sequence: self[sequence] for sequence in self}

    def totals(self) -> Totals:
        """Return the sum of all vouchers, `original` and `staged` left out."""
        vouchers, checksum, booked = 0, 0, Decimal(0)
        for sequence in self:
            voucher = self[sequence]
            vouchers += 1
            booked += voucher.booked
            checksum += checksum_of(sequence, voucher.lines, voucher.booked)
        return Totals(
            vouchers=vouchers, lines=self.lines, booked=booked, checksum=checksum % CHECKSUMS
        )

    def __contains__(self, sequence: int) -> bool:
        place = sequence - self._first
        return 0 <= place < len(self._counts) and self._counts[place] > 0

    def __iter__(self) -> Iterator[int]:
        return (self._first + place for place, count in enumerate(self._counts) if count)

    def __getitem__(self, sequence: int) -> FoundVoucher:
        """Return a voucher; of one that is not there, no lines."""
        if sequence not in self:
            return FoundVoucher(lines=0, booked=Decimal(0))
        place = sequence - self._first
        booked = Decimal(self._debits[place]).scaleb(-_DECIMALS) + self._beyond.get(place, 0)
        return FoundVoucher(lines=self._counts[place], booked=_plain(booked))

    def __add__(self, other: Tally) -> Tally:
        """Return both together: what is in both, in two copies."""
        both = Tally(min(self._first, other._first), max(self._last, other._last))
        for each in (self, other):
            both.lines += each.lines
            for sequence in each:
                voucher = each[sequence]
                place = both._place_for(sequence)
                both._counts[place] += voucher.lines
                both._add_debit(place, voucher.booked)
        return both

    def _place_for(self, sequence: int) -> int:
        place = sequence - self._first
        more = place + 1 - len(self._counts)
        if more > 0:
            self._counts.frombytes(bytes(more * self._counts.itemsize))
            self._debits.frombytes(bytes(more * self._debits.itemsize))
        return place

    def _add_debit(self, place: int, amount: Decimal) -> None:
        units = int(amount.scaleb(_DECIMALS))
        try:
            if Decimal(units).scaleb(-_DECIMALS) == amount:
                self._debits[place] += units
                return
        except OverflowError:
            pass
        self._beyond[place] = self._beyond.get(place, Decimal(0)) + amount


def _plain(amount: Decimal) -> Decimal:
    """Return an amount with two decimals where it has no more, as people write it."""
    rounded = amount.quantize(_CENT)
    return rounded if rounded == amount else amount
