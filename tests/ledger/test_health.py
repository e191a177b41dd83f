"""How connections are, by the ledger: who is probed, what was heard of it, and which mode holds."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import product
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from kvitt import health
from kvitt.domain.budget import Purpose
from kvitt.domain.errors import (
    BudgetSpent,
    FunctionFailed,
    LedgerRefused,
    PeriodPostponed,
    Refused,
    TurnedAway,
    Uncertain,
    Unsent,
)
from kvitt.domain.health import BETWEEN_PROBES, Connection, Heard, Mode, State
from kvitt.ports import Habits
from tests.cast import HOUR, MINUTE, NORDVEST

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    import psycopg

    from kvitt.domain.incidents import Incident
    from kvitt.ledger import SupabaseLedger
    from kvitt.ports import Budget, Due, Probed
    from tests.cast import Stage

    Enrol = Callable[..., Awaitable[Stage]]
    Ward = Callable[..., Awaitable["Patient"]]

DAY = 24 * HOUR
QUARTER = timedelta(minutes=15)
ACTIVE, PASSIVE = Mode.ACTIVE, Mode.PASSIVE
HEALTHY, DEGRADED, UNHEALTHY = State.HEALTHY, State.DEGRADED, State.UNHEALTHY
LIMIT = TurnedAway("HTTP 429 too many requests")
AWAY = Unsent("HTTP 503 maintenance")

_vendors = map("".join, product(ascii_lowercase, repeat=2))


@dataclass(kw_only=True)
class Desk:
    """A vendor that answers, or fails as it is told; each request comes out of its budget."""

    budget: Budget
    costs: int = 1
    error: Exception | None = None
    probes: int = 0

    async def probe(self) -> None:
        for _ in range(self.costs):
            await self.budget.spend(Purpose.PROBE, allowance=None)
        self.probes += 1
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error


@dataclass(kw_only=True)
class Patient:
    """Connections of one vendor that no other test has, the first of them being looked after."""

    ledger: SupabaseLedger
    database: psycopg.Connection
    stage: Stage
    vendor: str
    connections: Sequence[str]
    habits: Habits
    desks: dict[str, Desk] = field(default_factory=dict[str, Desk])
    missing: set[str] = field(default_factory=set[str])

    async def look(self, *, chance: float = 0) -> list[Probed]:
        """Do what one run of the flow does for this vendor."""
        return await health.look(
            self.ledger, self._open, {self.vendor: self.habits}, chance=lambda: chance
        )

    async def looked(self, error: Exception | None = None, *, after: timedelta = QUARTER) -> State:
        """Let time pass, and look, which must make a probe of the first one; returns its state."""
        self.time_passes(after)
        self.fails_with(error)
        before = self.probes
        await self.look()
        assert self.probes == before + 1
        return await self.state()

    async def is_probed(self, *, after: timedelta = timedelta(0)) -> bool:
        self.time_passes(after)
        before = self.probes
        await self.look()
        return self.probes > before

    def fails_with(self, error: Exception | None, connection: str | None = None) -> None:
        self._desk(connection or self.connections[0]).error = error

    @property
    def probes(self) -> int:
        return self._desk(self.connections[0]).probes

    async def _open(self, due: Sequence[Due], /) -> Mapping[str, health.Prober | LookupError]:
        return {each.name: self._prober(each.connection) for each in due}

    def _prober(self, connection: str) -> health.Prober | LookupError:
        if connection in self.missing:
            return LookupError(f"there is no block {connection}")
        desk = self._desk(connection)
        purse: Any = desk.budget
        return health.Prober(vendor=desk, purse=purse)

    def _desk(self, connection: str) -> Desk:
        if connection not in self.desks:
            self.desks[connection] = Desk(budget=health.Allotment())
        return self.desks[connection]

    async def seen(self, connection: str | None = None) -> Connection:
        name = connection or self.connections[0]
        [found] = await self.ledger.read_connections({}, self.vendor, name)
        return found

    async def state(self) -> State:
        state = (await self.seen()).state
        assert state is not None
        return state

    async def mode(self, connection: str | None = None) -> Mode | None:
        return (await self.seen(connection)).mode

    async def exports(self, error: Exception | None = None, *, asked: int = 3) -> None:
        """Do what the flow `sync` does when it has worked with the vendor."""
        worked: Any = _Worked({"export": asked})
        await health.note_traffic(self.ledger, self.stage.integration, worked, error)

    async def limited(self, *, retry_after: timedelta = timedelta(0)) -> int:
        """Do what the automation does after a limit."""
        return await health.passive_after_limit(
            self.ledger,
            self.vendor,
            self.connections[0],
            reason="it turned us away",
            by="automation",
            retry_after=retry_after,
            chance=lambda: 0,
        )

    async def set_mode(self, mode: Mode, connection: str | None = "", **how: Any) -> int:
        name = self.connections[0] if connection == "" else connection
        told = {"reason": "it is moved", "by": "kari", **how}
        return await self.ledger.set_mode(self.vendor, name, mode, **told)

    def time_passes(self, time: timedelta) -> None:
        columns = ("next_probe_at", "trial_at", "mode_since", "state_since", "last_traffic_at")
        moved = ", ".join(f"{column} = {column} - %s" for column in columns)
        self.database.execute(
            f"update kvitt.connections set {moved} where vendor = %s".encode(),  # noqa: S608 - our own names
            [*[time] * len(columns), self.vendor],
        )

    def history(self, what: str) -> list[tuple[Any, ...]]:
        return self.database.execute(
            "select became, who from kvitt.connection_changes where vendor = %s and what = %s"
            " order by id",
            [self.vendor, what],
        ).fetchall()

    async def incidents(self) -> list[Incident]:
        """Do what `watch` does; returns what people are told of this vendor."""
        found = [i for i in await self.ledger.note_incidents() if self.vendor in i.subject]
        for each in found:
            await self.ledger.incident_told(each)
        return found


@dataclass(frozen=True)
class _Worked:
    requests: Mapping[str, int]


@pytest.fixture
def ward(enrol: Enrol, ledger: SupabaseLedger, database: psycopg.Connection) -> Ward:
    async def ward(
        *, size: int = 1, habits: Mapping[str, Any] | None = None, **who: Any
    ) -> Patient:
        vendor = f"vendor-{next(_vendors)}"
        names = [f"company-{number}" for number in range(size)]
        stages = [await enrol(NORDVEST, vendor=vendor, connection=name, **who) for name in names]
        usual = {"chunk_vouchers": 1, "chunk_lines": 1, "settle": timedelta(0)}
        return Patient(
            ledger=ledger,
            database=database,
            stage=stages[0],
            vendor=vendor,
            connections=names,
            habits=Habits(**usual, **(habits or {})),
        )

    return ward


# -- probes ----------------------------------------------------------------------------------------


async def test_a_connection_is_probed_once_in_a_quarter_of_an_hour(ward: Ward) -> None:
    it = await ward(size=3)
    assert len(await it.look()) == 3
    assert await it.look() == []
    assert not await it.is_probed(after=13 * MINUTE)
    assert await it.is_probed(after=MINUTE)
    assert await it.state() is HEALTHY


async def test_of_many_who_look_at_once_each_connection_is_probed_by_one(ward: Ward) -> None:
    it = await ward(size=20)
    await it.look()
    it.time_passes(QUARTER)
    probed = await asyncio.gather(*(it.look() for _ in range(8)))
    assert sorted(each.due.connection for run in probed for each in run) == sorted(it.connections)
    assert {desk.probes for desk in it.desks.values()} == {2}


async def test_a_prober_that_dies_costs_a_quarter_of_an_hour_and_nothing_else(ward: Ward) -> None:
    it = await ward()
    await it.look()
    it.time_passes(QUARTER)
    claim = uuid4()
    habits = {it.vendor: it.habits}
    [due] = await it.ledger.claim_probes(claim, habits, BETWEEN_PROBES)
    [again] = await it.ledger.claim_probes(claim, habits, BETWEEN_PROBES)  # its reply was lost
    assert again.reservation == due.reservation
    assert not await it.is_probed()
    assert await it.is_probed(after=QUARTER)
    await it.ledger.record_probes(claim, [health._heard(due, {}, Heard.FAILED, "late", 0)])
    assert await it.state() is HEALTHY  # it came too late


async def test_what_came_of_probes_is_written_down_once(ward: Ward) -> None:
    it = await ward()
    await it.look()
    it.time_passes(QUARTER)
    claim = uuid4()
    [due] = await it.ledger.claim_probes(claim, {it.vendor: it.habits}, BETWEEN_PROBES)
    failed = [health._heard(due, {"probe": 1}, Heard.FAILED, "away", 0)]
    for _ in range(2):
        await it.ledger.record_probes(claim, failed)
    assert (await it.seen()).failures == 1
    [spent] = [b for b in await it.ledger.read_budgets("company-0") if b.vendor == it.vendor]
    assert (spent.counted, spent.spent) == (2, {"probe": 2})


async def test_a_connection_that_nobody_uses_any_more_is_not_probed(ward: Ward) -> None:
    it = await ward()
    await it.look()
    it.stage.ask("update kvitt.integrations set enabled = false where id = %(id)s returning 1")
    assert not await it.is_probed(after=QUARTER)
    assert await it.ledger.read_connections({}, it.vendor) == []


async def test_nothing_is_probed_while_an_export_is_under_way(ward: Ward) -> None:
    it = await ward()
    await it.stage.claimed()
    assert not await it.is_probed(after=QUARTER)
    it.stage.time_passes(HOUR)
    assert await it.is_probed()


async def test_real_traffic_makes_a_probe_unnecessary(ward: Ward) -> None:
    it = await ward()
    await it.look()
    it.time_passes(QUARTER)
    await it.exports()
    assert not await it.is_probed(after=13 * MINUTE)
    assert await it.is_probed(after=MINUTE)


async def test_a_block_that_is_missing_is_a_failure_with_a_reason(ward: Ward) -> None:
    it = await ward()
    it.missing.add("company-0")
    await it.look()
    assert (await it.seen()).why == "there is no block company-0"


async def test_one_that_cannot_be_asked_at_all_keeps_none_of_the_others(ward: Ward) -> None:
    it = await ward(size=3)
    it.fails_with(UnicodeError("https://user:secret@xn--"), "company-1")
    assert len(await it.look()) == 3
    why = (await it.seen("company-1")).why
    assert why == "it could not be asked (UnicodeError): look at its block"
    assert (await it.seen("company-2")).state is HEALTHY


# -- states ----------------------------------------------------------------------------------------


async def test_three_failures_in_a_row_are_an_incident_and_one_answer_ends_it(ward: Ward) -> None:
    it = await ward()
    assert await it.looked() is HEALTHY
    assert await it.looked(AWAY) is DEGRADED
    assert await it.looked(AWAY) is DEGRADED
    assert await it.incidents() == []
    assert await it.looked(AWAY) is UNHEALTHY
    [told] = await it.incidents()
    assert told.event == "kvitt.connection.unhealthy"
    assert "HTTP 503 maintenance" in told.words
    assert it.stage.integration.organisation in told.words
    assert await it.looked(AWAY, after=30 * MINUTE) is UNHEALTHY
    assert await it.incidents() == []
    assert await it.looked(after=HOUR) is HEALTHY
    [over] = await it.incidents()
    assert (over.event, over.kind) == ("kvitt.incident.over", "unhealthy")
    assert [became for became, _ in it.history("state")] == [
        "healthy",
        "degraded",
        "unhealthy",
        "healthy",
    ]


async def test_one_that_stays_away_is_asked_ever_more_rarely(ward: Ward) -> None:
    it = await ward()
    await it.looked()
    for _ in range(3):
        await it.looked(AWAY)
    assert not await it.is_probed(after=QUARTER)
    assert await it.is_probed(after=QUARTER)
    assert not await it.is_probed(after=45 * MINUTE)
    assert await it.is_probed(after=QUARTER)


async def test_an_export_that_goes_through_ends_the_back_off_at_once(ward: Ward) -> None:
    it = await ward()
    await it.looked()
    for wait in (1, 1, 1, 2, 4):
        await it.looked(AWAY, after=wait * QUARTER)
    assert await it.state() is UNHEALTHY
    it.fails_with(None)
    await it.exports()
    assert await it.state() is HEALTHY
    assert await it.is_probed(after=QUARTER)


async def test_a_limit_degrades_and_never_makes_unhealthy(ward: Ward) -> None:
    """formbricks #5842, healthchecks #553: probes got 429."""
    it = await ward()
    await it.looked()
    for _ in range(4):
        assert await it.looked(LIMIT, after=2 * HOUR) is DEGRADED
    assert await it.incidents() == []
    assert not await it.is_probed(after=55 * MINUTE)  # nor is it asked again soon


