"""Which trials are played: the points that a recording found with the faults that make sense there.

A scenario is a way for a period to go: to which vendor, with or without Prefect, and what has
happened to it before. It is recorded twice, and what both recordings have are its points; what one
has and the other has not (a lease that had to be renewed) depends on time, and no replay meets it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import count
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar
from zlib import crc32

from sandbox.vendors.simulators import SIMULATORS
from tests.crash.faults import KNOWN, Point

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from tests.crash.faults import Fault

# Shares of the trials, where they are not 1: kill -9 is the heart of the matter; what all trials
# feel, or what starts Prefect's engine, takes much longer than the rest.
_KILLS, _SHARED, _PREFECT = 5, 0.3, 0.06
_PREFECTS_OWN = 0.3
# The ledger has most of the points.
_LEDGER = 2

Key = TypeVar("Key")


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """`prelude` is what strikes first, at the write number `at` of the plain scenario (from 0).

    `first`: nothing was exported before, so the vendor's set-up is looked at.
    """

    vendor: str
    way: str = "direct"
    prelude: str | None = None
    at: int = 0
    posting: bool = False
    cold: bool = False
    first: bool = False

    def __str__(self) -> str:
        parts = [self.vendor, self.way if self.way != "direct" else ""]
        write = "the last write" if self.at < 0 else f"write {self.at + 1}"
        parts += [f"after {self.prelude} at {write}" if self.prelude else ""]
        parts += ["while posting" if self.posting else "", "cold" if self.cold else ""]
        parts += ["first export" if self.first else ""]
        return ", ".join(part for part in parts if part)


@dataclass(frozen=True, kw_only=True)
class Recording:
    """The points of a scenario, in order; `first` are the strikes of its prelude.

    `seed` makes the records, and with them the chunks: other ones would have other points.
    """

    scenario: Scenario
    seed: int
    first: Sequence[tuple[Mapping[str, Any], str]]
    points: Sequence[Point]

    def as_trial(self, number: int) -> dict[str, Any]:
        """Return the trial that records it."""
        return trial_of(self.scenario, number, self.first, seed=self.seed)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One trial of the plan."""

    number: int
    recording: Recording
    point: Point
    fault: Fault

    def __str__(self) -> str:
        return f"trial {self.number}: {self.recording.scenario}; {self.fault.name}, {self.point}"

    @property
    def strikes(self) -> list[tuple[Mapping[str, Any], str]]:
        """What strikes: the scenario's prelude, and the fault."""
        return [*self.recording.first, (asdict(self.point), self.fault.name)]

    def as_trial(self) -> dict[str, Any]:
        """Return it as a lane is told."""
        recording = self.recording
        return trial_of(recording.scenario, self.number, self.strikes, seed=recording.seed)


def trial_of(
    scenario: Scenario, number: int, strikes: Sequence[Any], *, seed: int
) -> dict[str, Any]:
    """Return a trial as a lane is told: who, what, and what strikes it."""
    return {
        "number": number,
        "name": f"trial-{number}-{scenario.vendor}",
        "seed": seed,
        "way": scenario.way,
        "strikes": list(strikes),
        "posting": scenario.posting,
        "cold": scenario.cold,
        "first": scenario.first,
    }


def warm_up(vendor: str, lane: int) -> dict[str, Any]:
    """Return a trial in which nothing happens, for a lane that has not played yet."""
    return trial_of(Scenario(vendor=vendor), 900 + lane, [], seed=lane)


def scenarios(vendors: Sequence[str], *, quick: bool) -> list[Scenario]:
    """Return what is recorded; if it is to be quick, without Prefect and with fewer preludes."""
    every = [scenario for vendor in vendors for scenario in _scenarios_of(vendor)]
    return [s for s in every if not quick or (s.way == "direct" and s.at >= 0)]


def _scenarios_of(vendor: str) -> list[Scenario]:
    own = partial(Scenario, vendor=vendor)
    posts_by_itself = bool(SIMULATORS[vendor].posting)
    return [
        own(),
        own(way="prefect"),
        own(cold=True),
        own(first=True),
        *([own(posting=True)] if posts_by_itself else []),
        own(prelude="reply lost", at=1),
        own(prelude="reply lost", at=-1),
        own(prelude="connection dropped", at=1),
        own(prelude="connection dropped", at=-1, posting=posts_by_itself),
        own(prelude="late commit, after the first look", at=1),
        own(prelude="kill -9 in flight"),
        own(prelude="kill -9 in flight", at=-1),
        own(prelude="kill -9 in flight", at=1, way="prefect"),
    ]


def record(
    wanted: Sequence[Scenario],
    play: Callable[[list[dict[str, Any]]], list[dict[str, Any]]],
    *,
    seed: int,
) -> list[Recording]:
    """Record scenarios: the plain ones, then those whose preludes strike at a point of these.

    Cold ones apart: who ends the function's workers does so for all.
    """
    numbers = count(1)
    record = partial(_record, play=play, numbers=numbers, seed=seed)
    plain = record([s for s in wanted if s.prelude is None and not s.cold])
    writes = {
        (r.scenario.vendor, r.scenario.way): _writes(r.points)
        for r in plain
        if not (r.scenario.posting or r.scenario.first)
    }
    others = record([s for s in wanted if s.prelude is not None], writes)
    return [*plain, *others, *record([s for s in wanted if s.cold])]


