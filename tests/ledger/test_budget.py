"""The budget of a connection: shared by all who use it, never overdrawn, and true after a kill."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from psycopg.types.json import Jsonb

from kvitt.budget import MonthlyBudget, open_budget
from kvitt.domain.budget import Purpose
from kvitt.domain.errors import BudgetSpent
from kvitt.ports import Grant
from sandbox.processes import CHECKOUT
from tests.cast import NORDVEST
from tests.ledger.stages import ALLOWANCE, a_connection, budget, spend

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from kvitt.ledger import SupabaseLedger
    from kvitt.ledger.rows import Spending
    from sandbox.supabase import Supabase
    from tests.cast import Stage

    Enrol = Callable[..., Awaitable[Stage]]

EXPORT, READ_BACK, PROBE, TOKEN = Purpose.EXPORT, Purpose.READ_BACK, Purpose.PROBE, Purpose.TOKEN


async def spent(ledger: SupabaseLedger, connection: str) -> Spending:
    """Return what a connection has spent this month."""
    return (await ledger.read_budgets(connection))[0]


def a_month_passes(database: psycopg.Connection, connection: str) -> None:
    """Move all that was spent a month back: by way of long ago, so that no two months meet."""
    with database.transaction():
        database.execute("set local session_replication_role = replica")
        for table in ("budgets", "reservations"):
            for months in (-1201, 1200):
                database.execute(
                    f"update kvitt.{table} set month = month + make_interval(months => %s)"  # noqa: S608 - our own names
                    " where connection = %s".encode(),
                    [months, connection],
                )


# -- counting --------------------------------------------------------------------------------------


async def test_requests_are_counted_by_purpose_and_what_is_left_is_given_back(
    ledger: SupabaseLedger,
) -> None:
    connection = a_connection()
    async with open_budget(ledger, "xledger", connection) as purse:
        await spend(purse, EXPORT, 3)
        await spend(purse, READ_BACK, 2)
        await spend(purse, PROBE)
        assert (await spent(ledger, connection)).counted == 8 + 1
    now = await spent(ledger, connection)
    assert (now.counted, now.spent) == (6, {"export": 3, "read-back": 2, "probe": 1})
    assert (now.month, now.allowance) == (datetime.now(UTC).date().replace(day=1), ALLOWANCE)


async def test_the_ledger_is_asked_eight_times_for_five_hundred_requests(
    database: psycopg.Connection,
) -> None:
    asked = Asked(database)
    purse = MonthlyBudget(asked, "xledger", a_connection())  # pyright: ignore[reportArgumentType] - its budget only
    await spend(purse, EXPORT, 500)
    assert asked.calls == {"reserve": 8}


async def test_a_client_that_asks_nothing_costs_nothing(database: psycopg.Connection) -> None:
    asked = Asked(database)
    await MonthlyBudget(asked, "xledger", a_connection()).close()  # pyright: ignore[reportArgumentType] - its budget only
    assert asked.calls == {}


async def test_a_request_that_never_left_is_put_back(ledger: SupabaseLedger) -> None:
    connection = a_connection()
    async with open_budget(ledger, "xledger", connection) as purse:
        put_back = await purse.spend(EXPORT, allowance=ALLOWANCE)
        put_back()
        await spend(purse, EXPORT)
    assert (await spent(ledger, connection)).spent == {"export": 1}


async def test_a_vendor_without_an_allowance_is_counted_and_never_stopped(
    ledger: SupabaseLedger,
) -> None:
    connection = a_connection()
    async with open_budget(ledger, "business-central", connection) as purse:
        for _ in range(30):
            await purse.spend(TOKEN, allowance=None)
        await purse.spend(PROBE, allowance=None)
    now = await spent(ledger, connection)
    assert (now.allowance, now.counted) == (None, 31)


async def test_to_reserve_twice_is_to_reserve_once_and_so_it_is_to_give_back(
    ledger: SupabaseLedger,
) -> None:
    connection, mine = a_connection(), uuid4()
    given: dict[str, Any] = {"probes": False, "wanted": 8, "spent": {}, "allowance": ALLOWANCE}
    grants = [await ledger.reserve_requests(mine, "xledger", connection, **given) for _ in range(3)]
    assert [grant.reserved for grant in grants] == [8, 8, 8]
    for _ in range(2):
        await ledger.return_requests(mine, {"export": 3})
    assert (await spent(ledger, connection)).counted == 3


# -- the end of it ---------------------------------------------------------------------------------


async def test_probes_stop_first_then_comes_a_warning_then_exports_stop(
    enrol: Enrol, ledger: SupabaseLedger
) -> None:
    stage = await enrol(NORDVEST, **budget(requests=100, probe_share=0.1, warn_from=0.9))
    purse = MonthlyBudget(ledger, "xledger", stage.integration.connection)
    await spend(purse, EXPORT, 75)
    await spend(purse, PROBE)
    while (await spent(ledger, purse.connection)).counted < 80:
        await spend(purse, EXPORT)
    with pytest.raises(BudgetSpent, match="nothing left for probes"):
        await spend(purse, PROBE)
    assert purse.warning is None
    while (await spent(ledger, purse.connection)).counted < 90:
        await spend(purse, EXPORT)
    assert purse.warning is not None
    assert "is nearly spent: 90 of 100 requests" in purse.warning
    with pytest.raises(BudgetSpent, match=r"\(100 of 100 requests\)") as refused:
        await spend(purse, EXPORT, 100)
    assert refused.value.retry_after is not None
    assert timedelta(0) < refused.value.retry_after <= timedelta(days=31)
    await purse.close()
    assert (await spent(ledger, purse.connection)).spent == {"export": 99, "probe": 1}


async def test_a_probe_has_only_its_share_however_much_is_left(
    enrol: Enrol, ledger: SupabaseLedger
) -> None:
    stage = await enrol(NORDVEST, **budget())
    purse = MonthlyBudget(ledger, "xledger", stage.integration.connection)
    with pytest.raises(BudgetSpent, match="Exports go on"):
        await spend(purse, PROBE, ALLOWANCE)
    await spend(purse, EXPORT)
    await purse.close()
    assert (await spent(ledger, purse.connection)).spent == {"probe": 250, "export": 1}


async def test_what_is_filled_in_leaves_room_for_the_schedules_own(
    enrol: Enrol, ledger: SupabaseLedger
) -> None:
    stage = await enrol(NORDVEST, **budget(requests=100, backfill_share=0.3))
    connection = stage.integration.connection
    async with open_budget(ledger, "xledger", connection, backfill=True) as past:
        with pytest.raises(BudgetSpent, match="the rest is kept for the schedule's own"):
            await spend(past, EXPORT, 100)
    assert (await spent(ledger, connection)).counted == 30
    async with open_budget(ledger, "xledger", connection) as today:
        with pytest.raises(BudgetSpent, match="is spent"):
            await spend(today, EXPORT, 100)
    assert (await spent(ledger, connection)).counted == 100


async def test_where_nothing_is_stated_half_of_the_month_is_left_by_what_is_filled_in(
    ledger: SupabaseLedger,
) -> None:
    connection = a_connection()
    async with open_budget(ledger, "xledger", connection, backfill=True) as past:
        with pytest.raises(BudgetSpent):
            await spend(past, EXPORT, ALLOWANCE)
    assert (await spent(ledger, connection)).counted == ALLOWANCE // 2


async def test_the_warning_is_given_once_to_one_of_all(
    enrol: Enrol, ledger: SupabaseLedger
) -> None:
    stage = await enrol(NORDVEST, **budget(requests=20))
    purses = [MonthlyBudget(ledger, "xledger", stage.integration.connection) for _ in range(3)]
    for _ in range(7):
        for purse in purses:
            try:
                await spend(purse, EXPORT)
            except BudgetSpent:
                continue
    assert [purse.warning is not None for purse in purses].count(True) == 1
    assert (await spent(ledger, stage.integration.connection)).warned_at is not None


async def test_paid_requests_go_on_where_they_are_allowed_and_probes_do_not(
    enrol: Enrol, ledger: SupabaseLedger
) -> None:
    stage = await enrol(NORDVEST, **budget(requests=10, paid=True))
    async with open_budget(ledger, "xledger", stage.integration.connection) as purse:
        await spend(purse, EXPORT, 25)
        with pytest.raises(BudgetSpent):
            await spend(purse, PROBE)
    assert (await spent(ledger, purse.connection)).counted == 25


async def test_of_what_integrations_of_one_connection_state_the_strictest_counts(
    enrol: Enrol, ledger: SupabaseLedger
) -> None:
    shared = budget(requests=30, paid=True)
    stages = [
        await enrol(NORDVEST, **shared),
        await enrol(NORDVEST, **{**shared, "limits": {"budget": {"requests": 12, "paid": False}}}),
        await enrol(NORDVEST, **{**shared, "limits": {}}),
    ]
    purse = MonthlyBudget(ledger, "xledger", shared["connection"])
    with pytest.raises(BudgetSpent):
        await spend(purse, EXPORT, 100)
    await purse.close()
    assert (await spent(ledger, purse.connection)).counted == 12
    off = stages[1].integration.model_copy(update={"enabled": False})
    await ledger.save_integration(off)
    await spend(purse, EXPORT, 50)


async def test_a_limit_that_makes_no_sense_stops_nobody(
    enrol: Enrol, ledger: SupabaseLedger
) -> None:
    stage = await enrol(NORDVEST, **budget(requests=3))
    stage.ask(
        """update kvitt.integrations set limits = '{"budget": {"requests": "ten", "paid": 7}}'
            where id = %(id)s returning id"""
    )
    async with open_budget(ledger, "xledger", stage.integration.connection) as purse:
        await spend(purse, EXPORT, 9)
    now = await spent(ledger, purse.connection)
    assert (now.allowance, now.paid) == (ALLOWANCE, False)


async def test_a_new_month_begins_anew_and_nothing_reserved_goes_over_into_it(
    enrol: Enrol, ledger: SupabaseLedger, database: psycopg.Connection
) -> None:
    stage, clock = await enrol(NORDVEST, **budget(requests=20)), Clock()
    purse = MonthlyBudget(ledger, "xledger", stage.integration.connection, clock=clock)
    await spend(purse, EXPORT, 3)
    a_month_passes(database, purse.connection)
    clock.seconds += timedelta(days=32).total_seconds()
    with pytest.raises(BudgetSpent):
        await spend(purse, EXPORT, 100)
    await purse.close()
    this_month, before = await ledger.read_budgets(purse.connection)
    assert (this_month.counted, before.counted) == (20, 3)


# -- several at once, and those that are killed ----------------------------------------------------


def test_whoever_asks_at_once_together_gets_no_more_than_there_is(supabase: Supabase) -> None:
    connection, many = a_connection(), 300

    def hoard(_: int) -> int:
        purse, mine = 0, uuid4()
        with psycopg.connect(supabase.database_url, autocommit=True) as database:
            while True:
                grant = reserve(database, mine, connection, wanted=purse + 20, allowance=many)
                if grant.reserved == purse:
                    return purse
                purse = grant.reserved

    with ThreadPoolExecutor(12) as pool:
        purses = list(pool.map(hoard, range(12)))
    assert sum(purses) == many


KILLED = """
import asyncio, sys
from kvitt.budget import MonthlyBudget
from kvitt.domain.budget import Purpose
from kvitt.ledger import SupabaseLedger
from kvitt.project import open_project

