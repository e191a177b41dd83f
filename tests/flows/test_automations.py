"""Each automation, fired on a real Prefect server: an event in, a message or a run out."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from deployments.automations import AUTOMATIONS, CRASHED, NOTIFICATIONS
from sandbox import claims
from sandbox.processes import CHECKOUT, inherited_environment
from sandbox.stack import CommandFailed
from tests.flows.people import People, listening
from tests.flows.test_watch import (
    api,
    deployment,
    enrolled,
    ledger_database,
    prefect_database,
    runs_of,
    settled,
    wait_for,
    watch,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.flows.conftest import Running

SAVE = """
import json, sys
from prefect.blocks.notifications import (
    CustomWebhookNotificationBlock, MattermostWebhook, SlackWebhook
)
told = json.load(sys.stdin)
CustomWebhookNotificationBlock(
    name="people", url=f"http://127.0.0.1:{told['web']}/people",
    json_data={"subject": "{{subject}}", "body": "{{body}}"},
).save("people", overwrite=True)
MattermostWebhook(hostname="127.0.0.1", port=told["web"], token="a" * 26).save("people")
SlackWebhook(
    url=f"mailto://127.0.0.1:{told['mail']}?from=kvitt@example.org&to=finance@example.org"
        "&format=text"
).save("mail")
"""


def said(running: Running, *command: str) -> str:
    """Return what a command printed, on both streams."""
    done = subprocess.run(
        [Path(sys.executable).parent / command[0], *command[1:]],
        cwd=CHECKOUT,
        env={**inherited_environment(), **running.stack.env},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout + done.stderr


def raise_event(running: Running, event: str, text: str, **payload: Any) -> None:
    told = {
        "id": str(uuid4()),
        "event": event,
        "occurred": datetime.now(UTC).isoformat(),
        "resource": {
            "prefect.resource.id": "kvitt.integration.fjordby",
            "prefect.resource.name": "fjordby",
        },
        "payload": {"text": text, **payload},
    }
    api(running, "POST", "events", [told])


def until_heard(running: Running, heard: Callable[[str], bool]) -> str:
    """Raise an event anew until it is heard: the server reads changed automations after a while."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        text = f"is anybody there? {uuid4()}"
        raise_event(running, "kvitt.incident.over", text, link="https://prefect/run")
        soon = time.monotonic() + 2
        while time.monotonic() < soon:
            if heard(text):
                return text
            time.sleep(0.1)
    raise AssertionError("nobody was told")


def test_nobody_is_told_until_a_block_is_named(running: Running) -> None:
    assert "nobody is told" in said(running, "kvitt", "apply")
    with pytest.raises(CommandFailed, match="there is no block custom-webhook/nobody"):
        running.stack.run("kvitt", "apply", "--notify", "custom-webhook/nobody")


def test_a_block_that_is_gone_keeps_no_other_automation_away(running: Running) -> None:
    again = "kvitt: run again after a crash"
    api(running, "DELETE", f"automations/{automations(running)[again]['id']}")
    gone = {"name": "kvitt_notify", "value": "custom-webhook/gone"}
    api(running, "POST", "variables/", gone)
    with pytest.raises(CommandFailed, match="there is no block custom-webhook/gone"):
        running.stack.run("kvitt", "apply")
    assert again in automations(running)
    api(running, "DELETE", "variables/name/kvitt_notify")


@pytest.fixture(scope="module")
def people(running: Running) -> Iterator[People]:
    with listening() as people:
        ports = {"web": people.web_port, "mail": people.mail_port}
        running.stack.run_python("-c", SAVE, given=ports)
        yield people
        # Nobody listens any more.
        api(running, "DELETE", "variables/name/kvitt_notify")
        for name, automation in automations(running).items():
            if name.startswith("kvitt: tell of "):
                api(running, "DELETE", f"automations/{automation['id']}")


@pytest.fixture(scope="module")
def told(running: Running, people: People) -> People:
    """People who are told by a webhook of their own."""
    running.stack.run("kvitt", "apply", "--notify", "custom-webhook/people")
    until_heard(running, lambda text: any(text in body for _, body in people.told))
    return people


