"""How long one run of the flow `health` takes with a thousand connections, and what it asks.

All of it is real but the vendor, which answers after 50 ms: the flow in a warm worker, the blocks
on a Prefect server, the ledger. The first run fetches tokens; later ones have them still. Between
two runs a quarter of an hour is made to pass in the ledger.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx
import psycopg
from rich.table import Table

from benchmarks.figures import Figures
from benchmarks.probed_vendor import LATENCY_SECONDS
from benchmarks.usage import Usage
from sandbox.processes import Home
from sandbox.stack import POOL, Stack

if TYPE_CHECKING:
    from collections.abc import Callable

_AT_ONCE = 250
_RUNS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One run: seconds, requests, and processor seconds of the worker."""

    seconds: float
    probed: int
    most_each: int
    tokens: int
    worker_cpu: float


def measure(say: Callable[[str], None]) -> Figures:
    """Save the connections, and look at all of them several times; CONNECTIONS=100 for fewer."""
    with Home.open("bench-health") as home:
        stack = Stack.start(home, say=say)
        stack.set_up(say=say)
        stack.run("kvitt", "apply")
        stack.run("prefect", "--no-prompt", "deploy", "--all")
        _no_schedules(stack)
        url = home.serve("probed", [sys.executable, "-m", "benchmarks.probed_vendor"]).url
        count = int(os.environ.get("CONNECTIONS", "1000"))
        say(f"saving {count:,} connections")
        for first in range(0, count, _AT_ONCE):
            given = {"url": url, "first": first, "count": min(first + _AT_ONCE, count)}
            stack.run_python("-m", "benchmarks.connections", given=given)
        worker = Usage(pid=stack.prefect.start_worker(POOL).pid)
        runs = [_run(stack, url, worker, say) for _ in range(_RUNS)]
    return Figures(table=_table(runs), figures=_figures(runs))


def _no_schedules(stack: Stack) -> None:
    """Have nothing run but what is measured."""
    with psycopg.connect(stack.supabase.postgres.url("prefect"), autocommit=True) as database:
        database.execute("update deployment_schedule set active = false")
        database.execute("delete from flow_run where auto_scheduled")


def _run(stack: Stack, url: str, worker: Usage, say: Callable[[str], None]) -> Run:
    with psycopg.connect(stack.supabase.database_url, autocommit=True) as database:
        database.execute("update kvitt.connections set next_probe_at = now()")
    httpx.delete(f"{url}/_asked", trust_env=False).raise_for_status()
    before = worker.cpu_seconds
    stack.run("prefect", "deployment", "run", "health/kvitt", "--watch")
    used = worker.cpu_seconds - before
    asked = httpx.get(f"{url}/_asked", trust_env=False).json()
    tokens = asked.pop("token", 0)
    with psycopg.connect(stack.supabase.postgres.url("prefect")) as database:
        [(seconds,)] = database.execute(
            "select extract(epoch from r.end_time - r.start_time)::float from flow_run r"
            " join flow f on f.id = r.flow_id where f.name = 'health' and r.end_time is not null"
            " order by r.end_time desc limit 1"
        ).fetchall()
    run = Run(
        seconds=seconds,
        probed=len(asked),
        most_each=max(asked.values(), default=0),
        tokens=tokens,
        worker_cpu=used,
    )
    say(f"{run.probed:,} connections in {run.seconds:.1f} s")
    return run


def _table(runs: list[Run]) -> Table:
    table = Table(
        "run",
        "seconds",
        "connections",
        "probes each, at most",
        "tokens",
        "worker's processor, s",
        title=f"Health, at vendors that answer in {LATENCY_SECONDS * 1000:.0f} ms",
    )
    for number, run in enumerate(runs, start=1):
        table.add_row(
            f"{number}",
            f"{run.seconds:.1f}",
            f"{run.probed:,}",
            f"{run.most_each}",
            f"{run.tokens:,}",
            f"{run.worker_cpu:.1f}",
        )
    return table


def _figures(runs: list[Run]) -> dict[str, float]:
    first, *later = runs
    return {
        "first_seconds": round(first.seconds, 2),
        "later_seconds": round(max(run.seconds for run in later), 2),
        "probed": min(run.probed for run in runs),
        "most_requests_each": max(run.most_each for run in runs),
        "tokens_later": max(run.tokens for run in later),
        "worker_cpu_seconds": round(max(run.worker_cpu for run in later), 2),
    }