def _record(
    wanted: Sequence[Scenario],
    writes: Mapping[tuple[str, str], Sequence[Point]] = MappingProxyType({}),
    *,
    play: Callable[[list[dict[str, Any]]], list[dict[str, Any]]],
    numbers: Iterator[int],
    seed: int,
) -> list[Recording]:
    """Record each twice; preludes strike at these writes."""
    pairs: list[tuple[Recording, list[dict[str, Any]]]] = []
    for scenario in wanted:
        blank = Recording(
            scenario=scenario,
            # The same for each prelude to a scenario: its point is found in the plain one.
            seed=seed * 1000 + len(scenario.vendor),
            first=_prelude(scenario, writes),
            points=(),
        )
        pairs.append((blank, [blank.as_trial(next(numbers)) for _ in range(2)]))
    played = {result["number"]: result for result in play([t for _, two in pairs for t in two])}
    for blank, two in pairs:
        for result in (played[trial["number"]] for trial in two):
            if not result.get("points") or (result["end"] != "settled" and not blank.first):
                said = f"{result['end']} {result['reasons']} {result.get('runs')}"
                raise RuntimeError(f"{blank.scenario} could not be recorded: {said}")
    return [
        replace(blank, points=_common(*(played[t["number"]] for t in two), blank.first))
        for blank, two in pairs
    ]


def _prelude(
    scenario: Scenario, writes: Mapping[tuple[str, str], Sequence[Point]]
) -> list[tuple[Mapping[str, Any], str]]:
    if scenario.prelude is None:
        return []
    return [(asdict(writes[scenario.vendor, scenario.way][scenario.at]), scenario.prelude)]


def _common(
    one: Mapping[str, Any], other: Mapping[str, Any], first: Sequence[tuple[Mapping[str, Any], str]]
) -> list[Point]:
    """Return what both recordings have; of one with a prelude, what comes after that.

    Each once: of two calls of a name that are under way side by side, both replies come after the
    second.
    """
    there = {Point(**point) for point in other["points"]}
    points = [Point(**point) for point in one["points"]]
    if first:
        points = points[points.index(Point(**first[0][0])) + 1 :]
    return [point for point in dict.fromkeys(points) if point in there]


def _writes(points: Sequence[Point]) -> list[Point]:
    return [p for p in points if p.party == "vendor-write" and p.side == "before"]


def cases_of(recordings: Sequence[Recording], faults: Iterable[Fault], *, seed: int) -> list[Case]:
    """Return all trials that there are, in an order that the seed decides."""
    cases = [
        Case(number=_number(seed, fault, r, point), recording=r, point=point, fault=fault)
        for fault in faults
        for r in recordings
        if not (fault.shared and (r.scenario.prelude or r.scenario.cold or r.scenario.posting))
        for point in r.points
        if fault.strikes(point)
    ]
    return sorted(cases, key=lambda case: case.number)


def _number(seed: int, fault: Fault, recording: Recording, point: Point) -> int:
    """Number a trial by what it is, so that a recording with a point more changes no other's."""
    return crc32(f"{seed} {recording.scenario} {fault.name} {point}".encode())


def in_turn(cases: Iterable[Case]) -> list[Case]:
    """Put trials into the order in which they are drawn, so that any first few are a fair choice.

    Each fault comes in its share, once at least; of a fault, each way, vendor and party.
    """

    def by_party(some: Sequence[Case]) -> list[Case]:
        parties = _grouped(some, lambda case: (case.recording.scenario.vendor, case.point.party))
        return _mixed(parties, lambda key: _LEDGER if "ledger" in key else 1)

    def by_way(some: Sequence[Case]) -> list[Case]:
        ways = _grouped(some, lambda case: case.recording.scenario.way)
        mixed = {way: by_party(own) for way, own in ways.items()}
        return _mixed(mixed, lambda way: _PREFECT if way == "prefect" else 1)

    faults = _grouped(cases, lambda case: case.fault.name)
    mixed = {fault: by_way(own) for fault, own in faults.items()}
    return _mixed(mixed, _share_of_fault, first_of_each=True)


def _grouped(cases: Iterable[Case], key: Callable[[Case], Key]) -> dict[Key, list[Case]]:
    groups: defaultdict[Key, list[Case]] = defaultdict(list)
    for case in cases:
        groups[key(case)].append(case)
    return groups


def _mixed(
    groups: Mapping[Key, Sequence[Case]],
    share: Callable[[Key], float],
    *,
    first_of_each: bool = False,
) -> list[Case]:
    """Mix groups, each in its share and in its own order."""
    offset = 0 if first_of_each else 0.5
    placed = [
        ((n + offset) / share(key), case.number, case)
        for key, group in groups.items()
        for n, case in enumerate(group)
    ]
    return [case for *_, case in sorted(placed, key=lambda place: place[:2])]


def _share_of_fault(fault: str) -> float:
    if fault in {"prefect away", "deployed in the middle"}:
        return _PREFECTS_OWN
    return _KILLS if fault == "kill -9" else _SHARED if KNOWN[fault].shared else 1
