"""What all tests of the core share: one local Supabase with kvitt's schema, and how time passes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from hypothesis import settings

from kvitt.ledger import SupabaseLedger
from kvitt.ledger.migrate import migrate, read_migrations
from kvitt.project import open_project
from sandbox.processes import CHECKOUT, Home
from sandbox.supabase import Supabase
from tests.cast import Stage, another

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator

    from supabase import AsyncClient

    from kvitt.domain.integrations import Integration

# Edge Functions that an organisation could have put beside or in the place of `collect`.
FUNCTIONS = Path(__file__).parent / "sync" / "functions"

# Examples on a loaded machine may be slow; a test that hangs is ended by pytest-timeout.
settings.register_profile("kvitt", deadline=None)
settings.load_profile("kvitt")

# The fast ones first: those without a server, then with Supabase, then with Prefect, then the long
# ones. A folder that is not named comes last.
_ORDER = (
    *("domain", "vendors", "ledger", "blocks", "sync", "cli", "sandbox"),
    *("workers", "flows", "checkpoint", "scheduler"),
    *("health", "outages", "year", "beyond", "crash", "demo"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> tuple[int, bool]:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        place = _ORDER.index(folder) if folder in _ORDER else len(_ORDER)
        # The main job comes before what others do to the stack that they share.
        return place, item.path.name != "test_main_job.py"

    items.sort(key=place)


@pytest.fixture(scope="session")
def supabase() -> Generator[Supabase]:
    """Start a Supabase of our own, with our schema and functions; nothing else is in it."""
    with Home.open(f"core-{os.getpid()}") as home:
        supabase = Supabase.start(home, _project(home.path / "project"))
        migrate(supabase.database_url, read_migrations(CHECKOUT / "supabase" / "migrations"))
        supabase.reload_schema()
        yield supabase


def _project(folder: Path) -> Path:
    """Copy our Supabase project, and add the functions of the tests to it."""
    shutil.copytree(CHECKOUT / "supabase", folder / "supabase")
    with (folder / "supabase" / "config.toml").open("a") as config:
        for function in sorted(FUNCTIONS.iterdir()):
            shutil.copytree(function, folder / "supabase" / "functions" / function.name)
            config.write(f"\n[functions.{function.name}]\nverify_jwt = false\n")
    return folder


@pytest.fixture(scope="session")
async def project(supabase: Supabase) -> AsyncGenerator[AsyncClient]:
    """Open the project with its secret key, as kvitt does."""
    async with open_project(supabase.url, supabase.secret_key) as client:
        yield client


@pytest.fixture(scope="session")
def ledger(project: AsyncClient) -> SupabaseLedger:
    return SupabaseLedger(project)


@pytest.fixture
def database(supabase: Supabase) -> Generator[psycopg.Connection]:
    """Connect as the superuser: to look, and to let time pass."""
    with psycopg.connect(supabase.database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def enrol(ledger: SupabaseLedger, database: psycopg.Connection) -> Callable[..., Awaitable[Stage]]:
    """Save an integration of the cast under an id of its own, with periods that are due."""

    async def enrol(who: Integration, *, periods: int = 1, **changes: object) -> Stage:
        stage = Stage(integration=another(who, **changes), ledger=ledger, database=database)
        await ledger.save_integration(stage.integration)
        await stage.plan(periods)
        return stage

    return enrol
