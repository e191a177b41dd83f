"""The flows `health` and `set-mode` on a real Prefect server, and the automation between them."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from sandbox import claims
from sandbox.stack import CommandFailed
from tests.flows.test_watch import api, enrolled, ledger_database, settled, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.flows.conftest import Running

FJORDBY = "business-central/fjordby"


@pytest.fixture(scope="module")
def quiet(running: Running) -> None:
    """Nothing is heard of the connection but what the tests ask for."""
    health = api(running, "GET", "deployments/name/health/kvitt")
    api(running, "POST", f"deployments/{health['id']}/pause_deployment")
    running.run("sync/fjordby-business-central")
    wait_for(lambda: settled(running, "fjordby-business-central"))


@pytest.fixture
def vendor(running: Running, quiet: None) -> Iterator[str]:
    """The sandbox of Business Central, where nothing goes wrong before and after a test."""
    del quiet
    url = running.stack.business_central.url
    faults = f"{url}/_sandbox/faults"
    httpx.delete(faults, trust_env=False).raise_for_status()
    running.stack.run("kvitt", "mode", "active", FJORDBY, "--reason", "the test begins")
    yield url
    httpx.delete(faults, trust_env=False).raise_for_status()
    running.stack.run("kvitt", "mode", "active", FJORDBY, "--reason", "the test is over")


def fault(vendor: str, **what: Any) -> None:
    told = {"on": "companies.list", "times": 99, **what}
    httpx.post(f"{vendor}/_sandbox/faults", json=told, trust_env=False).raise_for_status()


def fjordby(running: Running) -> dict[str, Any]:
    told = json.loads(running.stack.run("kvitt", "health", "--json"))
    [found] = [one for one in told if one["connection"] == "fjordby"]
    return found


def a_quarter_passes(running: Running) -> None:
    with ledger_database(running) as database:
        database.execute(
            "update kvitt.connections set next_probe_at = now(), trial_at ="
            " case when trial_at is not null then now() end"
        )


def look(running: Running) -> None:
    assert "Completed" in running.run("health/kvitt")


def events(running: Running, name: str, *, since: datetime) -> list[dict[str, Any]]:
    """Return the events about the connection, oldest first."""
    asked = {
        "event": {"name": [name]},
        "occurred": {"since": since.isoformat()},
        "resource": {"id": [f"kvitt.connection.{FJORDBY}"]},
        "order": "ASC",
    }
    return api(running, "POST", "events/filter", {"filter": asked})["events"]


def artifact(running: Running) -> dict[str, Any]:
    [found] = api(
        running, "POST", "artifacts/filter", {"artifacts": {"key": {"any_": ["health-kvitt"]}}}
    )
    return found


def test_a_limit_makes_a_connection_passive_and_a_trial_makes_it_active_again(
    running: Running, vendor: str
) -> None:
    running.stack.run("kvitt", "apply")
    time.sleep(3)  # the server reads its automations anew each second or so
    look(running)
    a_quarter_passes(running)
    look(running)
    seen = fjordby(running)
    assert (seen["mode"], seen["state"]) == ("active", "healthy"), seen
    first = artifact(running)
    begun = datetime.now(UTC)

    fault(vendor, fault="rate-limit", retry_after=7200)
    a_quarter_passes(running)
    look(running)
    wait_for(lambda: fjordby(running)["mode"] == "passive")
    seen = fjordby(running)
    assert (seen["state"], seen["mode_by"], seen["cool_downs"]) == ("degraded", "automation", 1)
    assert "HTTP 429" in seen["mode_reason"]
    [limit] = events(running, "kvitt.connection.rate-limited", since=begun)
    text = limit["payload"].pop("text")
    assert "HTTP 429" in text
    assert limit["payload"] == {
        "vendor": "business-central",
        "connection": "fjordby",
        "project": "kvitt",
        "purpose": "probe",
        "retry_after_seconds": 7200,
    }
    with ledger_database(running) as database:
        [(hours,)] = database.execute(
            "select extract(epoch from trial_at - now()) / 3600 from kvitt.connections"
            " where connection = 'fjordby'"
        ).fetchall()
    assert hours > 1.9
    before = asked(vendor)
    look(running)
    assert asked(vendor) == before

    # The cool-down is over, and the limit is not: another one, twice as long.
    a_quarter_passes(running)
    look(running)
    assert asked(vendor) == before + 1
    assert (fjordby(running)["mode"], fjordby(running)["cool_downs"]) == ("passive", 2)

    httpx.delete(f"{vendor}/_sandbox/faults", trust_env=False)
    a_quarter_passes(running)
    look(running)
    seen = fjordby(running)
    assert (seen["mode"], seen["state"]) == ("active", "healthy")

    def modes() -> list[str]:
        told = events(running, "kvitt.connection.mode", since=begun)
        return [event["payload"]["mode"] for event in told]

    wait_for(lambda: len(modes()) == 2, 30)
    assert modes() == ["passive", "active"]
    # One artifact, kept up to date.
    last = artifact(running)
    assert last["id"] == first["id"]
    assert f"| {FJORDBY} | active since" in last["data"]


def test_a_limit_that_an_export_meets_makes_the_connection_passive_and_loses_no_export(
    running: Running, vendor: str, tmp_path: Path
) -> None:
    """Without a mapping nothing of the claim gets into the club's books."""
    since = enrolled(running, tmp_path, "throttled")["first_period"]
    [claim] = claims.approved(claims.CLUB, 1, before=since)
    file = tmp_path / "throttled.jsonl"
    file.write_text(json.dumps({**claim, "integration": "throttled"}))
    running.stack.run("kvitt", "records", "import", str(file))
    running.stack.run("kvitt", "apply")
    begun = datetime.now(UTC)
    fault(vendor, on="*", fault="rate-limit", retry_after=1, times=1)
    running.run("sync/throttled")
    wait_for(lambda: settled(running, "throttled"))
    wait_for(lambda: fjordby(running)["mode"] == "passive")
    seen = fjordby(running)
    assert seen["mode_by"] == "automation"
    assert f"{FJORDBY} (export): " in seen["mode_reason"]
    limits = events(running, "kvitt.connection.rate-limited", since=begun)
    assert {event["payload"]["purpose"] for event in limits} == {"export"}