@pytest.mark.parametrize("event", NOTIFICATIONS)
def test_people_are_told_what_happened_to_whom_with_a_link(
    running: Running, told: People, event: str
) -> None:
    link, text = f"https://prefect.example.org/runs/flow-run/{uuid4()}", f"what happened: {event}"
    raise_event(running, event, text, link=link)
    wait_for(lambda: any(link in body for _, body in told.told), 30)
    [message] = [(subject, body) for subject, body in told.told if link in body]
    assert message == (f"{NOTIFICATIONS[event]}: fjordby", f"{text}\n\n{link}")


def test_events_of_one_kind_in_a_row_are_all_told(running: Running, told: People) -> None:
    """A threshold would pass over the second one until its window is over."""
    texts = [f"one after the other {uuid4()}" for _ in range(4)]
    for text in texts:
        raise_event(running, "kvitt.period.failed", text)
    wait_for(lambda: {body for _, body in told.told} >= set(texts), 30)


# -- from the ledger to a person -------------------------------------------------------------------


def test_what_is_late_is_told_once_and_its_end_with_the_page_of_its_deployment(
    running: Running, told: People, tmp_path: Path
) -> None:
    enrolled(running, tmp_path, "unwatched")
    with ledger_database(running) as database:
        database.execute(
            "update kvitt.integrations set expected_since = '-infinity' where id = 'unwatched'"
        )
    watch(running)
    watch(running)
    wait_for(lambda: any("unwatched@" in body for _, body in told.told), 30)
    wait_for(lambda: settled(running, "unwatched"))
    watch(running)
    wait_for(lambda: any("over: late of unwatched" in body for _, body in told.told), 30)
    [(subject, body)] = [it for it in told.told if "unwatched@" in it[1]]
    assert subject == "kvitt: late: unwatched"
    assert "prefect worker start" in body
    where = deployment(running, "unwatched")["id"]
    assert body.endswith(f"\n\n{running.stack.prefect.url}/deployments/deployment/{where}")


def test_what_failed_is_told_with_the_page_of_its_run(
    running: Running, told: People, tmp_path: Path
) -> None:
    enrolled(running, tmp_path, "broken-books", enabled=False)
    running.stack.run("kvitt", "apply")
    where = f"deployments/{deployment(running, 'broken-books')['id']}/create_flow_run"
    run = api(running, "POST", where, {"state": {"type": "FAILED"}})["id"]
    with ledger_database(running) as database:
        database.execute("update kvitt.integrations set enabled = true where id = 'broken-books'")
        database.execute(
            "insert into kvitt.attempts (id, integration_id, due_at, fence, trigger, flow_run)"
            " select gen_random_uuid(), integration_id, due_at, 1, 'person', %s from kvitt.periods"
            " where integration_id = 'broken-books' order by due_at limit 1",
            [run],
        )
        database.execute(
            "with one as (select due_at from kvitt.periods where integration_id = 'broken-books'"
            " order by due_at limit 1) update kvitt.periods set state = %s, fence = 1,"
            " reason = 'account 7140 is closed' where integration_id = 'broken-books'"
            " and due_at = (select due_at from one)",
            ["collecting"],
        )
        database.execute(
            "update kvitt.periods set state = 'failed' where integration_id = 'broken-books'"
            " and state = 'collecting'"
        )
    watch(running)
    wait_for(lambda: any("account 7140 is closed" in body for _, body in told.told), 30)
    [(subject, body)] = [it for it in told.told if "account 7140 is closed" in it[1]]
    assert subject == "kvitt: failed, a person is needed: broken-books"
    assert "kvitt mend broken-books" in body
    assert body.endswith(f"\n\n{running.stack.prefect.url}/runs/flow-run/{run}")


