import asyncio
import json
import re
from collections.abc import AsyncGenerator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import httpx
import pytest

from tests.sandbox.vendors.conftest import Simulator, running

ADD = """mutation($inputs: [AddGLImportItemsInput!]!) {
  addGLImportItems(inputs: $inputs) { edges { clientId node { dbId } } }
}"""
STAGED = """query($filter: GLImportItemFilter, $first: Int, $after: String) {
  glImportItems(filter: $filter, first: $first, after: $after) {
    edges { cursor node { dbId amount extIdentifier modifiedAt account { code } } }
    pageInfo { hasNextPage }
  }
}"""
POSTED = STAGED.replace("GLImportItemFilter", "JournalEntryFilter").replace(
    "glImportItems", "journalEntries"
)
REFUSED = (
    "{ glImportItemErrors { edges { node { message extIdentifier glImportItem { dbId } } } } }"
)
BURST = "BAD_REQUEST.BURST_RATE_LIMIT_REACHED"
CREDITS = "BAD_REQUEST.INSUFFICIENT_CREDITS"
CONCURRENCY = "BAD_REQUEST.CONCURRENCY_LIMIT_REACHED"
CHART = {
    "accounts": [{"code": "7140", "name": "Reisekostnad"}, {"code": "2910"}],
    "subledgers": [{"code": "ANS-101", "name": "Kari Solberg"}],
    "objects": [{"slot": 1, "code": "10"}, {"slot": 2, "code": "P-CUP"}],
}
numbers = iter(range(1, 10_000))


def node(amount: str, account: str = "7140", **further: Any) -> dict[str, Any]:
    usual = {"trRegNumber": 260131, "postedDate": "2026-01-31", "extIdentifier": "CLAIM-1"}
    return {**usual, "account": {"code": account}, "amount": amount, **further}


def claim(amount: str = "100.00", **further: Any) -> list[dict[str, Any]]:
    owed = node(f"-{amount}", "2910", subledger={"code": "ANS-101"}, **further)
    return [node(amount, glObject1={"code": "10"}, **further), owed]


class Theatre:
    """An entity of its own for one test, with its token."""

    def __init__(self, simulator: Simulator) -> None:
        self.number = next(numbers)
        self.token = f"token-{uuid4()}"
        self.simulator = simulator

    @property
    def id(self) -> str:
        return str(self.number)

    async def open(self) -> None:
        await self.change(token=self.token, name="Teater Nordvest", **CHART)

    async def change(self, **wishes: Any) -> None:
        wish = {"entities": [{"id": self.number, **wishes}]}
        await self.simulator.order("setup", wish)

    async def send(self, query: str, **variables: Any) -> httpx.Response:
        return await self.simulator.http.post(
            "/graphql",
            json={"query": query, "variables": variables},
            headers={"Authorization": f"token {self.token}"},
        )

    async def ask(self, query: str, **variables: Any) -> Any:
        reply = await self.send(query, **variables)
        assert reply.status_code == 200
        assert "errors" not in reply.json(), reply.text
        [data] = reply.json()["data"].values()
        return data

    async def error(self, query: str, **variables: Any) -> dict[str, Any]:
        reply = await self.send(query, **variables)
        assert reply.status_code == 200
        assert reply.json()["data"] is None
        return reply.json()["errors"][0]

    async def add(self, nodes: list[dict[str, Any]]) -> Any:
        return await self.ask(ADD, inputs=inputs(nodes))

    async def nodes(self, query: str, **variables: Any) -> list[dict[str, Any]]:
        return [edge["node"] for edge in (await self.ask(query, **variables))["edges"] or []]


def inputs(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"clientId": str(place), "node": each} for place, each in enumerate(nodes)]


@pytest.fixture(scope="module")
async def simulator(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Simulator]:
    async with running("xledger", tmp_path_factory.mktemp("xledger") / "books.db") as started:
        yield started


@pytest.fixture
async def theatre(simulator: Simulator) -> AsyncGenerator[Theatre]:
    settings = await simulator.defaults()
    opened = Theatre(simulator)
    await opened.open()
    await simulator.settings(transit_seconds=0)
    yield opened
    await simulator.restore(settings)


# Auth


