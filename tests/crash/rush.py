"""The rush: many processes at once on one integration, as two schedulers gone mad would start them.

Nothing breaks here, so nothing may happen twice: each period is claimed once, sent once, and the
books hold the periods in the order in which they were due.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from kvitt.ports import ClaimOutcome
from tests.crash import exporter
from tests.crash.run import Child
from tests.crash.stage import job_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.crash.exporter import Job
    from tests.crash.stage import Stage

_MINUTE = timedelta(minutes=1)
_PROCESSES, _PERIODS, _VOUCHERS = 10, 3, 6
_MOMENT = 0.1
# Nothing breaks, so no lease has to run out, however many processes share the processor.
_LEASE = 60
_SCHEDULERS = ("schedule", "pg_cron")
_FIRST_COMPANY = 800_000


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a lane is asked for: so many rounds, each with an integration of its own."""

    rounds: int
    seed: int
    lane: int


def play(stage_of: Callable[[str, int], Stage], order: Order) -> dict[str, Any]:
    """Play the rounds of one lane; returns what came of them, added up."""
    total: Counter[str] = Counter()
    for number in range(order.rounds):
        here = order.lane * 1000 + number
        stage = stage_of(f"rush-{order.lane}-{number}", _FIRST_COMPANY + here)
        total += _play_once(stage, random.Random(f"{order.seed} {here}"))  # noqa: S311
    return dict(total)


def _play_once(stage: Stage, dice: random.Random) -> Counter[str]:
    _set_up(stage, dice)
    told, tell = os.pipe()
    jobs = [replace(job_of(stage, trigger=trigger), lease=_LEASE) for trigger in _SCHEDULERS]
    children = [
        Child.fork(partial(_when_told, told, tell, jobs[n % len(jobs)])) for n in range(_PROCESSES)
    ]
    os.close(told)
    os.close(tell)  # all of them hear it at once
    ends = Counter(child.wait() for child in children)
    return _judge(stage, ends)


async def _when_told(told: int, tell: int, job: Job) -> str:
    """Wait until the pipe's last writer is gone, then ask for work until there is none."""
    os.close(tell)
    os.read(told, 1)
    while True:
        end = await exporter.directly(job)
        if end != ClaimOutcome.BUSY:
            return end
        await asyncio.sleep(_MOMENT)


def _set_up(stage: Stage, dice: random.Random) -> None:
    stage.open_books()
    stage.save_integration(chunk_lines=7)
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    due = [now - back * _MINUTE for back in range(_PERIODS, 0, -1)]
    stage.plan(due[0] - _MINUTE, due)
    records = stage.records(_VOUCHERS, before=now, seed=dice.randrange(10**9))
    for number, record in enumerate(records):
        moment = due[number * _PERIODS // _VOUCHERS] - _MINUTE / 2
        record |= {"id": f"CLAIM-{number}", "approved_at": moment.isoformat()}
    stage.add_records(records)
    for moment in due:
        stage.batches[moment] = [r for r in records if _falls_into(r, moment)]


def _falls_into(record: dict[str, Any], due: datetime) -> bool:
    return due - _MINUTE <= datetime.fromisoformat(record["approved_at"]) < due


def _judge(stage: Stage, ends: Counter[str]) -> Counter[str]:
    """Audit one round: by the books, and by the ledger's own account of who did what."""
    states = Counter(stage.states())
    attempts, sends, chunks = stage.efforts()
    total = Counter(
        rounds=1,
        processes=ends.total(),
        periods=states.total(),
        claimed_twice=attempts - states.total(),
        sent_again=sends - chunks,
        stuck=states.total() - states["verified"],
        broken=ends.total() - ends["settled"],
    )
    print("rush:", stage.id, dict(ends), file=sys.stderr, flush=True)
    total.update(stage.audit().wrong)
    total["reordered"] = stage.reordered()
    return total
