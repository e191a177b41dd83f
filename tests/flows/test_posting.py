"""The flow `follow-up`: what Xledger's own job did with a period, as an event for an alert."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
import pytest
import yaml

from kvitt.domain.calendar import due_before
from sandbox.vendors import setup
from tests.flows.test_main_job import wait_for

if TYPE_CHECKING:
    from tests.flows.conftest import Running

# Five commands and three runs on a stack that may have to be started for it.
pytestmark = pytest.mark.timeout(420)

NAME = "nordvest-odd"
CRON_ZONE = "Europe/Oslo"


def an_integration_with_a_period_that_is_due() -> dict[str, Any]:
    due = datetime.now(UTC) - timedelta(minutes=10)
    cron = f"{due.minute} * * * *"
    return {
        "id": NAME,
        "organisation": "Teater Nordvest",
        "vendor": "xledger",
        "connection": "nordvest",
        "cron": cron,
        "time_zone": CRON_ZONE,
        "first_period": due_before(cron, CRON_ZONE, due=due),
        "book_currency": "NOK",
        "mapping": {"source": "FU"},  # its neighbour in the same books has KV
    }


def a_claim_on_an_account_that_is_not_there() -> dict[str, Any]:
    lines = [{"account": "9999", "amount": "100"}, {"account": "2910", "amount": "-100"}]
    return {
        "integration": NAME,
        "id": "2026-9999",
        "kind": "expense-claim",
        "approved_at": (datetime.now(UTC) - timedelta(hours=2)).isoformat(),
        "voucher_date": "2026-11-20",
        "currency": "NOK",
        "text": "Odd",
        "lines": [{**line, "text": "Odd"} for line in lines],
    }


def follow_up(running: Running) -> str:
    """Let a look be due, and run the deployment; returns the message of the run's state."""
    with psycopg.connect(running.stack.supabase.database_url, autocommit=True) as database:
        database.execute(
            "update kvitt.follow_ups set next_look_at = now() where integration_id = %s"
            " and next_look_at is not null",
            [NAME],
        )
    running.run("follow-up/kvitt")
    run, _ = running.stack.prefect.latest_run("follow-up/kvitt")
    return run["state"]["message"]


def events_of(running: Running) -> list[dict[str, Any]]:
    asked = {"filter": {"event": {"prefix": ["kvitt.period."]}}, "limit": 50}
    url = f"{running.stack.prefect.url}/api/events/filter"
    found = httpx.post(url, json=asked, trust_env=False).raise_for_status().json()["events"]
    return [each for each in found if each["resource"]["prefect.resource.id"].endswith(f".{NAME}")]


def event(running: Running, name: str) -> dict[str, Any]:
    wait_for(lambda: name in [each["event"] for each in events_of(running)])
    [found] = [each for each in events_of(running) if each["event"] == name]
    return found


@pytest.fixture(scope="module")
def refused(running: Running, tmp_path_factory: pytest.TempPathFactory) -> Running:
    """A period is settled, and Xledger's own job has refused its only voucher since."""
    folder = tmp_path_factory.mktemp("odd")
    integrations, records = folder / "odd.yaml", folder / "odd.jsonl"
    integrations.write_text(yaml.safe_dump([an_integration_with_a_period_that_is_due()]))
    records.write_text(json.dumps(a_claim_on_an_account_that_is_not_there()))
    running.stack.run("kvitt", "integrations", "import", str(integrations))
    running.stack.run("kvitt", "records", "import", str(records))
    running.stack.run("kvitt", "apply")
    running.run(f"sync/{NAME}")
    wait_for(lambda: "verified" in running.stack.run("kvitt", "periods", NAME))
    running.stack.run_vendor_jobs()
    return running


def test_a_refusal_after_the_receipt_becomes_an_event(refused: Running) -> None:
    assert "refused: voucher 1 (record 2026-9999): Account 9999" in follow_up(refused)
    raised = event(refused, "kvitt.period.refused")
    assert "(record 2026-9999): Account 9999 does not exist. Mend it" in raised["payload"]["text"]
    assert raised["payload"]["vouchers"] == [
        "voucher 1 (record 2026-9999): Account 9999 does not exist."
    ]


def test_what_is_mended_at_the_vendor_becomes_an_event_and_stands_under_the_receipt(
    refused: Running,
) -> None:
    open_account(refused)
    refused.stack.run_vendor_jobs()
    assert "posted 20" in follow_up(refused)
    event(refused, "kvitt.period.posted")
    assert "  posted        all 2 lines, as seen" in refused.stack.run("kvitt", "receipt", NAME)


def open_account(running: Running) -> None:
    """Open the account in the theatre's books, as a person does who reads the alert."""
    entities = [{"id": setup.THEATRE_ENTITY, "accounts": [{"code": "9999"}]}]
    url = f"{running.stack.xledger.url}/_sandbox/setup"
    httpx.post(url, json={"entities": entities}, trust_env=False).raise_for_status()