async def main(url, key, connection):
    async with open_project(url, key) as client:
        purse = MonthlyBudget(SupabaseLedger(client), "xledger", connection)
        while True:
            await purse.spend(Purpose.EXPORT, allowance=100)
            print("asked", flush=True)
            await asyncio.sleep(0.001)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_what_a_killed_process_had_reserved_counts_as_spent(
    supabase: Supabase, ledger: SupabaseLedger
) -> None:
    connection = a_connection()
    asked = 0
    for after in (1, 20):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", KILLED, supabase.url, supabase.secret_key, connection),
            cwd=CHECKOUT,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout
        for _ in range(after):
            await process.stdout.readline()
        process.kill()
        assert await process.wait() == -signal.SIGKILL
        asked += after + len((await process.stdout.read()).splitlines())
    counted = (await spent(ledger, connection)).counted
    assert asked <= counted <= 2 * asked + 2 * 8
    purse = MonthlyBudget(ledger, "xledger", connection)
    for _ in range(100 - counted):
        await purse.spend(EXPORT, allowance=100)
    with pytest.raises(BudgetSpent):
        await purse.spend(EXPORT, allowance=100)


# -- the budget as a state machine -----------------------------------------------------------------


def reserve(
    database: psycopg.Connection,
    reservation: UUID,
    connection: str,
    *,
    wanted: int,
    allowance: int | None,
    probes: bool = False,
    spent: Mapping[str, int] | None = None,
    backfill: bool = False,
) -> Grant:
    [[answer]] = database.execute(
        "select kvitt.reserve_requests(%s, 'xledger', %s, %s, %s, %s, %s, %s)",
        [reservation, connection, probes, wanted, Jsonb(dict(spent or {})), allowance, backfill],
    ).fetchall()
    return Grant.model_validate(answer)


