"""`python -m benchmarks [NAME …]`: all of them, or the named ones.

Tables first; the last line is one JSON object with a key for each figure.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING

from rich.console import Console

from benchmarks import drift, export, health, memory

if TYPE_CHECKING:
    from benchmarks.figures import Benchmark

BENCHMARKS: dict[str, Benchmark] = {
    "drift": drift.measure,
    "export": export.measure,
    "health": health.measure,
    "memory": memory.measure,
}
"""One line a benchmark: its name, and the function that runs it."""

_CORES = 2


def main(names: list[str]) -> int:
    """Run them, one after the other, on two cores."""
    if unknown := set(names) - set(BENCHMARKS):
        print(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
        return 2
    _keep_to_two_cores()
    began = time.monotonic()
    out = Console(width=None if sys.stdout.isatty() else 120)

    def say(what: str) -> None:
        out.print(f"[{time.monotonic() - began:6.1f} s] {what}", markup=False, highlight=False)

    figures: dict[str, float] = {}
    for name in names or BENCHMARKS:
        result = BENCHMARKS[name](say)
        out.print(result.table)
        figures |= {f"{name}_{key}": value for key, value in result.figures.items()}
    print(json.dumps(figures))
    return 0


def _keep_to_two_cores() -> None:
    """Keep us and all that we start to two cores, where the system can do that and has more."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:_CORES])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
