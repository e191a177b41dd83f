"""`make beyond`: many integrations due in the same minute, twice, on two Prefect servers.

The first time a worker is killed with -9 in the middle; the second time a server is
stopped in the middle, and started again. Prints tables; the last line of its output is JSON. The
exit status says whether anything was doubled, lost or left open.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from sandbox.processes import Home
from tests.beyond.findings import crashed_runs, problems, settled_events
from tests.beyond.scene import scene, wait_for

if TYPE_CHECKING:
    from tests.beyond.scene import Scene

_APART = timedelta(minutes=3)
_LEAD = timedelta(seconds=50)  # the workers start, and have what is due before it is
_CLAIMS = 5
_AWAY_SECONDS = 20
_AGAIN = timedelta(seconds=60)  # before the second time: the killed worker comes back
_SETTLE_SECONDS = 900
_BEGIN_SECONDS = 120
_AUTOMATION_SECONDS = 60


def main() -> None:
    """Run it, print what was measured, and say by the exit code whether it is as it must be."""
    parser = argparse.ArgumentParser(prog="python -m tests.beyond", description=__doc__)
    parser.add_argument("--integrations", type=int, default=20)
    count = parser.parse_args().integrations
    with (
        Home.open(f"beyond-{os.getpid()}") as home,
        scene(home, sign_of_life=30, say=_say) as it,
    ):
        due = _enrol(it, count)
        _start_workers(it, count)
        killed_at, orphans = _kill_a_worker(it, due[0])
        away = _stop_a_server(it, due[1])
        wait_for(lambda: it.open_periods(due[1]) == 0, _SETTLE_SECONDS, what="settling")
        last = (datetime.now(UTC) - due[1]).total_seconds()
        _say(f"all settled {last:.0f} s after the second time")
        _give_the_automation_time(it)
        wrong = problems(it, due)
        attempts = it.attempts()
        taken_over = _take_overs(attempts, orphans, killed_at)
        _print(_workers(attempts, due))
        _print(_orphans(taken_over))
        summary = {
            "integrations": count,
            "periods": len({a["key"] for a in attempts}),
            "attempts": len(attempts),
            "outcomes": Counter(a["outcome"] or "open" for a in attempts),
            "by_worker": Counter(a["worker"] for a in attempts if a["outcome"] == "settled"),
            "drift": [_drift(attempts, moment) for moment in due],
            "taken_over": len(taken_over),
            "begun_again_seconds": _span([one["again"] for one in taken_over]),
            "settled_seconds": _span([one["settled"] for one in taken_over]),
            "server_away_seconds": away,
            "all_settled_seconds": round(last),
            "events_settled": settled_events(it).total(),
            "crashed_runs": len(crashed_runs(it)),
            "crashed_and_not_run_again": len(_crashed_and_unseen(it)),
            "wrong": len(wrong),
        }
    for one in wrong:
        _say(f"NOT AS IT MUST BE: {one}")
    print(json.dumps(summary))
    sys.exit(bool(wrong))


def _enrol(it: Scene, count: int) -> list[datetime]:
    """Import the integrations; returns the two times at which all of them are due."""
    # Importing takes a while, and the time has to be known before.
    begin = datetime.now(UTC) + _LEAD + timedelta(seconds=2 * count)
    first = begin.replace(second=0, microsecond=0) + timedelta(minutes=1)
    due = [first, first + _APART]
    minutes, hours = ({getattr(moment, part) for moment in due} for part in ("minute", "hour"))
    cron = f"{_list(minutes)} {_list(hours)} * * *"
    _say(f"{count} integrations, due at {due[0]:%H:%M} and {due[1]:%H:%M}")
    it.enrol(count, cron=cron, first_period=first)
    it.approve(_CLAIMS, at=datetime.now(UTC))
    return due


def _list(numbers: set[int]) -> str:
    return ",".join(str(number) for number in sorted(numbers))


def _start_workers(it: Scene, count: int) -> None:
    """Two behind the first server, one behind the second; together they take just all runs."""
    for number, server in enumerate((0, 0, 1), start=1):
        it.start_worker(f"worker-{number}", server=it.servers[server], limit=-(-count // 3) + 1)


def _kill_a_worker(it: Scene, due: datetime) -> tuple[datetime, list[str]]:
    """Kill a worker in the middle; returns when, and the periods that it was at."""
    _wait_until(due)
    _say(f"{due:%H:%M} is due")
    wait_for(lambda: len(it.at_work("worker-1")) > 1, _BEGIN_SECONDS, what="beginning")
    wait_for(lambda: it.chunks_on_their_way() > 0, _BEGIN_SECONDS, what="a chunk on its way")
    killed_at = datetime.now(UTC)
    it.workers["worker-1"].kill()
    orphans = [a["key"] for a in it.at_work("worker-1")]
    _say(f"worker-1 is killed while it works on {len(orphans)} periods")
    return killed_at, orphans


def _stop_a_server(it: Scene, due: datetime) -> float:
    """Stop a server in the middle and start it again; returns how many seconds it was away."""
    _wait_until(due - _AGAIN)
    it.approve(_CLAIMS, at=datetime.now(UTC))
    it.workers["worker-1"].start()
    _say("worker-1 is back, and people have approved more")
    _wait_until(due)
    _say(f"{due:%H:%M} is due")
    behind = ("worker-1", "worker-2")
    wait_for(lambda: any(map(it.at_work, behind)), _BEGIN_SECONDS, what="beginning")
    began = time.monotonic()
    it.servers[0].process.stop()
    _say(f"the first server is stopped; {it.open_periods(due)} periods are open")
    time.sleep(_AWAY_SECONDS)
    it.servers[0].process.start()
    away = time.monotonic() - began
    _say(f"the first server is back after {away:.0f} s; {it.open_periods(due)} periods are open")
    return round(away)


def _give_the_automation_time(it: Scene) -> None:
    until = time.monotonic() + _AUTOMATION_SECONDS
    while _crashed_and_unseen(it) and time.monotonic() < until:
        time.sleep(1)


def _crashed_and_unseen(it: Scene) -> list[str]:
    """Return the crashed runs for which the automation has not run (yet)."""
    return [run for run, fired in crashed_runs(it).items() if not fired]


def _take_overs(
    attempts: list[dict[str, Any]], orphans: list[str], killed_at: datetime
) -> list[dict[str, Any]]:
    """Say of each period that lost its worker who went on with it, and after how many seconds."""
    found: list[dict[str, Any]] = []
    for key in orphans:
        after = [a for a in attempts if a["key"] == key and a["started_at"] > killed_at]
        if after:
            found.append(
                {
                    "key": key,
                    "worker": after[0]["worker"],
                    "trigger": after[0]["trigger"],
                    "again": (after[0]["started_at"] - killed_at).total_seconds(),
                    "settled": (after[0]["settled_at"] - killed_at).total_seconds(),
                    "attempts": 1 + len(after),
                }
            )
    return found


def _workers(attempts: list[dict[str, Any]], due: list[datetime]) -> Table:
    table = Table("worker", title="Attempts by worker, and how they ended")
    for heading in ("first period", "second period", "settled", "otherwise"):
        table.add_column(heading, justify="right")
    for worker in sorted({a["worker"] for a in attempts}):
        own = [a for a in attempts if a["worker"] == worker]
        ended = Counter(a["outcome"] or "never said" for a in own)
        settled = ended.pop("settled", 0)
        table.add_row(
            worker,
            *(str(sum(a["due_at"] == moment for a in own)) for moment in due),
            str(settled),
            ", ".join(f"{n} {how}" for how, n in ended.items()) or "-",
        )
    return table


def _orphans(taken_over: list[dict[str, Any]]) -> Table:
    table = Table("period", "taken over by", "asked for by", title="What the killed worker was at")
    for heading in ("begun again after", "settled after", "attempts"):
        table.add_column(heading, justify="right")
    for one in taken_over:
        table.add_row(
            *(one["key"], one["worker"], one["trigger"]),
            *(f"{one['again']:.0f} s", f"{one['settled']:.0f} s", str(one["attempts"])),
        )
    return table


def _drift(attempts: list[dict[str, Any]], due: datetime) -> dict[str, float]:
    """Return how late the first attempts at the periods of that time began, in seconds."""
    first: dict[str, float] = {}
    for a in attempts:
        if a["due_at"] == due:
            first.setdefault(a["key"], a["late"])
    return {
        "median": round(statistics.median(first.values()), 1),
        "worst": round(max(first.values()), 1),
    }


def _span(seconds: list[float]) -> list[float]:
    return [round(f(seconds)) for f in (min, statistics.median, max)] if seconds else []


def _print(table: Table) -> None:
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def _wait_until(moment: datetime) -> None:
    time.sleep(max(0.0, (moment - datetime.now(UTC)).total_seconds()))


def _say(words: str) -> None:
    print(f"[{datetime.now(UTC):%H:%M:%S}] {words}", flush=True)


if __name__ == "__main__":
    main()
