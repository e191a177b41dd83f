"""Dataverse: an alternate key that keeps each line from being booked twice, and change sets."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from datetime import date
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs
from uuid import uuid4

import httpx
import pytest
import respx

from kvitt.domain.errors import Refused, Uncertain, Unsent
from kvitt.domain.integrations import Timeouts
from kvitt.domain.mapping import Mapping
from kvitt.domain.periods import Period
from kvitt.domain.reconcile import compare
from kvitt.vendors import Client
from kvitt.vendors.dataverse import (
    Dataverse,
    DataverseColumns,
    DataverseSettings,
    mapping_objections,
    objection,
    rows,
)
from kvitt.vendors.http import Patience
from sandbox.vendors.dataverse.simulator import COLUMNS, TABLE
from tests.vendors.cast import KARI, SECRETS, Simulator, a_claim, a_period, claims, line, voucher

HOST = "https://contoso.crm4.dynamics.com"
ROOT = f"{HOST}/api/data/v9.2"
LOGIN = "https://login.microsoftonline.com/tenant/oauth2/v2.0/token"
SETTINGS = DataverseSettings.model_validate(
    {
        "tenant_id": "tenant",
        "client_id": "app",
        "client_secret": "secret-of-respx",
        "api_url": HOST,
    }
)
Run = Callable[[str], Simulator]
KEY = {"name": "kvitt_byname", "columns": ["kvitt_name"], "status": "Active"}
TODAY = date(2026, 11, 24)


def allow() -> None:
    """Guard nothing."""


@pytest.fixture
def dataverse(run: Run) -> Simulator:
    simulator = run("dataverse")
    simulator.restore()
    return simulator


@pytest.fixture
async def dv(dataverse: Simulator) -> AsyncGenerator[Client]:
    async with dataverse.open() as client:
        yield client


@pytest.fixture
def microsoft() -> Generator[respx.MockRouter]:
    with respx.mock(assert_all_called=False) as router:
        router.post(LOGIN).respond(json={"access_token": "token-of-respx", "expires_in": 3599})
        yield router


@pytest.fixture
async def canned(microsoft: respx.MockRouter) -> AsyncGenerator[Dataverse]:
    assert microsoft
    async with Dataverse(SETTINGS, Timeouts(), patience=Patience(tries=3)) as client:
        yield client


def define(simulator: Simulator, **table: Any) -> None:
    """Change the club's table."""
    changed = {"logical": TABLE, "entity_set": f"{TABLE}s", **table}
    environment = {"id": simulator.of.cast_company, "tables": [changed]}
    simulator.http.post(
        f"{simulator.url}/_sandbox/setup", json={"environments": [environment]}
    ).raise_for_status()


def parts(*texts: str, status: int = 200) -> httpx.Response:
    """Return a batch's reply with these HTTP replies in a change set."""
    inner = "".join(
        "--c\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n"
        f"Content-ID: {number}\r\n\r\n{text}\r\n\r\n"
        for number, text in enumerate(texts, 1)
    )
    body = f"--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n{inner}--c--\r\n--b--\r\n"
    headers = {"Content-Type": "multipart/mixed; boundary=b"}
    return httpx.Response(status, content=body, headers=headers)


# -- once, whoever sends it, and however late ------------------------------------------------------


async def test_what_is_there_already_is_left_and_only_the_rest_is_sent(
    dv: Client, dataverse: Simulator, period: Period
) -> None:
    await dv.send(period, claims(2, 3), begins=True, guard=allow)
    await dv.send(period, claims(1, 4), begins=False, guard=allow)
    assert len(dataverse.lines(period)) == 8
    assert compare(claims(1, 4), await dv.find(period, claims(1, 4))).complete


async def test_a_voucher_that_is_there_as_it_was_sent_counts_as_sent(
    dv: Client, dataverse: Simulator, period: Period
) -> None:
    await dv.send(period, claims(1, 2), begins=True, guard=allow)
    before = dataverse.operations()["batch"]
    reference = await dv.send(period, claims(1, 2), begins=True, guard=allow)
    assert reference == {
        "first": f"{period.reference}-000001",
        "last": f"{period.reference}-000002",
    }
    assert dataverse.operations()["batch"] == before + 1
    assert len(dataverse.lines(period)) == 4


