"""`kvitt`: what an engineer and a finance person ask from a terminal; each command by its name.

The Supabase project is taken from SUPABASE_URL and SUPABASE_SECRET_KEY where both are set, else
from the Prefect block `kvitt-supabase-project/<project>`.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import Annotated

import typer
from rich.markup import escape

from cli import (
    budget,
    deployments,
    files,
    health,
    incidents,
    integrations,
    mapping,
    mending,
    periods,
    records,
    scheduler,
)
from cli.checkpoint import checkpoint
from cli.command import CommandError
from cli.console import err, out
from cli.facts import facts
from cli.server import never_start_one
from kvitt.domain.errors import KvittError
from kvitt.ledger import migrate as migrations
from kvitt.retries import explain_retries

app = typer.Typer(
    help="Carries approved records into accounting systems, exactly once, and proves it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.command()
def migrate(
    database_url: Annotated[str, typer.Argument(envvar="DATABASE_URL", help="postgresql://…")],
    folder: Annotated[Path, typer.Option(help="Where the migrations are.")] = migrations.MIGRATIONS,
) -> None:
    """Bring the ledger's schema up to date (as `supabase db push` does)."""
    applied = migrations.migrate(database_url, migrations.read_migrations(folder))
    for migration in applied:
        out.print(f"applied {migration.version} {migration.name}")
    if not applied:
        out.print("the schema is up to date")


for name, group in {
    "integrations": integrations,
    "records": records,
    "mapping": mapping,
    "scheduler": scheduler,
}.items():
    app.add_typer(group.app, name=name, no_args_is_help=True)
for command in (
    deployments.plan,
    deployments.apply,
    checkpoint,
    facts,
    periods.periods,
    periods.receipt,
    periods.preview,
    periods.backfill,
    periods.look_again,
    mending.skip,
    mending.mend,
    mending.set_aside,
    budget.budget,
    health.health,
    health.mode,
    incidents.incidents,
    incidents.watchers,
):
    app.command()(command)


def main() -> None:
    """Run the command; errors of ours become one sentence and exit code 1."""
    explain_retries()
    never_start_one()
    logging.basicConfig(format="kvitt: %(message)s")
    try:
        app()
    except (KvittError, CommandError, files.FileError, migrations.MigrationError, LookupError) as e:
        # What an error says may look like markup, and is found whole in a log.
        words = f"[red]kvitt:[/] {escape(str(e))}"
        err.print(words, highlight=False)
        sys.exit(1)
