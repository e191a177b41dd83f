"""The crowd: many workers, killed at random, on many periods, while new records arrive.

Each lane plays its part: some integrations of its own, each with a row of periods that are due.
Workers come and go, more than one to an integration; they die at any moment; the vendor loses
replies and commits late; people approve claims, some for periods that have long been exported.
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.crash import exporter
from tests.crash.faults import LATE
from tests.crash.run import Child
from tests.crash.stage import job_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.crash.stage import Stage

_MINUTE = timedelta(minutes=1)
_WORKERS = 3
_STEP = 0.05
# How often something happens in a step.
_KILL, _ARRIVE, _FAULT = 0.12, 0.1, 0.05
_FAULTS = (
    {"fault": "reply-lost"},
    {"fault": "drop-before"},
    {"fault": "late-commit", "commit_after": LATE},
    {"fault": "status", "status": 503},
)
_LONGEST_DRAIN = 240
_FIRST_COMPANY = 900_000


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a lane is asked for: so many integrations, with so many periods that are due each."""

    seconds: float
    seed: int
    lane: int
    integrations: int
    periods: int


@dataclass(kw_only=True)
class Crowd:
    """A lane's part of it. `approved` is each integration's records, by id."""

    stages: list[Stage]
    dice: random.Random
    approved: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    workers: list[tuple[Stage, Child]] = field(default_factory=list)
    killed: int = 0
    runs: int = 0

    def step(self, *, calm: bool) -> None:
        """Let a moment pass: workers come; unless it is calm, bad things happen, and good ones."""
        self._reap()
        while len(self.workers) < _WORKERS:
            stage = self.dice.choice(self.stages)
            self.workers.append((stage, self._start(stage)))
        if not calm:
            if self.dice.random() < _KILL:
                self._kill(self.dice.choice(self.workers)[1])
            if self.dice.random() < _ARRIVE:
                self.approve(self.dice.choice(self.stages), self.dice.randint(1, 4))
            if self.dice.random() < _FAULT:
                self.stages[0].fault(self.dice.choice(_FAULTS))
        time.sleep(_STEP)

    def approve(self, stage: Stage, count: int) -> None:
        """Have people approve claims, at any time in the calendar so far."""
        known = self.approved.setdefault(stage.id, {})
        first, last = min(stage.batches), max(stage.batches)
        records = stage.records(count, before=last, seed=self.dice.randrange(10**9))
        for record in records:
            moment = first - _MINUTE + self.dice.random() * (last - first + _MINUTE)
            # In upper case, as Business Central writes all external document numbers.
            record |= {"id": f"CLAIM-{len(known)}", "approved_at": moment.isoformat()}
            known[record["id"]] = record
        stage.add_records(records)

    def send_home(self) -> None:
        """Wait until the last worker has ended."""
        for _, child in self.workers:
            child.wait()
        self.workers.clear()

    def _start(self, stage: Stage) -> Child:
        self.runs += 1
        return Child.fork(partial(exporter.directly, job_of(stage, trigger="watch")))

    def _kill(self, child: Child) -> None:
        self.killed += 1
        child.signal(signal.SIGKILL)

    def _reap(self) -> None:
        """Let those go that have ended; a second look at their end is `wait`'s."""
        self.workers = [(stage, child) for stage, child in self.workers if not child.gone()]


def play(stage_of: Callable[[str, int], Stage], order: Order) -> dict[str, Any]:
    """Play a part of the crowd: turmoil, then calm until all is settled, then the audit."""
    crowd = _gather(stage_of, order)
    until = time.monotonic() + order.seconds
    while time.monotonic() < until:
        crowd.step(calm=False)
    crowd.stages[0].calm()
    for stage in crowd.stages:
        _close_the_calendar(stage)
    until = time.monotonic() + _LONGEST_DRAIN
    while time.monotonic() < until and not all(_settled(stage) for stage in crowd.stages):
        crowd.step(calm=True)
    crowd.send_home()
    return _judge(crowd)


def _gather(stage_of: Callable[[str, int], Stage], order: Order) -> Crowd:
    stages = [
        stage_of(f"crowd-{order.lane}-{number}", _FIRST_COMPANY + order.lane * 100 + number)
        for number in range(order.integrations)
    ]
    dice = random.Random(f"{order.seed} {order.lane}")  # noqa: S311 - not a secret
    crowd = Crowd(stages=stages, dice=dice)
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    for stage in stages:
        stage.open_books()
        stage.save_integration(chunk_lines=dice.randint(7, 20))
        due = [now - back * _MINUTE for back in range(order.periods, 0, -1)]
        stage.plan(due[0] - _MINUTE, due)
        stage.batches = {moment: [] for moment in due}
        crowd.approve(stage, 2 * order.periods)
    return crowd


def _close_the_calendar(stage: Stage) -> None:
    """Write one more period, which takes what was approved too late for the others."""
    due = datetime.now(UTC).replace(second=0, microsecond=0)
    last = max(stage.batches)
    if due > last:
        stage.plan(last, [due])
        stage.batches[due] = []


def _settled(stage: Stage) -> bool:
    states = stage.states()
    return all(state in {"verified", "failed"} for state in states)


def _judge(crowd: Crowd) -> dict[str, Any]:
    """Audit each integration: what its periods took, against what was approved and booked."""
    total: Counter[str] = Counter(killed=crowd.killed, runs=crowd.runs)
    for stage in crowd.stages:
        approved = crowd.approved[stage.id]
        taken = stage.taken()
        stage.batches = {due: [approved.pop(one) for one in batch] for due, batch in taken.items()}
        states = Counter(stage.states())
        total["integrations"] += 1
        total["periods"] += states.total()
        total["records"] += sum(len(batch) for batch in taken.values()) + len(approved)
        total["stuck"] += states.total() - states["verified"]
        total["lost"] += sum(len(record["lines"]) for record in approved.values())
        total.update(stage.audit().wrong)
    return dict(total)