@dataclass(kw_only=True)
class Clock:
    """A monotonic clock that a test moves."""

    seconds: float = 0

    def __call__(self) -> float:
        return self.seconds


class Asked:
    """The ledger's side of a budget straight in SQL, counting how often it is asked."""

    def __init__(self, database: psycopg.Connection) -> None:
        self.calls: Counter[str] = Counter()
        self._database = database

    async def reserve_requests(
        self, reservation: UUID, vendor: str, connection: str, **asked: Any
    ) -> Grant:
        assert vendor == "xledger"
        self.calls["reserve"] += 1
        return reserve(self._database, reservation, connection, **asked)

    async def return_requests(self, reservation: UUID, spent: Mapping[str, int]) -> None:
        self.calls["return"] += 1
        self._database.execute(
            "select kvitt.return_requests(%s, %s)", [reservation, Jsonb(dict(spent))]
        )


@dataclass(kw_only=True)
class Month:
    """What really was asked of the vendor in a month, and the most that was ever allowed in it."""

    asked: Counter[str] = field(default_factory=Counter[str])
    allowed: int
    killed: bool = False


class BudgetMachine(RuleBasedStateMachine):
    """Clients that spend, close, are killed; people who allow more or less; months that end."""

    database: psycopg.Connection

    @initialize(requests=st.integers(1, 60))
    def begin(self, requests: int) -> None:
        self.runner = asyncio.Runner()
        self.connection, self.clock = a_connection(), Clock()
        self.ledger = Asked(self.database)
        self.clients: list[MonthlyBudget] = []
        self.month = Month(allowed=requests)
        self.integration = f"machine-{self.connection}"
        self.database.execute(
            """insert into kvitt.integrations (id, organisation, vendor, connection, cron,
                 time_zone, first_period, book_currency)
               values (%s, 'Teater Nordvest', 'xledger', %s, '0 6 * * *', 'Europe/Oslo',
                 '2026-01-01Z', 'NOK')""",
            [self.integration, self.connection],
        )
        self._allow(requests)

    @rule()
    def a_client_opens(self) -> None:
        new = MonthlyBudget(self.ledger, "xledger", self.connection, clock=self.clock)  # pyright: ignore[reportArgumentType] - its budget only
        self.clients.append(new)

    @precondition(lambda self: self.clients)
    @rule(
        data=st.data(),
        purpose=st.sampled_from([EXPORT, READ_BACK, PROBE]),
        times=st.integers(1, 12),
        leaves=st.booleans(),
    )
    def a_client_asks(
        self, data: st.DataObject, purpose: Purpose, times: int, *, leaves: bool
    ) -> None:
        client = data.draw(st.sampled_from(self.clients))
        try:
            for _ in range(times):
                put_back = self.runner.run(client.spend(purpose, allowance=ALLOWANCE))
                if leaves:
                    self.month.asked[purpose] += 1
                else:
                    put_back()
        except BudgetSpent:
            return

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def a_client_closes(self, data: st.DataObject) -> None:
        client = data.draw(st.sampled_from(self.clients))
        self.clients.remove(client)
        self.runner.run(client.close())

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def a_client_is_killed(self, data: st.DataObject) -> None:
        self.clients.remove(data.draw(st.sampled_from(self.clients)))
        self.month.killed = True

    @rule(requests=st.integers(1, 60))
    def somebody_allows_more_or_less(self, requests: int) -> None:
        self._allow(requests)
        self.month.allowed = max(self.month.allowed, requests)

    @rule()
    def the_month_ends(self) -> None:
        a_month_passes(self.database, self.connection)
        self.clock.seconds += timedelta(days=32).total_seconds()
        [[allowed]] = self.database.execute(
            "select limits #> '{budget,requests}' from kvitt.integrations where id = %s",
            [self.integration],
        ).fetchall()
        self.month = Month(allowed=allowed)

    @invariant()
    def never_more_is_asked_than_is_allowed_or_counted(self) -> None:
        counted, _ = self._counted()
        assert self.month.asked.total() <= counted <= self.month.allowed
        assert self.month.asked[PROBE] <= self.month.allowed * 0.05

    def teardown(self) -> None:
        for client in self.clients:
            self.runner.run(client.close())
        counted, spent = self._counted()
        if not self.month.killed:
            assert {name: many for name, many in spent.items() if many} == +self.month.asked
            assert counted == self.month.asked.total()
        self.runner.close()

    def _counted(self) -> tuple[int, dict[str, int]]:
        rows = self.database.execute(
            "select requests, spent from kvitt.budgets where connection = %s"
            " and month = kvitt.this_month()",
            [self.connection],
        ).fetchall()
        return rows[0] if rows else (0, {})  # type: ignore[return-value]

    def _allow(self, requests: int) -> None:
        self.database.execute(
            "update kvitt.integrations set limits = %s where id = %s",
            [Jsonb({"budget": {"requests": requests}}), self.integration],
        )


def test_whatever_happens_never_more_is_asked_than_is_allowed(
    database: psycopg.Connection,
) -> None:
    machine = type("Machine", (BudgetMachine,), {"database": database})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=60, stateful_step_count=30, deadline=None)
    )


async def test_requests_at_once_in_one_process_share_a_lot(ledger: SupabaseLedger) -> None:
    connection = a_connection()
    async with AsyncExitStack() as stack:
        purse = await stack.enter_async_context(open_budget(ledger, "xledger", connection))
        await asyncio.gather(*(spend(purse, EXPORT) for _ in range(8)))
        assert (await spent(ledger, connection)).counted == 8
    assert (await spent(ledger, connection)).month == date.today().replace(day=1)  # noqa: DTZ011
