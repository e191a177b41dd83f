import asyncio
import json
import time
from collections.abc import AsyncGenerator
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from sandbox.vendors.setup import CLIENT_ID, CLIENT_SECRET, ENVIRONMENT, TENANT
from tests.sandbox.vendors.conftest import Simulator, running

API = f"/v2.0/{TENANT}/{ENVIRONMENT}/api/v2.0"
TOKEN = f"/{TENANT}/oauth2/v2.0/token"
MONTH_END = "2026-01-31"
CREDENTIALS = {
    "grant_type": "client_credentials",
    "client_id": CLIENT_ID,
    "client_secret": CLIENT_SECRET,
    "scope": "https://api.businesscentral.dynamics.com/.default",
}
CHART = [
    {"number": "7140", "name": "Reisekostnad"},
    {"number": "7150", "name": "Diett"},
    {"number": "2910", "name": "Gjeld til ansatte"},
    {"kind": "Vendor", "number": "ANS-101", "name": "Kari Solberg", "ledger_account": "2910"},
    {"kind": "Employee", "number": "E-1", "name": "Amir Haddad", "ledger_account": "2910"},
]
DIMENSIONS = [{"code": "AVDELING", "values": [{"code": "10"}, {"code": "20"}]}]


def line(amount: float, account: str = "7140", **further: Any) -> dict[str, Any]:
    usual = {"postingDate": MONTH_END, "documentNumber": "D-1"}
    return {**usual, "accountNumber": account, "amount": amount, **further}


def claim(amount: float = 100, **further: Any) -> list[dict[str, Any]]:
    owed = line(-amount, "ANS-101", accountType="Vendor", **further)
    return [line(amount, **further), owed]


def error_of(reply: httpx.Response) -> tuple[int, str]:
    return reply.status_code, reply.json()["error"]["code"]


class Club:
    """A company of its own for one test, and a client that knows its way."""

    def __init__(self, simulator: Simulator) -> None:
        self.id = str(uuid4())
        self.simulator = simulator
        self.http = simulator.http
        self.headers: dict[str, str] = {}

    async def open(self) -> None:
        company = {"id": self.id, "name": "Fjordby", "accounts": CHART, "dimensions": DIMENSIONS}
        client = {"id": f"client-{self.id}", "secret": "of this club"}
        await self.simulator.order("setup", {"companies": [company], "clients": [client]})
        await self.sign_in()

    async def sign_in(self) -> None:
        own = {"client_id": f"client-{self.id}", "client_secret": "of this club"}
        reply = await self.http.post(TOKEN, data={**CREDENTIALS, **own})
        token = reply.json()["access_token"]
        self.headers = {"Authorization": f"Bearer {token}", "Accept-Language": "en-US"}

    async def change(self, **wishes: Any) -> None:
        await self.simulator.order("setup", {"companies": [{"id": self.id, **wishes}]})

    async def ask(
        self, verb: str, path: str, body: Any = None, *, headers: Any = None, **options: Any
    ) -> httpx.Response:
        return await self.http.request(
            verb,
            f"{API}/companies({self.id})/{path}",
            json=body,
            headers={**self.headers, **(headers or {})},
            params={f"${name}": value for name, value in options.items()} or None,
        )

    async def journal(self, code: str = "KVITT-A", lines: Any = None, **further: Any) -> str:
        body = {"code": code, **({} if lines is None else {"journalLines": lines}), **further}
        reply = await self.ask("POST", "journals", body)
        assert reply.status_code == 201, reply.text
        return reply.json()["id"]

    async def post(self, journal: str) -> httpx.Response:
        return await self.ask("POST", f"journals({journal})/Microsoft.NAV.post")

    async def posted(self, lines: Any, code: str = "KVITT-A") -> str:
        journal = await self.journal(code, lines)
        reply = await self.post(journal)
        assert reply.status_code == 204, reply.text
        return journal

    async def lines(self, journal: str) -> list[dict[str, Any]]:
        return (await self.ask("GET", f"journals({journal})/journalLines")).json()["value"]

    async def entries(self, where: str = "entryNumber gt 0") -> list[dict[str, Any]]:
        reply = await self.ask("GET", "generalLedgerEntries", filter=where)
        assert reply.status_code == 200, reply.text
        return reply.json()["value"]

    async def batch(self, operations: list[dict[str, Any]], **headers: str) -> httpx.Response:
        return await self.http.post(
            f"{API}/$batch", json={"requests": operations}, headers={**self.headers, **headers}
        )

    def operation(self, number: int, path: str, body: Any) -> dict[str, Any]:
        url = f"companies({self.id})/{path}"
        headers = {"Content-Type": "application/json"}
        return {"id": str(number), "method": "POST", "url": url, "headers": headers, "body": body}


@pytest.fixture(scope="module")
async def simulator(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Simulator]:
    async with running("business_central", tmp_path_factory.mktemp("bc") / "books.db") as started:
        yield started


@pytest.fixture
async def club(simulator: Simulator) -> AsyncGenerator[Club]:
    settings = await simulator.defaults()
    opened = Club(simulator)
    await opened.open()
    yield opened
    await simulator.restore(settings)


# Auth


async def test_a_wrong_secret_is_refused_in_entras_shape(simulator: Simulator) -> None:
    reply = await simulator.http.post(TOKEN, data={**CREDENTIALS, "client_secret": "wrong"})
    assert reply.status_code == 401
    assert reply.json()["error"] == "invalid_client"
    assert reply.json()["error_description"].startswith("AADSTS7000215")


