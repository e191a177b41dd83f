"""`kvitt checkpoint`: whether all that kvitt depends on is there, and works together."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from cli.command import Pool, Project
from cli.console import out
from cli.server import demand_address
from kvitt.checkpoint import Group, Verdict

if TYPE_CHECKING:
    from kvitt.checkpoint import Report, Result

_SIGNS = {
    Verdict.PASSED: "[green]passed[/]",
    Verdict.FAILED: "[red]failed[/]",
    Verdict.NOT_APPLICABLE: "[dim]not applicable[/]",
    Verdict.NOT_LOOKED_AT: "[yellow]not looked at[/]",
}


def checkpoint(
    project: Project = "kvitt",
    pool: Pool = "kvitt",
    only: Annotated[
        list[Group] | None, typer.Option(help="This group, and what it needs; may be repeated.")
    ] = None,
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="The whole report, for a machine.")
    ] = False,
) -> None:
    """Look whether all that kvitt depends on is there and works together; 1 if not."""
    demand_address()
    from deployments.checkpoint import look_at  # noqa: PLC0415 - Prefect takes seconds to import

    report = asyncio.run(look_at(project=project, pool=pool, groups=only or ()))
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
    else:
        _show(report)
    if report.failed:
        raise typer.Exit(1)


def _show(report: Report) -> None:
    table = Table("", "item", "checks", "seen")
    for result in report.results:
        words = (result.item, result.checks, _seen(result))
        table.add_row(_SIGNS[result.verdict], *map(escape, words))
    out.print(table, highlight=False)
    for result in report.failed:
        out.print(f"[red]{escape(result.item)}[/]: {escape(result.seen)}", soft_wrap=True)
        out.print(f"  why it matters  {escape(result.why)}", highlight=False, soft_wrap=True)
        out.print(
            f"  what to do      {escape(result.remedy or '')}", highlight=False, soft_wrap=True
        )
    out.print(f"{escape(report.summary)}; {report.seconds:.1f} s", highlight=False, soft_wrap=True)


def _seen(result: Result) -> str:
    return f"because of {result.because_of}" if result.because_of else result.seen
