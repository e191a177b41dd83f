"""What `watch` does by itself, on a real Prefect server: align, end dead runs, tell, start."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import psycopg
import pytest
import yaml

from kvitt.domain.calendar import due_before
from sandbox.stack import CommandFailed

if TYPE_CHECKING:
    from pathlib import Path

    from tests.flows.conftest import Running

HOUR = timedelta(hours=1)


def api(running: Running, method: str, path: str, body: Any = None) -> Any:
    url = f"{running.stack.prefect.url}/api/{path}"
    answer = httpx.request(method, url, json=body, trust_env=False)
    answer.raise_for_status()
    return answer.json() if answer.content else None


def prefect_database(running: Running) -> psycopg.Connection:
    return psycopg.connect(running.stack.supabase.postgres.url("prefect"), autocommit=True)


def ledger_database(running: Running) -> psycopg.Connection:
    return psycopg.connect(running.stack.supabase.database_url, autocommit=True)


def wait_for(condition: Any, seconds: float = 90) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.5)


def enrolled(running: Running, folder: Path, name: str, **changes: Any) -> dict[str, Any]:
    """Import an integration of the club with one period that was due 10 minutes ago."""
    due = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=10)
    cron, zone = f"{due.minute} * * * *", "Europe/Oslo"
    integration = {
        "id": name,
        "organisation": "Fjordby Idrettslag",
        "vendor": "business-central",
        "connection": "fjordby",
        "cron": cron,
        "time_zone": zone,
        "first_period": due_before(cron, zone, due=due + timedelta(minutes=1)),
        "book_currency": "NOK",
        **changes,
    }
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump([integration]))
    running.stack.run("kvitt", "integrations", "import", str(file))
    return integration


def deployment(running: Running, name: str) -> dict[str, Any]:
    return api(running, "GET", f"deployments/name/sync/{name}")


def settled(running: Running, name: str, periods: int = 1) -> bool:
    return running.stack.run("kvitt", "periods", name).count("verified") >= periods


def watch(running: Running) -> str:
    return running.run("watch/kvitt")


def test_a_deploy_loses_no_late_run(running: Running, tmp_path: Path) -> None:
    """prefect #17764: a deploy deleted late runs."""
    running.worker.stop()
    try:
        on = enrolled(running, tmp_path, "late-run")
        running.stack.run("kvitt", "apply")
        where = f"deployments/{deployment(running, 'late-run')['id']}/create_flow_run"
        late = api(running, "POST", where, {"state": {"type": "SCHEDULED"}})
        with prefect_database(running) as database:
            database.execute(
                "update flow_run set auto_scheduled = true, expected_start_time = now()"
                " - interval '10 minutes' where id = %s",
                [late["id"]],
            )
        enrolled(running, tmp_path, "late-run", **{**on, "organisation": "Fjordby IL"})
        running.stack.run("kvitt", "apply")
        assert api(running, "GET", f"flow_runs/{late['id']}")["state_type"] == "SCHEDULED"
        # What a deploy keeps, a pause deletes: by a person, or by another version of Prefect.
        api(running, "POST", f"deployments/{late['deployment_id']}/pause_deployment")
        with pytest.raises(httpx.HTTPStatusError, match="404"):
            api(running, "GET", f"flow_runs/{late['id']}")
    finally:
        running.worker.start()
    watch(running)
    wait_for(lambda: settled(running, "late-run"))


def test_what_is_switched_off_is_paused_and_on_again_by_watch(
    running: Running, tmp_path: Path
) -> None:
    off = enrolled(running, tmp_path, "switched", enabled=False)
    watch(running)
    assert deployment(running, "switched")["paused"]
    enrolled(running, tmp_path, "switched", cron="7 5 * * *", first_period=off["first_period"])
    told = running.stack.run("kvitt", "plan")
    [line] = [line for line in told.splitlines() if "sync/switched" in line]
    assert "enabled: False → True" in line
    assert f"schedule: `{off['cron']}` Europe/Oslo, due " in line
    assert "→ `7 5 * * *` Europe/Oslo, due " in line
    watch(running)
    [schedule] = deployment(running, "switched")["schedules"]
    assert schedule["schedule"]["cron"] == "7 5 * * *"
    assert not deployment(running, "switched")["paused"]
    before = deployment(running, "switched")["updated"]
    watch(running)
    assert deployment(running, "switched")["updated"] == before