@pytest.mark.parametrize("field", ["grant_type", "scope", "client_id"])
async def test_a_wrong_token_request_is_refused(simulator: Simulator, field: str) -> None:
    reply = await simulator.http.post(TOKEN, data={**CREDENTIALS, field: "wrong"})
    assert reply.status_code in {400, 401}
    assert "access_token" not in reply.json()


async def test_a_token_expires_when_expires_in_is_over(club: Club) -> None:
    reply = await club.http.post(TOKEN, data=CREDENTIALS)
    headers = {"Authorization": f"Bearer {reply.json()['access_token']}"}
    seconds = reply.json()["expires_in"]
    await club.simulator.settings(clock_offset=seconds - 60)
    assert (await club.ask("GET", "accounts", headers=headers)).status_code == 200
    await club.simulator.settings(clock_offset=seconds + 1)
    refused = await club.ask("GET", "accounts", headers=headers)
    assert error_of(refused) == (401, "Authentication_InvalidCredentials")


async def test_an_app_that_is_not_registered_inside_bc_is_refused(club: Club) -> None:
    client = {"id": f"client-{club.id}", "secret": "of this club", "registered": False}
    await club.simulator.order("setup", {"clients": [client]})
    assert (await club.ask("GET", "accounts")).status_code == 401


async def test_probes_are_answered_and_counted_as_probes(club: Club) -> None:
    before = (await club.simulator.requests())["counts"]["probe"]
    platform = await club.http.get("/environments/v1.2", headers=club.headers)
    company = await club.http.get(
        f"{API}/companies", params={"$top": 1, "$select": "id"}, headers=club.headers
    )
    assert platform.json()["value"][0]["name"] == ENVIRONMENT
    assert [list(row) for row in company.json()["value"]] == [["id"]]
    assert (await club.simulator.requests())["counts"]["probe"] == before + 2


# Entities


async def test_a_deep_insert_stages_a_journal_with_lines_and_dimensions(club: Club) -> None:
    dimensions = [{"code": "AVDELING", "valueCode": "10"}]
    lines = [line(99.9, externalDocumentNumber="claim-1", dimensionSetLines=dimensions)]
    await club.journal("KVITT-A", lines)
    found = await club.ask(
        "GET",
        "journals",
        filter="code eq 'KVITT-A'",
        expand="journalLines($expand=dimensionSetLines)",
    )
    [journal] = found.json()["value"]
    [staged] = journal["journalLines"]
    assert staged["lineNumber"] == 10000
    assert staged["externalDocumentNumber"] == "CLAIM-1"
    assert [each["valueCode"] for each in staged["dimensionSetLines"]] == ["10"]


async def test_a_deep_insert_carries_more_than_a_hundred_lines(club: Club) -> None:
    journal = await club.journal("KVITT-A", claim() * 75)
    assert len(await club.lines(journal)) == 150


async def test_a_bad_line_undoes_the_whole_deep_insert(club: Club) -> None:
    body = {"code": "KVITT-A", "journalLines": [line(1), line(1, "9999")]}
    reply = await club.ask("POST", "journals", body)
    assert error_of(reply) == (400, "Internal_InvalidTableRelation")
    assert (await club.ask("GET", "journals")).json()["value"] == []


async def test_codes_are_upper_cased_and_trimmed(club: Club) -> None:
    await club.journal(" kvitt-a ")
    found = await club.ask("GET", "journals", filter="code eq 'KVITT-A'")
    assert len(found.json()["value"]) == 1


async def test_only_the_default_template_is_seen_without_a_filter(club: Club) -> None:
    await club.change(journals=[{"code": "OTHER", "template": "PAYMENTS"}])
    await club.journal("KVITT-A")
    seen = (await club.ask("GET", "journals")).json()["value"]
    asked = await club.ask("GET", "journals", filter="templateDisplayName eq 'PAYMENTS'")
    assert [each["code"] for each in seen] == ["KVITT-A"]
    assert [each["code"] for each in asked.json()["value"]] == ["OTHER"]


@pytest.mark.parametrize("path", ["journalLines", "dimensionSetLines"])
async def test_lines_are_reached_through_their_parent_only(club: Club, path: str) -> None:
    reply = await club.ask("GET", path)
    assert error_of(reply) == (400, "BadRequest")
    assert "parent id" in reply.json()["error"]["message"]


@pytest.mark.parametrize("name", ["currencyCode", "documentType", "dueDate", "nonsense"])
async def test_a_line_has_no_currency_no_document_type_and_no_due_date(
    club: Club, name: str
) -> None:
    journal = await club.journal()
    reply = await club.ask("POST", f"journals({journal})/journalLines", line(1, **{name: "NOK"}))
    assert error_of(reply) == (400, "BadRequest")


@pytest.mark.parametrize(
    ("name", "length"),
    [
        ("documentNumber", 20),
        ("externalDocumentNumber", 35),
        ("description", 100),
        ("comment", 250),
    ],
)
async def test_a_string_that_is_too_long_is_refused(club: Club, name: str, length: int) -> None:
    lines = f"journals({await club.journal()})/journalLines"
    fits = await club.ask("POST", lines, line(1, **{name: "X" * length}))
    too_long = await club.ask("POST", lines, line(1, **{name: "X" * (length + 1)}))
    assert fits.status_code == 201
    assert error_of(too_long) == (400, "Application_StringExceededLength")


async def test_a_journal_code_has_ten_characters(club: Club) -> None:
    reply = await club.ask("POST", "journals", {"code": "ELEVENCHARS"})
    assert error_of(reply) == (400, "Application_StringExceededLength")


