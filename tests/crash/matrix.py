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
PROMISES = (
    *(*_BAD_LINES, "stuck", "sent_again", "wrong_receipts", "needless_stops", "broken"),
    *("claimed_twice", "reordered"),
)
"""What has to be 0."""
_PARTIES = ("ledger", "edge", "vendor-token", "vendor-write", "vendor-read", "prefect")
_OUTCOMES = {
    "settled": "settled",
    "asked": "settled, after a person",
    "stopped": "stopped",
    "wrong": "wrong",
}


@dataclass(kw_only=True)
class Tally:
    """What came of the trials so far."""

    seed: int
    points: int = 0
    trials: int = 0
    missed: Counter[str] = field(default_factory=Counter[str])
    bad: Counter[str] = field(default_factory=Counter[str])
    cells: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    ends: Counter[str] = field(default_factory=Counter[str])

    def add(self, case: Case, result: Result) -> str | None:
        """Count a trial; returns what is wrong with it, if something is.

        One whose point did not come is no trial, but what it did has to be right all the same.
        """
        wrong = judge(result)
        self.bad.update(wrong)
        if missed := result.get("missed"):
            self.missed.update(missed)
        else:
            self.trials += 1
            self.cells[case.fault.name, case.point.party] += 1
            self.outcomes[case.fault.name, "wrong" if wrong else _outcome(result)] += 1
            self.ends.update(_words(end) for end in result.get("runs", ()))
        return f"{dict(wrong)} {result['reasons']} {result.get('runs')}" if wrong else None

    def _total(self, outcome: str) -> int:
        return sum(count for (_, one), count in self.outcomes.items() if one == outcome)

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
            "settled": self._total("settled") + self._total("asked"),
            "stopped": self._total("stopped"),
            "asked_a_person": self._total("asked"),
            "not_struck": self.missed.total(),
            "seed": self.seed,
        }

    def table(self) -> str:
        """Faults by who was asked at the point, and by how it ended: how many trials."""
        parties = [p for p in _PARTIES if any(party == p for _, party in self.cells)]
        rows = [
            ["fault", *parties, *_OUTCOMES.values()],
            ["---", *("--:" for _ in [*parties, *_OUTCOMES])],
        ]
        for fault in KNOWN:
            counts = [self.cells[fault, party] for party in parties]
            ends = [self.outcomes[fault, outcome] for outcome in _OUTCOMES]
            if sum(counts):
                rows.append([fault, *(str(count or "") for count in [*counts, *ends])])
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)


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


def _outcome(result: Result) -> str:
    return "asked" if result["end"] == "settled" and result["reasons"] else result["end"]


def _words(end: str) -> str:
    return end.partition(":")[0]


@dataclass(kw_only=True)
class Matrix:
    """The lanes, and the way to play trials on them."""

    lanes: Sequence[Lane]
    say: Callable[[str], None]
    replay: str

    def record(self, wanted: Sequence[plan.Scenario], *, seed: int) -> list[plan.Recording]:
        """Find the points of the scenarios, once everything is warm."""
        self._each([plan.warm_up(lane.vendor, n) for n, lane in enumerate(self.lanes)])
        return plan.record(wanted, lambda trials: self._play(trials, lambda _: None), seed=seed)

    def crowd(self, *, seconds: float, seed: int, integrations: int, periods: int) -> Counter[str]:
        """Let a crowd of workers loose on each lane; returns what came of it, added up."""
        size = {"seconds": seconds, "integrations": integrations, "periods": periods}
        orders = [{**size, "seed": seed, "lane": n} for n in range(len(self.lanes))]
        return self._together("crowd", orders)

    def rush(self, *, rounds: int, seed: int) -> Counter[str]:
        """Play rounds of the rush, spread over the lanes; returns what came of them, added up."""
        share, rest = divmod(rounds, len(self.lanes))
        orders = [
            {"rounds": share + (n < rest), "seed": seed, "lane": n} for n in range(len(self.lanes))
        ]
        return self._together("rush", orders)

    def _together(self, what: str, orders: Sequence[dict[str, Any]]) -> Counter[str]:
        total: Counter[str] = Counter()
        for result in self._each([{"number": None, what: order} for order in orders]):
            if result.get("end") == "broken":
                self.say(f"✗ {what}: {result['reasons']}")
                total["broken"] += 1
            else:
                total.update(result)
        if any(total[promise] for promise in PROMISES):
            self.say(f"✗ {what}: {dict(total)}\n    {self.replay} TRIALS=0")
        return total

    def play(self, cases: Sequence[Case], trials: int, tally: Tally) -> None:
        """Play the first so many of the cases; the rest replace those whose point does not come.

        What all trials feel comes last, when the others are through.
        """
        by_number = {case.number: case for case in cases}
        reserve = list(cases[trials:])
        began = time.monotonic()

        def heard(result: Result) -> dict[str, Any] | None:
            case = by_number[result["number"]]
            wrong = tally.add(case, result)
            if wrong:
                self.say(f"✗ {case}\n    {wrong}\n    {self._again(case)}")
            if result.get("missed"):
                return _replacement(case, reserve)
            if tally.trials % 100 == 0:
                rate = tally.trials / (time.monotonic() - began)
                self.say(f"{tally.trials} of {min(trials, len(cases))} trials, {rate:.1f} a second")
            return None

        for shared in (False, True):
            part = [case for case in cases[:trials] if case.fault.shared is shared]
            self._play([case.as_trial() for case in part], heard)

    def _again(self, case: Case) -> str:
        return f"{self.replay} VENDOR={case.recording.scenario.vendor} ONLY={case.number}"

    def _play(
        self,
        trials: Sequence[dict[str, Any]],
        heard: Callable[[Result], dict[str, Any] | None],
    ) -> list[Result]:
        """Play trials side by side, each on a lane of its vendor; returns what came of them.

        What `heard` answers is another trial to be played.
        """
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
                    another = heard(result)
                if another:
                    waiting[lane.vendor].put(another)

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


def _replacement(missed: Case, reserve: list[Case]) -> dict[str, Any] | None:
    """Take a case from the reserve: of the same vendor, and of the same fault if there is one."""
    vendor, fault = missed.recording.scenario.vendor, missed.fault
    alike = [
        case
        for case in reserve
        if case.recording.scenario.vendor == vendor and case.fault.shared is fault.shared
    ]
    if not alike:
        return None
    chosen = next((case for case in alike if case.fault is fault), alike[0])
    reserve.remove(chosen)
    return chosen.as_trial()


def _vendor_of(trial: dict[str, Any]) -> str:
    return trial["name"].split("-", 2)[2]
