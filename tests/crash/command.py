"""The crash matrix: `python -m tests.crash [--trials N] [--seed S] [--vendor V] …`.

Ends with one line of JSON, and with status 1 if anything in it is not as promised.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.crash import ground, plan
from tests.crash.faults import FAULTS, KNOWN
from tests.crash.matrix import Matrix, Tally

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.crash.faults import Fault

PROMISES = (
    *("duplicates", "lost", "altered", "wrong_period", "orphans", "unbalanced", "stuck"),
    *("sent_again", "wrong_receipts", "needless_stops", "broken"),
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line asks for."""

    trials: int = 2000
    seed: int = 1
    vendor: str | None = None
    settle: float = ground.Times.settle
    workers: int = 10
    quick: bool = False
    only: int | None = None
    fault: str | None = None
    crowd: float = 60

    @property
    def vendors(self) -> list[str]:
        """Which vendors the trials are for."""
        return [self.vendor] if self.vendor else list(ground.VENDORS)

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
        """The command that plays one of these trials again."""
        words = ["python -m tests.crash", f"--seed {self.seed}"]
        words += [f"--settle {self.settle:g}"] if self.settle != ground.Times.settle else []
        words += ["--quick"] if self.quick else []
        words += [f"--fault '{self.fault}'"] if self.fault else []
        return " ".join(words)


def run(options: Options) -> tuple[Tally, dict[str, Any]]:
    """Record, draw, play, and judge; returns the tally and the summary."""
    began = time.monotonic()
    tally = Tally(seed=options.seed)
    with ExitStack() as stack:
        name = f"crash-{os.getpid()}"
        _say("starting Supabase and the lanes")
        parts = stack.enter_context(ground.running(name, options.times, prefect=not options.quick))
        lanes = [
            parts.open_lane(number, options.vendors[number % len(options.vendors)])
            for number in range(max(options.workers, len(options.vendors)))
        ]
        for lane in lanes:
            stack.callback(lane.close)
        if parts.prefect:
            lanes[0].lay_foundations()
        matrix = Matrix(lanes=lanes, say=_say)
        wanted = plan.scenarios(options.vendors, quick=options.quick)
        recordings = matrix.record(wanted, seed=options.seed)
        tally.points = sum(len(recording.points) for recording in recordings)
        _say(f"{tally.points} points in {len(recordings)} scenarios")
        every = plan.cases_of(recordings, options.faults, seed=options.seed)
        chosen = [case for case in every if case.number == options.only]
        if options.only is None:
            chosen = plan.draw(every, options.trials)
        matrix.play(chosen, tally, replay=options.replay)
        crowded: Mapping[str, int] = {}
        if options.crowd and options.only is None:
            _say(f"the crowd: {options.crowd:g} s")
            crowded = matrix.crowd(seconds=options.crowd, seed=options.seed)
    summary = {**tally.summary, "crowd": crowded, "seconds": round(time.monotonic() - began)}
    return tally, summary


def _say(what: str) -> None:
    print(what, flush=True)


def _options() -> Options:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--trials", type=int, default=Options.trials)
    parser.add_argument("--seed", type=int, default=Options.seed)
    parser.add_argument("--vendor", choices=list(ground.VENDORS))
    parser.add_argument(
        "--settle", type=float, default=Options.settle, help="seconds; 0 is no protection"
    )
    parser.add_argument("--workers", type=int, default=Options.workers, help="lanes side by side")
    parser.add_argument("--quick", action="store_true", help="without Prefect, and fewer scenarios")
    parser.add_argument("--only", type=int, help="replay one trial")
    parser.add_argument("--fault", choices=list(KNOWN), help="only this one")
    parser.add_argument("--crowd", type=float, default=Options.crowd, help="seconds; 0 is none")
    return Options(**vars(parser.parse_args()))


def broken_promises(summary: Mapping[str, Any]) -> dict[str, int]:
    """Return what is not 0 and has to be, of the trials and of the crowd."""
    counts = Counter({p: summary[p] for p in PROMISES})
    counts.update({p: summary["crowd"].get(p, 0) for p in PROMISES})
    return dict(+counts)


def main() -> None:
    """Run the matrix and say what came of it."""
    tally, summary = run(_options())
    print(tally.table())
    print("runs ended:", dict(tally.ends.most_common()))
    print(json.dumps(summary))
    sys.exit(bool(broken_promises(summary)))


if __name__ == "__main__":
    main()