async def test_amounts_are_json_numbers_and_exact(club: Club) -> None:
    journal = await club.journal("KVITT-A", [line(0.1), line(0.2)])
    reply = await club.ask("GET", f"journals({journal})/journalLines")
    exact = json.loads(reply.text, parse_float=Decimal)["value"]
    assert [each["amount"] for each in exact] == [Decimal("0.10"), Decimal("0.20")]
    as_string = await club.ask(
        "POST", f"journals({journal})/journalLines", {**line(0), "amount": "1.00"}
    )
    assert error_of(as_string) == (400, "BadRequest")


async def test_an_account_id_resolves_for_ledger_accounts_and_not_for_vendors(club: Club) -> None:
    journal = await club.journal()
    account = (await club.ask("GET", "accounts", filter="number eq '7140'")).json()["value"][0]
    vendor = (await club.ask("GET", "vendors")).json()["value"][0]
    base = {"postingDate": MONTH_END, "documentNumber": "D-1", "amount": 1}
    path = f"journals({journal})/journalLines"
    general = await club.ask("POST", path, {**base, "accountId": account["id"]})
    party = {"accountType": "Vendor", "accountId": vendor["id"]}
    assert general.json()["accountNumber"] == "7140"
    assert (await club.ask("POST", path, {**base, **party})).status_code == 400


async def test_a_line_on_an_employee_can_not_be_read_back(club: Club) -> None:
    employee = line(-5, "E-1", accountType="Employee")
    journal = await club.journal("KVITT-A", [line(5), employee])
    assert len(await club.lines(journal)) == 1
    assert (await club.post(journal)).status_code == 204
    assert len(await club.entries()) == 2


@pytest.mark.parametrize("verb", ["PATCH", "DELETE"])
async def test_changing_a_row_needs_its_etag(club: Club, verb: str) -> None:
    journal = await club.journal()
    etag = (await club.ask("GET", f"journals({journal})")).json()["@odata.etag"]
    body = {"displayName": "January"} if verb == "PATCH" else None
    path = f"journals({journal})"
    without = await club.ask(verb, path, body)
    stale = await club.ask(verb, path, body, headers={"If-Match": 'W/"0"'})
    right = await club.ask(verb, path, body, headers={"If-Match": etag})
    assert without.status_code == 400
    assert error_of(stale) == (409, "Request_EntityChanged")
    assert right.status_code == (200 if verb == "PATCH" else 204)


async def test_a_default_dimension_is_patched_and_can_not_be_added(club: Club) -> None:
    default = {"code": "AVDELING", "value": "10"}
    await club.change(accounts=[{"number": "7140", "default_dimensions": [default]}])
    journal = await club.journal("KVITT-A", [line(1)])
    [staged] = await club.lines(journal)
    path = f"journals({journal})/journalLines({staged['id']})/dimensionSetLines"
    refused = await club.ask("POST", path, {"code": "AVDELING", "valueCode": "20"})
    [own] = (await club.ask("GET", path)).json()["value"]
    headers = {"If-Match": own["@odata.etag"]}
    changed = await club.ask("PATCH", f"{path}({own['id']})", {"valueCode": "20"}, headers=headers)
    assert "already exists" in refused.json()["error"]["message"]
    assert (changed.status_code, changed.json()["valueCode"]) == (200, "20")


@pytest.mark.parametrize("path", ["accounts", "vendors", "dimensions", "generalLedgerEntries"])
async def test_master_data_and_the_ledger_are_read_only(club: Club, path: str) -> None:
    assert (await club.ask("POST", path, {})).status_code == 405


# $filter


@pytest.mark.parametrize(
    ("where", "numbers"),
    [
        ("documentNumber eq 'D-1' and postingDate eq 2026-01-31", [1, 2]),
        ("documentNumber eq 'D-1' or documentNumber eq 'D-2'", [1, 2, 3, 4]),
        ("(documentNumber eq 'D-1' or documentNumber eq 'D-2') and debitAmount gt 1", [1, 3]),
        ("postingDate ge 2026-02-01 and postingDate le 2026-02-28", [3, 4]),
        ("accountNumber eq '2910' and creditAmount eq 100.00", [2, 4]),
        ("documentNumber eq 'O''D'", []),
        ("debitAmount lt 100 and debitAmount ge 0", [2, 4]),
    ],
)
async def test_ledger_entries_are_filtered(club: Club, where: str, numbers: list[int]) -> None:
    both = [*claim(), *claim(documentNumber="D-2", postingDate="2026-02-15")]
    await club.posted(both)
    first = (await club.entries())[0]["entryNumber"]
    assert [each["entryNumber"] - first + 1 for each in await club.entries(where)] == numbers


@pytest.mark.parametrize(
    "where",
    [
        "documentNumber eq 'D-1' or accountNumber eq '7140'",
        "documentNumber eq 'D-1' or accountNumber eq '7140' and debitAmount gt 0",
        "documentNumber ne 'D-1'",
        "startswith(documentNumber,'D')",
        "documentNumber eq D-1",
        "postingDate eq '2026-01-31'",
        "externalDocumentNumber eq 'CLAIM-1'",
        "journalCode eq 'KVITT-A'",
        "(documentNumber eq 'D-1'",
        "documentNumber eq",
        "documentNumber eq 'D",
    ],
)
async def test_what_the_filter_does_not_know_is_refused(club: Club, where: str) -> None:
    reply = await club.ask("GET", "generalLedgerEntries", filter=where)
    assert reply.status_code == 400, reply.text


async def test_a_ledger_entry_shows_neither_reference_nor_journal(club: Club) -> None:
    await club.posted(claim(externalDocumentNumber="CLAIM-1"))
    entry = (await club.entries())[0]
    assert not {name for name in entry if "external" in name.lower() or "journal" in name.lower()}


