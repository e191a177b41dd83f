"""`kvitt integrations`: who exports what, where to, and when."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import TYPE_CHECKING, Any, cast

import typer
from rich.markup import escape
from rich.table import Table

from cli import files
from cli.command import Project
from cli.console import err, out, show_table
from cli.ledger import open_ledger
from kvitt import planning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvitt.domain.integrations import Integration
    from kvitt.ledger.rows import Integrations

app = typer.Typer(help="The integrations: who exports what, where to, and when.")
_SHOWN = 3
_NOTHING = "nothing"
_SOON = timedelta(days=1)


@app.command("import")
def import_integrations(file: Path, project: Project = "kvitt", *, dry_run: bool = False) -> None:
    """Create or change integrations from a YAML file; shows what differs."""
    wanted = files.read_integrations(file)

    async def work() -> None:
        async with open_ledger(project) as ledger:
            there = {i.id: i for i in (await ledger.read_integrations()).valid}
            files.keep_apart(file, wanted, list(there.values()))
            for integration in wanted:
                before = there.get(integration.id)
                _show_difference(before, integration)
                if before is not None and _schedule(before) != _schedule(integration):
                    _show_rescheduled(integration, await planning.reschedule(ledger, integration))
                if not dry_run:
                    await ledger.save_integration(integration)
                    await planning.write_ahead(ledger, integration)

    asyncio.run(work())


def _show_difference(before: Integration | None, after: Integration) -> None:
    if before is None:
        what = escape(f"{after.organisation} → {after.vendor}, `{after.cron}`")
        out.print(f"[green]+ {after.id}[/] {what}", highlight=False)
        return
    was, becomes = before.model_dump(mode="json"), after.model_dump(mode="json")
    # By value: a time that is written in another zone is the same.
    changed = [name for name in becomes if getattr(before, name) != getattr(after, name)]
    if not changed:
        out.print(f"= {after.id} is as it was")
    for name in changed:
        for place, old, new in _differences(name, was[name], becomes[name]):
            difference = escape(f"{place}: {old} → {new}")
            out.print(f"[yellow]~ {after.id}[/] {difference}", highlight=False, soft_wrap=True)


def _differences(place: str, was: Any, becomes: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield where two settings differ, down to the last name, and what stands there."""
    if not (isinstance(was, dict) and isinstance(becomes, dict)):
        if was != becomes:
            yield place, was, becomes
        return
    old, new = cast("dict[str, Any]", was), cast("dict[str, Any]", becomes)
    for name in dict.fromkeys((*old, *new)):
        yield from _differences(f"{place}.{name}", old.get(name, _NOTHING), new.get(name, _NOTHING))


def _schedule(integration: Integration) -> tuple[str, str, datetime]:
    return integration.cron, integration.time_zone, integration.first_period


def _show_rescheduled(integration: Integration, change: planning.Rescheduled) -> None:
    """Show which planned periods a changed schedule takes out, and which it puts in."""
    if not change.go and not change.come:
        out.print("    no planned period changes")
        return
    out.print(f"    periods that go:   {_moments(integration, change.go)}", highlight=False)
    since = ""
    if change.come and change.opens_at is not None:
        since = f"; the first takes up at {integration.local(change.opens_at):%Y-%m-%d %H:%M}"
    coming = _moments(integration, change.come)
    out.print(f"    periods that come: {coming}{since}", highlight=False, soft_wrap=True)


def _moments(integration: Integration, due: list[datetime]) -> str:
    """Name the first due times by the organisation's clocks, and how many more there are."""
    shown = ", ".join(f"{integration.local(moment):%Y-%m-%d %H:%M}" for moment in due[:_SHOWN])
    more = f" and {len(due) - _SHOWN} more" if len(due) > _SHOWN else ""
    return f"{shown}{more}, {integration.time_zone}" if due else "none"


@app.command("list")
def list_integrations(project: Project = "kvitt") -> None:
    """List the integrations."""

    async def work() -> None:
        async with open_ledger(project) as ledger:
            table = Table("id", "organisation", "vendor", "connection", "schedule", "enabled")
            integrations = await ledger.read_integrations()
            for i in integrations.valid:
                schedule = f"{i.cron} {i.time_zone}"
                table.add_row(
                    i.id,
                    i.organisation,
                    i.vendor,
                    i.connection,
                    schedule,
                    "yes" if i.enabled else "no",
                )
        show_table(table, nothing="there is no integration yet: kvitt integrations import FILE")
        warn_of(integrations)

    asyncio.run(work())


def warn_of(integrations: Integrations) -> None:
    """Name those that cannot be read, each with what is wrong in it."""
    for name, why in integrations.broken.items():
        err.print(f"{escape(name)} cannot be read: {escape(why)}", highlight=False)
