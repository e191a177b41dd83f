"""What the second scheduler does, step by step, on a bare Postgres.

Nothing is sent here: requests are looked at where pg_net would take them from, its queue.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvitt.ledger.migrate import migrate, read_migrations
from sandbox.pg_net import install_pg_net, install_vault
from sandbox.processes import CHECKOUT
from tests.cast import FJORDBY, LEASE, NORDVEST, TOUR

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvitt.domain.integrations import Integration
    from sandbox.supabase import Supabase

SECRETS = {
    "kvitt_prefect_api_url": "https://prefect.made-up.example/api/",
    "kvitt_prefect_authorization": "Basic made-up-authorization",
    "kvitt_function_url": "https://made-up.supabase.example/functions/v1/collect",
    "kvitt_function_key": "sb_publishable_made_up",
    "kvitt_webhook_url": "https://hooks.made-up.example/made-up-token",
}
DEPLOYMENT = "0b4d2a3c-5b0e-4c38-9d0d-7e1f4f0a9a11"
MINUTE = timedelta(minutes=1)
_names = count(1)


@dataclass(frozen=True, kw_only=True)
class Database:
    """A database with the ledger, and the stand-ins for pg_net and Vault."""

    connection: psycopg.Connection

    def ask(self, question: str, **values: Any) -> list[tuple[Any, ...]]:
        asked = self.connection.execute(question.encode(), values)
        return asked.fetchall() if asked.description else []

    def step(self, name: str, silence: timedelta = timedelta(minutes=12)) -> None:
        self.ask("select kvitt.step(%(name)s, %(silence)s)", name=name, silence=silence)

    def queued(self) -> list[dict[str, Any]]:
        """Take what is in the queue of pg_net."""
        taken = self.ask(
            "delete from net.http_request_queue"
            " returning url, headers, convert_from(body, 'UTF8')::jsonb, id"
        )
        return [dict(zip(("url", "headers", "body", "id"), one, strict=True)) for one in taken]

    def answer(self, request: dict[str, Any], status: int | None) -> None:
        """Let pg_net write what came of a request; None: a time-out."""
        self.ask(
            "insert into net._http_response (id, status_code, timed_out)"
            " values (%(id)s, %(status)s, %(late)s)",
            id=request["id"],
            status=status,
            late=status is None,
        )

    def words(self) -> list[str]:
        """Tell what is not told yet, and return the texts."""
        self.step("tell alarms")
        return [one["body"]["text"] for one in self.queued() if "text" in one["body"]]

    def enrol(self, who: Integration, *late: timedelta, scheduler: str = "pg_cron") -> None:
        """Save an integration, with periods that were due so long ago (or will be, if negative)."""
        told = {**who.model_dump(mode="json"), "scheduler": scheduler}
        this_minute = datetime.now(UTC).replace(second=0, microsecond=0)
        due = sorted(this_minute - one for one in late)
        self.ask("select kvitt.save_integration(%(it)s)", it=json.dumps(told))
        self.ask(
            "select kvitt.plan_periods(%(id)s, %(opens)s, %(due)s)",
            id=who.id,
            opens=due[0] - MINUTE,
            due=due,
        )
        self.ask("select kvitt.name_deployments(%(ids)s)", ids=json.dumps({who.id: DEPLOYMENT}))

    def claim(self, who: Integration) -> None:
        """Let a run take the lease of what is due."""
        self.ask(
            "select kvitt.claim_period(%(id)s, gen_random_uuid(), %(lease)s, 'pg_cron')",
            id=who.id,
            lease=LEASE,
        )

    def beat(self, who: str, ago: timedelta) -> None:
        self.ask(
            "insert into kvitt.heartbeats (who, since, beat_at)"
            " values (%(who)s, now() - %(ago)s, now() - %(ago)s)"
            " on conflict (who) do update set beat_at = excluded.beat_at",
            who=who,
            ago=ago,
        )


@pytest.fixture
def database(supabase: Supabase) -> Iterator[Database]:
    url = supabase.postgres.create_database(f"second_scheduler_{next(_names)}")
    migrate(url, read_migrations(CHECKOUT / "supabase" / "migrations"))
    install_pg_net(url)
    install_vault(url)
    with psycopg.connect(url, autocommit=True) as connection:
        it = Database(connection=connection)
        for name, secret in SECRETS.items():
            it.ask("select vault.create_secret(%(secret)s, %(name)s)", name=name, secret=secret)
        yield it


# -- asking for runs -------------------------------------------------------------------------------


def test_a_due_period_is_asked_for_with_its_key(database: Database) -> None:
    database.enrol(NORDVEST, timedelta(0), -60 * MINUTE)
    database.step("ask for runs")
    [request] = database.queued()
    [[key]] = database.ask("select key from kvitt.periods where due_at <= now()")
    assert request["url"] == (
        f"https://prefect.made-up.example/api/deployments/{DEPLOYMENT}/create_flow_run"
    )
    assert request["body"] == {
        "parameters": {"trigger": "pg_cron"},
        "idempotency_key": f"pg_cron/{key}/1",
    }
    assert request["headers"]["Authorization"] == "Basic made-up-authorization"
    assert request["headers"]["Content-Type"] == "application/json"


def test_a_server_without_authorization_is_asked_without(database: Database) -> None:
    database.ask("delete from vault.secrets where name = 'kvitt_prefect_authorization'")
    database.enrol(NORDVEST, timedelta(0))
    database.step("ask for runs")
    [request] = database.queued()
    assert "Authorization" not in request["headers"]


@pytest.mark.parametrize(("scheduler", "requests"), [("prefect", 0), ("pg_cron", 1), ("both", 1)])
def test_each_integration_says_who_starts_it(
    database: Database, scheduler: str, requests: int
) -> None:
    database.enrol(NORDVEST, timedelta(0), -MINUTE, scheduler=scheduler)
    database.step("ask for runs")
    assert len(database.queued()) == requests
    [[warm_up]] = database.ask("select kvitt.next_warm_up()")
    assert (warm_up is not None) == (requests == 1)


def test_one_request_an_integration_is_enough_however_many_periods_are_due(
    database: Database,
) -> None:
    database.enrol(NORDVEST, 3 * MINUTE, 2 * MINUTE, MINUTE)
    database.enrol(TOUR, timedelta(0))
    database.step("ask for runs")
    assert len({one["body"]["idempotency_key"] for one in database.queued()}) == 2


def test_asking_again_within_five_minutes_is_the_same_request_to_prefect(
    database: Database,
) -> None:
    database.enrol(NORDVEST, 3 * MINUTE)
    database.step("ask for runs")
    database.step("ask for runs")
    first, second = database.queued()
    assert first["body"] == second["body"]


def test_what_nobody_took_up_is_asked_for_under_another_key_later(database: Database) -> None:
    database.enrol(NORDVEST, 6 * MINUTE)
    database.step("ask for runs")
    [request] = database.queued()
    assert request["body"]["idempotency_key"].endswith("/2")


@given(minutes=st.integers(0, 100_000))
def test_tries_become_rarer_and_are_never_the_number_before(minutes: int) -> None:
    tries = [_try_of(m) for m in (minutes, minutes + 1)]
    assert tries[1] - tries[0] in {0, 1}
    assert _try_of(5 * (2 ** tries[0] - 1)) == tries[0] + 1


def _try_of(minutes: int) -> int:
    """Compute independently what `kvitt.try_of` does; a test below holds them together."""
    tries, begins = 1, 5
    while minutes >= begins:
        tries, begins = tries + 1, 2 * begins + 5
    return tries


def test_the_number_of_the_try_is_as_documented(database: Database) -> None:
    minutes = [*range(200), 1274, 1275, 40955, 100_000]
    found = database.ask(
        "select kvitt.try_of(m * interval '1 minute') from unnest(%(m)s::int[]) m", m=minutes
    )
    assert [one for (one,) in found] == [_try_of(m) for m in minutes]


def test_what_is_worked_on_is_not_asked_for(database: Database) -> None:
    database.enrol(NORDVEST, MINUTE)
    database.claim(NORDVEST)
    database.step("ask for runs")
    assert database.queued() == []


def test_what_is_switched_off_is_left_alone(database: Database) -> None:
    off = NORDVEST.model_copy(update={"enabled": False})
    database.enrol(off, 10 * MINUTE, -MINUTE)
    for step in ("ask for runs", "watch periods", "tell alarms"):
        database.step(step)
    assert database.queued() == []
    assert database.ask("select kvitt.next_warm_up()") == [(None,)]


# -- the warm-up -----------------------------------------------------------------------------------


def test_the_function_is_warmed_up_once_for_all_half_a_minute_before(database: Database) -> None:
    database.enrol(NORDVEST, -MINUTE, -2 * MINUTE)
    database.enrol(TOUR, -MINUTE)
    [[warm_up, due]] = database.ask(
        "select kvitt.next_warm_up(), min(due_at) from kvitt.periods where due_at > now()"
    )
    assert due - warm_up == timedelta(seconds=30)
    database.step("warm up")
    [request] = database.queued()
    assert request["url"] == SECRETS["kvitt_function_url"]
    assert request["body"] == {"ping": True}
    assert request["headers"]["apikey"] == "sb_publishable_made_up"


def test_nothing_is_warmed_up_for_a_period_that_is_far_off(database: Database) -> None:
    database.enrol(NORDVEST, MINUTE, -5 * MINUTE)
    assert database.ask("select kvitt.next_warm_up()") == [(None,)]


# -- alarms ----------------------------------------------------------------------------------------


def test_a_silent_prefect_is_told_once_and_so_is_its_return(database: Database) -> None:
    database.beat("pg_cron", timedelta(hours=1))
    database.beat("watch", 13 * MINUTE)
    database.step("watch the watcher")
    [said] = database.words()
    assert "Prefect is silent" in said
    assert "What to do: see whether the Prefect server answers" in said
    database.step("watch the watcher")
    assert database.words() == []

    database.beat("watch", timedelta(0))
    database.step("watch the watcher")
    database.step("watch the watcher")
    [said] = database.words()
    assert "Prefect is back" in said
    assert database.words() == []


def test_a_watch_that_beats_in_time_is_no_alarm(database: Database) -> None:
    database.beat("pg_cron", timedelta(hours=1))
    database.beat("watch", 11 * MINUTE)
    database.step("watch the watcher")
    assert database.words() == []


def test_a_watch_that_never_beat_is_given_time_from_the_installation_on(
    database: Database,
) -> None:
    database.beat("pg_cron", 11 * MINUTE)
    database.step("watch the watcher")
    assert database.words() == []
    database.step("watch the watcher", silence=10 * MINUTE)
    [said] = database.words()
    assert "no sign of life since ever" in said


def test_more_time_for_a_watch_that_never_beat_ends_its_alarm(database: Database) -> None:
    database.beat("pg_cron", 13 * MINUTE)
    database.step("watch the watcher")
    assert len(database.words()) == 1
    database.step("watch the watcher", silence=timedelta(hours=1))
    [said] = database.words()
    assert "The flow watch has never been at work; if it is not by 20" in said


def test_a_new_silence_is_a_new_alarm(database: Database) -> None:
    database.beat("pg_cron", timedelta(hours=1))
    for ago in (13 * MINUTE, timedelta(0), 13 * MINUTE):
        database.beat("watch", ago)
        database.step("watch the watcher")
        assert len(database.words()) == 1


def test_a_period_that_was_asked_for_in_vain_is_told_at_the_fifth_minute(
    database: Database,
) -> None:
    database.enrol(NORDVEST, 4 * MINUTE)
    database.step("watch periods")
    assert database.words() == []
    database.enrol(TOUR, 5 * MINUTE)
    database.step("watch periods")
    database.step("watch periods")
    [said] = database.words()
    assert f"{TOUR.id}@" in said
    assert "although Prefect was asked for its run" in said
    assert f"prefect deployment run sync/{TOUR.id}" in said


def test_without_a_deployment_the_alarm_says_so(database: Database) -> None:
    database.enrol(TOUR, 5 * MINUTE)
    database.ask("delete from kvitt.deployments")
    database.step("ask for runs")
    assert database.queued() == []
    database.step("watch periods")
    [said] = database.words()
    assert "run kvitt apply first" in said


def test_periods_that_prefect_starts_are_left_to_watch(database: Database) -> None:
    database.enrol(FJORDBY, 30 * MINUTE, scheduler="prefect")
    database.step("watch periods")
    assert database.words() == []


def test_a_lease_does_not_end_the_alarm_and_a_decision_does(database: Database) -> None:
    database.enrol(NORDVEST, 6 * MINUTE)
    database.step("watch periods")
    assert len(database.words()) == 1
    database.claim(NORDVEST)
    database.step("watch periods")
    assert database.words() == []
    database.ask(
        "select kvitt.fail_period(integration_id, due_at, fence, 'closed') from kvitt.periods"
    )
    database.step("watch periods")
    [said] = database.words()
    assert "is no longer overdue" in said
    assert "is now failed. kvitt periods says why" in said


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            "update kvitt.integrations set enabled = false",
            "since nordvest-xledger was switched off",
        ),
        (
            "update kvitt.integrations set scheduler = 'prefect'",
            "since nordvest-xledger is started by Prefect now",
        ),
    ],
)
def test_an_integration_that_no_longer_counts_is_no_longer_overdue(
    database: Database, change: str, why: str
) -> None:
    database.enrol(NORDVEST, 6 * MINUTE)
    database.step("watch periods")
    assert len(database.words()) == 1
    database.ask(change)
    database.step("watch periods")
    database.step("watch periods")
    [said] = database.words()
    assert why in said
    assert said.endswith("and is still due.")


def test_an_alarm_is_told_again_until_a_success_is_seen(database: Database) -> None:
    database.enrol(NORDVEST, 6 * MINUTE)
    database.step("watch periods")
    for status in (500, None):
        database.step("tell alarms")
        [request] = database.queued()
        database.answer(request, status)
        database.step("tell alarms")
        assert database.queued() == []  # not before its time
        database.ask("update kvitt.alarms set sent_at = sent_at - interval '2 minutes'")
    database.step("tell alarms")
    [request] = database.queued()
    database.answer(request, 200)
    database.step("tell alarms")
    database.ask("update kvitt.alarms set sent_at = sent_at - interval '2 hours'")
    database.step("tell alarms")
    assert database.queued() == []
    assert database.ask("select sends, told_at is not null from kvitt.alarms") == [(3, True)]


def test_an_answer_to_an_older_request_of_the_same_number_is_not_taken_for_ours(
    database: Database,
) -> None:
    """After a crash the queue is empty, and later versions of Postgres count from 1 again."""
    database.enrol(NORDVEST, 6 * MINUTE)
    database.step("watch periods")
    database.step("tell alarms")
    [request] = database.queued()
    database.answer(request, 200)
    database.ask("update net._http_response set created = created - interval '1 hour'")
    database.step("tell alarms")
    assert database.ask("select told_at from kvitt.alarms") == [(None,)]


def test_a_step_that_fails_stops_no_other_and_is_an_alarm_without_a_secret(
    database: Database,
) -> None:
    database.enrol(NORDVEST, timedelta(0))
    database.ask("delete from vault.secrets where name = 'kvitt_prefect_api_url'")
    database.step("ask for runs")
    database.step("ask for runs")
    [said] = database.words()
    assert "cannot ask for runs: Vault has no secret kvitt_prefect_api_url" in said

    database.ask("select vault.create_secret('https://there.example/api', 'kvitt_prefect_api_url')")
    database.step("ask for runs")
    assert "can ask for runs again" in database.words()[-1]


def test_what_postgres_says_of_a_failure_is_not_repeated(database: Database) -> None:
    database.ask("drop table net.http_request_queue")
    database.step("warm up")
    [[said]] = database.ask("select words from kvitt.alarms")
    assert "cannot warm up: Postgres error 42P01" in said


# -- the whole job, and putting it there -----------------------------------------------------------


def test_the_job_asks_watches_and_warms_up_and_is_safe_to_run_twice(database: Database) -> None:
    database.enrol(NORDVEST, timedelta(0), 6 * MINUTE)
    for _ in range(2):
        database.ask("call kvitt.run_second_scheduler('12 minutes')")
    hosts = [one["url"].split("/")[2].split(".")[0] for one in database.queued()]
    assert hosts == ["prefect", "hooks", "prefect"]
    assert database.ask("select who from kvitt.heartbeats") == [("pg_cron",)]


def test_no_secret_is_in_a_table_of_the_ledger(database: Database) -> None:
    database.enrol(NORDVEST, timedelta(0), 6 * MINUTE)
    database.ask("call kvitt.run_second_scheduler('12 minutes')")
    tables = database.ask("select tablename from pg_tables where schemaname = 'kvitt'")
    rows = [
        row
        for (table,) in tables
        for row in database.ask(f"select t::text from kvitt.{table} t")  # noqa: S608 - names from the catalogue
    ]
    assert len(rows) > 5
    secrets = [secret for secret in SECRETS.values() if secret in str(rows)]
    assert secrets == []


def test_without_pg_cron_it_says_what_to_enable(database: Database) -> None:
    with pytest.raises(psycopg.Error, match="this database has no pg_cron: enable it") as refused:
        database.ask("select kvitt.install_second_scheduler('12 minutes')")
    assert refused.value.sqlstate == "KV004"


def test_on_a_bare_postgres_the_state_can_be_asked_for(supabase: Supabase) -> None:
    with psycopg.connect(supabase.database_url) as bare:
        [[found]] = bare.execute("select kvitt.second_scheduler()").fetchall()
    assert found["extensions"] == {"pg_cron": False, "pg_net": False, "supabase_vault": False}
    assert found["job"] is None


def test_deployments_are_named_again_and_strangers_passed_over(database: Database) -> None:
    database.enrol(NORDVEST, timedelta(0))
    other = "6a4f3a7e-3c55-4f6e-8a38-0f6d3c5b7a22"
    ids = json.dumps({NORDVEST.id: other, "nobody": other})
    for _ in range(2):
        database.ask("select kvitt.name_deployments(%(ids)s)", ids=ids)
    found = database.ask("select integration_id, deployment::text from kvitt.deployments")
    assert found == [(NORDVEST.id, other)]
