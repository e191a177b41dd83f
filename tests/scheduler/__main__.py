"""`make scheduler PERIODS=20`: many periods by a real pg_cron, then Prefect stops; prints tables.

The last line of its output is JSON. It fails if a pre-warm left more than a second earlier or later
than half a minute before its period was due, if a sync had to wait for a cold start, if a period
was not settled in one attempt, if the books differ, or if an alarm did not come, or came twice.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sandbox.processes import Home
from tests.scheduler.scene import ALONE, BOTH, scene, wait_for

if TYPE_CHECKING:
    from tests.scheduler.scene import Measured, Scene

_SETTLE_SECONDS = 240
_ALARM_SECONDS = 130
_OVERDUE_SECONDS = 450


def main() -> None:
    """Run it, print what was measured, and say by the exit code whether it is as it must be."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--periods", type=int, default=20)
    number = parser.parse_args().periods
    with (
        Home.open(f"scheduler-{os.getpid()}") as home,
        scene(home, both="*/5 * * * *", say=_say) as it,
    ):
        due = it.run_periods(number, _say)
        wait_for(lambda: it.open_periods(due[-1]) == 0, _SETTLE_SECONDS, what="settling")
        measured = [it.measure(one) for one in due]
        _print_periods(measured)
        told = _without_prefect(it)
        it.stack.run_vendor_jobs()
        books = {name: one.audit().summary for name, one in it.loaded.items()}
        clean = all(one.audit().clean for one in it.loaded.values())
        attempts = it.ask(
            "select trigger, count(*) from kvitt.attempts where integration_id = %(id)s group by 1",
            id=BOTH.integration,
        )
    problems = [f"{one.key}: {asdict(one)}" for one in measured if not _as_it_must_be(one)]
    problems += [] if clean else [f"the books differ: {books}"]
    problems += told["problems"]
    for line in (*told["texts"], *(f"{name}: {found}" for name, found in books.items())):
        _say(line)
    _say(f"attempts of {BOTH.integration}, with both schedulers: {dict(attempts)}")
    for problem in problems:
        _say(f"NOT AS IT MUST BE: {problem}")
    print(json.dumps({**_summary(measured), "books": books, "problems": len(problems)}))
    sys.exit(bool(problems))


def _as_it_must_be(one: Measured) -> bool:
    return (
        abs(one.prewarm + 30) <= 1
        and one.cold_starts == 0
        and one.state == "verified"
        and len(one.attempts) == 1
    )


def _without_prefect(it: Scene) -> dict[str, list[str]]:
    """Stop Prefect until a period is overdue, start it again, and gather what the database told."""
    _say("Prefect is killed; its heartbeat is set back by 12 minutes")
    stopped = datetime.now(UTC)
    it.stop_prefect(silent_for=timedelta(minutes=12))
    texts = it.webhook.texts
    wait_for(lambda: any("is silent" in t for t in texts), _ALARM_SECONDS, what="the alarm")
    _say(f"told after {(datetime.now(UTC) - stopped).total_seconds():.0f} s")
    wait_for(lambda: any("is overdue" in t for t in texts), _OVERDUE_SECONDS, what="overdue")
    _say(f"overdue told after {(datetime.now(UTC) - stopped).total_seconds():.0f} s")
    it.start_prefect()
    _say("Prefect is back")
    wait_for(lambda: any("is back" in t for t in texts), _ALARM_SECONDS, what="the end")
    wait_for(lambda: any("no longer" in t for t in texts), _SETTLE_SECONDS, what="its end")
    wait_for(lambda: it.open_periods(datetime.now(UTC)) == 0, 2 * _SETTLE_SECONDS, what="catching")
    twice = {text for text in texts if texts.count(text) > 1}
    starts = [text for text in texts if "is silent" in text or "is back" in text]
    problems = [f"told twice: {text}" for text in twice]
    problems += [] if len(starts) == 2 else [f"told of the silence {len(starts)} times"]
    return {"texts": texts, "problems": problems}


def _print_periods(measured: list[Measured]) -> None:
    print(f"{ALONE.integration}, by pg_cron alone; seconds from when it was due")
    print("| period | pre-warm left | had to boot | trigger left | run started | cold starts |")
    print("|---|---|---|---|---|---|")
    for one in measured:
        booted = "yes" if one.booted else "no"
        print(
            f"| {one.key.partition('@')[2]} | {one.prewarm:+.3f} | {booted} | {one.trigger:+.3f} "
            f"| {one.start:+.1f} | {one.cold_starts} |"
        )


def _summary(measured: list[Measured]) -> dict[str, object]:
    early = [one.prewarm for one in measured]
    return {
        "periods": len(measured),
        "prewarm": [round(f(early), 3) for f in (min, statistics.median, max)],
        "booted": sum(one.booted for one in measured),
        "trigger": [
            round(f([one.trigger for one in measured]), 3) for f in (min, statistics.median, max)
        ],
        "start": [
            round(f([one.start for one in measured]), 1) for f in (min, statistics.median, max)
        ],
        "cold_starts": sum(one.cold_starts for one in measured),
    }


def _say(words: str) -> None:
    print(f"[{datetime.now(UTC):%H:%M:%S}] {words}", flush=True)


if __name__ == "__main__":
    main()
