"""The second scheduler by a real pg_cron and a real Prefect: a few periods, then no Prefect.

It takes some minutes, since pg_cron starts jobs on whole minutes only. `make scheduler` does the
same for longer, and prints what it measured.
"""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import httpx
import psycopg
import pytest

from sandbox.processes import Home
from sandbox.stack import CommandFailed
from tests.scheduler.scene import ALONE, BOTH, scene, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.scheduler.scene import Scene

PERIODS = 2
pytestmark = pytest.mark.timeout(900)  # whole minutes, on machines that do other things as well


@pytest.fixture(scope="module")
def running() -> Iterator[Scene]:
    with (
        Home.open(f"pg-cron-{os.getpid()}") as home,
        scene(home, both="* * * * *", say=print) as it,
    ):
        yield it


@pytest.fixture(scope="module")
def due(running: Scene) -> list[datetime]:
    """Some periods have come due, and all of them are settled."""
    due = running.run_periods(PERIODS, print)
    wait_for(lambda: running.open_periods(due[-1]) == 0, 300, what="settling")
    return due


def runs_of(running: Scene, integration: str) -> list[dict[str, object]]:
    answer = httpx.post(
        f"{running.stack.prefect.url}/api/flow_runs/filter",
        json={"deployments": {"name": {"any_": [integration]}}},
        timeout=60,
        trust_env=False,
    )
    return answer.raise_for_status().json()


def test_the_prewarm_leaves_half_a_minute_before_and_boots_the_function(
    running: Scene, due: list[datetime]
) -> None:
    for one in due:
        measured = running.measure(one)
        assert abs(measured.prewarm + 30) <= 1, measured
    assert running.measure(due[0]).booted


def test_the_sync_finds_the_function_warm(running: Scene, due: list[datetime]) -> None:
    assert [running.measure(one).cold_starts for one in due] == [0] * PERIODS


def test_pg_cron_alone_starts_what_is_due(running: Scene, due: list[datetime]) -> None:
    for one in due:
        measured = running.measure(one)
        assert measured.state == "verified"
        assert measured.attempts in (["pg_cron"], ["catch-up"]), measured
        assert 0 <= measured.trigger < 2, measured
    assert not any(run["auto_scheduled"] for run in runs_of(running, ALONE.integration))


def test_both_schedulers_at_once_export_once(running: Scene, due: list[datetime]) -> None:
    runs = runs_of(running, BOTH.integration)
    assert any(run["auto_scheduled"] for run in runs)
    assert any("pg_cron/" in str(run["idempotency_key"]) for run in runs)
    [[periods, attempts]] = running.ask(
        "select count(distinct due_at), count(*) from kvitt.attempts"
        " where integration_id = %(id)s and due_at = any (%(due)s)",
        id=BOTH.integration,
        due=due,
    )
    assert (periods, attempts) == (PERIODS, PERIODS)
    running.stack.run_vendor_jobs()
    for loaded in running.loaded.values():
        found = loaded.audit()
        assert found.lines > 100
        assert found.clean, found.summary


def test_no_transaction_of_the_job_lasts(running: Scene, due: list[datetime]) -> None:
    """It waits up to half a minute; whoever vacuums must not wait with it."""
    before = due[-1]
    ages: list[float] = []

    def looked_for_half_a_minute() -> bool:
        ages.extend(
            age
            for (age,) in running.ask(
                "select extract(epoch from clock_timestamp() - xact_start)::float8"
                " from pg_stat_activity where query ~ '^call kvitt' and state = 'active'"
            )
        )
        return datetime.now(UTC) - before > timedelta(minutes=1) and len(ages) > 20

    wait_for(looked_for_half_a_minute, 200, what="a waiting job")
    assert max(ages) < 3, ages


def test_status_says_that_all_is_there(running: Scene) -> None:
    shown = running.stack.run("kvitt", "scheduler", "status")
    assert "+ job * * * * * call kvitt.run_second_scheduler('00:12:00'), as postgres" in shown
    assert f"+ {ALONE.integration}: pg_cron" in shown
    assert re.search(r"last at work: .* \(\d+ s ago\)", shown)
    assert running.webhook.url not in shown


def test_installing_twice_is_once_and_uninstalling_too(running: Scene) -> None:
    jobs = "select count(*) from cron.job"
    running.stack.run("kvitt", "scheduler", "install", "--silence", "12")
    assert running.ask(jobs) == [(1,)]
    for _ in range(2):
        shown = running.stack.run("kvitt", "scheduler", "uninstall")
        assert f"{ALONE.integration}: only watch starts them now" in shown
        assert running.ask(jobs) == [(0,)]
    with pytest.raises(CommandFailed, match="the job is not there: kvitt scheduler install"):
        running.stack.run("kvitt", "scheduler", "status")
    shown = running.stack.run("kvitt", "scheduler", "install")
    assert "but" not in shown
    assert running.ask(jobs) == [(1,)]


def test_a_secret_that_is_missing_is_named(running: Scene) -> None:
    rename = "update vault.secrets set name = %(new)s where name = %(old)s"
    running.ask(rename, old="kvitt_webhook_url", new="elsewhere")
    with pytest.raises(CommandFailed, match="Vault has no secret kvitt_webhook_url"):
        running.stack.run("kvitt", "scheduler", "status")
    running.ask(rename, old="elsewhere", new="kvitt_webhook_url")


def test_no_secret_is_in_the_job_its_history_or_a_log(running: Scene) -> None:
    with psycopg.connect(running.stack.supabase.database_url) as database:
        rows = database.execute(
            "select j::text from cron.job j union all select d::text from cron.job_run_details d"
        ).fetchall()
    logs = [log.read_text(errors="replace") for log in running.stack.home.path.glob("*.log")]
    secrets = [secret for (secret,) in running.ask("select secret from vault.secrets")]
    hidden = [secret for secret in secrets if "functions/v1" not in secret and "/api" not in secret]
    assert len(rows) > PERIODS
    assert len(hidden) == 2
    assert [secret for secret in hidden for text in (*logs, str(rows)) if secret in text] == []


def test_with_prefect_stopped_the_database_raises_the_alarm_once_and_tells_its_end(
    running: Scene,
) -> None:
    running.stop_prefect(silent_for=timedelta(minutes=12))
    texts = running.webhook.texts
    wait_for(lambda: any("Prefect is silent" in text for text in texts), 130, what="the alarm")
    looked = running.ask("select max(beat_at) from kvitt.heartbeats where who = 'pg_cron'")
    wait_for(  # another minute, in which it must not be told again
        lambda: (
            running.ask("select max(beat_at) from kvitt.heartbeats where who = 'pg_cron'") > looked
        ),
        130,
        what="another look",
    )
    running.start_prefect()
    wait_for(lambda: any("Prefect is back" in text for text in texts), 130, what="its end")
    told = [text for text in texts if "silent" in text or "back" in text]
    assert len(told) == 2
    assert "see whether the Prefect server answers" in told[0]


def test_what_came_due_without_prefect_is_caught_up(running: Scene) -> None:
    now = datetime.now(UTC)
    wait_for(lambda: running.open_periods(now) == 0, 300, what="catching up")


def test_the_webhook_that_was_told_is_in_no_log(running: Scene) -> None:
    told = json.dumps(running.ask("select words from kvitt.alarms"))
    assert running.webhook.url not in told
