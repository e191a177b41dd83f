"""A simulator of each vendor, running for all tests of this folder."""

import os
import sys
from collections.abc import AsyncGenerator, Generator

import httpx
import pytest
import stamina

from kvitt.domain.periods import Period
from kvitt.vendors import Client
from sandbox.processes import Home
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


USUAL_SETUP = {
    "refusals_name": "account",
    "blocked_at": "insert",
    "number_series": None,
    "posting_number_series": None,
    "template_balancing_account": "",
    "local_currency": "NOK",
    "allow_posting_from": "0001-01-01",
    "allow_posting_to": "0001-01-01",
    "post_with_job_queue": False,
    "analysis_view_fails": False,
    "folds_codes": True,
    "same_key_status": 400,
    "stale_etag_status": 409,
    "deep_insert_on_existing": "append",
    "readable_account_types": ["G/L Account", "Customer", "Vendor", "Bank Account"],
    "answers_head": False,
    "environments_cost_quota": True,
}
USUAL_XLEDGER = {
    "refusals_name": "value",
    "unknown_codes": "posting",
    "balance": "posting",
    "one_bad_node": "refuses-all",
    "ids_as": "string",
    "empty_edges": "alternate",
    "token_error_status": 200,
    "filter_by_ext_identifier": False,
    "errors_carry_ext_identifier": True,
    "reference_length": 25,
    "text_length": 60,
}


def serve(home: Home, vendor: str) -> str:
    books = home.path / f"{vendor}.sqlite"
    module = f"sandbox.vendors.{vendor}"
    return home.serve(vendor, [sys.executable, "-m", module, "--books", str(books)]).url


@pytest.fixture(scope="session")
def running_business_central(home: Home, control: httpx.Client) -> Simulator:
    url = serve(home, "business_central")
    return Simulator(
        vendor="business-central",
        url=url,
        writes="journals.create",
        reads="generalLedgerEntries.list",
        http=control,
    )


@pytest.fixture(scope="session")
def running_xledger(home: Home, control: httpx.Client) -> Simulator:
    url = serve(home, "xledger")
    simulator = Simulator(
        vendor="xledger",
        url=url,
        writes="addGLImportItems",
        reads="journalEntries",
        http=control,
    )
    simulator.change(burst_requests=10_000)
    return simulator


@pytest.fixture
def business_central(running_business_central: Simulator) -> Simulator:
    running_business_central.reset()
    running_business_central.change(**USUAL_SETUP)
    running_business_central.block("7140", blocked=False)
    return running_business_central


@pytest.fixture
def xledger(running_xledger: Simulator) -> Simulator:
    running_xledger.reset()
    running_xledger.change(**USUAL_XLEDGER)
    running_xledger.block("7140", blocked=False)
    return running_xledger


@pytest.fixture
async def bc(business_central: Simulator) -> AsyncGenerator[Client]:
    async with business_central.open() as client:
        yield client


@pytest.fixture
async def xl(xledger: Simulator) -> AsyncGenerator[Client]:
    async with xledger.open() as client:
        yield client


@pytest.fixture(params=["business_central", "xledger"])
def simulator(request: pytest.FixtureRequest) -> Simulator:
    return request.getfixturevalue(request.param)


@pytest.fixture
async def client(simulator: Simulator) -> AsyncGenerator[Client]:
    async with simulator.open() as client:
        yield client


@pytest.fixture
def period() -> Period:
    return a_period()
