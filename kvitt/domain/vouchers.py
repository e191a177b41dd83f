"""Vouchers: records after the mapping, in the accounting system's words; what a vendor is sent."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from kvitt.domain.money import Totals, checksum_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import date, datetime

    from kvitt.domain.integrations import Integration
    from kvitt.domain.records import TakenLine, TakenRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class VoucherLine:
    """One line. Debit is positive; `booked` is in the book currency, `amount` in the voucher's."""

    number: int
    account: str
    party: str | None
    amount: Decimal
    booked: Decimal
    tax: str | None
    dimensions: Mapping[str, str]
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Voucher:
    """One voucher. `sequence` is its place in the batch, `number` its voucher number."""

    sequence: int
    number: int
    record_id: str
    posting_date: date
    document_date: date
    currency: str
    source: str | None
    text: str
    lines: tuple[VoucherLine, ...]

    @property
    def totals(self) -> Totals:
        """Its share of a receipt."""
        booked = debit(line.booked for line in self.lines)
        return Totals(
            vouchers=1,
            lines=len(self.lines),
            booked=booked,
            original={self.currency: debit(line.amount for line in self.lines)},
            checksum=checksum_of(self.sequence, len(self.lines), booked),
        )


def debit(amounts: Iterable[Decimal]) -> Decimal:
    """Sum the debit side."""
    return sum((amount for amount in amounts if amount > 0), Decimal(0))


def totals_of(vouchers: Iterable[Voucher]) -> Totals:
    """Add up vouchers."""
    return sum((voucher.totals for voucher in vouchers), Totals())


def voucher_of(record: TakenRecord, integration: Integration, *, due_at: datetime) -> Voucher:
    """Map a record into the accounting system's words."""
    by_period = integration.mapping.posting_date == "period"
    return Voucher(
        sequence=record.sequence,
        number=record.voucher_number,
        record_id=record.id,
        posting_date=integration.local(due_at).date() if by_period else record.voucher_date,
        document_date=record.voucher_date,
        currency=record.currency,
        source=integration.mapping.source,
        text=record.text,
        lines=tuple(_line_of(line, record, integration) for line in record.lines),
    )


def _line_of(line: TakenLine, record: TakenRecord, integration: Integration) -> VoucherLine:
    words = integration.mapping
    return VoucherLine(
        number=line.number,
        account=words.accounts.get(line.account, line.account),
        party=None if line.party is None else words.parties.get(line.party, line.party),
        amount=line.amount,
        booked=line.book_amount,
        tax=None if line.tax is None else words.taxes.get(line.tax, line.tax),
        dimensions={words.dimensions.get(k, k): v for k, v in line.dimensions.items()},
        # On one line, as in a ledger: a claim's text may have line breaks.
        text=" ".join((line.text or record.text).split()),
    )
