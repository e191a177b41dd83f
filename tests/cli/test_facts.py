"""`kvitt facts`: a table, a record, and nothing written where it was not asked for."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from cli.facts import ask
from kvitt.vendors.xledger import XledgerSettings
from sandbox.processes import Home
from sandbox.vendors import setup
from tests.ledger.stages import a_connection

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from kvitt.ledger import SupabaseLedger
    from sandbox.processes import Process
    from sandbox.supabase import Supabase

    Kvitt = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def xledger(tmp_path: Path) -> Iterator[Process]:
    command = [sys.executable, "-m", "sandbox.vendors.xledger", "--books", f"{tmp_path}/books.db"]
    with Home(tmp_path) as home:
        yield home.serve("xledger", command)


def settings(tmp_path: Path, url: str) -> Path:
    file = tmp_path / "nordvest.yaml"
    file.write_text(f"token: {setup.CLUB_TOKEN}\napi_url: {url}\n")
    return file


def test_a_tenant_is_asked_and_the_answers_are_recorded(
    kvitt: Kvitt, xledger: Process, tmp_path: Path
) -> None:
    file, record = settings(tmp_path, f"{xledger.url}/graphql"), tmp_path / "record.json"
    done = kvitt("facts", "xledger", "--settings", file, "--record", record)
    assert done.returncode == 0, done.stderr
    told = json.loads(record.read_text())
    by_fact = {answer["fact"]: answer for answer in told["answers"]}
    assert (told["vendor"], told["wrote"]) == ("xledger", False)
    assert by_fact["xl-filter-by-ext-identifier"]["verdict"] == "false"
    assert by_fact["xl-text-length"]["seen"].startswith("not asked")
    assert sum(told["requests"].values()) == sum(a["requests"] for a in told["answers"]) > 0
    assert setup.CLUB_TOKEN not in record.read_text() + done.stdout + done.stderr


def test_what_is_left_is_named(kvitt: Kvitt, xledger: Process, tmp_path: Path) -> None:
    file, record = settings(tmp_path, f"{xledger.url}/graphql"), tmp_path / "record.json"
    done = kvitt("facts", "xledger", "--settings", file, "--record", record, "--write")
    assert done.returncode == 0, done.stderr
    left = [thing for a in json.loads(record.read_text())["answers"] for thing in a["left"]]
    assert left
    assert [thing for thing in left if thing not in done.stdout] == []


def test_nothing_is_written_where_it_is_not_known_to_be_a_demo(
    kvitt: Kvitt, tmp_path: Path
) -> None:
    file = settings(tmp_path, "https://www.xledger.net/graphql")
    done = kvitt("facts", "xledger", "--settings", file, "--write")
    assert done.returncode == 2
    assert "--anywhere" in done.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("token: [", "cannot be read"),
        ("token: ''", "the settings of xledger do not fit: token"),
        ("token: abc\nnonsense: 1", "nonsense"),
    ],
)
def test_a_settings_file_that_does_not_fit_is_said_without_its_content(
    kvitt: Kvitt, tmp_path: Path, content: str, words: str
) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(content)
    done = kvitt("facts", "xledger", "--settings", file)
    assert done.returncode == 1
    assert words in done.stderr


def test_one_of_block_and_file_is_wanted(kvitt: Kvitt) -> None:
    assert kvitt("facts", "xledger").returncode == 2
    assert kvitt("facts", "nobody", "block").returncode == 2


async def test_what_a_connection_is_asked_counts_as_probes(
    supabase: Supabase,
    ledger: SupabaseLedger,
    xledger: Process,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As with a block, without Prefect to keep it."""
    monkeypatch.setenv("SUPABASE_URL", supabase.url)
    monkeypatch.setenv("SUPABASE_SECRET_KEY", supabase.secret_key)
    connection = a_connection()
    told = XledgerSettings(token=SecretStr(setup.CLUB_TOKEN), api_url=f"{xledger.url}/graphql")
    record = await ask("xledger", told, write=False, connection=connection, project="kvitt")
    [spent] = await ledger.read_budgets(connection)
    assert spent.spent == {"probe": sum(record.requests.values())}
    assert spent.counted > 0
