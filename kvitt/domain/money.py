"""Money: exact decimals, and what a receipt compares."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer

# ISO 4217: the minor units that are not two. Currencies that are not listed have two.
_MINOR_UNITS = {
    **dict.fromkeys(
        (
            "BIF",
            "CLP",
            "DJF",
            "GNF",
            "ISK",
            "JPY",
            "KMF",
            "KRW",
            "PYG",
            "RWF",
            "UGX",
            "UYI",
            "VND",
            "VUV",
            "XAF",
            "XOF",
            "XPF",
        ),
        0,
    ),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
    **dict.fromkeys(("CLF", "UYW"), 4),
}


# The sums of all that a period can hold (a million lines) stay exact in the 28 digits of decimals.
_TOO_LARGE = Decimal(10) ** 14
_TOO_LARGE_A_SUM = Decimal(10) ** 22
# Python reads more than that as a number: underscores, digits of other scripts.
_PLAIN = re.compile(r"\s*[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?\s*")


def parse_amount(value: Any) -> Decimal:
    """Return an exact amount from a decimal string, an int or a Decimal.

    A float is refused: 0.1 was already something else before it came here.
    """
    return _parse(value, below=_TOO_LARGE)


def _parse_sum(value: Any) -> Decimal:
    return _parse(value, below=_TOO_LARGE_A_SUM)


def _parse(value: Any, *, below: Decimal) -> Decimal:
    if isinstance(value, float | bool):
        raise ValueError(f"{value!r} is not exact: write amounts as strings, like '12.50'")  # noqa: TRY004 - pydantic reports ValueError
    if isinstance(value, str) and not _PLAIN.fullmatch(value):
        raise ValueError(f"{value!r} is no amount, like '12.50'")
    try:
        amount = Decimal(value)
    except (InvalidOperation, TypeError, ValueError) as error:
        raise ValueError(f"{value!r} is no amount, like '12.50'") from error
    if not amount.is_finite():
        raise ValueError(f"{value!r} is no amount, like '12.50'")
    if abs(amount) >= below:
        raise ValueError(f"{value!r} is larger than an amount can be")
    return amount


Amount = Annotated[
    Decimal, BeforeValidator(parse_amount), PlainSerializer(lambda a: format(a, "f"))
]


Sum = Annotated[Decimal, BeforeValidator(_parse_sum), PlainSerializer(lambda a: format(a, "f"))]


def minor_units(currency: str) -> int:
    """Return how many decimals a currency has (ISO 4217)."""
    return _MINOR_UNITS.get(currency, 2)


def is_exact(amount: Decimal, currency: str) -> bool:
    """Whether an amount has no more decimals than its currency."""
    return amount == round(amount, minor_units(currency))


def rounded(amount: Decimal, currency: str) -> Decimal:
    """Return an amount with the decimals of its currency, half a unit away from zero.

    As Postgres rounds a numeric, and as people do.
    """
    return amount.quantize(Decimal(1).scaleb(-minor_units(currency)), ROUND_HALF_UP)


def in_figures(amount: Decimal, currency: str) -> str:
    """Return an amount as people write it: with all decimals of its currency."""
    return format(rounded(amount, currency) if is_exact(amount, currency) else amount, "f")


CHECKSUMS = 2**60
"""Checksums are counted modulo this."""


def checksum_of(sequence: int, lines: int, booked: Decimal) -> int:
    """Return a voucher's checksum, below 2^60: of its place in the batch, lines and debit side.

    The ledger computes the same (kvitt.checksum_of in the schema): the first 15 hexadecimal digits
    of the SHA-256 of `sequence:lines:booked`, the amount without trailing zeros.
    """
    amount = f"{booked:f}"
    if "." in amount:
        amount = amount.rstrip("0").rstrip(".")
    return int(hashlib.sha256(f"{sequence}:{lines}:{amount}".encode()).hexdigest()[:15], 16)


class Totals(BaseModel):
    """How much: vouchers, lines, and the debit side, booked and per original currency.

    Only the debit side is summed, since balanced vouchers sum to nothing. `booked` is in the
    integration's book currency. `original` is None where a vendor does not show it. `checksum` is
    the sum of each voucher's (see `checksum_of`), so that the order does not matter. `staged` are
    those of the lines that wait to become final, where a vendor does that in its own time.
    """

    model_config = ConfigDict(frozen=True)

    vouchers: int = 0
    lines: int = 0
    booked: Sum = Decimal(0)
    original: Mapping[str, Sum] | None = {}
    checksum: int = 0
    staged: int = 0

    def __add__(self, other: Totals) -> Totals:
        """Add up; what one of the two does not show, the sum does not show."""
        return Totals(
            vouchers=self.vouchers + other.vouchers,
            lines=self.lines + other.lines,
            booked=self.booked + other.booked,
            original=_added(self.original, other.original),
            checksum=(self.checksum + other.checksum) % CHECKSUMS,
            staged=self.staged + other.staged,
        )

    def as_json(self) -> dict[str, Any]:
        """Return it for the ledger: amounts as strings, what is not shown left out."""
        return self.model_dump(mode="json", exclude_none=True)


def _added(
    left: Mapping[str, Decimal] | None, right: Mapping[str, Decimal] | None
) -> dict[str, Decimal] | None:
    if left is None or right is None:
        return None
    return {c: left.get(c, Decimal(0)) + right.get(c, Decimal(0)) for c in {**left, **right}}
