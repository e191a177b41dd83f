"""Xledger, as those see it who set a scene."""

from typing import Any

from sandbox.vendors import setup
from sandbox.vendors.simulator import Reading, Simulator


def _token(company: str) -> str:
    own = {each["id"]: each["token"] for each in setup.XLEDGER["entities"]}
    return own.get(int(company), f"token-of-{company}")


def _found(company: str) -> dict[str, Any]:
    example = setup.XLEDGER["entities"][0]
    return {"entities": [{**example, "id": int(company), "token": _token(company)}]}


def _account(company: str, number: str, blocked: bool) -> dict[str, Any]:  # noqa: FBT001 - one of two
    closed = {"accounts": [{"code": number, "blocked": blocked}]}
    return {"entities": [{"id": int(company), **closed}]}


def _connect(url: str, company: str) -> dict[str, Any]:
    # It is known to refuse all of a call for one bad node, unless it is told to do otherwise.
    return {"token": _token(company), "api_url": f"{url}/graphql", "all_or_nothing": True}


SIMULATOR = Simulator(
    vendor="xledger",
    seed=setup.XLEDGER,
    books=Reading(named="reference", record="invoice"),
    dimensions={"cost_centre": "glObject1", "project": "glObject2"},
    unlimited={
        "burst_requests": 1_000_000,
        "monthly_allowance": 1_000_000,
        # As far below the gap between two looks as a job's moment is below minutes.
        "transit_seconds": 0.05,
    },
    writes="addGLImportItems",
    reads="journalEntries",
    cast_company=str(setup.CLUB_ENTITY),
    company_of=lambda number: str(10_000 + number),
    found=_found,
    account=_account,
    connect=_connect,
    original_currency=True,
    stages=True,
    prompt={"unknown_codes": "import", "transit_seconds": 0},
    posting={True: {"posting_interval_seconds": 0.1}, False: {"posting_interval_seconds": 0}},
)