def test_a_budget_that_is_nearly_spent_is_told_with_the_page_of_the_run(
    running: Running, told: People, tmp_path: Path
) -> None:
    """Nearly: one in a million requests, after which the connection is not probed any more.

    Without a mapping nothing of the claim gets into the club's books.
    """
    limits = {"budget": {"requests": 1_000_000, "warn_from": 0.000001}}
    since = enrolled(running, tmp_path, "thrifty", limits=limits)["first_period"]
    [claim] = claims.approved(claims.CLUB, 1, before=since)
    file = tmp_path / "thrifty.jsonl"
    file.write_text(json.dumps({**claim, "integration": "thrifty"}))
    running.stack.run("kvitt", "records", "import", str(file))
    running.stack.run("kvitt", "apply")
    running.run("sync/thrifty")
    wait_for(lambda: any("1,000,000 requests" in body for _, body in told.told), 30)
    [(subject, body)] = [it for it in told.told if "1,000,000 requests" in it[1]]
    assert subject == "kvitt: the requests of this month are nearly spent: business-central/fjordby"
    run = body.rpartition("/runs/flow-run/")[2]
    assert api(running, "GET", f"flow_runs/{run}")["name"].startswith("thrifty@")
    with ledger_database(running) as database:  # others have the connection probed
        database.execute("update kvitt.integrations set enabled = false where id = 'thrifty'")


def test_cold_starts_that_pile_up_are_told(running: Running, told: People) -> None:
    with ledger_database(running) as database:
        database.execute(
            "insert into kvitt.cold_starts (id, integration_id, due_at, function, kind, reply_ms)"
            " select gen_random_uuid(), integration_id, due_at, 'collect-too', 'boot_error', 50"
            " from kvitt.periods, generate_series(1, 5)"
            " where (integration_id, due_at) = (select integration_id, min(due_at)"
            "   from kvitt.periods group by integration_id order by integration_id limit 1)"
        )
    watch(running)
    wait_for(lambda: any("collect-too" in body for _, body in told.told), 30)
    [(subject, body)] = [it for it in told.told if "collect-too" in it[1]]
    assert subject == "kvitt: an Edge Function starts badly: collect-too"
    assert "within an hour 5 x boot_error" in body


# -- to whom ---------------------------------------------------------------------------------------


def test_a_chat_server_that_takes_what_slack_takes_is_told(
    running: Running, people: People
) -> None:
    running.stack.run("kvitt", "apply", "--notify", "mattermost-webhook/people")

    def heard(text: str) -> bool:
        return any(text in it["text"] for path, it in people.posted if path.startswith("/hooks/"))

    text = until_heard(running, heard)
    [message] = [it["text"] for _, it in people.posted if text in it.get("text", "")]
    assert "kvitt: over: fjordby" in message
    assert "https://prefect/run" in message


def test_a_mailbox_is_told(running: Running, people: People) -> None:
    running.stack.run("kvitt", "apply", "--notify", "slack-webhook/mail")
    text = until_heard(running, lambda text: any(text in body for _, body in people.mail))
    [(subject, body)] = [it for it in people.mail if text in it[1]]
    assert subject == "kvitt: over: fjordby"
    assert "https://prefect/run" in body


# -- what runs again -------------------------------------------------------------------------------


def a_run_of(running: Running, folder: Path, name: str) -> str:
    """Return the id of a run that Prefect shows as running; its period is due."""
    enrolled(running, folder, name)
    running.stack.run("kvitt", "apply")
    where = f"deployments/{deployment(running, name)['id']}/create_flow_run"
    return api(running, "POST", where, {"state": {"type": "RUNNING"}})["id"]


def followed_by_a_run(running: Running, name: str) -> None:
    """Wait until the automation has asked for a run, and the run has brought all up to date."""

    def runs() -> list[dict[str, Any]]:
        asked = {"trigger": "automation"}
        return [r for r in runs_of(running, name) if asked.items() <= r["parameters"].items()]

    wait_for(lambda: len(runs()) == 1, 30)
    [run] = runs()
    assert run["created_by"]["type"] == "AUTOMATION"
    expected = datetime.fromisoformat(run["expected_start_time"])
    assert 60 < (expected - datetime.now(UTC)).total_seconds() <= 135  # when the lease is over
    now = {"type": "SCHEDULED", "state_details": {"scheduled_time": datetime.now(UTC).isoformat()}}
    api(running, "POST", f"flow_runs/{run['id']}/set_state", {"state": now, "force": True})
    wait_for(lambda: runs()[0]["state_type"] == "COMPLETED")
    assert settled(running, name)


