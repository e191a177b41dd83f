"""`kvitt mapping try`: records before and after the mapping, in tables that finance people read."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from cli.command import Project
from cli.console import out
from cli.files import FileError, read_mapping, read_records
from cli.ledger import open_ledger
from kvitt.domain.mapping import translate
from kvitt.domain.money import in_figures
from kvitt.domain.records import as_taken
from kvitt.domain.vouchers import voucher_of
from kvitt.vendors import VENDORS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence
    from decimal import Decimal

    from kvitt.domain.integrations import Integration
    from kvitt.domain.mapping import Word
    from kvitt.domain.periods import Period
    from kvitt.domain.records import TakenLine, TakenRecord
    from kvitt.domain.vouchers import Voucher, VoucherLine
    from kvitt.ledger import SupabaseLedger

app = typer.Typer(help="The mapping: the app's words in the accounting system's.")
_SHOWN = 3


@app.command("try")
def try_mapping(
    integration: str,
    project: Project = "kvitt",
    *,
    record: Annotated[str | None, typer.Option(help="Which record; else one of the next.")] = None,
    file: Annotated[Path | None, typer.Option(help="Records that are not added yet.")] = None,
    new: Annotated[
        Path | None, typer.Option("--mapping", help="A mapping that is not saved yet.")
    ] = None,
) -> None:
    """Show what the mapping makes of records, before and after. Sends and changes nothing."""

    async def work() -> None:
        async with open_ledger(project, integration) as ledger:
            who = await ledger.read_integration(integration)
            if new is not None:
                who = read_mapping(new, who)
            found = [each async for each in samples(ledger, who, record, file)]
        show(who, found)

    asyncio.run(work())


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A record, and the period that has taken it or would."""

    record: TakenRecord
    period: Period


async def samples(
    ledger: SupabaseLedger, who: Integration, name: str | None, file: Path | None
) -> AsyncGenerator[Sample]:
    """Yield what a mapping is tried on: records of a file, or one that the ledger has.

    Raises FileError for a record that the ledger would refuse.
    """
    if file is None:
        kept = await ledger.read_record(who.id, name)
        due_at = kept.period_due_at
        period = await (ledger.read_period(who.id, due_at) if due_at else _next(ledger, who))
        yield Sample(record=kept, period=period)
        return
    period, number = await _next(ledger, who), 0
    for record in read_records(file):
        if record.integration == who.id and name in (None, record.id):
            number += 1
            try:
                taken = as_taken(record, who, sequence=number, voucher_number=number)
            except ValueError as error:
                raise FileError(f"{file} ({record.id}): {error}") from error
            yield Sample(record=taken, period=period)
    if not number:
        raise FileError(f"{file} holds no such record of {who.id}")


async def _next(ledger: SupabaseLedger, who: Integration) -> Period:
    return await ledger.read_next_period(who.id)


def show(who: Integration, samples: Sequence[Sample]) -> None:
    """Show the first few records in full, and of all of them what a person should look at."""
    kind = VENDORS[who.vendor]
    left: Counter[tuple[str, str]] = Counter()
    aside: list[str] = []
    for place, sample in enumerate(samples):
        voucher = voucher_of(sample.record, who, due_at=sample.period.due_at)
        objection = voucher.objection or kind.objection(sample.period, voucher)
        if place < _SHOWN:
            _show_voucher(who, sample.record, voucher)
            if objection is None:
                _show_rows(who, kind.rows(sample.period, voucher))
        if objection is not None:
            aside.append(f"record {voucher.record_id} {objection}")
        left.update(_left_as_they_are(who, sample.record))
    if len(samples) > _SHOWN:
        out.print(f"and {len(samples) - _SHOWN} more: show one of them with --record\n")
    _say("No entry in the mapping, so left as they are:", _counted(left))
    _say("Would be set aside, and not sent:", aside)
    objections = kind.mapping_objections(who.mapping)
    _say(
        f"Can never work in {who.vendor}:",
        [f"mapping.{'.'.join(place)}: {words}" for place, words in objections],
    )
    out.print("Nothing was sent or changed.")


