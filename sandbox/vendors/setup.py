"""Two made-up Norwegian organisations, as the simulators know them: the tests' and demo's cast.

Account numbers follow the Norwegian standard chart (NS 4102). An employee who lays out money is a
supplier, in Business Central a vendor and in Xledger a subledger.
"""

from typing import Any

TENANT = "5a1c0f1e-7d5b-4b0e-9a44-0c5e1d1b7a01"
ENVIRONMENT = "production"
CLIENT_ID = "0b0c9f5e-3f1d-4d9e-8a55-6c2b7f1e9d02"
CLIENT_SECRET = "a-secret-of-the-sandbox"
# The club's and the theatre's ids in Business Central.
CLUB = "c1a7e0de-0000-4000-8000-000000000001"
THEATRE = "c1a7e0de-0000-4000-8000-000000000002"
CLUB_TOKEN = "club-token-of-the-sandbox"
THEATRE_TOKEN = "theatre-token-of-the-sandbox"
CLUB_ENTITY, THEATRE_ENTITY = 4101, 4102
CLUB_NAME = "Fjordby Idrettslag"
THEATRE_NAME = "Teater Nordvest"

EMPLOYEE_DEBT = "2910"
SUPPLIER_DEBT = "2400"
ACCOUNTS = {
    "1920": "Bankinnskudd",
    SUPPLIER_DEBT: "Leverandørgjeld",
    "2710": "Inngående merverdiavgift",
    EMPLOYEE_DEBT: "Gjeld til ansatte",
    "5990": "Annen personalkostnad",
    "6540": "Inventar",
    "6800": "Kontorrekvisita",
    "6860": "Møter, kurs, oppdatering",
    "7140": "Reisekostnad, ikke oppgavepliktig",
    "7150": "Diettkostnad, oppgavepliktig",
    "7320": "Reklamekostnad",
    "7770": "Bank- og kortgebyr",
}
PEOPLE = {"ANS-101": "Kari Solberg", "ANS-102": "Amir Haddad", "ANS-103": "Liv Berg"}
SUPPLIERS = {"LEV-201": "Fjordby Trykkeri AS", "LEV-202": "Nordvest Busslag AS"}
COST_CENTRES = {"10": "Administrasjon", "20": "Drift", "30": "Arrangement"}
PROJECTS = {"P-VINTER": "Vinterprogram", "P-TURNE": "Turné", "P-CUP": "Fjordcup"}


def _business_central_company(key: str, name: str) -> dict[str, Any]:
    general = [{"number": number, "name": text} for number, text in ACCOUNTS.items()]
    vendors = [
        {"kind": "Vendor", "number": number, "name": text, "ledger_account": debt}
        for parties, debt in ((PEOPLE, EMPLOYEE_DEBT), (SUPPLIERS, SUPPLIER_DEBT))
        for number, text in parties.items()
    ]
    dimensions = [
        {
            "code": code,
            "name": text,
            "values": [{"code": value, "name": label} for value, label in values.items()],
        }
        for code, text, values in (
            ("AVDELING", "Avdeling", COST_CENTRES),
            ("PROSJEKT", "Prosjekt", PROJECTS),
        )
    ]
    return {"id": key, "name": name, "accounts": general + vendors, "dimensions": dimensions}


def _xledger_entity(number: int, token: str, name: str) -> dict[str, Any]:
    return {
        "id": number,
        "name": name,
        "token": token,
        "accounts": [{"code": code, "name": text} for code, text in ACCOUNTS.items()],
        "subledgers": [{"code": code, "name": text} for code, text in (PEOPLE | SUPPLIERS).items()],
        "objects": [
            {"slot": slot, "code": code, "name": text}
            for slot, values in ((1, COST_CENTRES), (2, PROJECTS))
            for code, text in values.items()
        ],
    }


BUSINESS_CENTRAL: dict[str, Any] = {
    "tenant": TENANT,
    "environment": ENVIRONMENT,
    "clients": [{"id": CLIENT_ID, "secret": CLIENT_SECRET}],
    "companies": [
        _business_central_company(CLUB, CLUB_NAME),
        _business_central_company(THEATRE, THEATRE_NAME),
    ],
}
XLEDGER: dict[str, Any] = {
    "entities": [
        _xledger_entity(CLUB_ENTITY, CLUB_TOKEN, CLUB_NAME),
        _xledger_entity(THEATRE_ENTITY, THEATRE_TOKEN, THEATRE_NAME),
    ],
}
