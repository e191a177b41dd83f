"""The vendors, running; each test has a company of its own in their books."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from contextlib import asynccontextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import stamina

from sandbox.processes import CHECKOUT, Home
from sandbox.vendors.simulators import SIMULATORS
from tests.cast import FJORDBY, NORDVEST
from tests.sync.driver import instructions
from tests.sync.scene import Books, Scene

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
    from datetime import timedelta

    from supabase import AsyncClient

    from kvitt.domain.integrations import Integration
    from sandbox.supabase import Supabase
    from sandbox.vendors.simulator import Simulator
    from tests.cast import Stage

# Those that stage lines: what tests of lost replies and interruptions look at between two calls.
VENDORS = sorted(vendor for vendor, kind in SIMULATORS.items() if kind.stages)
_sources = count(1)


@pytest.fixture(scope="session")
def vendor_urls() -> Generator[dict[str, str]]:
    with Home.open(f"sync-{os.getpid()}") as home:
        yield {vendor: _serve(home, vendor) for vendor in SIMULATORS}


def _serve(home: Home, vendor: str) -> str:
    books = home.path / f"{vendor}.db"
    command = [sys.executable, "-m", SIMULATORS[vendor].module, "--books", str(books)]
    return home.serve(vendor, command).url


@pytest.fixture
def open_books(vendor_urls: dict[str, str]) -> Generator[Callable[[str], Books]]:
    """Found a company in a vendor's books."""
    with httpx.Client(trust_env=False) as http:
        yield lambda vendor: Books.of_a_new_company(http, vendor, vendor_urls[vendor])


@pytest.fixture
def xledger(open_books: Callable[[str], Books]) -> Books:
    return open_books("xledger")


@pytest.fixture
def business_central(open_books: Callable[[str], Books]) -> Books:
    return open_books("business-central")


@pytest.fixture(params=VENDORS)
def books(open_books: Callable[[str], Books], request: pytest.FixtureRequest) -> Books:
    return open_books(request.param)


def _mapping_for(who: Integration, kind: Simulator) -> dict[str, Any]:
    """Return the mapping of one who may not be the only one in the company."""
    own = {"source": f"S{next(_sources)}"} if kind.vendor == "xledger" else {}
    return {**who.mapping.model_dump(), "dimensions": {**kind.dimensions}, **own}


@pytest.fixture
def scene(
    enrol: Callable[..., Awaitable[Stage]], project: AsyncClient, supabase: Supabase
) -> Generator[Callable[..., Awaitable[Scene]]]:
    """Set the scene: an integration with a company of its own, and periods that are due."""

    async def scene(
        books: Books, *, periods: int = 1, fitted: bool = True, **limits: float
    ) -> Scene:
        kind = SIMULATORS[books.vendor]
        who = NORDVEST if kind.original_currency else FJORDBY
        stage = await enrol(
            who,
            periods=periods,
            vendor=books.vendor,
            mapping=_mapping_for(who, kind),
            limits=limits,
            connection=books.company,
        )
        if fitted:
            stage.fit()
        return Scene(stage=stage, books=books, project=project)

    yield scene
    supabase.functions.change(failing_boots=0, memory_mb=256)


@pytest.fixture
def no_waiting() -> Generator[None]:
    """Let retries happen at once, as often as they would."""
    with stamina.set_testing(True, attempts=99, cap=True):
        yield


Run = "Callable[..., AbstractAsyncContextManager[asyncio.subprocess.Process]]"


@pytest.fixture
def run_apart(supabase: Supabase) -> Run:
    """Bring an integration up to date in a process of its own, which a test may kill."""

    @asynccontextmanager
    async def run_apart(
        scene: Scene, lease: timedelta
    ) -> AsyncGenerator[asyncio.subprocess.Process]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.sync.driver"),
            cwd=CHECKOUT,
            stdin=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdin
        told = instructions(
            supabase.url, supabase.secret_key, scene.books.connection, scene.stage.id, lease
        )
        process.stdin.write(told.encode())
        process.stdin.close()
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()

    return run_apart


@pytest.fixture
def cold_starts() -> Callable[[Scene], Counter[str]]:
    """Count the cold starts that the ledger knows of, by kind."""

    def cold_starts(scene: Scene) -> Counter[str]:
        question = "select kind::text from kvitt.cold_starts where integration_id = %(id)s"
        return Counter(kind for (kind,) in scene.stage.ask(question))

    return cold_starts