async def test_a_voucher_that_is_there_with_another_amount_stops_and_is_not_touched(
    dv: Client, dataverse: Simulator, period: Period
) -> None:
    await dv.send(period, [a_claim(1, "10.00")], begins=True, guard=allow)
    with pytest.raises(Refused, match=r"voucher 10001 .* sent 2 lines of 20.00, .* 2 of 10.00"):
        await dv.send(period, [a_claim(1, "20.00"), a_claim(2)], begins=False, guard=allow)
    assert [row["amount"] for row in dataverse.lines(period)] == ["10.00", "-10.00"]


async def test_a_lost_call_that_commits_after_it_was_sent_again_adds_nothing(
    dv: Client, dataverse: Simulator, period: Period
) -> None:
    dataverse.fault("batch", "late-commit", commit_after=0.5)
    with pytest.raises(Uncertain):
        await dv.send(period, claims(1, 5), begins=True, guard=allow)
    assert await dv.find(period, claims(1, 5)) == {}
    await dv.send(period, claims(1, 2), begins=False, guard=allow)
    await asyncio.sleep(0.7)
    assert compare(claims(1, 2), await dv.find(period, claims(1, 5))).complete
    assert len(dataverse.lines(period)) == 4


async def test_clients_that_send_the_same_at_once_all_succeed_and_it_is_there_once(
    dataverse: Simulator, period: Period
) -> None:
    dataverse.change(latency_ms=20)

    async def send() -> None:
        async with dataverse.open() as client:
            await client.send(period, claims(1, 10), begins=True, guard=allow)

    await asyncio.gather(*(send() for _ in range(6)))
    assert len(dataverse.lines(period)) == 20


@pytest.mark.parametrize("counts", [True, False])
async def test_a_line_is_there_once_whether_the_header_counts_in_a_change_set_or_not(
    dv: Client,
    dataverse: Simulator,
    period: Period,
    counts: bool,  # noqa: FBT001 - by pytest
) -> None:
    dataverse.change(create_only_in_sets=counts)
    await dv.send(period, claims(1, 3), begins=True, guard=allow)
    await dv.send(period, claims(1, 5), begins=False, guard=allow)
    assert len(dataverse.lines(period)) == 10
    assert compare(claims(1, 5), await dv.find(period, claims(1, 5))).complete


async def test_calls_side_by_side_stay_far_below_what_an_app_may_ask_at_once(
    dv: Client, dataverse: Simulator, period: Period
) -> None:
    at_once = dv.habits.at_once
    assert at_once * 5 < 20, "minutes of execution time that five minutes allow"
    dataverse.change(concurrency=at_once, latency_ms=30)
    before = dataverse.operations()["batch"]
    await asyncio.gather(
        *(dv.send(period, claims(n, n), begins=False, guard=allow) for n in range(1, 9))
    )
    assert dataverse.operations()["batch"] == before + 8
    assert dv.requests["token"] == 1
    assert len(dataverse.lines(period)) == 16


async def test_a_row_that_exists_and_is_not_shown_is_for_a_person(
    canned: Dataverse, microsoft: respx.MockRouter, period: Period
) -> None:
    said = '{"error":{"code":"0x80040237","message":"A record with matching key values exists."}}'
    reply = parts(f"HTTP/1.1 412 Precondition Failed\r\n\r\n{said}", status=412)
    batches = microsoft.post(f"{ROOT}/$batch").mock(return_value=reply)
    microsoft.get(url__startswith=f"{ROOT}/kvitt_journallines").respond(json={"value": []})
    with pytest.raises(Refused, match="shows kvitt none"):
        await canned.send(period, claims(1, 1), begins=True, guard=allow)
    assert batches.call_count == 1


async def test_what_exists_and_cannot_be_read_back_is_uncertain(
    dv: Client, dataverse: Simulator, period: Period
) -> None:
    await dv.send(period, claims(1, 1), begins=True, guard=allow)
    dataverse.fault("rows.list", "status", status=503, times=9)
    with pytest.raises(Uncertain, match="could not be read back"):
        await dv.send(period, claims(1, 2), begins=False, guard=allow)