def test_what_prefect_cannot_read_has_its_runs_planned_once_by_watch(
    running: Running, tmp_path: Path
) -> None:
    readable = enrolled(running, tmp_path, "last-workday")
    running.stack.run("kvitt", "apply")
    soon = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(minutes=20)
    cron = f"{soon.minute} * 1-31,LW * *"
    enrolled(running, tmp_path, "last-workday", cron=cron, first_period=readable["first_period"])
    told = f"no schedule, since Prefect cannot read `{cron}`: watch starts its periods"
    assert told in running.stack.run("kvitt", "plan")
    watch(running)
    assert deployment(running, "last-workday")["schedules"] == []
    assert told in deployment(running, "last-workday")["description"]
    for _ in range(2):
        watch(running)
    ahead = [run for run in runs_of(running, "last-workday") if moment_of(run) == soon]
    assert [(run["state_type"], run["parameters"]["trigger"]) for run in ahead] == [
        ("SCHEDULED", "watch")
    ]


def runs_of(running: Running, name: str) -> list[dict[str, Any]]:
    only = {"deployments": {"id": {"any_": [deployment(running, name)["id"]]}}}
    return api(running, "POST", "flow_runs/filter", only)


def moment_of(run: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(run["expected_start_time"])


def test_one_that_prefect_refuses_keeps_no_other_from_its_deployment(
    running: Running, tmp_path: Path
) -> None:
    for name in ("a-refused", "b-later"):
        enrolled(running, tmp_path, name, enabled=False)
    with prefect_database(running) as database:
        database.execute(
            "create function refuse() returns trigger language plpgsql as"
            " $$ begin raise check_violation; end $$;"
            " create trigger refused before insert on deployment for each row"
            " when (new.name = 'a-refused') execute function refuse()"
        )
        try:
            with pytest.raises(CommandFailed, match="sync/a-refused: ") as failed:
                running.stack.run("kvitt", "apply")
            with pytest.raises(CommandFailed):
                watch(running)
        finally:
            database.execute("drop trigger refused on deployment; drop function refuse()")
    assert "Traceback" not in str(failed.value)
    assert deployment(running, "b-later")["paused"]
    [told] = [line for line in incidents(running) if "unaligned" in line]
    assert "a-refused" in told
    watch(running)
    assert deployment(running, "a-refused")["paused"]
    assert [line for line in incidents(running) if "unaligned" in line] == []


def incidents(running: Running) -> list[str]:
    return running.stack.run("kvitt", "incidents").splitlines()


def test_a_run_whose_process_is_gone_does_not_show_running_for_ever(
    running: Running, tmp_path: Path
) -> None:
    """prefect #16746: a dead worker leaves a run Running for ever, and its slot taken."""
    enrolled(running, tmp_path, "dead-run", enabled=False)
    running.stack.run("kvitt", "apply")
    where = f"deployments/{deployment(running, 'dead-run')['id']}/create_flow_run"
    dead, live, strange = (
        api(running, "POST", where, {"state": {"type": "RUNNING"}, "parameters": parameters})
        for parameters in ({}, {}, {"project": "another"})
    )
    with prefect_database(running) as database:
        database.execute(
            "update flow_run set start_time = now() - interval '20 minutes' where id = any(%s)",
            [[dead["id"], live["id"], strange["id"]]],
        )
    with ledger_database(running) as database:
        database.execute(
            "insert into kvitt.attempts (id, integration_id, due_at, fence, trigger, flow_run)"
            " select %s, integration_id, due_at, 1, 'person', %s from kvitt.periods"
            " where integration_id = 'dead-run' order by due_at limit 1",
            [uuid4(), live["id"]],
        )
    watch(running)
    states = [
        api(running, "GET", f"flow_runs/{run['id']}")["state"] for run in (dead, live, strange)
    ]
    assert [state["type"] for state in states] == ["CRASHED", "RUNNING", "RUNNING"]
    assert "its process is gone" in states[0]["message"]


def test_past_periods_are_filled_in_by_a_parameter(running: Running, tmp_path: Path) -> None:
    integration = enrolled(running, tmp_path, "history")
    running.stack.run("kvitt", "apply")
    since = integration["first_period"] - 3 * HOUR
    printed = running.run("sync/history", "--param", f'back_to="{since.isoformat()}"')
    assert "Settled" in printed
    assert settled(running, "history", periods=4)
    told = running.stack.run("kvitt", "backfill", "history", "--from", since.isoformat(), "--wait")
    assert "0 periods were written into the past\n4 of 4 periods settled, 0 vouchers" in told


def test_watch_gives_a_sign_of_life(running: Running) -> None:
    watch(running)
    assert "watch" in running.stack.run("kvitt", "watchers")
