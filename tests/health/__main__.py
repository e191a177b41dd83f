"""A month of each vendor: `python -m tests.health [--days 31] [--seed 2027]`; prints a table."""

from __future__ import annotations

import argparse
import asyncio
from contextlib import closing
from datetime import timedelta
from statistics import median
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from kvitt.domain.health import Mode
from sandbox.ground import running
from tests.health.month import SCENARIOS, Lived, Month
from tests.outages.clock import ClockedProject

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandbox.supabase import Supabase
    from tests.health.month import Scenario

HOUR = timedelta(hours=1)
_HEADINGS = (
    "connection",
    "mode at first",
    "exports",
    "requests",
    "for probes",
    "allowed",
    "refused by probes",
    "outages",
    "told",
    "to unhealthy, min",
    "back, min",
    "alerts",
    "modes changed",
)


async def _live(supabase: Supabase, scenario: Scenario, days: int, seed: int) -> list[str]:
    both: list[Lived] = []
    for probes in (True, False):
        name = f"month_{SCENARIOS.index(scenario)}_{probes}".lower()
        with closing(ClockedProject.create(supabase.postgres, name)) as project:
            month = Month(project=project, scenario=scenario, seed=seed, days=days, probes=probes)
            both.append(await month.live())
    lived, alone = both
    more = [one for one in lived.refused if one not in alone.refused]
    outages = lived.outages(HOUR)
    noticed = [each for spell in outages if (each := lived.noticed(spell))]
    return [
        scenario.name,
        lived.modes[0][1] if scenario.mode is None else f"{Mode.ACTIVE}",
        f"{len(lived.exports)}",
        f"{sum(lived.served.values()):,}",
        f"{lived.served['probe']:,}",
        "no limit" if lived.requests is None else f"{lived.requests * lived.probe_share:,.0f}",
        f"{len(more)}",
        f"{len(outages)}",
        f"{len(noticed)}",
        _minutes([to for to, _ in noticed]),
        _minutes([back for _, back in noticed]),
        f"{lived.alerts}",
        f"{len(lived.modes) - 1}",
    ]


def _minutes(times: Sequence[timedelta]) -> str:
    if not times:
        return "none"
    minutes = [time / timedelta(minutes=1) for time in times]
    return f"{median(minutes):.0f} (at most {max(minutes):.0f})"


def main() -> None:
    """Live through it and show what was seen."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--days", type=int, default=31)
    parser.add_argument("--seed", type=int, default=2027)
    asked = parser.parse_args()
    table = Table(*_HEADINGS, title=f"{asked.days} days")
    with running("health-month") as ground:
        for scenario in SCENARIOS:
            row = asyncio.run(_live(ground.supabase, scenario, asked.days, asked.seed))
            print(" | ".join(row), flush=True)
            table.add_row(*row)
    Console(width=200).print(table)


if __name__ == "__main__":
    main()