@pytest.mark.parametrize("status", ["Pending", "Failed"])
async def test_without_an_active_key_nothing_is_written(
    dv: Client, dataverse: Simulator, period: Period, status: str
) -> None:
    define(dataverse, keys=[{**KEY, "status": status}])
    try:
        with pytest.raises(Refused, match="not a defined key") as refused:
            await dv.send(period, claims(1, 1), begins=True, guard=allow)
    finally:
        define(dataverse, keys=[KEY])
    assert not refused.value.of_content
    assert dataverse.lines(period) == []


# -- change sets -----------------------------------------------------------------------------------


async def test_each_row_is_created_by_its_key_and_never_changed(
    canned: Dataverse, microsoft: respx.MockRouter, period: Period
) -> None:
    route = microsoft.post(f"{ROOT}/$batch").mock(
        return_value=parts("HTTP/1.1 204 No Content", "HTTP/1.1 204 No Content")
    )
    await canned.send(period, [a_claim(1)], begins=True, guard=allow)
    request = route.calls.last.request
    body = request.content.decode()
    assert request.headers["Content-Type"].startswith("multipart/mixed; boundary=batch_")
    assert request.headers["OData-Version"] == "4.0"
    name = f"{period.reference}-000001-0001"
    assert f"PATCH {ROOT}/kvitt_journallines(kvitt_name='{name}') HTTP/1.1\r\n" in body
    assert body.count("If-None-Match: *\r\n") == 2
    assert [f"Content-ID: {n}\r\n" in body for n in (1, 2, 3)] == [True, True, False]
    assert "\n" not in body.replace("\r\n", "")
    assert "kvitt_name" not in body.partition("\r\n\r\n{")[2].partition("--")[0]


@pytest.mark.parametrize("status", ["inner", "200"])
@pytest.mark.parametrize(("naming", "culprits"), [("content-id", [2]), ("nobody", [])])
async def test_a_refused_row_names_its_voucher_and_nothing_of_the_call_is_there(
    dv: Client,
    dataverse: Simulator,
    period: Period,
    status: str,
    naming: str,
    culprits: list[int],
) -> None:
    dataverse.change(batch_status=status, errors_name=naming)
    wrong = voucher(2, line("7140", "1.00"), line("9999", "-1.00"))
    with pytest.raises(Refused, match="Account 9999") as refused:
        await dv.send(period, [a_claim(1), wrong, a_claim(3)], begins=True, guard=allow)
    assert list(refused.value.culprits) == culprits
    assert refused.value.of_content
    assert dataverse.lines(period) == []


async def test_a_closed_account_and_a_text_too_long_are_the_vouchers_own_fault(
    dv: Client, dataverse: Simulator, period: Period
) -> None:
    dataverse.block("7140")
    with pytest.raises(Refused, match="Account 7140 is closed") as refused:
        await dv.send(period, [a_claim(1)], begins=True, guard=allow)
    assert refused.value.culprits == {1: "Account 7140 is closed"}
    project = {"kvitt_project": "P" * 21}
    long = voucher(7, line("6800", "1.00", dimensions=project), line("2910", "-1.00"))
    with pytest.raises(Refused, match="maximum allowed length of '20'") as refused:
        await dv.send(period, [long], begins=True, guard=allow)
    assert list(refused.value.culprits) == [7]


async def test_a_column_that_the_table_does_not_have_is_the_set_up(
    dv: Client, dataverse: Simulator, period: Period
) -> None:
    vessel = {"kvitt_vessel": "A"}
    strange = voucher(1, line("6800", "1.00", dimensions=vessel), line("2910", "-1.00"))
    with pytest.raises(Refused, match="'kvitt_vessel' does not exist") as refused:
        await dv.send(period, [strange], begins=True, guard=allow)
    assert not refused.value.of_content
    assert dataverse.lines(period) == []


@pytest.mark.parametrize("count", [1, 3])
async def test_a_batch_with_another_number_of_answers_is_uncertain(
    canned: Dataverse, microsoft: respx.MockRouter, period: Period, count: int
) -> None:
    reply = parts(*["HTTP/1.1 204 No Content"] * count)
    microsoft.post(f"{ROOT}/$batch").mock(return_value=reply)
    with pytest.raises(Uncertain, match="answers to 2 operations"):
        await canned.send(period, [a_claim(1)], begins=True, guard=allow)


