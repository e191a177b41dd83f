"""Dataverse, as those see it who set a scene: two organisations, each with a table of its own."""

from typing import Any

from sandbox.vendors import setup
from sandbox.vendors.simulator import Reading, Simulator

CLUB, THEATRE = "fjordby", "nordvest"
TABLE = "kvitt_journalline"
COLUMNS = [
    *(
        {"name": f"kvitt_{name}", "type": "String", "length": length}
        for name, length in (
            ("name", 21),
            ("voucher", 16),
            ("record", 100),
            ("account", 20),
            ("party", 20),
            ("currency", 3),
            ("tax", 20),
            ("text", 200),
            ("source", 20),
            ("costcentre", 20),
            ("project", 20),
        )
    ),
    *({"name": f"kvitt_{name}", "type": "Decimal"} for name in ("amount", "originalamount")),
    *({"name": f"kvitt_{name}", "type": "Integer"} for name in ("vouchernumber", "line")),
    *({"name": f"kvitt_{name}", "type": "DateTime"} for name in ("postingdate", "documentdate")),
]


def _environment(key: str, name: str) -> dict[str, Any]:
    table = {
        "logical": TABLE,
        "entity_set": f"{TABLE}s",
        "columns": COLUMNS,
        "keys": [{"name": "kvitt_byname", "columns": ["kvitt_name"], "status": "Active"}],
    }
    accounts = [{"number": number, "name": text} for number, text in setup.ACCOUNTS.items()]
    return {"id": key, "name": name, "accounts": accounts, "tables": [table]}


SEED: dict[str, Any] = {
    "tenant": setup.TENANT,
    "clients": [{"id": setup.CLIENT_ID, "secret": setup.CLIENT_SECRET}],
    "environments": [
        _environment(CLUB, setup.CLUB_NAME),
        _environment(THEATRE, setup.THEATRE_NAME),
    ],
}


def _found(company: str) -> dict[str, Any]:
    return {"environments": [_environment(company, setup.CLUB_NAME)]}


def _account(company: str, number: str, blocked: bool) -> dict[str, Any]:  # noqa: FBT001 - one of two
    closed = {"accounts": [{"number": number, "blocked": blocked}]}
    return {"environments": [{"id": company, **closed}]}


def _connect(url: str, company: str) -> dict[str, Any]:
    return {
        "tenant_id": setup.TENANT,
        "client_id": setup.CLIENT_ID,
        "client_secret": setup.CLIENT_SECRET,
        "login_url": url,
        "api_url": f"{url}/{company}",
        "scope": f"{url}/{company}/.default",
    }


SIMULATOR = Simulator(
    vendor="dataverse",
    seed=SEED,
    books=Reading(named="reference", record="record"),
    dimensions={"cost_centre": "kvitt_costcentre", "project": "kvitt_project"},
    unlimited={"quota": 1_000_000, "execution_seconds": 1_000_000, "concurrency": 1_000},
    writes="batch",
    reads="rows.list",
    cast_company=CLUB,
    company_of=lambda number: f"org{number}",
    found=_found,
    account=_account,
    connect=_connect,
    original_currency=True,
    takes_copies=False,
)
