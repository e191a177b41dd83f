"""A month of one connection, on a clock that jumps: outages, maintenance, throttling, and exports.

The ledger and the vendor's client are the real ones; the vendor answers on the wire, in its own
words. Prefect is not here: the flow, the automation and `watch` are what they would do, at their
times.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import httpx

from kvitt import health
from kvitt.budget import Allotment, MonthlyBudget
from kvitt.domain.budget import Purpose
from kvitt.domain.errors import BudgetSpent, TurnedAway, Unsent
from kvitt.domain.health import Mode
from kvitt.domain.patience import wait_before_next_try
from kvitt.ledger import SupabaseLedger
from kvitt.vendors import VENDORS
from kvitt.vendors.http import ONCE, Line
from sandbox.vendors.simulators import SIMULATORS
from tests.cast import HOUR, MINUTE, NORDVEST, another

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from kvitt.domain.integrations import Integration
    from kvitt.ports import Due
    from kvitt.vendors import Client
    from tests.outages.clock import ClockedProject

BEGIN = datetime(2027, 1, 1, tzinfo=UTC)
QUARTER = timedelta(minutes=15)
DAY = timedelta(days=1)
_EXPORTS_AT = (6, 12, 18)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A vendor, and what its connection may spend. `mode`: what a person has said, if anything.

    `export_requests` is how many an export takes, from and to.
    """

    vendor: str
    budget: Mapping[str, Any] = field(default_factory=dict[str, Any])
    mode: Mode | None = None
    export_requests: tuple[int, int] = (8, 40)

    @property
    def name(self) -> str:
        stated = ", ".join(f"{what} {many:,}" for what, many in self.budget.items())
        return " ".join(
            [self.vendor, f"({stated})" * bool(stated), f"told {self.mode}" * bool(self.mode)]
        ).strip()


SCENARIOS = (
    # Its exports need nearly all that is included.
    Scenario(vendor="xledger", export_requests=(40, 62)),
    Scenario(vendor="xledger", export_requests=(40, 62), mode=Mode.ACTIVE),
    Scenario(vendor="xledger", budget={"requests": 100_000}),
    Scenario(vendor="business-central"),
    Scenario(vendor="dataverse"),
)


class Trouble(StrEnum):
    """What may be wrong with a vendor."""

    DOWN = "down"
    MAINTENANCE = "maintenance"
    THROTTLED = "throttled"


@dataclass(frozen=True, kw_only=True)
class Spell:
    """A time in which something is wrong."""

    trouble: Trouble
    begins: datetime
    ends: datetime


@dataclass(kw_only=True)
class World:
    """The vendor on the wire. Its allowance is real: who asks for more is turned away."""

    vendor: str
    spells: Sequence[Spell]
    allowance: int | None
    now: datetime = BEGIN
    served: Counter[str] = field(default_factory=Counter[str])
    probed: list[datetime] = field(default_factory=list[datetime])
    probing: bool = False

    def trouble(self) -> Spell | None:
        return next((s for s in self.spells if s.begins <= self.now < s.ends), None)

    def answer(self, request: httpx.Request) -> httpx.Response:
        token = request.url.path.endswith("/token")
        spell = self.trouble()
        if spell is not None and spell.trouble is Trouble.DOWN:
            raise httpx.ConnectError("connection refused", request=request)
        self.served["probe" if self.probing else "export"] += 1
        if self.probing and not token:
            self.probed.append(self.now)
        if token:
            return httpx.Response(200, json={"access_token": "a-token", "expires_in": 3600})
        if spell is not None and spell.trouble is Trouble.MAINTENANCE:
            return httpx.Response(503, headers={"Retry-After": "1800"}, text="maintenance")
        if spell is not None:
            return self._limit("BURST_RATE_LIMIT_REACHED")
        if self.allowance is not None and self.served.total() > self.allowance:
            return self._limit("INSUFFICIENT_CREDITS")
        if self.vendor == "xledger":
            return httpx.Response(200, json={"data": {"__typename": "Query"}})
        return httpx.Response(200, json={"value": []})

    def _limit(self, code: str) -> httpx.Response:
        if self.vendor == "xledger":
            error = {"message": "Too many requests", "code": f"BAD_REQUEST.{code}"}
            return httpx.Response(200, json={"data": None, "errors": [error]})
        error = {"error": {"code": "429", "message": "Too many requests"}}
        return httpx.Response(429, headers={"Retry-After": "300"}, json=error)


