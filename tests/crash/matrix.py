"""Plays a plan on the lanes, and judges what came of it."""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.crash import plan
from tests.crash.faults import KNOWN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.crash.ground import Lane
    from tests.crash.plan import Case

Result = dict[str, Any]
_BAD_LINES = ("duplicates", "lost", "altered", "wrong_period", "orphans", "unbalanced")
_PARTIES = ("ledger", "edge", "vendor-token", "vendor-write", "vendor-read", "prefect")


@dataclass(kw_only=True)
class Tally:
    """What came of the trials so far."""

    seed: int
    points: int = 0
    trials: int = 0
    settled: int = 0
    stopped: int = 0
    asked: int = 0
    missed: int = 0
    bad: Counter[str] = field(default_factory=Counter[str])
    cells: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    stops: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    ends: Counter[str] = field(default_factory=Counter[str])

    def add(self, case: Case, result: Result) -> str | None:
        """Count a trial; returns what is wrong with it, if something is."""
        self.trials += 1
        self.cells[case.fault.name, case.point.party] += 1
        self.ends.update(_words(end) for end in result.get("runs", ()))
        wrong = judge(result)
        self.bad.update(wrong)
        self.settled += result["end"] == "settled"
        self.stopped += result["end"] == "stopped"
        if result["end"] == "stopped":
            self.stops[case.fault.name, case.point.party] += 1
        self.asked += result["end"] == "settled" and bool(result["reasons"])
        self.missed += result.get("struck", 0) < len(case.strikes)
        return f"{dict(wrong)} {result['reasons']} {result.get('runs')}" if wrong else None

    @property
    def summary(self) -> dict[str, Any]:
        """The one line at the end."""
        return {
            "trials": self.trials,
            "points": self.points,
            "faults": len({fault for fault, _ in self.cells}),
            **{kind: self.bad[kind] for kind in _BAD_LINES},
            "stuck": self.bad["stuck"],
            "sent_again": self.bad["sent_again"],
            "wrong_receipts": self.bad["wrong_receipts"],
            "needless_stops": self.bad["needless_stops"],
            "broken": self.bad["broken"],
            "settled": self.settled,
            "stopped": self.stopped,
            "asked_a_person": self.asked,
            "not_struck": self.missed,
            "seed": self.seed,
        }

    def table(self) -> str:
        """Faults by who was asked at the point: how many trials, how many of them stopped."""
        parties = [p for p in _PARTIES if any(party == p for _, party in self.cells)]
        rows = [["fault", *parties], ["---", *("--:" for _ in parties)]]
        rows += [
            [fault, *(self._cell(fault, party) for party in parties)]
            for fault in KNOWN
            if any(name == fault for name, _ in self.cells)
        ]
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)

    def _cell(self, fault: str, party: str) -> str:
        count, stopped = self.cells[fault, party], self.stops[fault, party]
        return f"{count or ''}{f' ({stopped} stopped)' if stopped else ''}"


def judge(result: Result) -> Counter[str]:
    """Return what of a trial is not as promised, counted.

    A stopped one must have books that really contradict, which its lane has looked into, and not
    more in them than was approved. A person may be asked for nothing else but a token.
    """
    wrong: Counter[str] = Counter()
    if result["end"] in {"stuck", "broken"}:
        wrong[result["end"]] += 1
    found = Counter(result.get("findings", {}))
    wrong["duplicates"] += found["duplicates"]
    wrong["altered"] += found["altered"]
    if result["end"] == "settled":
        wrong.update({kind: found[kind] for kind in _BAD_LINES[1:] if kind != "altered"})
        refused = [r for r in result["reasons"] if "The token is invalid" in r]
        wrong["needless_stops"] += len(result["reasons"]) - len(refused)
        wrong["wrong_receipts"] += not result["receipt"]
    wrong["sent_again"] += bool(result.get("sent_again")) and result["end"] == "settled"
    return +wrong


def _words(end: str) -> str:
    return end.partition(":")[0]


@dataclass(kw_only=True)
class Matrix:
    """The lanes, and the way to play trials on them."""

    lanes: Sequence[Lane]
    say: Callable[[str], None]

    def record(self, wanted: Sequence[plan.Scenario], *, seed: int) -> list[plan.Recording]:
        """Find the points of the scenarios, once everything is warm."""
        self._each([plan.warm_up(lane.vendor, n) for n, lane in enumerate(self.lanes)])
        return plan.record(wanted, lambda trials: self._play(trials, lambda _: None), seed=seed)

    def crowd(self, *, seconds: float, seed: int) -> Counter[str]:
        """Let a crowd of workers loose on each lane; returns what came of it, added up."""
        orders = [{"seconds": seconds, "seed": seed, "lane": n} for n in range(len(self.lanes))]
        results = self._each([{"number": None, "crowd": order} for order in orders])
        total: Counter[str] = Counter()
        for result in results:
            if result.get("end") == "broken":
                self.say(f"✗ crowd: {result['reasons']}")
                total["broken"] += 1
            else:
                total.update(result)
        return total

    def play(self, cases: Sequence[Case], tally: Tally, *, replay: str) -> None:
        """Play the plan: what all trials feel comes last, when the others are through."""
        by_number = {case.number: case for case in cases}
        began = time.monotonic()

        def heard(result: Result) -> None:
            case = by_number[result["number"]]
            wrong = tally.add(case, result)
            if wrong:
                self.say(f"✗ {case}\n    {wrong}\n    {replay} --only {case.number}")
            if tally.trials % 100 == 0:
                rate = tally.trials / (time.monotonic() - began)
                self.say(f"{tally.trials} of {len(cases)} trials, {rate:.1f} a second")

        for shared in (False, True):
            part = [case for case in cases if case.fault.shared is shared]
            self._play([case.as_trial() for case in part], heard)

    def _play(
        self, trials: Sequence[dict[str, Any]], heard: Callable[[Result], None]
    ) -> list[Result]:
        """Play trials side by side, each on a lane of its vendor; returns what came of them."""
        waiting = {lane.vendor: queue.SimpleQueue[dict[str, Any]]() for lane in self.lanes}
        for trial in trials:
            waiting[_vendor_of(trial)].put(trial)
        results: list[Result] = []
        turn = threading.Lock()

        def work(lane: Lane) -> None:
            while True:
                try:
                    trial = waiting[lane.vendor].get_nowait()
                except queue.Empty:
                    return
                result = lane.play(trial)
                with turn:
                    results.append(result)
                    heard(result)

        threads = [threading.Thread(target=work, args=(lane,), daemon=True) for lane in self.lanes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results

    def _each(self, wanted: Sequence[dict[str, Any]]) -> list[Result]:
        """Let each lane do its own."""
        with ThreadPoolExecutor(len(self.lanes)) as pool:
            return list(pool.map(lambda lane, what: lane.play(what), self.lanes, wanted))


def _vendor_of(trial: dict[str, Any]) -> str:
    return trial["name"].split("-", 2)[2]
