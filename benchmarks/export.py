"""How fast a batch comes into a vendor's books, beside a bare loop that guarantees nothing.

The vendor answers each call after 30 ms, and takes so many calls at a time, of so many lines, as
Business Central and Xledger do: that is what its limits allow. The bare loop has all vouchers in
memory, writes nothing down, and reads nothing back; kvitt reads its batch from the ledger, and
writes down each call before and after it. All of it shares two cores: Postgres, PostgREST, the
gateway, the vendor, and the one who sends; so the processor time of each is told as well.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.table import Table

from benchmarks.figures import Figures
from benchmarks.quick_vendor import LATENCY_SECONDS
from benchmarks.usage import Usage
from kvitt import sync as way
from kvitt.domain.chunks import cut
from kvitt.domain.vouchers import voucher_of
from kvitt.edge import EdgeFunction
from kvitt.ledger import SupabaseLedger
from kvitt.ports import Trigger
from kvitt.project import open_project
from sandbox.ground import Books, running

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence

    from kvitt.domain.periods import Period
    from kvitt.domain.vouchers import Voucher
    from kvitt.ports import Vendor
    from sandbox.ground import Ground
    from sandbox.processes import Process

_LEASE = timedelta(minutes=30)
_VOUCHERS = {"business-central": 20_000, "xledger": 40_000}


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """Lines a second, calls, and what processor time kvitt's way takes: microseconds a line."""

    vendor: str
    lines: int
    allowed: float
    bare: float
    kvitt: float
    calls_per_chunk: float
    cpu: Mapping[str, float]


def measure(say: Callable[[str], None]) -> Figures:
    """Export one large period to each vendor, the bare way and kvitt's."""
    with running("bench-export") as ground:
        command = [sys.executable, "-m", "benchmarks.quick_vendor"]
        quick = ground.home.serve("quick-vendor", command)
        gc.freeze()  # as the worker does when it has loaded a flow
        speeds = [asyncio.run(_measure(ground, quick, vendor, say)) for vendor in _VOUCHERS]
    return Figures(table=_table(speeds), figures=_figures(speeds))


async def _measure(
    ground: Ground, quick: Process, vendor: str, say: Callable[[str], None]
) -> Speed:
    name = f"bench-{vendor}"
    due = ground.enrol(name, vendor)
    ground.accept_set_up(name)  # the quick vendor has none
    lines = ground.approve(name, _VOUCHERS[vendor], due=due, foreign=vendor == "xledger")
    say(f"{vendor}: {_VOUCHERS[vendor]:,} vouchers, {lines:,} lines")
    async with open_project(ground.supabase.url, ground.supabase.secret_key) as project:
        ledger, books = SupabaseLedger(project), Books(vendor=vendor, url=quick.url)
        answer = await way.claim(ledger, name, Trigger(), lease=_LEASE)
        async with way.attempt(ledger, answer) as this:
            await way.collect(this, EdgeFunction(project, seconds=150))
            vouchers = [each async for each in _read(this)]
            async with books.open(this.integration.timeouts) as client:
                habits = client.habits
                chunks = list(cut(vouchers, most=habits.chunk_vouchers, lines=habits.chunk_lines))
                bare = await _timed(_bare(client, this.period, chunks))
            say(f"{vendor}: bare, {lines / bare:,.0f} lines a second")
            needed = len(chunks)
            del vouchers, chunks  # kvitt does not have them in memory
            async with books.open(this.integration.timeouts) as client:
                this.requests = client.requests
                used = _processor_time(ground, quick)
                took = await _timed(way.export(this, client))
                cpu = {part: seconds() * 1e6 / lines for part, seconds in used.items()}
                calls = client.requests["export"] - habits.posts
            say(f"{vendor}: kvitt, {lines / took:,.0f} lines a second")
    return Speed(
        vendor=vendor,
        lines=lines,
        allowed=habits.at_once * lines / needed / LATENCY_SECONDS,
        bare=lines / bare,
        kvitt=lines / took,
        calls_per_chunk=calls / needed,
        cpu=cpu,
    )


def _processor_time(ground: Ground, quick: Process) -> dict[str, Callable[[], float]]:
    """Return what tells how many seconds of processor time each part has used from now on."""
    began = time.process_time()
    parts = ground.supabase
    ledger = [
        Usage(pid=each.pid)
        for each in (parts.postgres.process, parts.postgrest.process, parts.gateway)
    ]
    vendor = Usage(pid=quick.pid)
    return {
        "kvitt": lambda: time.process_time() - began,
        "ledger": lambda: sum(each.cpu_seconds for each in ledger),
        "vendor": lambda: vendor.cpu_seconds,
    }


async def _read(this: way.Attempt) -> AsyncGenerator[Voucher]:
    """Read the batch into memory, as the bare loop has it."""
    after = 0
    while records := await this.ledger.read_batch(
        this.period, after=after, records=1000, lines=5000
    ):
        for record in records:
            yield voucher_of(record, this.integration, due_at=this.period.due_at)
        after = records[-1].sequence


async def _bare(client: Vendor, period: Period, chunks: Sequence[Sequence[Voucher]]) -> None:
    """Send chunk after chunk, the first one alone, and post: no ledger, no reading back."""
    lanes = asyncio.Semaphore(client.habits.at_once)

    async def send(chunk: Sequence[Voucher], *, begins: bool = False) -> None:
        async with lanes:
            await client.send(period, chunk, begins=begins, guard=_anything_goes)

    await send(chunks[0], begins=True)
    await asyncio.gather(*(send(chunk) for chunk in chunks[1:]))
    if client.habits.posts:
        await client.post(period, guard=_anything_goes)


def _anything_goes() -> None:
    """Guard nothing."""


async def _timed(work: Awaitable[object]) -> float:
    began = time.monotonic()
    await work
    return time.monotonic() - began


def _table(speeds: Sequence[Speed]) -> Table:
    table = Table(
        "vendor",
        "lines",
        "allowed /s",
        "bare /s",
        "kvitt /s",
        "of allowed",
        "of bare",
        "calls a chunk",
        "µs a line: kvitt, ledger, vendor",
        title=f"Export, to a vendor that answers in {LATENCY_SECONDS * 1000:.0f} ms",
    )
    for s in speeds:
        table.add_row(
            s.vendor,
            f"{s.lines:,}",
            f"{s.allowed:,.0f}",
            f"{s.bare:,.0f}",
            f"{s.kvitt:,.0f}",
            f"{s.kvitt / s.allowed:.0%}",
            f"{s.kvitt / s.bare:.0%}",
            f"{s.calls_per_chunk:.3f}",
            ", ".join(f"{used:.0f}" for used in s.cpu.values()),
        )
    return table


def _figures(speeds: Sequence[Speed]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for s in speeds:
        name = s.vendor.replace("-", "_")
        figures |= {
            f"{name}_of_allowed": round(s.kvitt / s.allowed, 3),
            f"{name}_of_bare": round(s.kvitt / s.bare, 3),
            f"{name}_bare_of_allowed": round(s.bare / s.allowed, 3),
            f"{name}_calls_per_chunk": round(s.calls_per_chunk, 3),
            **{f"{name}_us_a_line_{part}": round(used, 1) for part, used in s.cpu.items()},
        }
    return figures
