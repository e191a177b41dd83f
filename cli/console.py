"""Where the commands write: tables for people and for pipes, errors apart."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from rich.table import Table

# Off a terminal, as in a pipe or a log, nothing is cut or wrapped: a row is a line.
out = Console(width=None if sys.stdout.isatty() else 10_000)
err = Console(stderr=True, soft_wrap=True)


def show_table(table: Table, *, nothing: str) -> None:
    """Show a table, or say in words that there is nothing to show."""
    out.print(table if table.row_count else nothing)
