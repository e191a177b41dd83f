"""Records: approved vouchers as the app gives them, before any mapping. See docs/records.md."""

from __future__ import annotations

from collections import Counter
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    model_validator,
)

from kvitt.domain.fields import Code, Currency, Identifier, NonEmpty
from kvitt.domain.money import Amount, is_exact, parse_amount, rounded

if TYPE_CHECKING:
    from kvitt.domain.integrations import Integration
    from kvitt.domain.mapping import Rounding

# Days that every accounting system knows.
_FIRST_DAY, _LAST_DAY = date(1900, 1, 1), date(2199, 12, 31)
# More than any currency has; what is finer is rounded by rule, or refused (`as_taken`).
_DECIMALS = 8


class Line(BaseModel):
    """One line. Amounts: debit is positive; `book_amount` is in the integration's book currency."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    account: Code
    amount: Amount
    book_amount: Amount | None = None
    party: Code | None = None
    tax: Code | None = None
    dimensions: dict[Code, Code] = {}
    text: str | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if 0 in (self.amount, self.book_amount):
            raise ValueError("a line of 0 books nothing: leave it out")
        for amount in (self.amount, self.book_amount or self.amount):
            if amount != round(amount, _DECIMALS):
                raise ValueError(f"{amount:f} has more than {_DECIMALS} decimals")
        return self


def _two_at_least(lines: tuple[Line, ...]) -> tuple[Line, ...]:
    """Of lines that are right: a wrong one is one cause, and not also one line too few."""
    if len(lines) < 2:  # noqa: PLR2004 - what balances, has two sides
        raise ValueError("a voucher has two lines at least")
    return lines


class Record(BaseModel):
    """One approved voucher with its balanced lines, all in one currency."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    integration: Identifier
    id: NonEmpty = Field(max_length=100)
    kind: NonEmpty
    approved_at: AwareDatetime
    voucher_date: date = Field(ge=_FIRST_DAY, le=_LAST_DAY)
    currency: Currency
    text: str = ""
    lines: Annotated[tuple[Line, ...], AfterValidator(_two_at_least)]

    @model_validator(mode="after")
    def _balances(self) -> Self:
        own = sum((line.amount for line in self.lines), Decimal(0))
        if own:
            raise ValueError(f"its lines sum to {own:f} {self.currency}, and must sum to 0")
        given = Counter(line.book_amount is None for line in self.lines)
        if len(given) > 1:
            raise ValueError("book_amount is given on some lines only: give it on all or on none")
        booked = sum((line.book_amount or Decimal(0) for line in self.lines), Decimal(0))
        if booked:
            raise ValueError(f"its lines sum to {booked:f} in the books, and must sum to 0")
        return self


def _taken_amount(value: object) -> Decimal:
    """Return an amount that the ledger wrote as a string; it has checked it. Lines are many."""
    if isinstance(value, str):
        try:
            return Decimal(value)
        except InvalidOperation:
            pass  # it says what is wrong with it
    return parse_amount(value)


TakenAmount = Annotated[
    Decimal, PlainValidator(_taken_amount), PlainSerializer(lambda amount: format(amount, "f"))
]


class TakenLine(BaseModel):
    """A line as the ledger hands it out, complete."""

    model_config = ConfigDict(frozen=True)

    number: int
    account: str
    party: str | None
    amount: TakenAmount
    book_amount: TakenAmount
    tax: str | None
    dimensions: dict[str, str]
    text: str | None


class TakenRecord(BaseModel):
    """A record that a period took: with its place in the batch and its voucher number."""

    model_config = ConfigDict(frozen=True)

    id: str
    kind: str
    voucher_date: date
    currency: str
    text: str
    sequence: int
    voucher_number: int
    lines: tuple[TakenLine, ...]


def as_taken(
    record: Record, integration: Integration, *, sequence: int = 1, voucher_number: int = 1
) -> TakenRecord:
    """Return a record as its integration's ledger would keep it and hand it out.

    Raises ValueError where the ledger would refuse it. The ledger does the same when the record is
    added (kvitt.rounded in the schema), which the tests hold against this.
    """
    books = integration.book_currency
    lines = [_as_kept(line, number, record, books) for number, line in enumerate(record.lines, 1)]
    rule = integration.mapping.rounding
    if rule is not None:
        lines = _rounded(lines, record.currency, books, rule)
    for line in lines:
        for amount, currency in ((line.amount, record.currency), (line.book_amount, books)):
            if not is_exact(amount, currency):
                raise ValueError(
                    f"line {line.number} has {amount:f} {currency}, finer than the currency is"
                )
    head = record.model_dump(include={"id", "kind", "voucher_date", "currency", "text"})
    return TakenRecord(**head, sequence=sequence, voucher_number=voucher_number, lines=tuple(lines))


def _as_kept(line: Line, number: int, record: Record, books: str) -> TakenLine:
    booked = line.book_amount
    if booked is None and record.currency != books:
        raise ValueError(
            f"it is in {record.currency}, so each line needs its book_amount in {books}"
        )
    if booked is not None and record.currency == books and booked != line.amount:
        raise ValueError(f"it is in {books}, so amount and book_amount are one")
    told = line.model_dump(exclude={"book_amount"})
    return TakenLine(number=number, book_amount=line.amount if booked is None else booked, **told)


def _rounded(lines: list[TakenLine], currency: str, books: str, rule: Rounding) -> list[TakenLine]:
    """Round what is booked to the decimals of the books; the difference becomes a line.

    An amount in another currency than the books' stays as it is: it is what somebody paid. So a
    difference that comes from converting is a line of 0 in that currency.
    """
    kept = [_rounded_line(line, currency, books) for line in lines]
    over = sum((line.book_amount for line in kept), Decimal(0))
    if not over:
        return kept
    difference = TakenLine(
        number=len(kept) + 1,
        account=rule.account,
        party=None,
        amount=-over if currency == books else Decimal(0),
        book_amount=-over,
        tax=None,
        dimensions={},
        text=rule.text,
    )
    return [*kept, difference]


def _rounded_line(line: TakenLine, currency: str, books: str) -> TakenLine:
    booked = rounded(line.book_amount, books)
    if not booked:
        raise ValueError(f"line {line.number} has {line.book_amount:f} {books}, which rounds to 0")
    if booked == line.book_amount:
        return line
    amount = booked if currency == books else line.amount
    return line.model_copy(update={"amount": amount, "book_amount": booked})