@pytest.mark.parametrize("scheme", ["token wrong", "Bearer {token}", ""])
async def test_a_wrong_token_is_refused_as_a_graphql_error(theatre: Theatre, scheme: str) -> None:
    headers = {"Authorization": scheme.format(token=theatre.token)}
    body = {"query": "{ __typename }"}
    reply = await theatre.simulator.http.post("/graphql", json=body, headers=headers)
    assert (reply.status_code, reply.json()["data"]) == (200, None)
    assert "token" in reply.json()["errors"][0]["message"]


async def test_a_token_sees_its_own_entity_only(theatre: Theatre) -> None:
    await theatre.add(claim())
    other = Theatre(theatre.simulator)
    await other.open()
    assert await other.nodes(STAGED) == []


async def test_a_token_sees_the_entities_below_its_own_and_none_above(theatre: Theatre) -> None:
    below = Theatre(theatre.simulator)
    await below.open()
    await below.change(parent=theatre.number)
    await below.add(claim())
    assert len(await theatre.nodes(STAGED)) == 2
    await theatre.add(claim())
    assert (len(await theatre.nodes(STAGED)), len(await below.nodes(STAGED))) == (4, 2)


async def test_a_token_that_was_overwritten_is_refused(theatre: Theatre) -> None:
    await theatre.ask("{ __typename }")
    await theatre.change(token=f"token-{uuid4()}")
    assert "token" in (await theatre.error("{ __typename }"))["message"]


# Import


async def test_rows_are_staged_with_ids_in_the_order_of_the_inputs(theatre: Theatre) -> None:
    edges = (await theatre.add(claim()))["edges"]
    assert [edge["clientId"] for edge in edges] == ["0", "1"]
    assert await theatre.nodes(POSTED) == []
    assert [row["dbId"] for row in await theatre.nodes(STAGED)] == [
        edge["node"]["dbId"] for edge in edges
    ]


async def test_an_id_is_a_string_that_a_float_could_not_hold(theatre: Theatre) -> None:
    [edge, _] = (await theatre.add(claim()))["edges"]
    assert isinstance(edge["node"]["dbId"], str)
    assert int(edge["node"]["dbId"]) > 2**53


@pytest.mark.parametrize("amount", [100, 100.5, "100,50", "1e2", "1.001", ""])
async def test_an_amount_is_a_decimal_string(theatre: Theatre, amount: Any) -> None:
    error = await theatre.error(ADD, inputs=inputs([node("1") | {"amount": amount}]))
    assert error["code"] == "INVALID_VALUE"


async def test_one_bad_node_refuses_all_of_them(theatre: Theatre) -> None:
    bad = node("1", text="X" * 61)
    error = await theatre.error(ADD, inputs=inputs([*claim(), bad]))
    assert error["code"] == "INVALID_VALUE"
    assert await theatre.nodes(STAGED) == []


async def test_a_mutation_takes_500_nodes_and_no_more(theatre: Theatre) -> None:
    error = await theatre.error(ADD, inputs=inputs([node("0.00")] * 501))
    assert "500" in error["message"]
    assert len((await theatre.add([node("0.00")] * 500))["edges"]) == 500


async def test_nothing_is_ever_recognised_as_a_duplicate(theatre: Theatre) -> None:
    await theatre.add(claim())
    await theatre.simulator.run_jobs()
    await theatre.add(claim())
    await theatre.add(claim())
    await theatre.simulator.run_jobs()
    assert len((await theatre.simulator.books(theatre.id))["posted"]) == 6


@pytest.mark.parametrize("length", [25, 26])
async def test_a_reference_has_25_characters_until_the_schema_says_otherwise(
    theatre: Theatre, length: int
) -> None:
    reply = await theatre.send(ADD, inputs=inputs(claim(extIdentifier="X" * length)))
    assert ("errors" in reply.json()) == (length > 25)


async def test_an_amount_may_come_in_the_currency_of_the_transaction(theatre: Theatre) -> None:
    foreign = node("0") | {"invoiceAmount": "10.00", "exchangeRate": "11.5"}
    del foreign["amount"]
    await theatre.add([foreign])
    assert [row["amount"] for row in await theatre.nodes(STAGED)] == ["115.00"]