async def test_a_limit_does_not_make_an_unhealthy_one_better(ward: Ward) -> None:
    it = await ward()
    for _ in range(3):
        await it.looked(AWAY)
    assert await it.looked(LIMIT, after=HOUR) is UNHEALTHY


async def test_who_asks_to_be_left_alone_is_left_alone(ward: Ward) -> None:
    it = await ward()
    await it.looked(Unsent("HTTP 503", retry_after=3 * HOUR))
    assert not await it.is_probed(after=2 * HOUR + 55 * MINUTE)
    assert await it.is_probed(after=10 * MINUTE)


# -- what exports meet -----------------------------------------------------------------------------


def postponed(by: Exception) -> Exception:
    try:
        try:
            raise by
        except type(by) as error:
            raise PeriodPostponed("it waits", not_before=NORDVEST.first_period) from error
    except PeriodPostponed as error:
        return error


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (postponed(AWAY), UNHEALTHY),
        (Uncertain("no reply"), UNHEALTHY),
        (Refused("the company is closed"), UNHEALTHY),
        (postponed(LIMIT), DEGRADED),
        (Refused("no such account", of_content=True), HEALTHY),
        (Uncertain("some were refused", refusal=Refused("no such account")), HEALTHY),
        (postponed(BudgetSpent("nothing left")), State.UNKNOWN),
        (postponed(FunctionFailed("it does not boot")), State.UNKNOWN),
        (RuntimeError("a mistake of ours"), State.UNKNOWN),
    ],
)
async def test_a_passive_one_is_judged_by_what_a_sync_meets(
    ward: Ward, error: Exception, state: State
) -> None:
    it = await ward()
    await it.look()
    await it.set_mode(PASSIVE)
    it.database.execute(
        "update kvitt.connections set state = 'unknown' where vendor = %s", [it.vendor]
    )
    await it.exports(error)
    assert await it.state() is state
    await it.exports()
    assert await it.state() is HEALTHY


