"""A lane: plays trials one after another, on a vendor simulator of its own.

    python -m tests.crash.lane    JSON lines on stdin: its ground, then what to do

Faults at a vendor are queued in the simulator for the next request, so two trials at a time cannot
share one. The ledger and Prefect are shared by all lanes. Outages are asked of the parent, who has
the processes: {"outage": part} on stdout, answered with a line on stdin once the part is down.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
import traceback
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TextIO

from tests.crash import crowd, exporter
from tests.crash.faults import KNOWN, Point
from tests.crash.run import Child, Hands, Keeper, Strike
from tests.crash.stage import Database, Ground, Stage, company_of, job_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.crash.run import Work

# After so many triggers, or seconds, a period that is neither settled nor stopped is stuck.
_MOST_TRIGGERS = 40
_LONGEST_TRIAL = 150
_PERSONS = 3
_MOST_DEPLOYS = 20
_CHUNK_LINES = 7
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
    vouchers: int = 6


@dataclass(kw_only=True)
class Lane:
    """What a lane works with."""

    ground: Ground
    database: Database
    inbox: TextIO
    outbox: TextIO
    parent: int = field(default_factory=os.getppid)

    def do(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Do what the parent asks for: a trial, a part of the crowd, or to lay the foundations."""
        match wanted:
            case {"foundations": _}:
                return self.lay_foundations()
            case {"crowd": order}:
                return crowd.play(self.ground, self.database, crowd.Order(**order))
            case trial:
                return self.play(Trial(**trial))

    def play(self, trial: Trial) -> dict[str, Any]:
        """Play one trial to its end, and say how it went."""
        began = time.monotonic()
        company = company_of(self.ground.vendor, trial.number)
        stage = Stage(id=trial.name, ground=self.ground, database=self.database, company=company)
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
            "struck": keeper.struck,
            "runs": keeper.ends,
            "points": [asdict(point) for point in keeper.seen],
            "seconds": round(time.monotonic() - began, 2),
        }

    def lay_foundations(self) -> dict[str, Any]:
        """Save what all flows stand on."""
        nobody = Stage(id="nobody", ground=self.ground, database=self.database, company="0")
        return {"laid": self._fork(exporter.lay_foundations, nobody).wait()}

    def _set_up(self, stage: Stage, trial: Trial) -> None:
        stage.set_up(vouchers=trial.vouchers, seed=trial.seed, chunk_lines=_CHUNK_LINES)
        if self.ground.vendor == "xledger":
            stage.open_books(posting_interval_seconds=0.1 if trial.posting else 0)
        if trial.way == "prefect":
            self._deploy(exporter.connect, stage)
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
        )
        return Keeper(strikes=strikes, hands=hands)

    def _until_it_rests(self, stage: Stage, trial: Trial, keeper: Keeper) -> tuple[str, list[str]]:
        """Trigger the period until it is settled, or stopped for a person with good reason.

        Where it stops and the books do not contradict the ledger, we are the person: we ask again.
        """
        until = time.monotonic() + _LONGEST_TRIAL
        trigger, reasons = "schedule", list[str]()
        for _ in range(_MOST_TRIGGERS):
            if os.getppid() != self.parent:
                sys.exit("the parent is gone")
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
        self._deploy(exporter.deploy, stage)

    def _deploy(self, how: Any, stage: Stage) -> None:
        """Let a child deploy; again where an outage of another trial's comes in between."""
        said = ""
        for _ in range(_MOST_DEPLOYS):
            said = self._fork(how, stage).wait()
            if said == exporter.DEPLOYED:
                return
            time.sleep(1)
        raise RuntimeError(f"{stage.id} could not be deployed: {said}")

    def _fork(
        self, work: Any, stage: Stage, *, trigger: str = "schedule", watched: bool = False
    ) -> Child:
        job = job_of(stage, trigger=trigger)
        do: Work = partial(work, job)
        return Child.fork(do, vendor=self.ground.vendor_url if watched else None)

    def _ask_parent(self, what: str) -> None:
        self.outbox.write(json.dumps({"outage": what}) + "\n")
        self.outbox.flush()
        if not self.inbox.readline():
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


def main() -> None:
    """Play the trials that come on stdin."""
    # Children print into the log; only we speak on what was stdout.
    outbox = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    ground = Ground(**json.loads(sys.stdin.readline()))
    database = Database(ground.database_url)
    lane = Lane(ground=ground, database=database, inbox=sys.stdin, outbox=outbox)
    gc.collect()
    gc.freeze()  # what is imported stays shared with the children
    while line := sys.stdin.readline():
        wanted = json.loads(line)
        try:
            result = lane.do(wanted)
        except Exception as error:  # noqa: BLE001 - a defect of the matrix is a finding, too
            traceback.print_exc()
            result = {"number": wanted.get("number"), "end": "broken", "reasons": [repr(error)]}
        outbox.write(json.dumps(result, default=str) + "\n")
        outbox.flush()


if __name__ == "__main__":
    main()