def asked(vendor: str) -> int:
    told = httpx.get(f"{vendor}/_sandbox/requests", trust_env=False).json()
    return told["operations"].get("companies.list", 0)


def test_a_person_sets_a_mode_with_a_run_of_set_mode(running: Running, vendor: str) -> None:
    del vendor  # what it leaves behind is put right
    running.run(
        "set-mode/kvitt",
        *("--param", 'vendor="business-central"', "--param", 'connection="fjordby"'),
        *("--param", 'by="Inger"', "--param", 'reason="a number that nobody meant"'),
        *("--param", "retry_after_seconds=1e30"),
    )
    assert fjordby(running)["trial_at"] is not None
    printed = running.run(
        "set-mode/kvitt",
        *("--param", 'vendor="business-central"', "--param", 'reason="it is moved"'),
        *("--param", 'by="Inger"', "--param", 'connection="fjordby"'),
    )
    assert "Completed" in printed
    seen = fjordby(running)
    assert (seen["mode"], seen["mode_by"], seen["mode_reason"]) == (
        "passive",
        "Inger",
        "it is moved",
    )
    assert seen["trial_at"] is None
    with pytest.raises(CommandFailed, match="state 'Failed'"):
        running.run(
            "set-mode/kvitt",
            *("--param", 'vendor="business-central"', "--param", 'connection="fjordby"'),
            *("--param", 'by="Inger"', "--param", 'reason="it has moved"'),
            *("--param", 'mode="active"', "--param", "retry_after_seconds=0"),
        )
    run, _ = running.stack.prefect.latest_run("set-mode/kvitt")
    assert "leave it out" in run["state"]["message"]
    with pytest.raises(CommandFailed, match="state 'Failed'"):
        running.run(
            "set-mode/kvitt",
            *("--param", 'vendor="xledger"', "--param", 'connection="nobody"'),
            *("--param", 'by="Inger"', "--param", 'reason="it is moved"'),
        )


def test_an_outage_is_told_when_it_begins_and_when_it_is_over(
    running: Running, vendor: str
) -> None:
    begun = datetime.now(UTC)
    fault(vendor, fault="status", status=503)
    for _ in range(4):
        a_quarter_passes(running)
        look(running)
    seen = fjordby(running)
    assert (seen["state"], seen["failures"]) == ("unhealthy", 4), seen
    httpx.delete(f"{vendor}/_sandbox/faults", trust_env=False)
    a_quarter_passes(running)
    look(running)
    for name in ("kvitt.connection.unhealthy", "kvitt.incident.over"):
        wait_for(lambda name=name: len(events(running, name, since=begun)) == 1, 30)
        assert events(running, name, since=begun)[0]["payload"]["kind"] == "unhealthy"