async def test_one_bad_node_may_be_left_out_instead(theatre: Theatre) -> None:
    await theatre.simulator.settings(one_bad_node="is-left-out")
    bad = node("1", text="X" * 61)
    reply = (await theatre.send(ADD, inputs=inputs([*claim(), bad]))).json()
    assert [edge["clientId"] for edge in reply["data"]["addGLImportItems"]["edges"]] == ["0", "1"]
    assert reply["errors"][0]["code"] == "INVALID_VALUE"
    assert len(await theatre.nodes(STAGED)) == 2


async def test_a_bad_node_may_be_left_out_while_data_is_null(theatre: Theatre) -> None:
    await theatre.simulator.settings(one_bad_node="is-left-out-without-data")
    reply = (await theatre.send(ADD, inputs=inputs([*claim(), node("1", text="X" * 61)]))).json()
    assert reply["data"] is None
    assert reply["errors"][0]["code"] == "INVALID_VALUE"
    assert len(await theatre.nodes(STAGED)) == 2


# Posting


async def test_the_job_moves_rows_to_the_journal_under_new_ids(theatre: Theatre) -> None:
    await theatre.add(claim())
    staged = await theatre.nodes(STAGED)
    await theatre.simulator.run_jobs()
    posted = await theatre.nodes(POSTED)
    books = await theatre.simulator.books(theatre.id)
    assert await theatre.nodes(STAGED) == []
    assert {row["extIdentifier"] for row in posted} == {"CLAIM-1"}
    assert not {row["dbId"] for row in posted} & {row["dbId"] for row in staged}
    assert [(row["account"], row["amount"], row["party"]) for row in books["posted"]] == [
        ("7140", "100.00", None),
        ("2910", "-100.00", "ANS-101"),
    ]


async def test_for_a_moment_rows_are_neither_staged_nor_posted(theatre: Theatre) -> None:
    await theatre.simulator.settings(transit_seconds=0.4)
    await theatre.add(claim())
    job = asyncio.create_task(theatre.simulator.run_jobs())
    await asyncio.sleep(0.15)
    assert await theatre.nodes(STAGED) == []
    assert await theatre.nodes(POSTED) == []
    assert {row["state"] for row in (await theatre.simulator.books(theatre.id))["staged"]} == {
        "moving"
    }
    await job
    assert len(await theatre.nodes(POSTED)) == 2


async def test_the_job_runs_by_itself_at_its_interval(theatre: Theatre) -> None:
    await theatre.add(claim())
    await theatre.simulator.settings(posting_interval_seconds=0.1)
    await asyncio.sleep(0.5)
    assert len(await theatre.nodes(POSTED)) == 2


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"account": {"code": "9999"}}, "Account 9999 does not exist."),
        ({"subledger": {"code": "NOBODY"}}, "Subledger NOBODY does not exist."),
        ({"glObject2": {"code": "10"}}, "Object 10 does not exist in slot 2."),
        ({"postedDate": None}, "The posted date is missing."),
        ({"amount": "100.01"}, "Voucher 260131 is out of balance by 0.01."),
    ],
)
async def test_a_voucher_is_refused_by_the_job_and_stays_staged(
    theatre: Theatre, wrong: dict[str, Any], reason: str
) -> None:
    expense, owed = claim()
    await theatre.add([expense | wrong, owed, *claim(trRegNumber=7)])
    await theatre.simulator.run_jobs()
    errors = await theatre.nodes(REFUSED)
    assert {error["message"] for error in errors} == {reason}
    assert {error["extIdentifier"] for error in errors} == {"CLAIM-1"}
    assert (len(await theatre.nodes(STAGED)), len(await theatre.nodes(POSTED))) == (2, 2)


async def test_a_closed_account_is_refused_until_it_is_opened_again(theatre: Theatre) -> None:
    await theatre.change(accounts=[{"code": "7140", "blocked": True}])
    await theatre.add(claim())
    await theatre.simulator.run_jobs()
    assert len(await theatre.nodes(REFUSED)) == 1
    await theatre.change(accounts=[{"code": "7140", "blocked": False}])
    await theatre.simulator.run_jobs()
    assert await theatre.nodes(REFUSED) == []
    assert len(await theatre.nodes(POSTED)) == 2