async def test_pages_are_followed_to_the_end(club: Club) -> None:
    await club.posted(claim() * 3)
    await club.simulator.settings(page_size=4)
    first = (await club.ask("GET", "generalLedgerEntries", filter="debitAmount ge 0")).json()
    second = (await club.http.get(first["@odata.nextLink"], headers=club.headers)).json()
    numbers = [each["entryNumber"] for each in first["value"] + second["value"]]
    assert "@odata.nextLink" not in second
    assert (len(numbers), len(set(numbers))) == (6, 6)


async def test_a_page_beyond_the_limit_is_refused(club: Club) -> None:
    headers = {"Prefer": "odata.maxpagesize=20001"}
    reply = await club.ask("GET", "generalLedgerEntries", headers=headers)
    assert reply.status_code == 413


async def test_a_read_only_replica_lags(club: Club) -> None:
    await club.posted(claim())
    headers = {"Data-Access-Intent": "ReadOnly"}
    lagging = await club.ask("GET", "generalLedgerEntries", headers=headers)
    assert lagging.json()["value"] == []


# Posting


async def test_posting_books_all_lines_and_leaves_one_blank_line(club: Club) -> None:
    journal = await club.posted(claim(externalDocumentNumber="CLAIM-1"))
    [blank] = await club.lines(journal)
    books = await club.simulator.books(club.id)
    assert (blank["lineNumber"], blank["accountNumber"], blank["amount"]) == (10000, "", 0)
    assert [(each["account"], each["ledger_account"]) for each in books["posted"]] == [
        ("7140", "7140"),
        ("ANS-101", "2910"),
    ]
    assert [each["amount"] for each in books["posted"]] == ["100.00", "-100.00"]
    assert {each["reference"] for each in books["posted"]} == {"CLAIM-1"}
    assert books["staged"] == []


async def test_an_empty_journal_and_a_posted_one_have_nothing_to_post(club: Club) -> None:
    empty = await club.journal("KVITT-B")
    posted = await club.posted(claim())
    for journal in (empty, posted):
        reply = await club.post(journal)
        assert reply.status_code == 400
        assert "There is nothing to post." in reply.json()["error"]["message"]
    assert len(await club.entries()) == 2


@pytest.mark.parametrize("differing", [{"documentNumber": "D-2"}, {"postingDate": "2026-01-30"}])
async def test_each_document_of_each_day_has_to_balance(
    club: Club, differing: dict[str, str]
) -> None:
    expense, owed = claim()
    journal = await club.journal("KVITT-A", [expense, {**owed, **differing}])
    reply = await club.post(journal)
    assert "out of balance" in reply.json()["error"]["message"]
    assert (await club.entries(), len(await club.lines(journal))) == ([], 2)


async def test_a_template_may_leave_documents_unbalanced_but_not_days(club: Club) -> None:
    await club.simulator.settings(force_document_balance=False)
    expense, owed = claim()
    await club.posted([expense, {**owed, "documentNumber": "D-2"}])
    journal = await club.journal("KVITT-B", [expense, {**owed, "postingDate": "2026-02-01"}])
    assert (await club.post(journal)).status_code == 400


async def test_a_balancing_account_on_the_journal_balances_twice(club: Club) -> None:
    journal = await club.journal("KVITT-A", claim(), balancingAccountNumber="2910")
    await club.post(journal)
    assert len(await club.entries()) == 4


async def test_the_same_document_is_booked_twice_without_a_word(club: Club) -> None:
    await club.posted(claim(), "KVITT-A")
    await club.posted(claim(), "KVITT-B")
    assert len(await club.entries("documentNumber eq 'D-1'")) == 4


async def test_an_account_that_is_blocked_takes_no_lines_and_no_posting(club: Club) -> None:
    journal = await club.journal("KVITT-A", claim())
    await club.change(accounts=[{"number": "7140", "blocked": True}])
    insert = await club.ask("POST", "journals", {"code": "KVITT-B", "journalLines": claim()})
    posting = await club.post(journal)
    assert error_of(insert) == error_of(posting) == (400, "Application_FieldValidationException")
    assert await club.entries() == []


async def test_a_dimension_that_an_account_demands_is_checked_at_posting(club: Club) -> None:
    demanded = {"code": "AVDELING", "mandatory": True}
    await club.change(accounts=[{"number": "7140", "default_dimensions": [demanded]}])
    reply = await club.post(await club.journal("KVITT-A", claim()))
    assert "Select a Dimension Value Code" in reply.json()["error"]["message"]


async def test_a_batch_with_a_trailing_number_may_be_renamed_by_posting(club: Club) -> None:
    await club.simulator.settings(increment_batch_name=True)
    journal = await club.posted(claim(), "EXP202511")
    assert (await club.ask("GET", f"journals({journal})")).json()["code"] == "EXP202512"


async def test_a_job_queue_answers_204_before_anything_is_booked(club: Club) -> None:
    await club.simulator.settings(post_with_job_queue=True, job_queue_seconds=60)
    journal = await club.posted(claim())
    before = (await club.entries(), len(await club.lines(journal)))
    await club.simulator.run_jobs()
    assert before == ([], 2)
    assert len(await club.entries()) == 2


async def test_a_posting_number_series_replaces_the_document_number(club: Club) -> None:
    await club.simulator.settings(posting_number_series="GJ-0009")
    await club.posted(claim())
    assert {each["documentNumber"] for each in await club.entries()} == {"GJ-0010"}


async def test_a_number_series_refuses_our_numbers_and_leaves_no_blank_line(club: Club) -> None:
    await club.simulator.settings(number_series="JNL-0001")
    refused = await club.post(await club.journal("KVITT-A", claim()))
    journal = await club.posted(claim(documentNumber="JNL-0002"), "KVITT-B")
    assert "No. Series" in refused.json()["error"]["message"]
    assert await club.lines(journal) == []


