"""A lane: plays trials one after another, on a vendor simulator of its own.

    python -m tests.crash.lane    a line of JSON on stdin: [{"socket": fd, "ground": {…}}, …]

All lanes are forks of one nursery, which has imported everything, and walked the way of a period
once per vendor, so that neither a lane nor any run of a trial has to. When its stdin ends, it ends
them.

Over its socket a lane is told what to do, in lines of JSON, and answers each with what came of it.
Faults at a vendor are queued in the simulator for the next request, so two trials at a time cannot
share one. The ledger and Prefect are shared by all lanes. Outages are asked of the parent, who has
the processes: {"outage": part}, answered once the part is down.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import signal
import socket
import sys
import time
import traceback
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from sandbox.vendors.simulators import SIMULATORS
from tests.crash import crowd, exporter, rush
from tests.crash.faults import KNOWN, Point
from tests.crash.points import SocketWire
from tests.crash.run import Child, Hands, Keeper, Strike
from tests.crash.stage import Database, Ground, Simulator, Stage, job_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.crash.run import Work

# After so many triggers, or seconds, a period that is neither settled nor stopped is stuck.
_MOST_TRIGGERS = 40
_LONGEST_TRIAL = 150
_PERSONS = 3
_MOST_PREPARATIONS = 20
_CHUNK_LINES = 7
# What Prefect imports only when a flow runs, or is deployed: 0.2 s of each run.
_IMPORTED_LATE = (
    *("prefect.engine", "prefect.flow_engine", "prefect.task_engine", "prefect.bundles"),
    *("prefect.concurrency.v1.context", "prefect.telemetry.run_telemetry"),
    *("prefect.utilities.visualization", "prefect._vendor.croniter", "fastapi", "docker"),
)
_WAYS = {"direct": exporter.directly, "prefect": exporter.in_prefect}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trial. `strikes` are points with the names of faults; none, to record a scenario."""

    number: int
    name: str
    seed: int
    way: str
    strikes: list[tuple[Mapping[str, Any], str]]
    posting: bool = False
    cold: bool = False
    first: bool = False
    vouchers: int = 6


