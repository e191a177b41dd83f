"""`kvitt records`: the approved records, from a file."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import TYPE_CHECKING

import typer
from rich.markup import escape

from cli import files
from cli.command import Project
from cli.console import err, out
from cli.ledger import open_ledger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvitt.domain.records import Record

app = typer.Typer(help="The approved records.")
_BATCH = 500
_SHOWN = 3
_SOON = timedelta(days=1)


@app.command("import")
def import_records(file: Path, project: Project = "kvitt") -> None:
    """Add approved records from a file of JSON lines; the same record twice is one."""

    async def work() -> None:
        added = present = 0
        to_come: list[Record] = []
        async with open_ledger(project) as ledger:
            for batch in _batches(files.read_records(file)):
                new, old = await ledger.add_records(batch)
                added, present = added + new, present + old
                soon = datetime.now(UTC) + _SOON
                to_come += [record for record in batch if record.approved_at > soon]
        were = "was" if present == 1 else "were"
        out.print(f"{_number_of(added, 'record')} added, {present} {were} there already")
        if to_come:
            err.print(_words_of_the_future(to_come), highlight=False)

    asyncio.run(work())


def _words_of_the_future(to_come: list[Record]) -> str:
    first = max(to_come, key=lambda record: record.approved_at)
    name = escape(f"{first.id} of {first.integration}, approved {first.approved_at.isoformat()}")
    if len(to_come) == 1:
        return (
            f"1 record is approved more than a day from now ({name}): the first period that is due "
            "after that time takes it"
        )
    return (
        f"{len(to_come)} records are approved more than a day from now (the last is {name}): each "
        "is taken by the first period that is due after its time"
    )


def _number_of(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _batches(given: Iterator[Record]) -> Iterator[list[Record]]:
    while batch := list(islice(given, _BATCH)):
        yield batch