def a_crashed_run_is_followed_by_another(running: Running, folder: Path) -> None:
    run = a_run_of(running, folder, "crashed")
    state = {"type": "CRASHED", "message": "its process was killed"}
    api(running, "POST", f"flow_runs/{run}/set_state", {"state": state, "force": True})
    followed_by_a_run(running, "crashed")


def test_a_silent_run_is_marked_as_crashed_and_followed_by_another(
    running: Running, tmp_path: Path
) -> None:
    """Neither Prefect nor its worker says anything of it: `watch` finds that nobody works on it."""
    run = a_run_of(running, tmp_path, "silent")
    with prefect_database(running) as database:
        database.execute(
            "update flow_run set start_time = now() - interval '20 minutes' where id = %s", [run]
        )
    watch(running)
    assert api(running, "GET", f"flow_runs/{run}")["state_type"] == "CRASHED"
    followed_by_a_run(running, "silent")


# Each automation that is no alert, and how it is fired.
FIRED: dict[str, Callable[[Running, Path], None]] = {
    CRASHED.name: a_crashed_run_is_followed_by_another,
}


@pytest.mark.parametrize("automation", AUTOMATIONS, ids=lambda automation: automation.name)
def test_each_automation_does_what_it_is_for(
    running: Running, tmp_path: Path, automation: Any
) -> None:
    FIRED[automation.name](running, tmp_path)


# -- as declared -----------------------------------------------------------------------------------


def automations(running: Running) -> dict[str, dict[str, Any]]:
    there = api(running, "POST", "automations/filter", {"limit": 200})
    assert len(there) == len({automation["name"] for automation in there})
    return {automation["name"]: automation for automation in there}


def differences(printed: str) -> set[str]:
    return {line for line in printed.splitlines() if " automation " in line}


@pytest.mark.usefixtures("told")
def test_what_was_changed_by_hand_is_as_declared_again(running: Running) -> None:
    late, gone, off = (
        f"kvitt: tell of {what}" for what in ("period.late", "period.stuck", "budget.low")
    )
    there = automations(running)
    own = {key: there[off][key] for key in ("trigger", "actions")}
    api(running, "POST", "automations/", {**own, "name": "kvitt: of an older version"})
    api(running, "POST", "automations/", {**own, "name": "finance: our own"})
    kept = {key: there[late][key] for key in ("name", "description", "actions")}
    changed = {**kept, "trigger": {**there[late]["trigger"], "threshold": 3, "within": 60}}
    api(running, "PUT", f"automations/{there[late]['id']}", changed)
    api(running, "PATCH", f"automations/{there[off]['id']}", {"enabled": False})
    api(running, "DELETE", f"automations/{there[gone]['id']}")
    expected = {
        f"~ automation {late}: its trigger was another one",
        f"~ automation {off}: it was switched off",
        f"+ automation {gone}: it is new",
        "- automation kvitt: of an older version: it is not declared any more",
    }
    assert differences(running.stack.run("kvitt", "plan")) == expected
    assert automations(running)[off]["enabled"] is False  # a plan changes nothing
    assert differences(running.stack.run("kvitt", "apply")) == expected
    assert differences(running.stack.run("kvitt", "apply")) == set()
    after = automations(running)
    assert after[off]["enabled"]
    assert after[late]["trigger"]["threshold"] == 1
    assert "finance: our own" in after
    declared = {name for name in after if name.startswith("kvitt: ")}
    after_a_limit = "kvitt: passive after a limit"  # tests/flows/test_health.py
    assert declared == {a.name for a in AUTOMATIONS} | {after_a_limit} | {
        f"kvitt: tell of {event.removeprefix('kvitt.')}" for event in NOTIFICATIONS
    }
    assert after[late]["id"] == there[late]["id"]