@dataclass(kw_only=True)
class Lane:
    """What a lane works with."""

    ground: Ground
    database: Database
    simulator: Simulator
    parent: SocketWire

    def do(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Do what the parent asks for: a trial, a part of the crowd, some rushes, foundations."""
        match wanted:
            case {"foundations": _}:
                return self.lay_foundations()
            case {"crowd": order}:
                return crowd.play(self._stage, crowd.Order(**order))
            case {"rush": order}:
                return rush.play(self._stage, rush.Order(**order))
            case trial:
                return self.play(Trial(**trial))

    def play(self, trial: Trial) -> dict[str, Any]:
        """Play one trial to its end, and say how it went."""
        began = time.monotonic()
        stage = self._stage(trial.name, trial.number)
        self._set_up(stage, trial)
        keeper = self._keeper(stage, trial)
        end, reasons = self._until_it_rests(stage, trial, keeper)
        again = self._once_more(stage, trial, keeper)
        findings = stage.audit(staged=end != "settled")
        stage.calm()
        return {
            "number": trial.number,
            "end": end,
            "reasons": reasons,
            "sent_again": again,
            "findings": findings.wrong,
            "receipt": end != "settled" or self._receipt_is_right(stage),
            "missed": [str(strike.point) for strike in keeper.missed],
            "runs": keeper.ends,
            "points": [asdict(point) for point in keeper.seen],
            "seconds": round(time.monotonic() - began, 2),
        }

    def lay_foundations(self) -> dict[str, Any]:
        """Save what all flows stand on."""
        said = self._fork(exporter.lay_foundations, self._stage("nobody", 0)).wait()
        return {"end": "laid" if said == exporter.DONE else said}

    def warm_up(self) -> None:
        """Walk the way of a period in this very process, which imports and caches what it needs."""
        stage = self._stage(f"nursery-{self.ground.vendor}", 0)
        stage.set_up(vouchers=2, seed=0, chunk_lines=_CHUNK_LINES)
        said = asyncio.run(exporter.directly(job_of(stage)))
        if said != "settled":
            raise RuntimeError(f"the first period of all is {said}: {stage.period()['reason']}")

    def close(self) -> None:
        """Let go of what no fork may share."""
        self.database.close()
        self.simulator.close()

    def _stage(self, name: str, number: int) -> Stage:
        """Set a stage by its integration's id, and the number of its company."""
        return Stage(
            id=name,
            ground=self.ground,
            database=self.database,
            simulator=self.simulator,
            company=SIMULATORS[self.ground.vendor].company_of(number),
        )

    def _set_up(self, stage: Stage, trial: Trial) -> None:
        stage.set_up(
            vouchers=trial.vouchers,
            seed=trial.seed,
            chunk_lines=_CHUNK_LINES,
            fitted=not trial.first,
        )
        if posting := SIMULATORS[self.ground.vendor].posting:
            stage.open_books(**posting[trial.posting])
        if trial.way == "prefect":
            self._let(exporter.connect, stage)
            if any(KNOWN[name].needs_deployment for _, name in trial.strikes):
                self._let(exporter.deploy, stage)
        if trial.cold:
            self._ask_parent("cold start")

    def _keeper(self, stage: Stage, trial: Trial) -> Keeper:
        strikes = [Strike(point=Point(**point), fault=KNOWN[name]) for point, name in trial.strikes]
        hands = Hands(
            queue_at_vendor=stage.fault,
            writes_at_vendor=stage.writes,
            takeover=partial(self._fork, _WAYS[trial.way], stage, trigger="watch"),
            rest=partial(_rest, stage),
            outage=self._ask_parent,
            deploy=partial(self._redeploy, stage),
            lease=self.ground.lease,
            settle=self.ground.settle,
        )
        return Keeper(strikes=strikes, hands=hands)

    def _until_it_rests(self, stage: Stage, trial: Trial, keeper: Keeper) -> tuple[str, list[str]]:
        """Trigger the period until it is settled, or stopped for a person with good reason.

        Where it stops and the books do not contradict the ledger, we are the person who mends it.
        """
        until = time.monotonic() + _LONGEST_TRIAL
        trigger, reasons = "schedule", list[str]()
        for _ in range(_MOST_TRIGGERS):
            keeper.watch(self._fork(_WAYS[trial.way], stage, trigger=trigger, watched=True))
            trigger = "watch"
            state = _rest(stage)
            if state == "verified":
                return "settled", reasons
            if state == "failed":
                reasons.append(stage.period()["reason"])
                _sleep_until(keeper.quiet_at)
                if stage.audit(staged=True).contradict:
                    return "stopped", reasons
                stage.mend("the token is a new one")
                trigger = "person"
            if len(reasons) > _PERSONS or time.monotonic() > until:
                break
        period = stage.period()
        return "stuck", [*reasons, f"{period['state']}: {period['reason']}"]

    def _once_more(self, stage: Stage, trial: Trial, keeper: Keeper) -> int:
        """Trigger it once more, when all is quiet; returns how many writes the vendor was sent."""
        _sleep_until(keeper.quiet_at)
        stage.calm()
        before = stage.writes()
        self._fork(_WAYS[trial.way], stage, trigger="watch").wait()
        return stage.writes() - before

    def _receipt_is_right(self, stage: Stage) -> bool:
        """Whether the receipt says what was approved, in count of vouchers and lines."""
        (records,) = stage.batches.values()
        counts = (len(records), sum(len(record["lines"]) for record in records))
        receipt = stage.period()["receipt"]
        return all(
            (receipt[what]["vouchers"], receipt[what]["lines"]) == counts
            for what in ("taken", "sent", "read_back")
        )

    def _redeploy(self, stage: Stage) -> None:
        stage.save_integration(chunk_lines=_CHUNK_LINES, cron="30 7 * * 1-5")
        self._let(exporter.deploy, stage)

    def _let(self, prepare: Any, stage: Stage) -> None:
        """Let a child prepare Prefect; again where an outage of another trial comes in between."""
        said = ""
        for _ in range(_MOST_PREPARATIONS):
            said = self._fork(prepare, stage).wait()
            if said == exporter.DONE:
                return
            time.sleep(1)
        raise RuntimeError(f"{stage.id} could not be prepared: {said}")

    def _fork(
        self, work: Any, stage: Stage, *, trigger: str = "schedule", watched: bool = False
    ) -> Child:
        job = job_of(stage, trigger=trigger)
        do: Work = partial(work, job)
        return Child.fork(do, vendor=self.ground.vendor_url if watched else None)

    def _ask_parent(self, what: str) -> None:
        self.parent.tell({"outage": what})
        if self.parent.hear() is None:
            sys.exit("the parent is gone")


def _rest(stage: Stage) -> str | None:
    """Return how the period has ended; if it has not, wait until it can be triggered again."""
    period = stage.period()
    if period["state"] in {"verified", "failed"}:
        return period["state"]
    time.sleep(max(0, period["leased"] or 0, period["waits"] or 0) + 0.01)
    return None


def _sleep_until(moment: float) -> None:
    time.sleep(max(0, moment - time.monotonic()))


def _open(ground: Ground, end: socket.socket) -> Lane:
    return Lane(
        ground=ground,
        database=Database(ground.database_url),
        simulator=Simulator(ground.vendor_url),
        parent=SocketWire(end),
    )


def _serve(lane: Lane) -> None:
    """Do what the parent says, until it has nothing more to say."""
    while (wanted := lane.parent.hear()) is not None:
        try:
            result = lane.do(wanted)
        except Exception as error:  # noqa: BLE001 - a defect of the matrix is a finding, too
            traceback.print_exc()
            result = {"number": wanted.get("number"), "end": "broken", "reasons": [repr(error)]}
        lane.parent.tell(result)


def _warm_up(lanes: Sequence[Lane]) -> None:
    """Import what is late, walk the way once per vendor, and keep it all shared with the forks."""
    if "PREFECT_API_URL" in os.environ:
        for module in _IMPORTED_LATE:
            importlib.import_module(module)
    for lane in {lane.ground.vendor: lane for lane in lanes}.values():
        lane.warm_up()
        lane.close()
    gc.collect()
    gc.freeze()


def main() -> None:
    """Be the nursery: fork the lanes, and end them when stdin ends."""
    os.dup2(2, 1)  # children print into the log
    orders = json.loads(sys.stdin.readline())
    lanes = [_open(Ground(**o["ground"]), socket.socket(fileno=o["socket"])) for o in orders]
    _warm_up(lanes)
    pids = list[int]()
    for lane in lanes:
        pids.append(os.fork())
        os.setpgid(pids[-1], 0)  # each leads a group, of itself and the runs that it forks
        if pids[-1] == 0:
            for other in lanes:
                if other is not lane:
                    other.parent.close()
            _serve(lane)
            os._exit(0)
    for lane in lanes:
        lane.parent.close()
    sys.stdin.read()
    for pid in pids:
        os.killpg(pid, signal.SIGKILL)  # paused runs, too
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