async def test_the_job_queue_keeps_a_log_of_what_it_posted_and_of_what_it_could_not(
    club: Club,
) -> None:
    await club.simulator.settings(post_with_job_queue=True, job_queue_seconds=60)
    await club.posted(claim())
    await club.posted([line(1)], "KVITT-B")
    assert (await club.ask("GET", "jobQueueLogEntries")).json()["value"] == []
    await club.simulator.run_jobs()
    options = {"filter": "objectIdToRun eq 250", "select": "status,errorMessage"}
    logged = (await club.ask("GET", "jobQueueLogEntries", **options)).json()["value"]
    said = sorted((each["status"], each["errorMessage"]) for each in logged)
    assert [status for status, _ in said] == ["Error", "Success"]
    assert "out of balance" in said[0][1]
    await club.simulator.settings(has_job_queue_log=False)
    missing = await club.ask("GET", "jobQueueLogEntries")
    assert error_of(missing) == (404, "BadRequest_ResourceNotFound")


@pytest.mark.parametrize(
    ("asked", "honours", "said"),
    [
        ("en-US", True, "There is nothing to post."),
        ("", True, "Det er ingenting å bokføre."),
        ("en-US", False, "Det er ingenting å bokføre."),
    ],
)
async def test_messages_come_in_the_language_that_is_asked_for_or_in_the_companys_own(
    club: Club, asked: str, said: str, *, honours: bool
) -> None:
    await club.simulator.settings(honours_accept_language=honours)
    club.headers["Accept-Language"] = asked
    reply = await club.post(await club.journal())
    assert reply.json()["error"]["message"].startswith(said)
    assert error_of(reply) == (400, "Application_DialogException")


async def test_each_operation_of_a_batch_asks_for_its_language(club: Club) -> None:
    journal = await club.journal()
    address = f"companies({club.id})/journals({journal})/Microsoft.NAV.post"
    operations = [
        {"id": str(n), "method": "POST", "url": address, "headers": headers}
        for n, headers in enumerate([{"Accept-Language": "en-US"}, {}])
    ]
    reply = await club.batch(operations, Prefer="odata.continue-on-error")
    english, own = (each["body"]["error"]["message"] for each in reply.json()["responses"])
    assert english.startswith("There is nothing to post.")
    assert own.startswith("Det er ingenting å bokføre.")


@pytest.mark.parametrize(("copies", "shown"), [(True, [-125, 25, 100]), (False, [-125, 125])])
async def test_an_account_with_vat_posting_groups_splits_vat_off_unless_they_are_not_copied(
    club: Club, *, copies: bool, shown: list[int]
) -> None:
    await club.change(accounts=[{"number": "7140", "vat_percent": 25}])
    await club.simulator.settings(copies_vat_setup=copies)
    await club.posted(claim(125))
    entries = await club.entries()
    amounts = sorted(each["debitAmount"] - each["creditAmount"] for each in entries)
    assert amounts == shown


async def test_an_error_may_surface_after_the_ledger_is_committed(club: Club) -> None:
    await club.simulator.settings(analysis_view_fails=True)
    reply = await club.post(await club.journal("KVITT-A", claim()))
    assert reply.status_code == 400
    assert len(await club.entries()) == 2


# Duplicates


@pytest.mark.parametrize("status", [400, 409])
async def test_a_code_and_a_line_number_are_unique(club: Club, status: int) -> None:
    await club.simulator.settings(same_key_status=status)
    journal = await club.journal("KVITT-A", [line(1, lineNumber=10000)])
    code = await club.ask("POST", "journals", {"code": "kvitt-a"})
    number = await club.ask("POST", f"journals({journal})/journalLines", line(1, lineNumber=10000))
    expected = (status, "Internal_EntityWithSameKeyExists")
    assert error_of(code) == error_of(number) == expected


async def test_a_deep_insert_on_an_existing_code_appends_unless_told_to_refuse(club: Club) -> None:
    journal = await club.journal("KVITT-A", claim())
    await club.journal("KVITT-A", claim())
    assert len(await club.lines(journal)) == 4
    await club.simulator.settings(deep_insert_on_existing="refuse")
    refused = await club.ask("POST", "journals", {"code": "KVITT-A", "journalLines": claim()})
    assert error_of(refused) == (400, "Internal_EntityWithSameKeyExists")
    assert len(await club.lines(journal)) == 4


# $batch


async def test_a_batch_is_200_outside_and_stops_at_the_first_error(club: Club) -> None:
    codes = ["KVITT-A", "KVITT-A", "KVITT-B"]
    operations = [club.operation(i, "journals", {"code": code}) for i, code in enumerate(codes)]
    reply = await club.batch(operations)
    assert reply.status_code == 200
    assert [each["status"] for each in reply.json()["responses"]] == [201, 400]


async def test_a_batch_goes_on_when_asked_to(club: Club) -> None:
    codes = ["KVITT-A", "KVITT-A", "KVITT-B"]
    operations = [club.operation(i, "journals", {"code": code}) for i, code in enumerate(codes)]
    reply = await club.batch(operations, Prefer="odata.continue-on-error")
    assert [each["status"] for each in reply.json()["responses"]] == [201, 400, 201]


async def test_a_failed_snapshot_batch_still_shows_201_for_what_it_rolled_back(club: Club) -> None:
    codes = ["KVITT-A", "KVITT-A", "KVITT-B"]
    operations = [club.operation(i, "journals", {"code": code}) for i, code in enumerate(codes)]
    reply = await club.batch(operations, Isolation="snapshot")
    first, second = reply.json()["responses"]
    assert (first["status"], "id" in first["body"], second["status"]) == (201, True, 400)
    assert (await club.ask("GET", "journals")).json()["value"] == []


