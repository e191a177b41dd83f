"""`kvitt facts`: which uncertain facts about a vendor are true in a tenant of one's own."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from pydantic import BaseModel, ValidationError
from rich.markup import escape
from rich.table import Table

from cli.console import out
from cli.files import FileError
from cli.ledger import open_ledger
from cli.server import demand_server
from kvitt.budget import open_budget
from kvitt.domain.integrations import Timeouts
from kvitt.ports import Uncounted
from kvitt.vendors import VENDORS
from kvitt.vendors.facts import EXAMINATIONS, Answer, Record, Verdict, answers_to

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from kvitt.ports import Budget

_COLOURS = {Verdict.TRUE: "green", Verdict.FALSE: "yellow", Verdict.UNKNOWN: "dim"}


def facts(
    vendor: Annotated[str, typer.Argument(help=f"One of: {', '.join(sorted(EXAMINATIONS))}.")],
    connection: Annotated[
        str | None, typer.Argument(help="Name of the Prefect block that opens it.")
    ] = None,
    settings: Annotated[
        Path | None, typer.Option(help="A YAML or JSON file of the block's fields instead.")
    ] = None,
    record: Annotated[
        Path | None, typer.Option(help="Where the record goes; else kvitt-facts-VENDOR.json.")
    ] = None,
    project: Annotated[
        str, typer.Option(help="Name of the block of the Supabase project, which counts them.")
    ] = "kvitt",
    *,
    write: Annotated[bool, typer.Option(help="Ask what only writing tells; see the docs.")] = False,
    anywhere: Annotated[
        bool, typer.Option(help="Write although it is not known to be a demo.")
    ] = False,
) -> None:
    """Ask a tenant which uncertain facts are true there; reads only, unless told to write."""
    if vendor not in EXAMINATIONS:
        raise typer.BadParameter(f"{vendor} has no questions; see {', '.join(EXAMINATIONS)}")
    if (connection is None) == (settings is None):
        raise typer.BadParameter("give the name of a block, or --settings with a file")
    told = _of_file(vendor, settings) if settings else asyncio.run(_of_block(vendor, connection))
    examination = EXAMINATIONS[vendor]
    if write and not (anywhere or examination.harmless(told)):
        raise typer.BadParameter(
            f"{examination.address(told)} is not known to be a demo. What writing leaves there is "
            "named and never posted; if you want it all the same, add --anywhere"
        )
    found = asyncio.run(ask(vendor, told, write=write, connection=connection, project=project))
    _show(found)
    file = record or Path(f"kvitt-facts-{vendor}.json")
    file.write_text(found.model_dump_json(indent=2) + "\n", encoding="utf-8")
    typer.echo(f"recorded in {file}")


async def _of_block(vendor: str, connection: str | None) -> BaseModel:
    await demand_server()
    from blocks.loading import load_block  # noqa: PLC0415 - Prefect takes seconds to import
    from blocks.vendors import CONNECTIONS  # noqa: PLC0415

    block = await load_block(CONNECTIONS[vendor], connection or "")
    return _settings(vendor, {n: getattr(block, n) for n in VENDORS[vendor].settings.model_fields})


def _of_file(vendor: str, file: Path) -> BaseModel:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        # Without the error's own words: they may quote the file, and it holds a secret.
        raise FileError(f"{file} cannot be read: {type(error).__name__}") from None
    return _settings(vendor, content)


def _settings(vendor: str, content: Any) -> BaseModel:
    try:
        return VENDORS[vendor].settings.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()
        )
        raise FileError(f"the settings of {vendor} do not fit: {problems}") from None


async def ask(
    vendor: str,
    settings: BaseModel,
    *,
    write: bool,
    connection: str | None,
    project: str,
) -> Record:
    """Ask all questions about a vendor, out of the connection's budget if it has a name."""
    examination, asked_at = EXAMINATIONS[vendor], datetime.now(UTC)
    async with (
        _budget(vendor, connection, project) as budget,
        examination.open(settings, Timeouts(), budget) as client,
    ):
        asked = answers_to(examination.questions, client, write=write)
        answers = [answer async for answer in asked]
        return Record(
            vendor=vendor,
            address=examination.address(settings),
            asked_at=asked_at,
            wrote=write,
            requests=dict(client.requests),
            answers=answers,
        )


@asynccontextmanager
async def _budget(vendor: str, connection: str | None, project: str) -> AsyncGenerator[Budget]:
    """Open the budget of a connection, where there is a ledger; else say that nobody counts."""
    if connection is None:  # settings from a file: no connection has that name
        yield Uncounted()
        return
    async with AsyncExitStack() as stack:
        try:
            ledger = await stack.enter_async_context(open_ledger(project))
        except LookupError as error:
            typer.echo(f"the requests are counted in no budget: {error}", err=True)
            yield Uncounted()
            return
        yield await stack.enter_async_context(open_budget(ledger, vendor, connection))


def _show(record: Record) -> None:
    table = Table("fact", "here", "what was seen", "kvitt assumes", "what follows", "requests")
    for answer in record.answers:
        colour = _COLOURS[answer.verdict]
        words = map(escape, (answer.seen, answer.assumed, answer.follows))
        question = f"[bold]{answer.fact}[/]\n{escape(answer.asked)}"
        table.add_row(question, f"[{colour}]{answer.verdict}[/]", *words, str(answer.requests))
    out.print(f"{record.vendor} at {escape(record.address)}")
    out.print(table)
    spent = ", ".join(f"{count} {purpose}" for purpose, count in record.requests.items() if count)
    out.print(f"requests: {spent or 'none'}")
    for thing in _left(record.answers):
        out.print(f"[yellow]left there, please delete:[/] {escape(thing)}")


def _left(answers: list[Answer]) -> list[str]:
    return [thing for answer in answers for thing in answer.left]