async def test_a_period_without_vouchers_says_nothing(ward: Ward) -> None:
    it = await ward()
    await it.looked(AWAY)
    await it.exports(asked=0)
    assert await it.state() is DEGRADED


async def test_a_word_of_an_export_that_is_said_twice_is_once(ward: Ward) -> None:
    it = await ward()
    await it.look()
    note = str(uuid4())
    for _ in range(2):
        await it.ledger._call(
            "note_traffic",
            p_note=note,
            p_vendor=it.vendor,
            p_connection="company-0",
            p_heard="failed",
            p_why="away",
            p_every="1 minute",
            p_wait="1 minute",
        )
    assert (await it.seen()).failures == 1


# -- the budget ------------------------------------------------------------------------------------


async def test_a_vendor_with_a_small_allowance_is_passive_by_default_and_says_why(
    ward: Ward,
) -> None:
    it = await ward(habits={"allowance": 5_000})
    assert not await it.is_probed()
    seen = await it.seen()
    assert (seen.mode, seen.mode_by, seen.state) == (PASSIVE, "kvitt", State.UNKNOWN)
    assert "2,976 requests a month, more than 5% of the 5,000" in seen.mode_reason
    it.stage.ask(
        """update kvitt.integrations set limits = '{"budget": {"requests": 100000}}'"""
        " where id = %(id)s returning 1"
    )
    assert await it.is_probed()
    assert await it.mode() is ACTIVE