@pytest.mark.parametrize(
    "reply",
    [
        parts(),
        parts("no reply at all", "HTTP/1.1 204 No Content"),
        httpx.Response(200, json={"value": []}),
        httpx.Response(
            200, content="--b\r\n\r\n", headers={"Content-Type": "multipart/mixed; boundary=b"}
        ),
    ],
)
async def test_a_batch_that_cannot_be_read_is_uncertain(
    canned: Dataverse, microsoft: respx.MockRouter, period: Period, reply: httpx.Response
) -> None:
    microsoft.post(f"{ROOT}/$batch").mock(return_value=reply)
    with pytest.raises(Uncertain):
        await canned.send(period, [a_claim(1)], begins=True, guard=allow)


@pytest.mark.parametrize(
    ("inner", "error"),
    [("500 Internal Server Error", Uncertain), ("503 Service Unavailable", Uncertain)],
)
async def test_a_server_error_within_a_batch_is_uncertain(
    canned: Dataverse,
    microsoft: respx.MockRouter,
    period: Period,
    inner: str,
    error: type[Exception],
) -> None:
    said = f'HTTP/1.1 {inner}\r\n\r\n{{"error":{{"code":"0x80040216","message":"Unexpected"}}}}'
    microsoft.post(f"{ROOT}/$batch").mock(return_value=parts(said))
    with pytest.raises(error, match="Unexpected"):
        await canned.send(period, [a_claim(1)], begins=True, guard=allow)


async def test_half_a_batch_never_comes_and_is_sent_again(
    dv: Client, dataverse: Simulator, period: Period
) -> None:
    dataverse.fault("batch", "half-batch")
    with pytest.raises(Uncertain):
        await dv.send(period, claims(1, 10), begins=True, guard=allow)
    assert await dv.find(period, claims(1, 10)) == {}
    await dv.send(period, claims(1, 10), begins=True, guard=allow)
    assert len(dataverse.lines(period)) == 20


# -- what a row holds ------------------------------------------------------------------------------


async def test_a_row_holds_what_an_accountant_looks_for(
    dv: Client, dataverse: Simulator, period: Period
) -> None:
    told = voucher(
        12,
        line("7140", "1173.21", amount="100.00", tax="1", dimensions={"kvitt_costcentre": "10"}),
        line("2910", "-1173.21", amount="-100.00", party=KARI, text="Kari"),
        currency="EUR",
        source="KV",
    )
    await dv.send(period, [told], begins=True, guard=allow)
    shown = await dataverse_row(dataverse, f"{period.reference}-000012-0001")
    assert shown == {
        "kvitt_name": f"{period.reference}-000012-0001",
        "kvitt_voucher": f"{period.reference}-000012",
        "kvitt_vouchernumber": 10012,
        "kvitt_line": 1,
        "kvitt_record": "claim-12",
        "kvitt_postingdate": "2026-11-24",
        "kvitt_documentdate": "2026-11-20",
        "kvitt_account": "7140",
        "kvitt_amount": 1173.21,
        "kvitt_currency": "EUR",
        "kvitt_originalamount": 100,
        "kvitt_tax": "1",
        "kvitt_text": "Travel",
        "kvitt_source": "KV",
        "kvitt_costcentre": "10",
        "kvitt_party": None,
        "kvitt_project": None,
    }


async def dataverse_row(simulator: Simulator, name: str) -> dict[str, Any]:
    """Look at a row as anybody would: without kvitt's client."""
    told = simulator.of.connect(simulator.url, simulator.of.cast_company)
    form = {
        "grant_type": "client_credentials",
        "client_id": told["client_id"],
        "client_secret": told["client_secret"],
        "scope": told["scope"],
    }
    async with httpx.AsyncClient(trust_env=False) as http:
        reply = await http.post(f"{simulator.url}/{told['tenant_id']}/oauth2/v2.0/token", data=form)
        headers = {"Authorization": f"Bearer {reply.json()['access_token']}"}
        address = f"{told['api_url']}/api/data/v9.2/{TABLE}s(kvitt_name='{name}')"
        row = (await http.get(address, headers=headers)).json()
    return {
        name: value
        for name, value in row.items()
        if not name.startswith("@") and name != f"{TABLE}id"
    }


