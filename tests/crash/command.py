"""The crash matrix: `make crash`, or `python -m tests.crash [--trials N] [--seed S] …`.

Ends with one line of JSON, and with status 1 if anything in it is not as promised.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sandbox.vendors.simulators import SIMULATORS
from tests.crash import ground, plan
from tests.crash.faults import FAULTS, KNOWN
from tests.crash.matrix import PROMISES, Matrix, Tally

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.crash.faults import Fault

# Of each lane's part of the crowd.
_CROWD = {"integrations": 2, "periods": 10}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line asks for."""

    trials: int = 2000
    seed: int = 1
    vendor: str | None = None
    settle: float = ground.Times.settle
    workers: int = 14
    quick: bool = False
    only: int | None = None
    fault: str | None = None
    crowd: float = 40
    rush: int = 100

    @property
    def vendors(self) -> list[str]:
        """Which vendors the trials are for."""
        return [self.vendor] if self.vendor else sorted(SIMULATORS)

    @property
    def faults(self) -> list[Fault]:
        """Which faults strike: the one that was asked for, or all that have to do no harm."""
        return [KNOWN[self.fault]] if self.fault else list(FAULTS.values())

    @property
    def times(self) -> ground.Times:
        """The times of the trials. Without a settle time there is no gap between looks either."""
        gap = ground.Times.gap if self.settle else 0
        return ground.Times(settle=self.settle, gap=gap)

    @property
    def replay(self) -> str:
        """The command that plays the same again, but for its size."""
        words = ["make crash", f"SEED={self.seed}"]
        words += [f"SETTLE={self.settle:g}"] if self.settle != ground.Times.settle else []
        words += [f"FAULT='{self.fault}'"] if self.fault else []
        words += ["QUICK=1"] if self.quick else []
        return " ".join(words)


def run(options: Options) -> tuple[Tally, dict[str, Any]]:
    """Record, draw, play, and judge; returns the tally and the summary."""
    began = time.monotonic()
    tally = Tally(seed=options.seed)
    with ExitStack() as stack:
        _say("starting Supabase and the lanes")
        name = f"crash-{os.getpid()}"
        parts = stack.enter_context(ground.running(name, options.times, prefect=not options.quick))
        named = itertools.islice(itertools.cycle(options.vendors), max(options.workers, 2))
        lanes = stack.enter_context(parts.lanes(list(named)))
        if parts.prefect:
            lanes[0].lay_foundations()
        matrix = Matrix(lanes=lanes, say=_say, replay=options.replay)
        if options.trials:
            _play_trials(options, matrix, tally)
        together = {} if options.only is not None else _play_together(options, matrix)
    summary = {**tally.summary, "rush": {}, "crowd": {}, **together}
    return tally, {**summary, "seconds": round(time.monotonic() - began)}


def _play_trials(options: Options, matrix: Matrix, tally: Tally) -> None:
    """Find the points, draw trials, and play them; or the one that is asked for."""
    wanted = plan.scenarios(options.vendors, quick=options.quick)
    recordings = matrix.record(wanted, seed=options.seed)
    tally.points = sum(len(recording.points) for recording in recordings)
    cases = plan.in_turn(plan.cases_of(recordings, options.faults, seed=options.seed))
    _say(f"{tally.points} points in {len(recordings)} scenarios: {len(cases)} trials are possible")
    if options.only is not None:
        cases = [case for case in cases if case.number == options.only]
        if not cases:
            sys.exit(f"there is no trial {options.only} of this seed and these options")
        _say(str(cases[0]))
    matrix.play(cases, options.trials, tally)


def _play_together(options: Options, matrix: Matrix) -> dict[str, Mapping[str, int]]:
    """Play what is not one trial after another: the rush and the crowd."""
    came: dict[str, Mapping[str, int]] = {}
    if options.rush:
        _say(f"the rush: {options.rush} times ten processes on one integration")
        came["rush"] = matrix.rush(rounds=options.rush, seed=options.seed)
    if options.crowd:
        _say(f"the crowd: {options.crowd:g} s, and until all is settled")
        size = {"integrations": 1, "periods": 4} if options.quick else _CROWD
        came["crowd"] = matrix.crowd(seconds=options.crowd, seed=options.seed, **size)
    return came


def _say(what: str) -> None:
    print(what, flush=True)


def _options() -> Options:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--trials", type=int, default=Options.trials)
    parser.add_argument("--seed", type=int, default=Options.seed)
    parser.add_argument("--vendor", choices=sorted(SIMULATORS))
    parser.add_argument(
        "--settle", type=float, default=Options.settle, help="seconds; 0 is no protection"
    )
    parser.add_argument("--workers", type=int, default=Options.workers, help="lanes side by side")
    parser.add_argument("--quick", action="store_true", help="without Prefect, and fewer scenarios")
    parser.add_argument("--only", type=int, help="replay one trial")
    parser.add_argument("--fault", choices=list(KNOWN), help="only this one")
    parser.add_argument("--rush", type=int, default=Options.rush, help="rounds; 0 is none")
    parser.add_argument("--crowd", type=float, default=Options.crowd, help="seconds; 0 is none")
    return Options(**vars(parser.parse_args()))


def broken_promises(summary: Mapping[str, Any]) -> dict[str, int]:
    """Return what is not 0 and has to be, of the trials, of the rush and of the crowd."""
    counts: Counter[str] = Counter()
    for part in (summary, summary["rush"], summary["crowd"]):
        counts.update({promise: part.get(promise, 0) for promise in PROMISES})
    return dict(+counts)


def main() -> None:
    """Run the matrix and say what came of it."""
    tally, summary = run(_options())
    print(tally.table())
    print("runs ended:", dict(tally.ends.most_common()))
    if tally.missed:
        print("points that did not come, replaced:", dict(tally.missed.most_common()))
    print(json.dumps(summary))
    sys.exit(bool(broken_promises(summary)))


if __name__ == "__main__":
    main()
