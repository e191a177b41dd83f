"""A simulator of each vendor, running for all tests of this folder."""

import os
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from functools import cache

import httpx
import pytest
import stamina

from kvitt.domain.periods import Period
from kvitt.vendors import Client
from sandbox.processes import Home
from sandbox.vendors.simulators import SIMULATORS
from tests.vendors.cast import Simulator, a_period


@pytest.fixture(autouse=True)
def no_waiting() -> Generator[None]:
    """Let retries happen at once, as often as they would."""
    with stamina.set_testing(True, attempts=99, cap=True):
        yield


@pytest.fixture(scope="session")
def home() -> Generator[Home]:
    with Home.open(f"vendors-{os.getpid()}") as home:
        yield home


@pytest.fixture(scope="session")
def control() -> Generator[httpx.Client]:
    with httpx.Client(trust_env=False) as http:
        yield http


Run = Callable[[str], Simulator]


@pytest.fixture(scope="session")
def run(home: Home, control: httpx.Client) -> Run:
    """Start a vendor's simulator, once."""

    @cache
    def run(vendor: str) -> Simulator:
        kind = SIMULATORS[vendor]
        books = home.path / f"{vendor}.sqlite"
        url = home.serve(vendor, [sys.executable, "-m", kind.module, "--books", str(books)]).url
        wish = {"settings": {**kind.unlimited}}
        usual = control.post(f"{url}/_sandbox/setup", json=wish).raise_for_status().json()
        return Simulator(of=kind, url=url, usual=usual, http=control)

    return run


@pytest.fixture
def business_central(run: Run) -> Simulator:
    simulator = run("business-central")
    simulator.restore()
    return simulator


@pytest.fixture
def xledger(run: Run) -> Simulator:
    simulator = run("xledger")
    simulator.restore()
    return simulator


@pytest.fixture
async def bc(business_central: Simulator) -> AsyncGenerator[Client]:
    async with business_central.open() as client:
        yield client


@pytest.fixture
async def xl(xledger: Simulator) -> AsyncGenerator[Client]:
    async with xledger.open() as client:
        yield client


@pytest.fixture(params=sorted(SIMULATORS))
def simulator(run: Run, request: pytest.FixtureRequest) -> Simulator:
    """Each vendor's, in turn."""
    simulator = run(request.param)
    simulator.restore()
    return simulator


@pytest.fixture
async def client(simulator: Simulator) -> AsyncGenerator[Client]:
    async with simulator.open() as client:
        yield client


@pytest.fixture
def period() -> Period:
    return a_period()