def _say(head: str, items: Sequence[str]) -> None:
    if items:
        out.print(head, highlight=False)
        for item in items:
            out.print(f"  {escape(item)}", highlight=False, soft_wrap=True)


def _left_as_they_are(who: Integration, record: TakenRecord) -> Iterator[tuple[str, str]]:
    for line in record.lines:
        for word in translate(line, who.mapping).words:
            if not word.listed and not word.refused:
                yield word.of, word.said


def _counted(left: Counter[tuple[str, str]]) -> list[str]:
    lists = dict.fromkeys(of for of, _ in left)
    return [
        f"{of}: " + ", ".join(f"{said} ({n} x)" for (its, said), n in left.items() if its == of)
        for of in lists
    ]


def _show_voucher(who: Integration, record: TakenRecord, voucher: Voucher) -> None:
    out.print(f"[bold]Record {escape(f'{record.id} ({record.kind}): {record.text}')}[/]")
    table = Table("", "in the app", "in the books", "")
    table.add_row("voucher date", str(record.voucher_date), f"posted on {voucher.posting_date}")
    table.add_row("", "", f"document date {voucher.document_date}", end_section=True)
    for line, booked in zip(record.lines, voucher.lines, strict=True):
        for row in _rows_of(who, record, line, booked):
            table.add_row(*map(escape, row))
        table.add_section()
    out.print(table, highlight=False)


def _rows_of(
    who: Integration, record: TakenRecord, line: TakenLine, booked: VoucherLine
) -> Iterator[tuple[str, str, str, str]]:
    """Yield what a line becomes: field, the app's word, the accounting system's, a note."""
    translation = translate(line, who.mapping)
    app = _money(line.amount, record.currency)
    yield f"line {line.number}", app, _money(line.book_amount, who.book_currency), ""
    fields = (("account", translation.account), ("party", translation.party))
    for field, word in (*fields, ("tax", translation.tax)):
        if word is not None:
            yield field, _said(word), word.becomes, _note(word)
    for name, value in translation.dimensions:
        yield name.said, _said(value), f"{name.becomes} {value.becomes}", _note(name, value)
    yield "text", line.text or "", booked.text, ""
    if booked.comment:
        yield "comment", "", booked.comment, ""


def _money(amount: Decimal, currency: str) -> str:
    side = "credit" if amount < 0 else "debit"
    return f"{in_figures(abs(amount), currency)} {currency} {side}"


def _said(word: Word) -> str:
    return "" if word.assumed else word.said


def _note(*words: Word) -> str:
    if any(word.refused for word in words):
        return "not listed, and strict"
    if any(word.assumed for word in words):
        return "by default"
    return "" if any(word.listed for word in words) else "no entry: as it is"


# -- as the vendor is sent it ----------------------------------------------------------------------


def _show_rows(who: Integration, rows: Sequence[dict[str, Any]]) -> None:
    """Show what is sent, a column a line: the fields are many, the lines of a voucher are few."""
    told = [dict(_fields(row)) for row in rows]
    table = Table(f"as {who.vendor} is sent it", *(f"line {n}" for n in range(1, len(rows) + 1)))
    for field in dict.fromkeys(field for row in told for field in row):
        table.add_row(escape(field), *(escape(row.get(field, "")) for row in told))
    out.print(table, highlight=False)


def _fields(row: dict[str, Any], of: str = "") -> Iterator[tuple[str, str]]:
    for name, value in row.items():
        match value:
            case dict():
                yield from _fields(value, f"{of}{name}.")  # pyright: ignore[reportUnknownArgumentType] - any dict
            case list():
                parts: list[dict[str, Any]] = value  # pyright: ignore[reportUnknownVariableType] - any list
                yield f"{of}{name}", "; ".join(" ".join(map(str, p.values())) for p in parts)
            case _:
                yield f"{of}{name}", str(value)
