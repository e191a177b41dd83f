"""`kvitt budget`: what each connection has spent of its vendor's requests."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from cli.command import CommandError, Project
from cli.console import show_table
from cli.ledger import open_ledger
from kvitt.domain.budget import Purpose, forecast

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kvitt.ledger import SupabaseLedger
    from kvitt.ledger.rows import Spending


def budget(
    connection: Annotated[str | None, typer.Argument(help="Its block's name; else all.")] = None,
    project: Project = "kvitt",
) -> None:
    """Show what each connection has spent of its vendor's requests, by month (UTC)."""

    async def work() -> None:
        async with open_ledger(project) as ledger:
            purposes = [*Purpose]
            ends = ("reserved", "allowance", "left", "forecast")
            table = Table("connection", "month", *purposes, *ends)
            found = await ledger.read_budgets(connection)
            if connection is not None and not found:
                await _demand_connection(ledger, connection)
            for each in found:
                table.add_row(*_row_of(each, purposes))
        show_table(table, nothing="nothing has been spent yet")

    asyncio.run(work())


async def _demand_connection(ledger: SupabaseLedger, connection: str) -> None:
    """Tell a connection that has spent nothing yet from one that nobody has."""
    known = sorted({each.connection for each in (await ledger.read_integrations()).valid})
    if connection not in known:
        there = f"they have {', '.join(known)}" if known else "there is no integration yet"
        raise CommandError(f"no integration has the connection {connection}; {there}")


def _row_of(spending: Spending, purposes: Sequence[Purpose]) -> Iterator[str]:
    spent, allowance = spending.spent, spending.allowance
    yield f"{spending.vendor}/{spending.connection}"
    yield f"{spending.month:%Y-%m}"
    for purpose in purposes:
        yield f"{spent.get(purpose, 0):,}"
    yield f"{spending.counted - sum(spent.values()):,}"
    yield "no limit" if allowance is None else f"{allowance:,}{' or paid' * spending.paid}"
    yield "" if allowance is None else f"{allowance - spending.counted:,}"
    yield f"{forecast(spending.counted, month=spending.month, at=spending.now):,}"