async def test_a_batch_of_more_than_a_hundred_is_an_internal_error(club: Club) -> None:
    operations = [club.operation(i, "journals", {"code": f"K{i}A"}) for i in range(101)]
    assert (await club.batch(operations)).status_code == 500
    assert (await club.batch(operations[:100])).status_code == 200


# Limits


async def test_the_quota_refuses_with_429_and_no_retry_after(club: Club) -> None:
    await club.simulator.settings(quota=2)
    replies = [await club.ask("GET", "accounts", top=1) for _ in range(3)]
    assert [reply.status_code for reply in replies] == [200, 200, 429]
    assert "retry-after" not in replies[-1].headers
    await club.simulator.settings(clock_offset=301)
    assert (await club.ask("GET", "accounts", top=1)).status_code == 200


async def test_five_run_at_once_others_queue_and_a_full_queue_refuses(club: Club) -> None:
    await club.simulator.settings(latency_ms=400, queue=5)
    started = time.monotonic()
    replies = await asyncio.gather(*[club.ask("GET", "accounts", top=1) for _ in range(12)])
    statuses = sorted(reply.status_code for reply in replies)
    assert statuses == [200] * 10 + [429] * 2
    assert time.monotonic() - started >= 0.8


async def test_a_request_that_queues_too_long_is_refused_with_503(club: Club) -> None:
    await club.simulator.settings(latency_ms=300, concurrency=1, queue_seconds=0.1)
    replies = await asyncio.gather(*[club.ask("GET", "accounts", top=1) for _ in range(2)])
    assert sorted(reply.status_code for reply in replies) == [200, 503]


async def test_an_address_of_more_than_8000_characters_is_refused(club: Club) -> None:
    reply = await club.ask("GET", "accounts", filter=f"number eq '{'7' * 8000}'")
    assert reply.status_code == 414


async def test_an_error_has_a_code_and_ends_with_a_correlation_id(club: Club) -> None:
    error = (await club.ask("GET", f"journals({uuid4()})")).json()["error"]
    assert error["code"] == "Internal_RecordNotFound"
    assert "CorrelationId:" in error["message"]


# Facts of the page that have no other place


async def test_an_app_without_the_permission_is_refused(club: Club) -> None:
    client = {"id": f"client-{club.id}", "secret": "of this club", "permitted": False}
    await club.simulator.order("setup", {"clients": [client]})
    refused = await club.ask("GET", "accounts")
    assert error_of(refused) == (401, "Authentication_InvalidCredentials")


async def test_a_journal_needs_a_code_and_has_a_name_of_100_characters(club: Club) -> None:
    nameless = await club.ask("POST", "journals", {"displayName": "January"})
    named = await club.ask("POST", "journals", {"code": "KVITT-A", "displayName": "X" * 100})
    too_long = await club.ask("POST", "journals", {"code": "KVITT-B", "displayName": "X" * 101})
    assert (nameless.status_code, named.status_code) == (400, 201)
    assert error_of(too_long) == (400, "Application_StringExceededLength")


async def test_a_new_journal_gets_the_default_template_and_its_code_is_unique_there(
    club: Club,
) -> None:
    await club.change(journals=[{"code": "KVITT-A", "template": "PAYMENTS"}])
    reply = await club.ask("POST", "journals", {"code": "KVITT-A"})
    assert (reply.status_code, reply.json()["templateDisplayName"]) == (201, "GENERAL")
    again = await club.ask("POST", "journals", {"code": "KVITT-A"})
    assert error_of(again) == (400, "Internal_EntityWithSameKeyExists")


async def test_an_account_number_has_20_characters(club: Club) -> None:
    lines = f"journals({await club.journal()})/journalLines"
    too_long = await club.ask("POST", lines, line(1, "7" * 21))
    assert error_of(too_long) == (400, "Application_StringExceededLength")


@pytest.mark.parametrize("verb", ["PATCH", "DELETE"])
@pytest.mark.parametrize("status", [409, 412])
async def test_changing_a_line_needs_its_etag_and_a_stale_one_is_told(
    club: Club, verb: str, status: int
) -> None:
    await club.simulator.settings(stale_etag_status=status)
    journal = await club.journal("KVITT-A", [line(1)])
    [staged] = await club.lines(journal)
    path = f"journals({journal})/journalLines({staged['id']})"
    body = {"description": "Travel"} if verb == "PATCH" else None
    without = await club.ask(verb, path, body)
    stale = await club.ask(verb, path, body, headers={"If-Match": 'W/"0"'})
    right = await club.ask(verb, path, body, headers={"If-Match": staged["@odata.etag"]})
    assert (without.status_code, right.is_success) == (400, True)
    assert error_of(stale) == (status, "Request_EntityChanged")


async def test_a_dimension_that_the_account_gives_cannot_come_with_the_line(club: Club) -> None:
    default = {"code": "AVDELING", "value": "10"}
    await club.change(accounts=[{"number": "7140", "default_dimensions": [default]}])
    brought = [{"code": "AVDELING", "valueCode": "20"}]
    body = {"code": "KVITT-A", "journalLines": [line(1, dimensionSetLines=brought)]}
    reply = await club.ask("POST", "journals", body)
    assert "already exists" in reply.json()["error"]["message"]
    assert (await club.ask("GET", "journals")).json()["value"] == []


