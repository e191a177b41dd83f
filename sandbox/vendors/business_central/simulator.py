"""Business Central, as those see it who set a scene."""

from typing import Any
from uuid import UUID

from sandbox.vendors import setup
from sandbox.vendors.simulator import Reading, Simulator


def _found(company: str) -> dict[str, Any]:
    example = setup.BUSINESS_CENTRAL["companies"][0]
    return {"companies": [{**example, "id": company}]}


def _account(company: str, number: str, blocked: bool) -> dict[str, Any]:  # noqa: FBT001 - one of two
    closed = {"accounts": [{"number": number, "blocked": blocked}]}
    return {"companies": [{"id": company, **closed}]}


def _connect(url: str, company: str) -> dict[str, Any]:
    return {
        "tenant_id": setup.TENANT,
        "environment": setup.ENVIRONMENT,
        "company_id": company,
        "client_id": setup.CLIENT_ID,
        "client_secret": setup.CLIENT_SECRET,
        "api_url": url,
        "login_url": url,
    }


SIMULATOR = Simulator(
    vendor="business-central",
    seed=setup.BUSINESS_CENTRAL,
    # A party's line is booked on the party; its ledger account follows.
    books=Reading(named="document", on_party=True, record="reference"),
    dimensions={"cost_centre": "AVDELING", "project": "PROSJEKT"},
    unlimited={"quota": 1_000_000},
    writes="journals.create",
    reads="generalLedgerEntries.list",
    cast_company=setup.CLUB,
    company_of=lambda number: str(UUID(int=0xC1A7 << 112 | number)),
    found=_found,
    account=_account,
    connect=_connect,
    stages=True,
)
