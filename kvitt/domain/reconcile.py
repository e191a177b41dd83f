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
    """What of a chunk a vendor has. `contradictions` are sentences for a person."""

    missing: tuple[Voucher, ...]
    contradictions: tuple[str, ...]
    present: int

    @property
    def complete(self) -> bool:
        """All is there, and as it was sent."""
        return not self.missing and not self.contradictions


def compare(vouchers: Sequence[Voucher], found: Mapping[int, FoundVoucher]) -> Comparison:
    """Hold a chunk's vouchers against what was found, by their place in the batch."""
    return Comparison(
        missing=tuple(v for v in vouchers if v.sequence not in found),
        contradictions=tuple(
            f"voucher {v.number} (record {v.record_id}): sent {v.totals.lines} lines of "
            f"{v.totals.booked:f}, the books show {there.lines} of {there.booked:f}"
            for v in vouchers
            if (there := found.get(v.sequence)) is not None
            and (there.lines, there.booked) != (v.totals.lines, v.totals.booked)
        ),
        present=sum(v.sequence in found for v in vouchers),
    )
