"""A year in which worker, server, database and clock fail at random: nothing is missed unseen.

The way of a period, the calendar and the ledger are the real ones, on a clock that jumps from event
to event. Prefect is not here: a trigger is a run that starts at its time, later, or never.
"""

from __future__ import annotations

import random
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count, pairwise
from typing import TYPE_CHECKING, Any

import pytest

from kvitt import planning
from kvitt import sync as way
from kvitt.domain.calendar import due_times_between
from kvitt.domain.errors import PeriodStopped, Uncertain
from kvitt.domain.money import Totals, checksum_of
from kvitt.domain.reconcile import FoundVoucher
from kvitt.ledger import SupabaseLedger
from kvitt.ports import ClaimOutcome, Habits, Page, Pong, Trigger
from tests.cast import FJORDBY, HOUR, MINUTE, NORDVEST, TOUR, another, claim_for_travel
from tests.outages.clock import ClockedProject, Killed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kvitt.domain.incidents import Incident
    from kvitt.domain.integrations import Integration
    from kvitt.domain.periods import Period
    from kvitt.domain.vouchers import Voucher
    from sandbox.supabase import Supabase

BEGIN, END = datetime(2027, 1, 1, tzinfo=UTC), datetime(2028, 1, 1, tzinfo=UTC)
LATE, INTERVAL = 5 * MINUTE, 5 * MINUTE
WORST_CLOCK = 20 * MINUTE
SETTLE = 10 * MINUTE

INTEGRATIONS = [
    another(NORDVEST, first_period=BEGIN),
    another(FJORDBY, first_period=BEGIN),
    another(TOUR, cron="30 7,19 * * *", first_period=BEGIN),
]


@dataclass(kw_only=True)
class Fate:
    """When each part is down, drawn once for the whole year; and how far the clock is off."""

    draw: random.Random
    down: dict[str, list[tuple[datetime, datetime]]] = field(init=False)
    skews: list[tuple[datetime, datetime, timedelta]] = field(init=False)

    def __post_init__(self) -> None:
        lengths = {"worker": (25, 30), "server": (20, 6), "database": (15, 3), "clock": (15, 12)}
        self.down = {
            part: list(self._outages(number, hours)) for part, (number, hours) in lengths.items()
        }
        self.skews = [
            (begins, ends, self.draw.uniform(-1, 1) * WORST_CLOCK)
            for begins, ends in self.down.pop("clock")
        ]

    def _outages(self, number: int, longest_hours: float) -> Iterator[tuple[datetime, datetime]]:
        for _ in range(number):
            begins = BEGIN + self.draw.random() * (END - BEGIN - timedelta(days=3))
            yield begins, begins + self.draw.random() ** 3 * longest_hours * HOUR

    def up(self, *parts: str, at: datetime) -> bool:
        return not any(begins <= at < ends for part in parts for begins, ends in self.down[part])

    def clock(self, at: datetime) -> datetime:
        """Return what the database's clock shows."""
        return at + next(
            (skew for begins, ends, skew in self.skews if begins <= at < ends), timedelta(0)
        )


@dataclass(kw_only=True)
class Books:
    """A vendor that commits each call, and sometimes loses the reply, or whoever called."""

    fate: random.Random
    project: ClockedProject
    vouchers: dict[str, dict[int, FoundVoucher]] = field(default_factory=dict)
    booked: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)
    habits: Habits = field(
        default_factory=lambda: Habits(chunk_vouchers=2, chunk_lines=100, settle=SETTLE)
    )

    def at_most(self, _at_once: int) -> None:
        """Never mind: nothing in it waits, so that its calls are made one after another."""

    def objection(self, _period: Period, _voucher: Voucher) -> str | None:
        return None

    async def misfits(self, **_: Any) -> list[str]:
        return []

    async def send(
        self,
        period: Period,
        vouchers: Sequence[Voucher],
        *,
        begins: bool,
        guard: Any,
    ) -> Mapping[str, Any]:
        del begins  # it looks nothing up
        guard()
        self._may_die(0.05)
        there = self.vouchers.setdefault(period.key, {})
        for voucher in vouchers:
            self.booked[voucher.record_id] += 1
            there[voucher.sequence] = FoundVoucher(
                lines=voucher.totals.lines, booked=voucher.totals.booked
            )
        self._may_die(0.05)
        if self.fate.random() < 0.1:
            raise Uncertain("no reply")
        return {}

    async def find(self, period: Period, vouchers: Sequence[Voucher]) -> Mapping[int, FoundVoucher]:
        there = self.vouchers.get(period.key, {})
        return {v.sequence: there[v.sequence] for v in vouchers if v.sequence in there}

    async def totals(self, period: Period) -> Totals:
        there = self.vouchers.get(period.key, {})
        return Totals(
            vouchers=len(there),
            lines=sum(found.lines for found in there.values()),
            booked=sum((found.booked for found in there.values()), Totals().booked),
            original=None,
            checksum=sum(checksum_of(s, f.lines, f.booked) for s, f in there.items()) % 2**60,
        )

    def _may_die(self, chance: float) -> None:
        if self.fate.random() < chance:
            self.project.dead = True
            raise Killed


