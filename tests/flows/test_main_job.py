"""The main job through Prefect, on real parts: once, again, on another worker, and looked after."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
import pytest
import yaml

from kvitt.domain.calendar import due_before
from sandbox.claims import CLUB, THEATRE
from sandbox.stack import EXAMPLES, POOL, CommandFailed
from sandbox.vendors import setup

if TYPE_CHECKING:
    from pathlib import Path

    from tests.flows.conftest import Running

BOTH = [THEATRE.integration, CLUB.integration]
TASKS = ["warm-up", "sync", "export", "verify"]


@pytest.fixture(scope="module")
def settled(running: Running) -> Running:
    """One period of each integration has been run, and Xledger's own job has posted it."""
    commands = [("prefect", "deployment", "run", f"sync/{name}", "--watch") for name in BOTH]
    running.stack.run_each(*commands)
    # `watch` comes along each five minutes; where it came first, ours said Busy.
    wait_for(lambda: running.stack.run("kvitt", "periods").count("verified") == len(BOTH))
    running.stack.run_vendor_jobs()
    return running


def ask(running: Running, what: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    answer = httpx.post(
        f"{running.stack.prefect.url}/api/{what}/filter", json=body, trust_env=False
    )
    return answer.raise_for_status().json()


def receipt(running: Running, integration: str) -> dict[str, Any]:
    return json.loads(running.stack.run("kvitt", "receipt", integration, "--json"))


def requests_to(url: str) -> dict[str, int]:
    answer = httpx.get(f"{url}/_sandbox/requests", trust_env=False)
    return answer.raise_for_status().json()["counts"]


@pytest.mark.parametrize("integration", BOTH)
def test_the_books_hold_what_was_approved_line_by_line(settled: Running, integration: str) -> None:
    found = settled.loaded[integration].audit()
    assert found.lines > 100
    assert (found.lost, found.foreign, found.unbalanced) == ([], [], [])


@pytest.mark.parametrize("integration", BOTH)
def test_the_receipt_says_taken_sent_and_read_back_alike(
    settled: Running, integration: str
) -> None:
    shown = receipt(settled, integration)
    records = settled.loaded[integration].file.read_text().splitlines()
    lines = sum(len(json.loads(record)["lines"]) for record in records)
    for part in ("taken", "sent", "read_back"):
        assert (shown[part]["vouchers"], shown[part]["lines"]) == (len(records), lines)
    assert shown["taken"]["booked"] == shown["sent"]["booked"]


@pytest.mark.parametrize("integration", BOTH)
def test_a_run_has_four_tasks_and_says_integration_and_period(
    settled: Running, integration: str
) -> None:
    run, tasks = settled.stack.prefect.latest_run(f"sync/{integration}")
    assert run["name"] == receipt(settled, integration)["key"]
    assert list(tasks) == TASKS


@pytest.mark.parametrize("integration", BOTH)
def test_the_receipt_is_an_artifact_of_its_run(settled: Running, integration: str) -> None:
    shown = ask(settled, "artifacts", {"artifacts": {"key": {"any_": [f"receipt-{integration}"]}}})
    assert receipt(settled, integration)["key"] in shown[0]["data"]


def test_a_second_run_on_another_worker_is_cached_and_asks_the_vendor_nothing(
    settled: Running,
) -> None:
    settled.worker.stop()
    other = settled.stack.prefect.start_worker(POOL, name="another-worker")
    before = requests_to(settled.stack.xledger.url)
    printed = settled.run(f"sync/{THEATRE.integration}")
    other.stop()
    settled.worker.start()

    assert "Already settled" in printed
    _, tasks = settled.stack.prefect.latest_run(f"sync/{THEATRE.integration}")
    assert tasks == dict.fromkeys(TASKS, "Cached")
    assert requests_to(settled.stack.xledger.url) == before


def test_with_its_cache_gone_a_second_run_asks_the_ledger_and_sends_nothing(
    settled: Running,
) -> None:
    with psycopg.connect(settled.stack.supabase.database_url) as database:
        database.execute("delete from kvitt.task_results where key like %s", ["%fjordby%"])
    before = requests_to(settled.stack.business_central.url)
    assert "Already settled" in settled.run(f"sync/{CLUB.integration}")
    assert requests_to(settled.stack.business_central.url) == before


def test_a_period_may_be_named(settled: Running) -> None:
    due_at = receipt(settled, THEATRE.integration)["due_at"]
    printed = settled.run(f"sync/{THEATRE.integration}", "--param", f'period="{due_at}"')
    assert "Already settled" in printed


def test_a_period_that_is_not_in_the_calendar_is_refused_in_words(settled: Running) -> None:
    with pytest.raises(CommandFailed) as failed:
        settled.run(f"sync/{THEATRE.integration}", "--param", 'period="2026-01-01T00:01:00Z"')
    run, _ = settled.stack.prefect.latest_run(f"sync/{THEATRE.integration}")
    assert "Failed" in str(failed.value)
    assert "has no period that is due at" in run["state"]["message"]


def test_each_integration_has_a_deployment_with_its_cron_and_zone(settled: Running) -> None:
    by_name = {d["name"]: d for d in ask(settled, "deployments", {})}
    integrations = yaml.safe_load((EXAMPLES / "integrations.yaml").read_text())["integrations"]
    for integration in integrations:
        (schedule,) = by_name[integration["id"]]["schedules"]
        assert schedule["schedule"]["cron"] == integration["cron"]
        assert schedule["schedule"]["timezone"] == integration["time_zone"]
        assert schedule["active"]


def test_applying_again_changes_nothing_and_keeps_the_coming_runs(settled: Running) -> None:
    coming = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}, "limit": 100}
    wait_for(lambda: len(ask(settled, "flow_runs", coming)) > 0)
    flows = {"flows": {"name": {"any_": ["sync"]}}, **coming}
    before = {run["id"] for run in ask(settled, "flow_runs", flows)}
    printed = settled.stack.run("kvitt", "apply")
    settled.stack.run("prefect", "--no-prompt", "deploy", "--all")
    assert [line[0] for line in printed.splitlines()] == ["=", "="]
    assert before <= {run["id"] for run in ask(settled, "flow_runs", flows)}


