"""`kvitt scheduler` where the database has none of what it needs; with it: tests/scheduler/."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kvitt.domain.integrations import Scheduler
from tests.cast import NORDVEST, another
from tests.cli.test_cli import refused, written

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Generator
    from pathlib import Path

    import psycopg

    from kvitt.domain.integrations import Integration

    Kvitt = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def alone(kvitt: Kvitt, tmp_path: Path, database: psycopg.Connection) -> Generator[Integration]:
    """An integration that pg_cron alone is to start; other tests see none afterwards."""
    who = another(NORDVEST, scheduler="pg_cron")
    assert kvitt("integrations", "import", written(tmp_path, who)).returncode == 0
    yield who
    database.execute("update kvitt.integrations set enabled = false where id = %s", [who.id])


def test_installing_is_refused_with_what_to_enable(kvitt: Kvitt) -> None:
    said = refused(kvitt("scheduler", "install"))
    assert "this database has no pg_cron, pg_net, supabase_vault: enable it first" in said


def test_status_names_all_that_is_missing_and_fails(kvitt: Kvitt, alone: Integration) -> None:
    done = kvitt("scheduler", "status")
    assert done.returncode == 1
    assert "- extension pg_cron" in done.stdout
    assert "+ secret kvitt_prefect_authorization: the header Authorization" in done.stdout
    assert f"- {alone.id}: pg_cron, deployment unknown" in done.stdout
    assert "last at work: never" in done.stdout
    told = (
        "the extension pg_net is not enabled",
        "Vault has no secret kvitt_webhook_url: where alarms are posted",
        "the job is not there: kvitt scheduler install",
        f"no deployment of {alone.id} is known: kvitt apply",
    )
    assert [words for words in told if words not in done.stderr] == []


def test_uninstalling_what_is_not_there_is_no_error(kvitt: Kvitt, alone: Integration) -> None:
    done = kvitt("scheduler", "uninstall")
    assert done.returncode == 0
    assert f"{alone.id}: only watch starts them now" in done.stdout


def test_a_silence_shorter_than_watch_comes_along_is_refused(kvitt: Kvitt) -> None:
    assert kvitt("scheduler", "install", "--silence", 5).returncode == 2


def test_the_scheduler_of_an_integration_is_kept_and_its_change_shown(
    kvitt: Kvitt, tmp_path: Path, alone: Integration, database: psycopg.Connection
) -> None:
    both = alone.model_copy(update={"scheduler": Scheduler.BOTH})
    shown = kvitt("integrations", "import", written(tmp_path, both)).stdout
    assert f"~ {alone.id} scheduler: pg_cron → both" in shown
    question = "select scheduler from kvitt.integrations where id = %s"
    assert database.execute(question, [alone.id]).fetchall() == [("both",)]