@dataclass(kw_only=True)
class Collector:
    """The Edge Function: takes pages, by the ledger's own function."""

    project: ClockedProject
    name: str = "collect"

    async def ping(self, *, within: float) -> Pong:
        del within
        return Pong(booted=False, boot_ms=None, reply_ms=3)

    async def collect(self, period: Period, *, page: int) -> Page:
        answer = await self.project.rpc(
            "collect_page",
            {
                "p_integration": period.integration_id,
                "p_due": period.due_at.isoformat(),
                "p_fence": period.fence,
                "p_limit": page,
            },
        ).execute()
        return Page.model_validate(answer.data)


@dataclass(kw_only=True)
class Year:
    """What happens, in order; `now` is the true time."""

    project: ClockedProject
    fate: Fate
    books: Books
    now: datetime = BEGIN
    started: dict[str, datetime] = field(default_factory=dict)
    settled: Counter[str] = field(default_factory=Counter)
    told: list[tuple[datetime, Incident]] = field(default_factory=list)
    watched: list[datetime] = field(default_factory=list)
    records: list[str] = field(default_factory=list)
    _numbers: count[int] = field(default_factory=lambda: count(1))

    @property
    def ledger(self) -> SupabaseLedger:
        return SupabaseLedger(self.project)  # type: ignore[arg-type] - what of a client it uses

    def at(self, moment: datetime) -> None:
        self.now = moment
        self.project.set_clock(self.fate.clock(moment))

    async def sync(self, integration: str, trigger: str) -> None:
        """Do one run, which may be killed."""
        if not self.fate.up("worker", "database", at=self.now):
            return
        self.project.dead = False
        try:
            await self._tell(integration)
            while await self._one_period(integration, trigger):
                continue
        except (PeriodStopped, Killed):
            pass
        finally:
            self.project.dead = False

    async def _one_period(self, integration: str, trigger: str) -> bool:
        answer = await way.claim(self.ledger, integration, Trigger(kind=trigger))
        period = answer.claim.period
        if answer.claim.outcome is not ClaimOutcome.CLAIMED or period is None:
            return False
        self.started.setdefault(period.key, self.now)
        if self.fate.draw.random() < 0.02:  # killed before it did anything
            return False
        async with way.attempt(self.ledger, answer) as attempt:
            collector = Collector(project=self.project)
            await way.warm_up(attempt, collector)
            await way.collect(attempt, collector)
            await way.export(attempt, self.books)
            await way.verify(attempt, self.books)
        self.settled[period.key] += 1
        return True

    async def watch(self) -> None:
        """Do what the flow `watch` does."""
        if not self.fate.up("worker", "server", "database", at=self.now):
            return
        self.watched.append(self.now)
        for integration in INTEGRATIONS:
            await planning.write_ahead(self.ledger, integration)
        await self._tell(None)
        for work in await self.ledger.integrations_with_work():
            if work.state == "uncertain" or work.late_seconds >= 120:
                await self.sync(work.integration_id, "watch")

    async def _tell(self, integration: str | None) -> None:
        for incident in await self.ledger.note_incidents(integration):
            self.told.append((self.now, incident))
            await self.ledger.incident_told(incident)

    async def approve(self, integration: Integration) -> None:
        """Approve something now and then, as people do."""
        if self.fate.draw.random() < 0.15 and self.fate.up("database", at=self.now):
            number = next(self._numbers)
            approved = self.fate.clock(self.now) - HOUR
            record = claim_for_travel(integration.id, number, approved)
            await self.ledger.add_records([record])
            self.records.append(record.id)

    def quiet(self, due: int) -> bool:
        """Nothing is left to do, as far as the true time goes."""
        over = sum(i.event == "kvitt.incident.over" for _, i in self.told)
        return sum(self.settled.values()) >= due and 2 * over == len(self.told)