async def test_dates_are_days_and_moments_are_utc_with_z(club: Club) -> None:
    journal = await club.journal("KVITT-A", [line(1)])
    [staged] = await club.lines(journal)
    assert staged["postingDate"] == MONTH_END
    assert staged["lastModifiedDateTime"].endswith("Z")
    for wrong in ("31.01.2026", "2026-1-31", "2026-01-31T00:00:00Z"):
        reply = await club.ask(
            "POST", f"journals({journal})/journalLines", line(1, postingDate=wrong)
        )
        assert error_of(reply) == (400, "BadRequest")


async def test_a_posted_line_is_debit_where_it_is_positive_and_has_no_document_type(
    club: Club,
) -> None:
    await club.posted(claim())
    expense, owed = await club.entries()
    assert (expense["debitAmount"], expense["creditAmount"]) == (100, 0)
    assert (owed["debitAmount"], owed["creditAmount"]) == (0, 100)
    assert {each["documentType"].strip() for each in (expense, owed)} == {""}


async def test_a_ledger_entry_shows_the_documented_fields_and_no_other(club: Club) -> None:
    await club.posted(claim())
    assert set((await club.entries())[0]) == {
        *("id", "entryNumber", "postingDate", "documentNumber", "documentType", "accountNumber"),
        *("description", "debitAmount", "creditAmount", "lastModifiedDateTime"),
    }


async def test_codes_may_be_kept_as_they_are_given(club: Club) -> None:
    await club.simulator.settings(folds_codes=False)
    await club.journal("kvitt-a")
    codes = [each["code"] for each in (await club.ask("GET", "journals")).json()["value"]]
    assert codes == ["kvitt-a"]


async def test_no_header_makes_a_repetition_harmless(club: Club) -> None:
    journal = await club.journal()
    headers = dict.fromkeys(("Idempotency-Key", "client-request-id", "x-ms-request-id"), "the same")
    for _ in range(2):
        path = f"journals({journal})/journalLines"
        assert (await club.ask("POST", path, line(1), headers=headers)).status_code == 201
    assert len(await club.lines(journal)) == 2


async def test_an_external_document_number_comes_twice_on_a_vendor_without_a_word(
    club: Club,
) -> None:
    for code in ("KVITT-A", "KVITT-B"):
        await club.posted(claim(externalDocumentNumber="INVOICE-7"), code)
    assert len(await club.entries()) == 4


async def test_a_posting_that_is_refused_leaves_everything_as_it_was(club: Club) -> None:
    await club.simulator.settings(posting_number_series="GJ-0009")
    expense, owed = claim()
    journal = await club.journal("KVITT-A", [*claim(), {**expense, "documentNumber": "D-2"}])
    assert (await club.post(journal)).status_code == 400
    assert (await club.entries(), len(await club.lines(journal))) == ([], 3)
    await club.ask("POST", f"journals({journal})/journalLines", {**owed, "documentNumber": "D-2"})
    assert (await club.post(journal)).status_code == 204
    numbers = {each["documentNumber"] for each in await club.entries()}
    assert numbers == {"GJ-0010", "GJ-0011"}


async def test_the_limits_are_the_documented_ones(club: Club) -> None:
    settings = await club.simulator.defaults()
    assert (settings["quota"], settings["quota_seconds"]) == (6000, 300)
    assert (settings["concurrency"], settings["queue"], settings["queue_seconds"]) == (5, 95, 480)
    assert (settings["page_size"], settings["body_bytes"]) == (20_000, 350_000_000)
    assert (settings["operation_seconds"], settings["gateway_seconds"]) == (480, 600)
    assert settings["url_characters"] == 8000


async def test_a_body_beyond_the_limit_is_refused(club: Club) -> None:
    await club.simulator.settings(body_bytes=200)
    assert (await club.ask("POST", "journals", {"code": "KVITT-A"})).status_code == 201
    too_large = {"code": "KVITT-B", "journalLines": claim() * 3}
    assert (await club.ask("POST", "journals", too_large)).status_code == 413


async def test_an_operation_that_takes_too_long_is_undone_with_408(club: Club) -> None:
    await club.simulator.settings(latency_ms=200, operation_seconds=0.05)
    reply = await club.ask("POST", "journals", {"code": "KVITT-A"})
    await club.simulator.settings(latency_ms=0)
    assert reply.status_code == 408
    assert (await club.ask("GET", "journals")).json()["value"] == []


async def test_the_gateway_gives_up_with_504_while_the_operation_goes_on(club: Club) -> None:
    await club.simulator.settings(latency_ms=300, gateway_seconds=0.05)
    reply = await club.ask("POST", "journals", {"code": "KVITT-A"})
    await club.simulator.settings(latency_ms=0, gateway_seconds=600)
    before = (await club.ask("GET", "journals")).json()["value"]
    await asyncio.sleep(0.6)
    after = (await club.ask("GET", "journals")).json()["value"]
    assert (reply.status_code, before, len(after)) == (504, [], 1)


@pytest.mark.parametrize(
    ("status", "told"), [(408, False), (500, False), (502, True), (503, True), (504, False)]
)
async def test_retry_after_comes_only_where_it_is_documented(
    club: Club, status: int, *, told: bool
) -> None:
    await club.simulator.fault("accounts.list", "status", status=status, retry_after=7)
    reply = await club.ask("GET", "accounts")
    assert (reply.status_code, "retry-after" in reply.headers) == (status, told)


@pytest.mark.parametrize("answers", [False, True])
async def test_head_is_not_documented_and_may_be_answered_or_not(
    club: Club, *, answers: bool
) -> None:
    await club.simulator.settings(answers_head=answers)
    reply = await club.http.head(f"{API}/companies", headers=club.headers)
    assert reply.status_code == (200 if answers else 405)