async def test_balance_and_codes_may_be_checked_at_the_import_instead(theatre: Theatre) -> None:
    await theatre.simulator.settings(balance="import", unknown_codes="import")
    for bad in ([node("1.00")], [node("0.00", "9999")]):
        assert (await theatre.error(ADD, inputs=inputs(bad)))["code"] == "INVALID_VALUE"
    assert await theatre.nodes(STAGED) == []


@pytest.mark.parametrize("vouchers_by", ["source-and-number", "number"])
async def test_rows_of_one_number_are_one_voucher_perhaps_whatever_their_source(
    theatre: Theatre, vouchers_by: str
) -> None:
    await theatre.simulator.settings(vouchers_by=vouchers_by)
    good = claim(transactionSource={"code": "KV"})
    bad = node("7.00", account="9999", transactionSource={"code": "KW"})
    await theatre.add([*good, bad])
    await theatre.simulator.run_jobs()
    together = vouchers_by == "number"
    assert len(await theatre.nodes(POSTED)) == (0 if together else 2)
    assert len(await theatre.nodes(STAGED)) == (3 if together else 1)


async def test_rows_of_one_source_and_number_are_one_voucher_whoever_sent_them(
    theatre: Theatre,
) -> None:
    own = {"transactionSource": {"code": "KV"}}
    await theatre.add(claim(**own))
    await theatre.add([node("7.00", account="9999", **own)])
    await theatre.simulator.run_jobs()
    assert len(await theatre.nodes(POSTED)) == 0
    assert len(await theatre.nodes(STAGED)) == 3


async def test_balance_may_never_be_checked(theatre: Theatre) -> None:
    await theatre.simulator.settings(balance="never")
    await theatre.add([node("1.00")])
    await theatre.simulator.run_jobs()
    assert len(await theatre.nodes(POSTED)) == 1


# Queries


async def test_no_hits_are_null_or_an_empty_list(theatre: Theatre) -> None:
    answers = [(await theatre.ask(STAGED))["edges"] for _ in range(2)]
    await theatre.simulator.settings(empty_edges="null")
    assert None in answers
    assert [] in answers
    assert (await theatre.ask(STAGED))["edges"] is None


async def test_pages_are_followed_by_cursor(theatre: Theatre) -> None:
    await theatre.add([node("0.00")] * 5)
    seen: list[str] = []
    after, more = None, True
    while more:
        page = await theatre.ask(STAGED, first=2, after=after)
        seen += [edge["node"]["dbId"] for edge in page["edges"]]
        after, more = page["edges"][-1]["cursor"], page["pageInfo"]["hasNextPage"]
    assert (len(seen), len(set(seen))) == (5, 5)


async def test_modified_at_is_local_time_without_a_zone_and_filters(theatre: Theatre) -> None:
    await theatre.add(claim())
    modified = (await theatre.nodes(STAGED))[0]["modifiedAt"]
    local = datetime.now(ZoneInfo("Europe/Oslo")).replace(tzinfo=None)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", modified)
    assert abs(local - datetime.fromisoformat(modified)) < timedelta(seconds=5)
    later = (local + timedelta(minutes=1)).strftime("%Y-%m-%dT%H:%M:%S")
    assert len(await theatre.nodes(STAGED, filter={"modifiedAt_gte": modified})) == 2
    assert await theatre.nodes(STAGED, filter={"modifiedAt_gte": later}) == []


async def test_a_zone_in_a_time_is_refused(theatre: Theatre) -> None:
    error = await theatre.error(STAGED, filter={"modifiedAt_gte": "2026-01-31T00:00:00Z"})
    assert error["code"] == "INVALID_VALUE"


async def test_the_ext_identifier_filters_only_where_the_schema_has_it(theatre: Theatre) -> None:
    await theatre.add(claim())
    wanted = {"extIdentifier_in": ["CLAIM-1"]}
    error = await theatre.error(STAGED, filter=wanted)
    await theatre.simulator.settings(filter_by_ext_identifier=True)
    assert error["code"] == "INVALID_VALUE"
    assert len(await theatre.nodes(STAGED, filter=wanted)) == 2


async def test_errors_may_come_without_the_reference(theatre: Theatre) -> None:
    await theatre.simulator.settings(errors_carry_ext_identifier=False)
    assert (await theatre.error(REFUSED))["message"].startswith("Cannot query field")