@pytest.mark.parametrize("requests", [1e30, -5])
async def test_a_number_that_makes_no_sense_stops_nobody(ward: Ward, requests: float) -> None:
    """As an administrator may type it into the row, past kvitt."""
    it = await ward(size=2)
    written = '{"budget": {"requests": %s}}'
    it.database.execute(
        "update kvitt.integrations set limits = %s::jsonb where id = %s",
        [written % requests, it.stage.id],
    )
    assert len(await it.look()) == 2
    assert (await it.seen()).requests is None
    it.database.execute(
        "update kvitt.integrations set enabled = false where id = %s", [it.stage.id]
    )


@pytest.mark.parametrize(
    ("share", "mode"), [(0.05, ACTIVE), (0.5, ACTIVE), (0.9, PASSIVE), (1, PASSIVE)]
)
async def test_a_share_that_leaves_no_probe_before_the_warning_is_passive(
    ward: Ward, share: float, mode: Mode
) -> None:
    it = await ward(limits={"budget": {"requests": 100_000, "probe_share": share}})
    assert await it.is_probed() is (mode is ACTIVE)
    assert await it.mode() is mode


async def test_probes_stop_at_their_share_and_that_says_nothing_of_the_connection(
    ward: Ward,
) -> None:
    budget = {"requests": 60, "probe_share": 0.05}
    it = await ward(habits={"probe_requests": 3}, limits={"budget": budget})
    await it.look()
    await it.set_mode(ACTIVE)  # it is passive by default
    assert await it.looked() is HEALTHY
    assert [await it.is_probed(after=QUARTER) for _ in range(3)] == [True, True, False]
    seen = await it.seen()
    assert seen.state is HEALTHY
    assert "(3 of 60 requests are spent). Exports go on" in (seen.unasked or "")
    assert not await it.is_probed(after=QUARTER)  # it is looked at again in an hour
    [spent] = [b for b in await it.ledger.read_budgets("company-0") if b.vendor == it.vendor]
    assert spent.counted == 3


