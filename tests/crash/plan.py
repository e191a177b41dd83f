"""Which trials are played: the points that a recording found with the faults that make sense there.

A scenario is a way for a period to go: to which vendor, with or without Prefect, and what has
happened to it before. It is recorded twice, and what both recordings have are its points; what one
has and the other has not (a lease that had to be renewed) depends on time, and no replay meets it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import count, islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from zlib import crc32

from tests.crash.faults import KNOWN, Point

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from tests.crash.faults import Fault

# Shares of the trials, where they are not 1: kill -9 is the heart of the matter; what all trials
# feel, or what starts Prefect's engine, takes much longer than the rest.
_KILLS, _SHARED, _PREFECT = 5, 0.6, 0.06
_PREFECTS_OWN = 0.3


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """`prelude` is what strikes first, at the write number `at` of the plain scenario (from 0)."""

    vendor: str
    way: str = "direct"
    prelude: str | None = None
    at: int = 0
    posting: bool = False
    cold: bool = False

    def __str__(self) -> str:
        parts = [self.vendor, self.way if self.way != "direct" else ""]
        write = "the last write" if self.at < 0 else f"write {self.at + 1}"
        parts += [f"after {self.prelude} at {write}" if self.prelude else ""]
        parts += ["while posting" if self.posting else "", "cold" if self.cold else ""]
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
    posts_by_itself = vendor == "xledger"
    return [
        own(),
        own(way="prefect"),
        own(cold=True),
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
        if not r.scenario.posting
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
    """Return what both recordings have; of one with a prelude, what comes after that."""
    there = {Point(**point) for point in other["points"]}
    points = [Point(**point) for point in one["points"]]
    if first:
        points = points[points.index(Point(**first[0][0])) + 1 :]
    return [point for point in points if point in there]


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


def draw(cases: Sequence[Case], trials: int) -> list[Case]:
    """Draw so many trials, or all: each fault, vendor and way in its share."""
    strata: defaultdict[tuple[str, str, str], list[Case]] = defaultdict(list)
    for case in cases:
        scenario = case.recording.scenario
        strata[case.fault.name, scenario.vendor, scenario.way].append(case)
    streams = {key: iter(stratum) for key, stratum in strata.items()}
    # The first round has one of each, however few trials there are.
    credit = {key: max(0.0, 1 - _share(key)) for key in streams}
    chosen: list[Case] = []
    while len(chosen) < min(trials, len(cases)):
        for key, stream in streams.items():
            credit[key] += _share(key)
            drawn = list(islice(stream, int(credit[key])))
            credit[key] %= 1
            chosen += drawn
    # What all trials feel comes last, so that the others have their points where they were.
    return sorted(chosen[:trials], key=lambda case: (case.fault.shared, case.number))


def _share(key: tuple[str, str, str]) -> float:
    fault, _, way = key
    if fault in {"prefect away", "deployed in the middle"}:
        return _PREFECTS_OWN
    share = _KILLS if fault == "kill -9" else _SHARED if KNOWN[fault].shared else 1
    return share * (_PREFECT if way == "prefect" else 1)
