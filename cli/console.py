"""Where the commands write: tables for people and for pipes, errors apart."""

from __future__ import annotations

import sys

from rich.console import Console

# Off a terminal, as in a pipe or a log, nothing is cut or wrapped: a row is a line.
out = Console(width=None if sys.stdout.isatty() else 10_000)
err = Console(stderr=True, soft_wrap=True)