async def test_a_schema_can_be_introspected(theatre: Theatre) -> None:
    query = '{ __type(name: "GLImportItemFilter") { inputFields { name } } }'
    fields = {field["name"] for field in (await theatre.ask(query))["inputFields"]}
    assert "modifiedAt_gte" in fields
    assert "extIdentifier" not in fields


async def test_accounts_are_open_ones_unless_asked_for_all(theatre: Theatre) -> None:
    await theatre.change(accounts=[{"code": "7140", "blocked": True}])
    query = "{ accounts%s { edges { node { code } } } }"
    assert await theatre.nodes(query % "") == [{"code": "2910"}]
    assert len(await theatre.nodes(query % "(objectStatus: ALL)")) == 2


async def test_an_unknown_field_is_an_error_without_data(theatre: Theatre) -> None:
    error = await theatre.error("{ journals { dbId } }")
    assert error["message"].startswith("Cannot query field")


async def test_filters_compare_by_equality_membership_and_range(theatre: Theatre) -> None:
    for number in (1, 2, 3):
        await theatre.add([node("0.00", trRegNumber=number)])
    rows = await theatre.nodes(STAGED)
    first, last = rows[0]["dbId"], rows[2]["modifiedAt"]
    assert len(await theatre.nodes(STAGED, filter={"trRegNumber": 2})) == 1
    assert len(await theatre.nodes(STAGED, filter={"trRegNumber_in": [1, 3]})) == 2
    assert len(await theatre.nodes(STAGED, filter={"dbId": first})) == 1
    assert await theatre.nodes(STAGED, filter={"modifiedAt_lt": rows[0]["modifiedAt"]}) == []
    assert len(await theatre.nodes(STAGED, filter={"modifiedAt_gte": last})) >= 1


async def test_a_query_may_name_an_owner_set(theatre: Theatre) -> None:
    await theatre.add(claim())
    query = "{ glImportItems(ownerSet: LOWER) { edges { node { dbId } } } }"
    assert len(await theatre.nodes(query)) == 2


async def test_a_date_is_a_day(theatre: Theatre) -> None:
    error = await theatre.error(ADD, inputs=inputs([node("1.00", postedDate="31.01.2026")]))
    assert error["code"] == "INVALID_VALUE"
    await theatre.add([node("0.00", postedDate="2026-01-31")])


@pytest.mark.parametrize(("ids_as", "kind"), [("string", str), ("number", int)])
async def test_an_id_is_a_string_or_a_number_and_is_taken_as_either(
    theatre: Theatre, ids_as: str, kind: type
) -> None:
    await theatre.simulator.settings(ids_as=ids_as)
    [edge, _] = (await theatre.add(claim()))["edges"]
    assert type(edge["node"]["dbId"]) is kind
    for given in (str(edge["node"]["dbId"]), int(edge["node"]["dbId"])):
        assert len(await theatre.nodes(STAGED, filter={"dbId": given})) == 1


async def test_a_node_has_the_fields_that_the_page_names(theatre: Theatre) -> None:
    query = '{ __type(name: "GLImportItemInput") { inputFields { name } } }'
    fields = {field["name"] for field in (await theatre.ask(query))["inputFields"]}
    assert fields == {
        *("transactionSource", "trRegNumber", "postedDate", "invoiceDate", "dueDate", "account"),
        *("amount", "invoiceAmount", "currency", "exchangeRate", "taxRule", "text"),
        *("invoiceNumber", "extIdentifier", "project", "subledger", "jobLevel"),
        *(f"glObject{slot}" for slot in range(1, 6)),
    }


# Limits


async def test_a_burst_is_refused_with_200_and_a_code_beside_the_message(theatre: Theatre) -> None:
    await theatre.simulator.settings(burst_requests=2)
    for _ in range(2):
        await theatre.ask("{ __typename }")
    error = await theatre.error("{ __typename }")
    await theatre.simulator.settings(clock_offset=6)
    assert error["code"] == BURST
    assert await theatre.ask("{ __typename }") == "Query"