async def test_a_probe_of_the_company_counts_against_the_quota(club: Club) -> None:
    await club.simulator.settings(quota=1)
    asked = [await club.http.get(f"{API}/companies", headers=club.headers) for _ in range(2)]
    assert [reply.status_code for reply in asked] == [200, 429]


@pytest.mark.parametrize(("costs", "second"), [(True, 429), (False, 200)])
async def test_a_probe_of_the_platform_may_cost_quota_or_not(
    club: Club, *, costs: bool, second: int
) -> None:
    await club.simulator.settings(quota=1, environments_cost_quota=costs)
    asked = [await club.http.get("/environments/v1.2", headers=club.headers) for _ in range(2)]
    assert [reply.status_code for reply in asked] == [200, second]


# Faults


async def test_a_dropped_call_never_reaches_the_books(club: Club) -> None:
    await club.simulator.fault("journals.create", "drop-before")
    with pytest.raises(httpx.RemoteProtocolError):
        await club.journal("KVITT-A", claim())
    assert (await club.ask("GET", "journals")).json()["value"] == []


@pytest.mark.parametrize("fault", ["reply-lost", "truncated"])
async def test_a_lost_reply_leaves_the_books_changed(club: Club, fault: str) -> None:
    await club.simulator.fault("journals.create", fault)
    with pytest.raises(httpx.RemoteProtocolError):
        await club.journal("KVITT-A", claim())
    assert len((await club.simulator.books(club.id))["staged"]) == 2


async def test_a_late_commit_comes_after_a_read_that_saw_nothing(club: Club) -> None:
    journal = await club.journal("KVITT-A", claim())
    await club.simulator.fault("post", "late-commit", commit_after=0.3)
    with pytest.raises(httpx.RemoteProtocolError):
        await club.post(journal)
    assert await club.entries() == []
    await asyncio.sleep(0.5)
    assert len(await club.entries()) == 2


async def test_half_of_a_deep_insert_and_half_of_a_batch_can_be_committed(club: Club) -> None:
    await club.simulator.fault("journals.create", "half-batch")
    await club.simulator.fault("batch", "half-batch")
    with pytest.raises(httpx.RemoteProtocolError):
        await club.journal("KVITT-A", claim() * 2)
    operations = [club.operation(i, "journals", {"code": f"B{i}X"}) for i in range(4)]
    with pytest.raises(httpx.RemoteProtocolError):
        await club.batch(operations)
    codes = [each["code"] for each in (await club.ask("GET", "journals")).json()["value"]]
    assert codes == ["B0X", "B1X", "KVITT-A"]
    assert len((await club.simulator.books(club.id))["staged"]) == 2


async def test_a_status_on_order_comes_with_or_without_the_commit(club: Club) -> None:
    wait = {"status": 503, "retry_after": 7}
    await club.simulator.fault("journals.create", "status", **wait)
    await club.simulator.fault("journals.create", "status", status=504, phase="after", nth=2)
    before = await club.ask("POST", "journals", {"code": "KVITT-A"})
    after = await club.ask("POST", "journals", {"code": "KVITT-B"})
    codes = [each["code"] for each in (await club.ask("GET", "journals")).json()["value"]]
    assert (before.status_code, before.headers["retry-after"]) == (503, "7")
    assert (after.status_code, codes) == (504, ["KVITT-B"])


async def test_a_429_that_executes_can_not_be_ordered(club: Club) -> None:
    wish = {"on": "*", "fault": "status", "status": 429, "phase": "after"}
    reply = await club.http.post("/_sandbox/faults", json=wish)
    assert reply.status_code == 400


async def test_a_malformed_reply_is_no_json(club: Club) -> None:
    await club.simulator.fault("accounts.list", "malformed")
    reply = await club.ask("GET", "accounts")
    with pytest.raises(json.JSONDecodeError):
        reply.json()


async def test_a_slow_reply_outlasts_a_client_and_is_committed(club: Club) -> None:
    await club.simulator.fault("journals.create", "slow", delay=0.5)
    with pytest.raises(httpx.ReadTimeout):
        await club.http.post(
            f"{API}/companies({club.id})/journals",
            json={"code": "KVITT-A"},
            headers=club.headers,
            timeout=0.2,
        )
    assert len((await club.ask("GET", "journals")).json()["value"]) == 1


async def test_a_token_that_expires_on_order_stays_expired(club: Club) -> None:
    await club.simulator.fault("accounts.list", "token-expired")
    assert (await club.ask("GET", "accounts")).status_code == 401
    assert (await club.ask("GET", "accounts")).status_code == 401
    await club.sign_in()
    assert (await club.ask("GET", "accounts")).status_code == 200


async def test_a_fault_strikes_the_nth_call_and_as_often_as_told(club: Club) -> None:
    await club.simulator.fault("accounts.*", "rate-limit", nth=2, times=2)
    replies = [await club.ask("GET", "accounts") for _ in range(4)]
    assert [reply.status_code for reply in replies] == [200, 429, 429, 200]
    assert (await club.http.get("/_sandbox/faults")).json() == []


# The process


async def test_the_books_and_the_settings_outlive_a_kill(tmp_path: Path) -> None:
    books = tmp_path / "books.db"
    async with running("business_central", books) as first:
        club = Club(first)
        await club.open()
        await club.posted(claim())
        await first.settings(page_size=7)
        first.process.kill()
    async with running("business_central", books) as second:
        club.simulator, club.http = second, second.http
        assert len(await club.entries()) == 2
        assert (await second.defaults())["page_size"] == 7
        started = time.monotonic()
        second.process.terminate()
        second.process.wait(5)
        assert time.monotonic() - started < 1
