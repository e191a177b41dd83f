"""What a benchmark gives: a table for people, and figures for whoever compares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rich.table import Table

    Benchmark = Callable[[Callable[[str], None]], "Figures"]
    """Runs for as long as it takes, saying what it does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """A name of a figure ends with its unit, unless it is a ratio or a count."""

    table: Table
    figures: Mapping[str, float]
