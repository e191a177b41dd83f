"""What the commands have in common: their options, and how they fail."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime
from typing import Annotated

import typer

Pool = Annotated[str, typer.Option(help="Name of the work pool.")]
Project = Annotated[str, typer.Option(help="Name of the blocks that hold the project.")]
By = Annotated[str, typer.Option(help="Who decides; it is kept.", default_factory=getpass.getuser)]


class CommandError(Exception):
    """What a person reads instead of a traceback."""


def due(text: str) -> datetime:
    """Read when a period is due: its key or its time, in UTC unless it says otherwise."""
    try:
        moment = datetime.fromisoformat(text.rpartition("@")[2])
    except ValueError as error:
        raise typer.BadParameter(f"{text} is no time, like 2026-11-24T05:00Z") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


_PERIOD = typer.Argument(parser=due, metavar="PERIOD", help="Its key, or when it is due, in UTC.")
ThePeriod = Annotated[datetime, _PERIOD]
SomePeriod = Annotated[datetime | None, _PERIOD]