async def test_columns_of_other_names_are_written_and_read(
    dataverse: Simulator, period: Period
) -> None:
    names = {"name": "contoso_ref", "amount": "contoso_nok", "account": "contoso_account"}
    renamed = {f"kvitt_{ours}": theirs for ours, theirs in names.items()}
    columns = [{**each, "name": renamed.get(each["name"], each["name"])} for each in COLUMNS]
    key = {"name": "by_ref", "columns": ["contoso_ref"]}
    table = {"logical": "contoso_line", "entity_set": "contoso_lines", "columns": columns}
    define(dataverse, **table, keys=[key])
    settings = {"table": "contoso_line", "entity_set": "contoso_lines", "columns": names}
    async with dataverse.open(**settings) as client:
        assert await client.misfits(book_currency="NOK", today=TODAY) == []
        await client.send(period, claims(1, 3), begins=True, guard=allow)
        await client.send(period, claims(1, 3), begins=True, guard=allow)
        assert compare(claims(1, 3), await client.find(period, claims(1, 3))).complete


async def test_a_dimension_in_a_column_that_holds_something_else_stops_before_it_is_sent(
    dataverse: Simulator, period: Period
) -> None:
    odd = {"contoso_account": "10"}
    clash = voucher(1, line("7140", "1.00", dimensions=odd), line("2910", "-1.00"))
    async with dataverse.open(columns={"account": "contoso_account"}) as client:
        with pytest.raises(Refused, match="something else: contoso_account"):
            await client.send(period, [clash], begins=True, guard=allow)
        assert client.requests["export"] == 0


def test_no_column_holds_two_things() -> None:
    with pytest.raises(ValueError, match="kvitt_text is named for two things"):
        DataverseColumns(source="kvitt_text")


async def test_what_is_read_back_comes_in_pages(
    dv: Client, dataverse: Simulator, period: Period
) -> None:
    dataverse.change(page_size=7)
    await dv.send(period, claims(1, 20), begins=True, guard=allow)
    before = dataverse.operations()["rows.list"]
    assert compare(claims(1, 20), await dv.find(period, claims(1, 20))).complete
    assert dataverse.operations()["rows.list"] == before + 6


@pytest.mark.parametrize("counts", [True, False])
async def test_vouchers_are_found_whether_hyphens_sort_or_not(
    dv: Client,
    dataverse: Simulator,
    period: Period,
    counts: bool,  # noqa: FBT001 - by pytest
) -> None:
    dataverse.change(hyphens_sort=counts)
    await dv.send(period, claims(1, 12), begins=True, guard=allow)
    await dv.send(a_period(), claims(1, 3), begins=True, guard=allow)
    found = await dv.find(period, claims(3, 11))
    assert sorted(found) == list(range(3, 12))
    assert compare(claims(3, 11), found).complete


@pytest.mark.parametrize("wanted", [True, False])
async def test_a_batch_is_taken_whether_its_requests_have_to_say_their_length_or_not(
    dv: Client,
    dataverse: Simulator,
    period: Period,
    wanted: bool,  # noqa: FBT001 - by pytest
) -> None:
    dataverse.change(wants_content_length=wanted)
    await dv.send(
        period,
        [voucher(1, line("7140", "1", text="Blåbær"), line("2910", "-1"))],
        begins=True,
        guard=allow,
    )
    assert len(dataverse.lines(period)) == 2


@pytest.mark.parametrize("habit", ["round", "refuse"])
async def test_more_decimals_than_the_table_has_are_never_taken_for_the_same(
    dv: Client, dataverse: Simulator, period: Period, habit: str
) -> None:
    dataverse.change(excess_decimals=habit)
    if habit == "refuse":
        with pytest.raises(Refused, match="decimals"):
            await dv.send(period, [a_claim(1, "1.005")], begins=True, guard=allow)
    else:
        await dv.send(period, [a_claim(1, "1.005")], begins=True, guard=allow)
    found = await dv.find(period, [a_claim(1)])
    assert not compare([a_claim(1, "1.005")], found).complete


async def test_a_next_page_on_another_host_gets_no_token(
    canned: Dataverse, microsoft: respx.MockRouter, period: Period
) -> None:
    page = {"value": [], "@odata.nextLink": "https://elsewhere.example/api/data/v9.2/lines"}
    microsoft.get(url__startswith=f"{ROOT}/kvitt_journallines").respond(json=page)
    with pytest.raises(Refused, match="another host"):
        await canned.totals(period)