@dataclass(kw_only=True)
class AsExport:
    """A budget out of which an export spends: in the client it is a reading like a probe."""

    budget: MonthlyBudget

    async def spend(self, purpose: Purpose, *, allowance: int | None) -> Callable[[], None]:
        spent = purpose if purpose is Purpose.TOKEN else Purpose.EXPORT
        return await self.budget.spend(spent, allowance=allowance)


@dataclass(frozen=True, kw_only=True)
class Lived:
    """What was seen in a month."""

    scenario: Scenario
    spells: Sequence[Spell]
    exports: Mapping[datetime, datetime]
    refused: Sequence[tuple[datetime, str]]
    probes: Sequence[datetime]
    served: Mapping[str, int]
    counted: int
    for_probes: int
    requests: int | None
    probe_share: float
    unhealthy: Sequence[tuple[datetime, datetime | None]]
    alerts: int
    modes: Sequence[tuple[datetime, str, str]]

    def outages(self, at_least: timedelta) -> list[Spell]:
        """Return the spells in which the vendor could not be used for so long."""
        return [
            spell
            for spell in self.spells
            if spell.trouble is not Trouble.THROTTLED and spell.ends - spell.begins >= at_least
        ]

    def noticed(self, spell: Spell) -> tuple[timedelta, timedelta] | None:
        """Return how long it took to *unhealthy*, and back after the end; None: never."""
        for began, ended in self.unhealthy:
            if spell.begins <= began < spell.ends and ended is not None:
                return began - spell.begins, ended - spell.ends
        return None

    @property
    def closest(self) -> timedelta:
        """How close two probes came."""
        return min((b - a for a, b in pairwise(self.probes)), default=DAY)


def spells_of(draw: random.Random, days: int) -> list[Spell]:
    """Draw what goes wrong: a spell each day or two, apart from each other."""
    found: list[Spell] = []
    for day in range(1, days):
        if draw.random() < 0.25:
            continue
        trouble = draw.choice(list(Trouble))
        begins = BEGIN + day * DAY + draw.uniform(0, 10) * HOUR
        longest = {Trouble.DOWN: 9, Trouble.MAINTENANCE: 4, Trouble.THROTTLED: 3}[trouble]
        length = max(5 * MINUTE, draw.random() ** 2 * longest * HOUR)
        found.append(Spell(trouble=trouble, begins=begins, ends=begins + length))
    return found