def test_no_secret_is_in_prefects_database(settled: Running) -> None:
    """Runs, logs, events, artifacts, parameters, results: the whole dump, as text."""
    secrets = [
        settled.stack.supabase.secret_key,
        setup.THEATRE_TOKEN,
        setup.CLIENT_SECRET,
    ]
    for database in ("prefect", "postgres"):
        dump = everything_in(settled.stack.supabase.postgres.url(database))
        assert len(dump) > 10_000
        assert [secret for secret in secrets if secret in dump] == []


def test_no_secret_is_in_a_log(settled: Running) -> None:
    for log in settled.stack.home.path.glob("*.log"):
        text = log.read_text(errors="replace")
        assert setup.THEATRE_TOKEN not in text, log
        assert setup.CLIENT_SECRET not in text, log
        assert settled.stack.supabase.secret_key not in text, log


def test_the_server_and_the_worker_logged_no_exception(settled: Running) -> None:
    """Prefect's services log what kills them and go on: a scheduler that schedules nothing."""
    for name in ("prefect-server", "worker"):
        log = (settled.stack.home.path / f"{name}.log").read_text(errors="replace")
        assert "Traceback" not in log, log[log.index("Traceback") :]


def test_watch_makes_the_deployment_and_starts_what_is_overdue(
    settled: Running, tmp_path: Path
) -> None:
    third = third_integration()
    file = tmp_path / "third.yaml"
    file.write_text(yaml.safe_dump([third]))
    settled.stack.run("kvitt", "integrations", "import", str(file))

    assert f"+ sync/{third['id']} it is new" in settled.stack.run("kvitt", "plan")
    settled.run("watch/kvitt")
    assert f"= sync/{third['id']}" in settled.stack.run("kvitt", "plan")
    wait_for(lambda: "verified" in settled.stack.run("kvitt", "periods", third["id"]))
    shown = receipt(settled, third["id"])
    assert shown["taken"]["vouchers"] == 0
    assert shown["attempts"][0]["trigger"] == "watch"


def test_a_run_that_meets_a_vendor_that_is_away_ends_waiting_and_goes_on_later(
    settled: Running, tmp_path: Path
) -> None:
    refunds = {**third_integration(), "id": "fjordby-refunds"}
    claim = json.loads(settled.loaded[CLUB.integration].file.read_text().splitlines()[0])
    approved_at = (datetime.now(UTC) - timedelta(minutes=30)).isoformat()
    claim |= {"integration": refunds["id"], "approved_at": approved_at}
    (tmp_path / "integrations.yaml").write_text(yaml.safe_dump([refunds]))
    (tmp_path / "records.jsonl").write_text(json.dumps(claim))
    # Away before `watch` could start a run of its own.
    faults = f"{settled.stack.business_central.url}/_sandbox/faults"
    away = {"on": "*", "fault": "status", "status": 503, "times": 999}
    httpx.post(faults, json=away, trust_env=False).raise_for_status()
    settled.stack.run("kvitt", "integrations", "import", str(tmp_path / "integrations.yaml"))
    settled.stack.run("kvitt", "records", "import", str(tmp_path / "records.jsonl"))
    settled.stack.run("kvitt", "apply")

    settled.run(f"sync/{refunds['id']}")
    run, _ = settled.stack.prefect.latest_run(f"sync/{refunds['id']}")
    httpx.delete(faults, trust_env=False).raise_for_status()
    assert (run["state"]["type"], run["state"]["name"]) == ("COMPLETED", "Waiting")
    assert "UTC, then goes on by itself: Business Central could not be" in run["state"]["message"]

    settled.run(f"sync/{refunds['id']}", "--param", 'trigger="schedule"')
    run, _ = settled.stack.prefect.latest_run(f"sync/{refunds['id']}")
    assert run["state"]["name"] == "Waiting"
    settled.run(f"sync/{refunds['id']}")
    shown = receipt(settled, refunds["id"])
    *before, last = [attempt["outcome"] for attempt in shown["attempts"]]
    assert (set(before), last) == ({"postponed"}, "settled")
    assert refunds["connection"] in settled.stack.run("kvitt", "budget")


def third_integration() -> dict[str, Any]:
    """Another integration of the club, with one period that has been due and no records."""
    due = datetime.now(UTC) - timedelta(minutes=10)  # the next one is far off while this runs
    cron, zone = f"{due.minute} * * * *", "Europe/Oslo"
    return {
        "id": "fjordby-payouts",
        "organisation": "Fjordby Idrettslag",
        "vendor": "business-central",
        "connection": "fjordby",
        "cron": cron,
        "time_zone": zone,
        "first_period": due_before(cron, zone, due=due),
        "book_currency": "NOK",
    }


def everything_in(url: str) -> str:
    """Return each row of each table as text."""
    with psycopg.connect(url) as database:
        tables = database.execute(
            "select format('%I.%I', schemaname, tablename) from pg_tables"
            " where schemaname not in ('pg_catalog', 'information_schema')"
        ).fetchall()
        rows = [
            database.execute(f"select t::text from {table} t").fetchall()  # type: ignore[arg-type]  # noqa: S608 - names from the catalogue
            for (table,) in tables
        ]
    return "\n".join(row for table in rows for (row,) in table)


def wait_for(condition: Any, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.5)
