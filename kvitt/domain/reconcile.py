"""Reading back: whether a vendor's books hold what a call was to bring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from decimal import Decimal

    from kvitt.domain.vouchers import Voucher


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundVoucher:
    """A voucher as a vendor shows it: how many lines, and its debit side in book currency."""

    lines: int
    booked: Decimal


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What of a chunk a vendor has. `short` and `contradictions` are sentences for a person.

    `short` are vouchers that are there in part, so far; `contradictions` those that no waiting
    makes right.
    """

    missing: tuple[Voucher, ...]
    short: tuple[str, ...]
    contradictions: tuple[str, ...]
    present: int

    @property
    def complete(self) -> bool:
        """All is there, and as it was sent."""
        return not (self.missing or self.short or self.contradictions)


def compare(vouchers: Sequence[Voucher], found: Mapping[int, FoundVoucher]) -> Comparison:
    """Hold a chunk's vouchers against what was found, by their place in the batch."""
    short: list[str] = []
    contradictions: list[str] = []
    for voucher in vouchers:
        sent, there = voucher.totals, found.get(voucher.sequence)
        if there is None or (there.lines, there.booked) == (sent.lines, sent.booked):
            continue
        in_part = there.lines < sent.lines and there.booked <= sent.booked
        (short if in_part else contradictions).append(
            f"voucher {voucher.number} (record {voucher.record_id}): sent {sent.lines} lines of "
            f"{sent.booked:f}, the books show {there.lines} of {there.booked:f}"
        )
    return Comparison(
        missing=tuple(v for v in vouchers if v.sequence not in found),
        short=tuple(short),
        contradictions=tuple(contradictions),
        present=sum(v.sequence in found for v in vouchers),
    )