@dataclass(kw_only=True)
class Month:
    """One connection through its month, with probes or without."""

    project: ClockedProject
    scenario: Scenario
    seed: int
    days: int
    probes: bool = True
    world: World = field(init=False)
    integration: Integration = field(init=False)
    exports: dict[datetime, datetime] = field(default_factory=dict[datetime, datetime])
    refused: list[tuple[datetime, str]] = field(default_factory=list[tuple[datetime, str]])
    alerts: int = 0

    def __post_init__(self) -> None:
        kind = VENDORS[self.scenario.vendor]
        self.fate = random.Random(self.seed)  # noqa: S311 - fate, not a secret
        self.chance = random.Random(self.seed + 1)  # noqa: S311
        self.habits = {self.scenario.vendor: kind.habits}
        self.world = World(
            vendor=self.scenario.vendor,
            spells=spells_of(self.fate, self.days),
            allowance=None if self.scenario.budget else kind.habits.allowance,
        )
        self.integration = another(
            NORDVEST, vendor=self.scenario.vendor, limits={"budget": dict(self.scenario.budget)}
        )
        self.line = Line(most=2)
        self.line.client = httpx.AsyncClient(transport=httpx.MockTransport(self.world.answer))
        self.prober = health.Prober(vendor=self._client(purse := Allotment()), purse=purse)
        self.ledger = SupabaseLedger(self.project)  # pyright: ignore[reportArgumentType] - what of a client it uses

    def _client(self, budget: Any) -> Client:
        simulator = SIMULATORS[self.scenario.vendor]
        told = simulator.connect("http://127.0.0.1:1", simulator.company_of(1))
        kind = VENDORS[self.scenario.vendor]
        clocks = {
            "xledger": {"now": lambda: self.world.now},
            "business-central": {"clock": self._seconds},
        }
        make: Any = kind.client
        return make(
            kind.settings.model_validate(told),
            health.TIMEOUTS,
            patience=ONCE,
            budget=budget,
            line=self.line,
            **clocks.get(self.scenario.vendor, {}),
        )

    def _seconds(self) -> float:
        return (self.world.now - BEGIN).total_seconds()

    async def live(self) -> Lived:
        """Live through it."""
        self._at(BEGIN)
        await self.ledger.save_integration(self.integration)
        if self.scenario.mode is not None:
            await self._told(self.scenario.mode)
        waiting: list[tuple[datetime, datetime, int]] = []  # when, due, how often it has waited
        for tick in self._ticks():
            self._at(tick)
            if tick.hour in _EXPORTS_AT and tick.minute == 0:
                waiting.append((tick, tick, 0))
            for each in [one for one in waiting if one[0] <= tick]:
                waiting.remove(each)
                waiting += await self._export(*each[1:])
            if self.probes and self.chance.random() < 0.99:  # the worker is away now and then
                await self._health()
                await self._tell()
        await self.line.client.aclose()
        return self._lived()

    def _ticks(self) -> Iterator[datetime]:
        for number in range(self.days * DAY // QUARTER):
            yield BEGIN + number * QUARTER

    def _at(self, moment: datetime) -> None:
        # A run does not begin to the second.
        self.world.now = moment + timedelta(seconds=self.chance.uniform(0, 20))
        self.project.set_clock(self.world.now)

    async def _told(self, mode: Mode) -> None:
        who = self.scenario.vendor, self.integration.connection
        await self.ledger.set_mode(*who, mode, reason="it is needed", by="kari")

    async def _health(self) -> None:
        """Do what a run of the flow `health` does, and the automation after it."""
        self.world.probing = True
        probed = await health.look(self.ledger, self._open, self.habits, chance=self.chance.random)
        self.world.probing = False
        for each in probed:
            if each.limit is not None:
                await self._limited(each.limit)

    async def _open(self, due: Sequence[Due], /) -> Mapping[str, health.Prober]:
        return {each.name: self.prober for each in due}

    async def _limited(self, limit: TurnedAway) -> None:
        await health.passive_after_limit(
            self.ledger,
            self.scenario.vendor,
            self.integration.connection,
            reason=str(limit),
            by="automation",
            retry_after=limit.retry_after or timedelta(0),
            chance=self.chance.random,
        )

    async def _export(self, due: datetime, postponed: int) -> list[tuple[datetime, datetime, int]]:
        """Do what a run of `sync` does; returns when it is tried again, if it has to be."""
        # How much there is to do does not depend on what happened before.
        size = random.Random(f"{self.seed} {due}").randint(*self.scenario.export_requests)  # noqa: S311
        budget = MonthlyBudget(
            self.ledger, self.scenario.vendor, self.integration.connection, clock=self._seconds
        )
        client = self._client(AsExport(budget=budget))
        error: Exception | None = None
        try:
            for _ in range(size):
                await client.probe()
        except Unsent as failed:
            error = failed
        await budget.close()
        await health.note_traffic(self.ledger, self.integration, client, error)
        if isinstance(error, TurnedAway) and self.probes:
            await self._limited(error)
        if error is None:
            self.exports[due] = self.world.now
            return []
        self.refused.append((due, type(error).__name__))
        wish = None if isinstance(error, BudgetSpent) else error.retry_after
        wait = wait_before_next_try(
            postponed, first=5 * MINUTE, longest=HOUR, wish=wish, chance=0.5
        )
        return [(self.world.now + wait, due, postponed + 1)]

    async def _tell(self) -> None:
        """Tell people what is new, as `health` and `watch` do."""
        for incident in await self.ledger.note_incidents():
            if incident.kind == "unhealthy":
                self.alerts += 1
            await self.ledger.incident_told(incident)

    def _lived(self) -> Lived:
        rows = self.project.database.execute(
            "select was, became, changed_at, reason, what from kvitt.connection_changes order by id"
        ).fetchall()
        [(counted, for_probes)] = self.project.database.execute(
            "select coalesce(sum(requests), 0), coalesce(sum(probes), 0) from kvitt.budgets"
        ).fetchall()
        states = [(became, at) for _, became, at, _, what in rows if what == "state"]
        began = [at for became, at in states if became == "unhealthy"]
        allowance = self.habits[self.scenario.vendor].allowance
        return Lived(
            scenario=self.scenario,
            spells=self.world.spells,
            exports=self.exports,
            refused=self.refused,
            probes=self.world.probed,
            served=self.world.served,
            counted=int(counted),
            for_probes=int(for_probes),
            requests=self.scenario.budget.get("requests", allowance),
            probe_share=0.05,
            unhealthy=[
                (at, next((later for _, later in states if later > at), None)) for at in began
            ],
            alerts=self.alerts,
            modes=[(at, became, reason) for _, became, at, reason, what in rows if what == "mode"],
        )