async def test_the_limits_are_the_published_ones(theatre: Theatre) -> None:
    settings = await theatre.simulator.defaults()
    assert settings["monthly_allowance"] == 5000
    assert settings["nodes_per_mutation"] == 500
    assert (settings["burst_requests"], settings["burst_seconds"]) == (20, 5)


async def test_a_mass_mutation_spends_one_request(theatre: Theatre) -> None:
    await theatre.simulator.settings(monthly_allowance=2)
    await theatre.add([node("0.00")] * 500)
    await theatre.ask("{ __typename }")
    assert (await theatre.error("{ __typename }"))["code"] == CREDITS


async def test_too_many_at_once_are_refused(theatre: Theatre) -> None:
    await theatre.simulator.settings(concurrency=1, latency_ms=100)
    replies = await asyncio.gather(*[theatre.send("{ __typename }") for _ in range(2)])
    codes = [reply.json()["errors"][0]["code"] for reply in replies if "errors" in reply.json()]
    assert codes == [CONCURRENCY]


async def test_a_probe_spends_the_months_allowance_and_a_new_month_renews_it(
    theatre: Theatre,
) -> None:
    await theatre.simulator.settings(monthly_allowance=1)
    await theatre.ask("{ __typename }")
    error = await theatre.error("{ __typename }")
    assert error["code"] == CREDITS
    assert re.fullmatch(r"\d{4}-\d\d-01T00:00:00", error["extensions"]["resetAt"])
    await theatre.simulator.settings(clock_offset=32 * 86_400)
    await theatre.ask("{ __typename }")


async def test_requests_are_counted_by_kind(theatre: Theatre) -> None:
    before = (await theatre.simulator.requests())["counts"]
    await theatre.ask("{ __typename }")
    await theatre.add(claim())
    await theatre.ask(STAGED)
    after = (await theatre.simulator.requests())["counts"]
    assert {kind: after[kind] - before[kind] for kind in after} == {
        "token": 0,
        "write": 1,
        "read": 1,
        "probe": 1,
    }


# Faults


@pytest.mark.parametrize(
    ("fault", "staged"),
    [("drop-before", 0), ("half-batch", 1), ("reply-lost", 2), ("truncated", 2)],
)
async def test_a_lost_connection_leaves_none_half_or_all_of_it(
    theatre: Theatre, fault: str, staged: int
) -> None:
    await theatre.simulator.fault("addGLImportItems", fault)
    with pytest.raises(httpx.RemoteProtocolError):
        await theatre.add(claim())
    assert len(await theatre.nodes(STAGED)) == staged


async def test_a_late_commit_comes_after_a_read_that_saw_nothing(theatre: Theatre) -> None:
    await theatre.simulator.fault("addGLImportItems", "late-commit", commit_after=0.3)
    with pytest.raises(httpx.RemoteProtocolError):
        await theatre.add(claim())
    assert await theatre.nodes(STAGED) == []
    await asyncio.sleep(0.5)
    assert len(await theatre.nodes(STAGED)) == 2


async def test_a_limit_on_order_can_say_when_it_is_lifted(theatre: Theatre) -> None:
    await theatre.simulator.fault("*", "rate-limit", code=CREDITS, retry_after=60)
    error = await theatre.error("{ __typename }")
    assert error["code"] == CREDITS
    assert "resetAt" in error["extensions"]


async def test_a_gateways_error_is_no_json(theatre: Theatre) -> None:
    await theatre.simulator.fault("__typename", "status", status=503)
    reply = await theatre.send("{ __typename }")
    assert reply.status_code == 503
    with pytest.raises(json.JSONDecodeError):
        reply.json()


# The process


async def test_the_books_outlive_a_kill_in_the_middle_of_a_job(tmp_path: Path) -> None:
    books = tmp_path / "books.db"
    async with running("xledger", books) as first:
        theatre = Theatre(first)
        await theatre.open()
        await first.settings(transit_seconds=30)
        await theatre.add(claim())
        job = asyncio.create_task(first.run_jobs())
        await asyncio.sleep(0.2)
        first.process.kill()
        with pytest.raises(httpx.TransportError):
            await job
    async with running("xledger", books) as second:
        theatre.simulator = second
        await second.settings(transit_seconds=0)
        assert await second.run_jobs() == 2
        assert len(await theatre.nodes(POSTED)) == 2
