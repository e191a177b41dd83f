"""`kvitt incidents` and `kvitt watchers`: what is wrong now, and who would say so."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from cli.command import CommandError, Project
from cli.console import show_table
from cli.ledger import open_ledger


def incidents(
    project: Project = "kvitt",
    *,
    over: Annotated[bool, typer.Option("--all", help="Those that are over as well.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
) -> None:
    """Show what is wrong now: late, missed, uncertain, failed or stuck periods, silent watchers."""

    async def work() -> None:
        async with open_ledger(project) as ledger:
            table = Table("since", "kind", "what", "told", "over")
            for one in await ledger.read_incidents(limit=limit, over=over):
                ended = "" if one.ended_at is None else f"{one.ended_at:%Y-%m-%d %H:%M}"
                told = "no" if one.told_at is None else "yes"
                since = f"{one.since:%Y-%m-%d %H:%M}"
                table.add_row(since, one.kind, escape(one.what), told, ended)
        show_table(table, nothing="nothing is wrong")

    asyncio.run(work())


def watchers(
    project: Project = "kvitt",
    *,
    forget: Annotated[
        str | None, typer.Option(help="One that was taken away for good: expect it no more.")
    ] = None,
) -> None:
    """Show the last sign of life of each watcher."""

    async def work() -> None:
        async with open_ledger(project) as ledger:
            if forget is not None and not await ledger.forget_watcher(forget):
                raise CommandError(f"there is no watcher {forget}; see: kvitt watchers")
            table = Table("watcher", "last sign of life (UTC)")
            for one in await ledger.read_heartbeats():
                table.add_row(escape(one.who), f"{one.beat_at:%Y-%m-%d %H:%M:%S}")
        show_table(table, nothing="no watcher has given a sign of life yet")

    asyncio.run(work())