async def test_where_exports_will_need_the_rest_of_the_month_nothing_is_probed(
    ward: Ward,
) -> None:
    it = await ward(limits={"budget": {"requests": 100_000}})
    assert await it.is_probed()
    month = timedelta(days=31)
    it.database.execute(
        "insert into kvitt.budgets (vendor, connection, month, requests)"
        " values (%s, 'company-0', (kvitt.this_month() - interval '1 month'), 90000)",
        [it.vendor],
    )
    assert not await it.is_probed(after=month)
    assert "Exports go on" in ((await it.seen()).unasked or "")


async def test_what_a_probe_reserves_and_does_not_need_is_given_back(ward: Ward) -> None:
    it = await ward(size=5, habits={"probe_requests": 3})
    await it.look()
    spent = [b for b in await it.ledger.read_budgets() if b.vendor == it.vendor]
    assert [(b.counted, b.spent) for b in spent] == [(1, {"probe": 1})] * 5
    left = it.database.execute(
        "select from kvitt.reservations where vendor = %s", [it.vendor]
    ).fetchall()
    assert left == []


async def test_what_was_reserved_goes_back_when_nothing_can_be_opened(ward: Ward) -> None:
    it = await ward(size=2)

    async def broken(_: Sequence[Due], /) -> Mapping[str, health.Prober | LookupError]:
        raise ConnectionError("Prefect is away")

    with pytest.raises(ConnectionError):
        await health.look(it.ledger, broken, {it.vendor: it.habits})
    spent = [b for b in await it.ledger.read_budgets() if b.vendor == it.vendor]
    assert [b.counted for b in spent] == [0, 0]
    assert (await it.seen()).unasked == "the connections could not be opened (ConnectionError)"
    assert await it.is_probed(after=QUARTER)