def triggers() -> list[tuple[datetime, Integration]]:
    """Return each due time of the year, in order."""
    return sorted(
        (
            (due, one)
            for one in INTEGRATIONS
            for due in due_times_between(
                one.cron, one.time_zone, after=BEGIN - MINUTE, until=END - timedelta(days=2)
            )
        ),
        key=lambda pair: pair[0],
    )


@pytest.mark.timeout(900)  # half a minute on a machine that does nothing else
@pytest.mark.parametrize("seed", [2027])
async def test_in_a_year_of_outages_each_period_settles_once_and_each_miss_is_told_in_time(
    supabase: Supabase, seed: int
) -> None:
    with closing(ClockedProject.create(supabase.postgres, f"year_{seed}")) as project:
        await live_and_compare(project, seed)


async def live_and_compare(project: ClockedProject, seed: int) -> None:
    fate = Fate(draw=random.Random(seed))  # noqa: S311 - fate, not a secret
    year = Year(project=project, fate=fate, books=Books(fate=fate.draw, project=project))
    year.at(BEGIN)
    for one in INTEGRATIONS:
        await year.ledger.save_integration(one)
        await planning.write_ahead(year.ledger, one)

    await live_through(year)

    rows = project.database.execute(
        "select key, integration_id, due_at, opens_at, state::text from kvitt.periods"
        " where due_at < %s order by integration_id, due_at",
        [END - timedelta(days=2)],
    ).fetchall()
    # The calendar: each due time of the year, without a gap.
    assert {(row[2], row[1]) for row in rows} == {(due, one.id) for due, one in triggers()}
    assert all(a[2] == b[3] for a, b in pairwise(rows) if a[1] == b[1])
    # Each settled, and once.
    assert Counter(row[4] for row in rows) == {"verified": len(rows)}
    assert set(year.settled.values()) == {1}
    # What was approved is in the books, once each.
    assert len(year.records) > 100
    assert year.books.booked == Counter(year.records)
    # Each miss was told in time: by the first look after the minute that is allowed.
    late = [row[:3] for row in rows if late_start(year, row[0], row[2])]
    assert len(late) > 50
    assert [key for key, who, due in late if not told_in_time(year, key, who, due)] == []
    # And nothing was told that was not so, nor left standing.
    assert {i.kind for _, i in year.told if i.event == "kvitt.incident.over"} >= {"late", "missed"}
    assert await year.ledger.note_incidents() == []
    assert open_incidents(project) == []


async def live_through(year: Year) -> None:
    """Go from due time to due time; while anything is left to do, look each five minutes."""
    due = triggers()
    for number, (moment, one) in enumerate(due, start=1):
        year.at(moment)
        await year.approve(one)
        if year.fate.up("server", at=moment):
            await year.sync(one.id, "schedule")
        following = due[number][0] if number < len(due) else END
        tick = moment - timedelta(minutes=moment.minute % 5) + INTERVAL
        while tick < following and not year.quiet(number):
            year.at(tick)
            await year.watch()
            tick += INTERVAL
        if year.fate.up("database", at=year.now) and number % 20 == 0:
            for other in INTEGRATIONS:
                await planning.write_ahead(year.ledger, other)


def late_start(year: Year, key: str, due: datetime) -> bool:
    """Say whether a period began too late, by the clock that the ledger had at the time."""
    return year.fate.clock(year.started[key]) - due >= LATE


def told_in_time(year: Year, key: str, who: str, due: datetime) -> bool:
    """Say whether people knew, when they had to, that the integration was late.

    They had to at the first look of `watch` after the minute allowed, by the ledger's own clock;
    or at the start itself, where that came first.
    """
    looks = (look for look in year.watched if look >= due - WORST_CLOCK)
    first_look = next((look for look in looks if year.fate.clock(look) >= due + LATE), END)
    by = min(first_look, year.started[key])
    told = [
        (moment, incident.event == "kvitt.incident.over")
        for moment, incident in year.told
        if incident.integration_id == who and incident.kind in ("late", "missed")
    ]
    opened = sum(moment <= by for moment, over in told if not over)
    return opened > sum(moment < by for moment, over in told if over)


def open_incidents(project: ClockedProject) -> list[Any]:
    return project.database.execute(
        "select kind::text, subject from kvitt.incidents where ended_at is null"
    ).fetchall()
