"""How much memory a period of a million lines takes, over what the same process has when idle.

The process has done a small period before, so that what is idle is warm. It works as a flow run
does, without Prefect, which handles no lines. LINES=100000 makes it shorter.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from typing import IO, TYPE_CHECKING, Any

from rich.table import Table

from benchmarks.figures import Figures
from benchmarks.usage import Usage
from sandbox.ground import running

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandbox.ground import Ground

_LINES = int(os.environ.get("LINES", "1000000"))
_LINES_A_VOUCHER = 3.4
_MEGA = 1_000_000
_LOOK_SECONDS = 0.2


def measure(say: Callable[[str], None]) -> Figures:
    """Export one very large period to Xledger."""
    with running("bench-memory") as ground:
        books = ground.books("xledger", "bench-memory-books")
        _approve(ground, "small", 50)
        say(f"approving about {_LINES:,} lines")
        lines = _approve(ground, "large", int(_LINES / _LINES_A_VOUCHER))
        say(f"{lines:,} lines are approved; a process of its own exports them")
        told = {
            "url": ground.supabase.url,
            "key": ground.supabase.secret_key,
            "vendor": books.vendor,
            "vendor_url": books.url,
        }
        command = [sys.executable, "-m", "benchmarks.one_period"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            try:
                idle, peak, seconds = _watch(process, told)
            finally:
                process.kill()
    over = (peak - idle) / _MEGA
    table = Table("lines", "idle MB", "peak MB", "over idle MB", "lines /s", title="Memory")
    table.add_row(
        f"{lines:,}",
        f"{idle / _MEGA:.0f}",
        f"{peak / _MEGA:.0f}",
        f"{over:.0f}",
        f"{lines / seconds:,.0f}",
    )
    figures = {"lines": lines, "over_idle_mb": round(over, 1), "seconds": round(seconds, 1)}
    return Figures(table=table, figures=figures)


def _approve(ground: Ground, name: str, vouchers: int) -> int:
    due = ground.enrol(name, "xledger")
    return ground.approve(name, vouchers, due=due, foreign=True)


def _watch(process: subprocess.Popen[bytes], told: dict[str, Any]) -> tuple[int, int, float]:
    """Let it do the small period, then the large one; returns idle and peak bytes, and seconds."""
    to_it, from_it = process.stdin, process.stdout
    if not (to_it and from_it):
        raise ValueError("the process has no pipes")
    _tell(to_it, {**told, "integration": "small"})
    _hear(from_it)
    usage = Usage(pid=process.pid)
    usage.look()
    idle = usage.peak_bytes
    began = time.monotonic()
    _tell(to_it, {**told, "integration": "large"})
    while not select.select([from_it], [], [], _LOOK_SECONDS)[0]:
        usage.look()
    _hear(from_it)
    return idle, usage.peak_bytes, time.monotonic() - began


def _tell(pipe: IO[bytes], what: dict[str, Any]) -> None:
    pipe.write(json.dumps(what).encode() + b"\n")
    pipe.flush()


def _hear(pipe: IO[bytes]) -> None:
    if pipe.readline() == b"":
        raise RuntimeError("the process ended before its period was settled")
