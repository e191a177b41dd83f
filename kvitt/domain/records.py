"""Records: approved vouchers as the app gives them, before any mapping. See docs/records.md."""

from __future__ import annotations

from collections import Counter
from datetime import date
from decimal import Decimal
from typing import Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from kvitt.domain.integrations import Code, Currency, Identifier, NonEmpty
from kvitt.domain.money import Amount, is_exact

# Days that every accounting system knows.
_FIRST_DAY, _LAST_DAY = date(1900, 1, 1), date(2199, 12, 31)


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
        return self


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
    lines: tuple[Line, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _balances(self) -> Self:
        finer = [line.amount for line in self.lines if not is_exact(line.amount, self.currency)]
        if finer:
            raise ValueError(f"{finer[0]:f} is finer than {self.currency} is")
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


class TakenLine(BaseModel):
    """A line as the ledger hands it out, complete."""

    model_config = ConfigDict(frozen=True)

    number: int
    account: str
    party: str | None
    amount: Amount
    book_amount: Amount
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