# -- modes -----------------------------------------------------------------------------------------


async def test_a_persons_word_holds_until_the_next_one(ward: Ward) -> None:
    it = await ward()
    await it.looked()
    assert await it.set_mode(PASSIVE) == 1
    assert await it.limited() == 0
    assert not await it.is_probed(after=30 * DAY)
    assert await it.set_mode(ACTIVE, reason="it has moved", by="amir") == 1
    assert await it.is_probed()
    assert it.history("mode") == [("active", "kvitt"), ("passive", "kari"), ("active", "amir")]


async def test_after_a_limit_one_trial_ends_the_passive_mode(ward: Ward) -> None:
    it = await ward()
    await it.looked(LIMIT)
    assert await it.limited() == 1
    assert not await it.is_probed(after=45 * MINUTE)
    it.fails_with(None)
    assert await it.is_probed(after=QUARTER)
    assert (await it.mode(), await it.state()) == (ACTIVE, HEALTHY)
    assert it.history("mode")[1:] == [("passive", "automation"), ("active", "kvitt")]


async def test_a_trial_that_fails_doubles_the_cool_down(ward: Ward) -> None:
    it = await ward()
    await it.looked()
    await it.limited()
    for hours in (1, 2, 4, 8, 16, 24, 24):
        assert not await it.is_probed(after=hours * HOUR - 2 * MINUTE)
        assert await it.looked(AWAY, after=3 * MINUTE) is HEALTHY  # exports have met nothing
    assert (await it.seen()).mode_reason == "it turned us away"


async def test_a_trial_that_meets_a_limit_doubles_the_cool_down_once(ward: Ward) -> None:
    it = await ward()
    await it.looked()
    await it.limited()
    for hours in (1, 2, 4, 8, 16, 24):
        assert not await it.is_probed(after=hours * HOUR - 2 * MINUTE)
        assert await it.looked(LIMIT, after=3 * MINUTE) is HEALTHY
        await it.limited()


async def test_after_a_long_calm_the_first_trial_comes_after_an_hour(ward: Ward) -> None:
    it = await ward()
    await it.looked()
    it.database.execute(
        "update kvitt.connections set cool_downs = 5 where vendor = %s", [it.vendor]
    )
    it.time_passes(7 * DAY)
    await it.looked(LIMIT)
    await it.limited()
    it.fails_with(None)
    assert await it.is_probed(after=HOUR)


@pytest.mark.parametrize("before", [ACTIVE, PASSIVE])
async def test_a_probe_under_way_says_nothing_of_one_that_was_made_passive(
    ward: Ward, before: Mode
) -> None:
    it = await ward()
    await it.looked()
    if before is PASSIVE:  # after a limit: what is under way is its trial
        await it.limited()
    it.time_passes(DAY)
    claim = uuid4()
    [due] = await it.ledger.claim_probes(claim, {it.vendor: it.habits}, BETWEEN_PROBES)
    assert due.trial is (before is PASSIVE)
    await it.set_mode(PASSIVE)
    failed = health._heard(due, {"probe": 1}, Heard.FAILED, "no reply", 0)
    await it.ledger.record_probes(claim, [failed])
    assert await it.state() is HEALTHY
    assert await it.incidents() == []