async def test_rows_of_others_are_left_out(dv: Client, period: Period) -> None:
    other = a_period()
    await dv.send(period, claims(1, 1), begins=True, guard=allow)
    await dv.send(other, claims(1, 2), begins=True, guard=allow)
    shown = await dv.totals(period)
    assert (shown.vouchers, shown.lines) == (1, 2)


async def test_original_currencies_are_shown_where_each_row_has_its_own(
    dv: Client, period: Period
) -> None:
    abroad = voucher(
        2,
        line("7140", "1173.21", amount="100.00"),
        line("2910", "-1173.21", amount="-100.00"),
        currency="EUR",
    )
    await dv.send(period, [a_claim(1), abroad], begins=True, guard=allow)
    shown = await dv.totals(period)
    assert shown.original == {"NOK": Decimal("100.00"), "EUR": Decimal("100.00")}


@pytest.mark.parametrize(
    ("strange", "words"),
    [
        (line("7" * 101, "1.00"), "has the account .* of 101 characters"),
        (line("7140", "1.00", dimensions={"AVDELING": "10"}), "'AVDELING', which cannot be"),
        (line("7140", "1.00", dimensions={"kvitt_amount": "1"}), "'kvitt_amount', which cannot be"),
        (line("7140", "100000000000.00"), "less than 100 billion"),
    ],
)
def test_what_dataverse_cannot_take_is_objected_to(strange: Any, words: str) -> None:
    counter = line("2910", f"-{strange.booked}")
    wrong = voucher(1, strange, counter)
    with pytest.raises(Refused, match=words):
        rows(a_period(), wrong)


def test_a_voucher_of_more_lines_than_a_batch_takes_is_objected_to() -> None:
    lines = [line("7140", "1.00"), line("2910", "-1.00")] * 501
    assert "has 1,002 lines" in (objection(a_period(), voucher(1, *lines)) or "")


@pytest.mark.parametrize(
    ("declared", "place", "words"),
    [
        ({"dimensions": {"cost_centre": "AVDELING"}}, ("dimensions", "cost_centre"), "a column"),
        ({"dimensions": {"project": "kvitt_text"}}, ("dimensions", "project"), "a column"),
        ({"accounts": {"travel": "7" * 101}}, ("accounts", "travel"), "101 characters"),
        ({"comment": "{record}"}, ("comment",), "one text a line"),
    ],
)
def test_what_of_a_mapping_can_never_work_is_named_where_it_stands(
    declared: Any, place: tuple[str, ...], words: str
) -> None:
    [(where, why)] = mapping_objections(Mapping.model_validate(declared))
    assert where == place
    assert words in why


def test_a_mapping_as_the_page_has_it_is_not_objected_to() -> None:
    declared = {
        "dimensions": {"cost_centre": "kvitt_costcentre"},
        "document_date": "period",
        "source": "KV",
    }
    assert mapping_objections(Mapping.model_validate(declared)) == []


def test_a_records_id_that_is_too_long_is_shortened_and_stays_its_own(period: Period) -> None:
    first, second = (
        rows(period, voucher(1, line("7140", "0"), record_id=f"{'R' * 100}{end}"))[0][
            "kvitt_record"
        ]
        for end in ("~2", "~3")
    )
    assert len(first) == len(second) == 100
    assert first != second


async def test_a_voucher_of_a_thousand_lines_goes_in_one_call(
    dv: Client, dataverse: Simulator, period: Period
) -> None:
    large = voucher(1, *[line("7140", "1.00"), line("2910", "-1.00")] * 500)
    await dv.send(period, [large], begins=True, guard=allow)
    assert len(dataverse.lines(period)) == 1000


# -- limits ----------------------------------------------------------------------------------------


async def test_a_limit_says_which_it_is_and_what_was_left(
    canned: Dataverse, microsoft: respx.MockRouter, period: Period
) -> None:
    said = {"error": {"code": "0x80072321", "message": "Combined execution time exceeded"}}
    headers = {
        "Retry-After": "240",
        "x-ms-ratelimit-burst-remaining-xrm-requests": "5900",
        "x-ms-ratelimit-time-remaining-xrm-requests": "0.00",
    }
    microsoft.post(f"{ROOT}/$batch").respond(429, json=said, headers=headers)
    with pytest.raises(Unsent, match=r"5900 requests left, 0.00 execution time left") as unsent:
        await canned.send(period, [a_claim(1)], begins=True, guard=allow)
    assert unsent.value.retry_after is not None
    assert unsent.value.retry_after.total_seconds() == 240


