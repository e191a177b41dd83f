"""Vouchers: records after the mapping, in the accounting system's words; what a vendor is sent."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from kvitt.domain.mapping import LINE_TEXT, filled, objection_to, on_one_line, translate
from kvitt.domain.money import CHECKSUMS, Totals, checksum_of, in_figures

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import date, datetime

    from kvitt.domain.integrations import Integration
    from kvitt.domain.mapping import Mapping as Declaration
    from kvitt.domain.mapping import Translation
    from kvitt.domain.records import TakenLine, TakenRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class VoucherLine:
    """One line. Debit is positive; `booked` is in the book currency, `amount` in the voucher's.

    `comment` is a second text, for vendors that have a place for one.
    """

    number: int
    account: str
    party: str | None
    amount: Decimal
    booked: Decimal
    tax: str | None
    dimensions: Mapping[str, str]
    text: str
    comment: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Voucher:
    """One voucher. `sequence` is its place in the batch, `number` its voucher number.

    `objection` says why the mapping does not let it go, in words that follow its name.
    """

    sequence: int
    number: int
    record_id: str
    posting_date: date
    document_date: date
    currency: str
    source: str | None
    text: str
    lines: tuple[VoucherLine, ...]
    objection: str | None = None

    @property
    def totals(self) -> Totals:
        """Its share of a receipt."""
        return totals_of([self])


def debit(amounts: Iterable[Decimal]) -> Decimal:
    """Sum the debit side."""
    return sum((amount for amount in amounts if amount > 0), Decimal(0))


def totals_of(vouchers: Iterable[Voucher]) -> Totals:
    """Add up vouchers."""
    count = lines = checksum = 0
    booked, original = Decimal(0), defaultdict[str, Decimal](Decimal)
    for voucher in vouchers:
        own = debit(line.booked for line in voucher.lines)
        count += 1
        lines += len(voucher.lines)
        booked += own
        original[voucher.currency] += debit(line.amount for line in voucher.lines)
        checksum += checksum_of(voucher.sequence, len(voucher.lines), own)
    return Totals(
        vouchers=count,
        lines=lines,
        booked=booked,
        original=dict(original),
        checksum=checksum % CHECKSUMS,
    )


def voucher_of(record: TakenRecord, integration: Integration, *, due_at: datetime) -> Voucher:
    """Map a record into the accounting system's words."""
    mapping, period_day = integration.mapping, integration.local(due_at).date()
    lines = [translate(line, mapping) for line in record.lines]
    posting_date = mapping.posted_on(record.voucher_date, period_day)
    by_period = mapping.document_date == "period"
    return Voucher(
        sequence=record.sequence,
        number=record.voucher_number,
        record_id=record.id,
        posting_date=posting_date,
        document_date=period_day if by_period else record.voucher_date,
        currency=record.currency,
        source=mapping.source,
        text=record.text,
        lines=tuple(
            _line_of(line, words, record, integration, period_day)
            for line, words in zip(record.lines, lines, strict=True)
        ),
        objection=objection_to(lines) or _closed(posting_date, mapping),
    )


def _line_of(
    line: TakenLine,
    words: Translation,
    record: TakenRecord,
    integration: Integration,
    period_day: date,
) -> VoucherLine:
    text, comment = _texts_of(line, record, integration.mapping, period_day)
    return VoucherLine(
        number=line.number,
        account=words.account.becomes,
        party=words.party and words.party.becomes,
        amount=line.amount,
        booked=line.book_amount,
        tax=words.tax and words.tax.becomes,
        dimensions={name.becomes: value.becomes for name, value in words.dimensions},
        text=text,
        comment=comment,
    )


def _texts_of(
    line: TakenLine, record: TakenRecord, mapping: Declaration, period_day: date
) -> tuple[str, str | None]:
    """Return a line's text and comment. A template may come to nothing: then its own text it is."""
    own = on_one_line(line.text or record.text)
    if mapping.text == LINE_TEXT and mapping.comment is None:
        return own, None
    words = _words_for_templates(line, record, period_day)
    comment = filled(mapping.comment, words) or None if mapping.comment else None
    return filled(mapping.text, words) or own, comment


def _words_for_templates(line: TakenLine, record: TakenRecord, period_day: date) -> dict[str, str]:
    """Return what the placeholders of the mapping's templates stand for."""
    parties = {each.party for each in record.lines if each.party}
    only_party = next(iter(parties)) if len(parties) == 1 else ""
    return {
        "text": record.text,
        "line_text": line.text or record.text,
        "kind": record.kind,
        "record": record.id,
        "party": line.party or only_party,
        "voucher_date": record.voucher_date.isoformat(),
        "period": period_day.isoformat(),
        "amount": in_figures(line.amount, record.currency),
        "currency": record.currency,
    }


def _closed(posting_date: date, mapping: Declaration) -> str | None:
    if mapping.closed_until is None or posting_date > mapping.closed_until:
        return None
    return (
        f"would be posted on {posting_date}, and mapping.closed_until says that the books are "
        f"closed until {mapping.closed_until}: correct that date, then let the record go again"
    )