async def test_a_limit_soon_after_the_last_one_begins_with_a_longer_cool_down(ward: Ward) -> None:
    it = await ward()
    await it.looked()
    for hours in (1, 2, 4):
        await it.limited()
        assert not await it.is_probed(after=hours * HOUR - 2 * MINUTE)
        await it.looked(after=3 * MINUTE)
        assert await it.mode() is ACTIVE
    it.time_passes(DAY)
    await it.limited()
    assert await it.is_probed(after=HOUR)


async def test_a_storm_of_limits_is_one_change(ward: Ward) -> None:
    """prefect #22139: a storm of late events."""
    it = await ward()
    await it.looked()
    assert sum(await asyncio.gather(*(it.limited() for _ in range(20)))) >= 1
    seen = await it.seen()
    assert (seen.mode, seen.cool_downs) == (PASSIVE, 1)
    assert len(it.history("mode")) == 2
    assert len([c for c in await it.ledger.untold_modes() if c.vendor == it.vendor]) == 1


async def test_a_limit_that_an_export_meets_meanwhile_outlives_a_trial(ward: Ward) -> None:
    it = await ward()
    await it.looked()
    await it.limited()
    it.time_passes(HOUR)
    claim = uuid4()
    [due] = await it.ledger.claim_probes(claim, {it.vendor: it.habits}, BETWEEN_PROBES)
    assert due.trial
    await it.limited()
    answered = health._heard(due, {"probe": 1}, Heard.ANSWERED, None, 0)
    await it.ledger.record_probes(claim, [answered])
    seen = await it.seen()
    assert seen.mode is PASSIVE
    assert seen.trial_at is not None


async def test_the_mode_of_a_whole_vendor_holds_for_those_to_come(ward: Ward, enrol: Enrol) -> None:
    it = await ward(size=3)
    await it.look()
    assert await it.set_mode(PASSIVE, None) == 3
    assert await it.set_mode(ACTIVE, "company-1") == 1
    await enrol(NORDVEST, vendor=it.vendor, connection="company-9")
    it.time_passes(QUARTER)
    assert [each.due.connection for each in await it.look()] == ["company-1"]
    assert await it.mode("company-9") is PASSIVE
    told = [c for c in await it.ledger.untold_modes() if c.vendor == it.vendor]
    assert [(c.name, c.became) for c in told] == [
        (it.vendor, PASSIVE),
        (f"{it.vendor}/company-1", ACTIVE),
    ]
    await it.ledger.modes_told(told)
    assert [c for c in await it.ledger.untold_modes() if c.vendor == it.vendor] == []


async def test_the_mode_of_a_whole_vendor_outlives_the_limit_of_one_that_is_new(
    ward: Ward, enrol: Enrol
) -> None:
    it = await ward()
    await it.set_mode(PASSIVE, None)
    await enrol(NORDVEST, vendor=it.vendor, connection="company-9")
    it.connections = ["company-9"]
    assert await it.limited() == 0
    assert not await it.is_probed(after=DAY)
    assert (await it.seen()).mode_by == "kari"


@pytest.mark.parametrize(
    ("how", "code"),
    [({"reason": " "}, "KV003"), ({"by": ""}, "KV003"), ({"connection": "nobody"}, "KV004")],
)
async def test_a_mode_wants_a_reason_a_name_and_a_connection(
    ward: Ward, how: dict[str, Any], code: str
) -> None:
    it = await ward()
    with pytest.raises(LedgerRefused) as refused:
        await it.set_mode(PASSIVE, **how)
    assert refused.value.code == code


async def test_a_connection_that_was_never_looked_at_can_be_told_its_mode(ward: Ward) -> None:
    it = await ward()
    assert await it.set_mode(PASSIVE) == 1
    assert not await it.is_probed()
    assert (await it.seen()).mode_by == "kari"