async def test_a_limit_within_a_batch_is_not_executed_either(
    canned: Dataverse, microsoft: respx.MockRouter, period: Period
) -> None:
    said = 'HTTP/1.1 429 Too Many Requests\r\n\r\n{"error":{"code":"0x80072322","message":"No"}}'
    microsoft.post(f"{ROOT}/$batch").mock(return_value=parts(said, status=429))
    with pytest.raises(Unsent, match="0x80072322"):
        await canned.send(period, [a_claim(1)], begins=True, guard=allow)


# -- who we are ------------------------------------------------------------------------------------


async def test_the_scope_is_the_environments_own(
    canned: Dataverse, microsoft: respx.MockRouter
) -> None:
    microsoft.get(url__startswith=f"{ROOT}/kvitt_journallines").respond(json={"value": []})
    await canned.probe()
    form = parse_qs(microsoft.calls[0].request.content.decode())
    assert form["scope"] == [f"{HOST}/.default"]


async def test_a_token_that_is_void_is_renewed_once(
    dv: Client, dataverse: Simulator, period: Period
) -> None:
    dataverse.fault("batch", "token-expired")
    await dv.send(period, claims(1, 1), begins=True, guard=allow)
    assert dv.requests["token"] == 2
    assert len(dataverse.lines(period)) == 2


async def test_an_app_that_is_no_application_user_is_told_so(dataverse: Simulator) -> None:
    stranger = {"id": "stranger", "secret": SECRETS[0], "registered": False}
    dataverse.http.post(f"{dataverse.url}/_sandbox/setup", json={"clients": [stranger]})
    async with dataverse.open(client_id="stranger") as client:
        with pytest.raises(Refused, match="not a member of the organization"):
            await client.probe()


# -- the table -------------------------------------------------------------------------------------


async def test_a_table_as_the_page_describes_it_fits(dv: Client) -> None:
    assert await dv.misfits(book_currency="NOK", today=TODAY) == []


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"keys": []}, "no alternate key of the column kvitt_name alone"),
        ({"keys": [{**KEY, "status": "Pending"}]}, "is Pending, and not yet Active"),
        ({"entity_set": "trial_rows"}, "the set name trial_rows, and the block says trial_lines"),
        ({"without": "kvitt_tax"}, "kvitt_tax is missing: create it, as Single line of text"),
        (
            {"columns": [{"name": "kvitt_amount", "type": "String"}]},
            "kvitt_amount is of the type String, and kvitt writes Decimal number",
        ),
        (
            {"columns": [{"name": "kvitt_text", "type": "String", "length": 100}]},
            "kvitt_text takes 100 characters, and kvitt may write 200",
        ),
        (
            {"columns": [{"name": "kvitt_amount", "type": "Decimal", "decimals": 0}]},
            "kvitt_amount has 0 decimals, and NOK has 2",
        ),
    ],
)
async def test_a_table_that_breaks_it_is_named_with_the_remedy(
    dataverse: Simulator, table: dict[str, Any], words: str
) -> None:
    organisation, logical = f"org{uuid4().hex[:8]}", "trial_line"
    without = table.get("without")
    wanted = {"entity_set": "trial_lines", "keys": [KEY], "columns": [], **table}
    whole = [each for each in COLUMNS if each["name"] != without]
    names = {"logical": logical, "entity_set": wanted["entity_set"]}
    tables = [
        {**names, "columns": whole},
        {**names, "columns": wanted["columns"], "keys": wanted["keys"]},
    ]
    environment = {"id": organisation, "tables": tables}
    dataverse.http.post(
        f"{dataverse.url}/_sandbox/setup", json={"environments": [environment]}
    ).raise_for_status()
    told = dataverse.of.connect(dataverse.url, organisation)
    settings = {**told, "table": logical, "entity_set": "trial_lines"}
    async with dataverse.open(**settings) as client:
        (misfit,) = await client.misfits(book_currency="NOK", today=TODAY)
    assert words in misfit


async def test_a_table_that_is_not_there_is_named(dataverse: Simulator) -> None:
    async with dataverse.open(table="nobody") as client:
        (misfit,) = await client.misfits(book_currency="NOK", today=TODAY)
    assert "The table nobody could not be looked at" in misfit
    assert "'nobody'" in misfit
