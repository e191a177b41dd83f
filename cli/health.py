"""`kvitt health` shows how the connections are; `kvitt mode` says which ones are probed."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from cli.command import By, Project
from cli.console import out
from cli.ledger import open_ledger
from kvitt import health as way
from kvitt.domain.health import HEADINGS, Mode, as_rows
from kvitt.vendors import VENDORS

_ALLOWANCES = way.allowances({name: kind.habits for name, kind in VENDORS.items()})


def health(
    project: Project = "kvitt",
    *,
    as_json: Annotated[bool, typer.Option("--json", help="All that is known, as JSON.")] = False,
) -> None:
    """Show how each connection is, since when and why, and when it is probed next (UTC)."""

    async def work() -> None:
        async with open_ledger(project) as ledger:
            connections = await ledger.read_connections(_ALLOWANCES)
        if as_json:
            print(json.dumps([each.model_dump(mode="json") for each in connections]))
            return
        table = Table(*HEADINGS)
        for row in as_rows(connections):
            table.add_row(*map(escape, row))
        out.print(table)

    asyncio.run(work())


def mode(
    mode: Annotated[Mode, typer.Argument(help="active: probed; passive: judged by exports only.")],
    which: Annotated[
        str, typer.Argument(metavar="VENDOR[/CONNECTION]", help="One, or all of a vendor.")
    ],
    reason: Annotated[str, typer.Option(help="Why; it is kept, and shown.")],
    by: By,
    project: Project = "kvitt",
) -> None:
    """Have a connection, or all of a vendor, probed or not, until somebody says otherwise."""
    vendor, slash, connection = which.partition("/")
    if slash and not connection:
        raise typer.BadParameter(
            f"{which} names no connection; for all of the vendor, and those to come: {vendor}"
        )

    async def work() -> None:
        async with open_ledger(project) as ledger:
            changed = await ledger.set_mode(vendor, connection or None, mode, reason=reason, by=by)
        out.print(f"{which} is {mode} ({changed} connections changed)")

    asyncio.run(work())
