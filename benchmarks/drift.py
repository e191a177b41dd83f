"""How late periods begin when many are due in the same second: the warm worker and the stock one.

Real integrations with real schedules on a real Prefect server, with Postgres, PostgREST and Edge
Functions beside it on the same two cores. The drift is the ledger's: from when a period is due to
when an attempt at it begins.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import psycopg
from rich.table import Table

from benchmarks.figures import Figures
from benchmarks.usage import Usage
from sandbox.processes import Home
from sandbox.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Callable

WARM, STOCK = "kvitt-warm", "process"

# To save and deploy one integration, with room to spare; and for the worker to start in.
_SECONDS_TO_ENROL = 1.5
_SECONDS_TO_START = 90
# Nothing settled for that long: what is left has crashed, and would wait for `watch`.
_PATIENCE = 240
_LOOK_SECONDS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Burst:
    """What came of many integrations that were due at once, in seconds; processor time per run."""

    kind: str
    count: int
    median: float
    worst: float
    last_settled: float
    unsettled: int
    worker_cpu: float
    server_cpu: float
    peak_bytes: int

    @property
    def short(self) -> str:
        """Its name in the figures."""
        return f"{'warm' if self.kind == WARM else 'stock'}_{self.count}"


def measure(say: Callable[[str], None]) -> Figures:
    """Measure each worker at 50, and at 200 the warm one; the stock one too with STOCK_200=1.

    At ten core seconds a run, that one takes half an hour.
    """
    sizes = [(WARM, 50), (STOCK, 50), (WARM, 200)]
    if os.environ.get("STOCK_200"):
        sizes.append((STOCK, 200))
    bursts = measure_bursts(sizes, say)
    return Figures(table=_table(bursts), figures=_figures(bursts))


def measure_bursts(sizes: list[tuple[str, int]], say: Callable[[str], None]) -> list[Burst]:
    """Start everything once, and measure one burst after the other on it."""
    with Home.open("bench-drift") as home:
        stack = Stack.start(home, say=say)
        stack.set_up(say=say)
        stack.run("kvitt", "apply")
        return [_burst(stack, kind, count, say) for kind, count in sizes]


def _burst(stack: Stack, kind: str, count: int, say: Callable[[str], None]) -> Burst:
    pool = f"{'warm' if kind == WARM else 'stock'}-{count}"
    due = _next_minute(timedelta(seconds=count * _SECONDS_TO_ENROL + _SECONDS_TO_START))
    say(f"{pool}: saving {count} integrations that are due at {due:%H:%M} UTC")
    stack.run_python(
        *("-m", "benchmarks.enrolment"),
        given={"prefix": pool, "count": count, "due": due.isoformat(), "pool": pool, "type": kind},
    )
    left = (due - datetime.now(UTC)).total_seconds()
    if left < _SECONDS_TO_START / 2:
        raise TimeoutError(f"saving {count} integrations left {left:.0f} s: too slow to measure")
    worker = stack.prefect.start_worker(pool, name=pool)
    time.sleep(max(0, (due - datetime.now(UTC)).total_seconds() - _SECONDS_TO_START / 2))
    say(f"{pool}: waiting; the machine's load is {os.getloadavg()[0]:.1f}")
    used, server = Usage(pid=worker.pid), Usage(pid=stack.prefect.process.pid)
    done, unsettled = _until_they_are_settled(stack, pool, count, used, due)
    median, worst = _drift(stack, pool)
    say(f"{pool}: worst drift {worst:.1f} s, last settled after {done:.1f} s, {unsettled} never")
    cpu, server_cpu = used.cpu_seconds, server.cpu_seconds
    worker.stop()
    return Burst(
        kind=kind,
        count=count,
        median=median,
        worst=worst,
        last_settled=done,
        unsettled=unsettled,
        worker_cpu=cpu / count,
        server_cpu=server_cpu / count,
        peak_bytes=used.peak_bytes,
    )


def _next_minute(after: timedelta) -> datetime:
    moment = datetime.now(UTC) + after + timedelta(minutes=1)
    return moment.replace(second=0, microsecond=0)


def _until_they_are_settled(
    stack: Stack, prefix: str, count: int, used: Usage, due: datetime
) -> tuple[float, int]:
    """Wait for the last receipt; returns how long after the due time it came, and how many never.

    Where the server has too much to do, runs of the stock worker crash before they have claimed.
    """
    query = """
        select count(*), coalesce(extract(epoch from max(settled_at) - %(due)s), 0)::float8
          from kvitt.periods where integration_id like %(like)s and state = 'verified'"""
    while True:
        used.look()
        with psycopg.connect(stack.supabase.database_url) as database:
            row = database.execute(query, {"due": due, "like": f"{prefix}-%"}).fetchone()
        settled, last = row or (0, 0.0)
        since = (datetime.now(UTC) - due).total_seconds()
        if settled == count or since - last > _PATIENCE:
            return last, count - settled
        time.sleep(_LOOK_SECONDS)


def _drift(stack: Stack, prefix: str) -> tuple[float, float]:
    """Return the median and the worst of the periods' first attempts, in seconds.

    A period that nobody has attempted is as late as it is now.
    """
    query = """
        select percentile_cont(0.5) within group (order by drift), max(drift) from (
          select extract(epoch from coalesce(min(a.started_at), now()) - p.due_at)::float8 as drift
            from kvitt.periods p left join kvitt.attempts a using (integration_id, due_at)
           where p.integration_id like %s and p.due_at < now()
           group by p.integration_id, p.due_at) as first_attempts"""
    with psycopg.connect(stack.supabase.database_url) as database:
        row = database.execute(query, [f"{prefix}-%"]).fetchone()
    if row is None or row[0] is None:
        raise LookupError(f"no period of {prefix} has been due")
    return row[0], row[1]


def _table(bursts: list[Burst]) -> Table:
    table = Table(title="Many integrations due in the same second, on two cores")
    for heading in (
        "worker",
        "integrations",
        "drift, median",
        "worst",
        "last settled after",
        "never",
    ):
        table.add_column(heading, justify="left" if heading == "worker" else "right")
    for heading in ("worker's CPU per run", "server's CPU per run", "worker's memory, peak"):
        table.add_column(heading, justify="right")
    for one in bursts:
        table.add_row(
            *(one.kind, str(one.count), f"{one.median:.1f} s", f"{one.worst:.1f} s"),
            *(
                f"{one.last_settled:.0f} s",
                str(one.unsettled),
                f"{one.worker_cpu:.2f} s",
                f"{one.server_cpu:.2f} s",
            ),
            f"{one.peak_bytes / 1e6:.0f} MB",
        )
    return table


def _figures(bursts: list[Burst]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for one in bursts:
        figures |= {
            f"{one.short}_median_seconds": round(one.median, 2),
            f"{one.short}_worst_seconds": round(one.worst, 2),
            f"{one.short}_settled_seconds": round(one.last_settled, 1),
            f"{one.short}_unsettled": one.unsettled,
            f"{one.short}_worker_cpu_seconds": round(one.worker_cpu, 3),
            f"{one.short}_server_cpu_seconds": round(one.server_cpu, 3),
            f"{one.short}_peak_megabytes": round(one.peak_bytes / 1e6, 1),
        }
    by_name = {one.short: one for one in bursts}
    warm, stock = by_name["warm_50"], by_name["stock_50"]
    return figures | {
        "worst_stock_to_warm_50": round(stock.worst / warm.worst, 1),
        "cpu_stock_to_warm_50": round(stock.worker_cpu / warm.worker_cpu, 1),
        "memory_stock_to_warm_50": round(stock.peak_bytes / warm.peak_bytes, 1),
    }
