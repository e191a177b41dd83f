"""What a voucher is called in a vendor's books, and how it is found again by that name.

A voucher is `<period's reference>-<sequence>`: nine characters, a hyphen, six digits. All of them
are equally long and in upper case, so that they sort by sequence and survive fields of codes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from decimal import Decimal
from typing import TYPE_CHECKING

from kvitt.domain.errors import Refused
from kvitt.domain.money import Totals
from kvitt.domain.reconcile import FoundVoucher

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kvitt.domain.periods import Period

LAST_SEQUENCE = 999_999


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


def count_lines(lines: Iterable[tuple[int, Decimal]]) -> dict[int, FoundVoucher]:
    """Add up lines, each a sequence and a signed amount, to vouchers."""
    counts: Counter[int] = Counter()
    debits: defaultdict[int, Decimal] = defaultdict(Decimal)
    for sequence, amount in lines:
        counts[sequence] += 1
        debits[sequence] += max(amount, Decimal(0))
    return {s: FoundVoucher(lines=n, booked=debits[s]) for s, n in counts.items()}


def totals_of(
    found: Mapping[int, FoundVoucher], *, original: Mapping[str, Decimal] | None
) -> Totals:
    """Add up vouchers; `original` is None where the vendor shows no currencies."""
    return Totals(
        vouchers=len(found),
        lines=sum(voucher.lines for voucher in found.values()),
        booked=sum((voucher.booked for voucher in found.values()), Decimal(0)),
        original=original,
    )
