"""The simulator of Dataverse is as strict as Microsoft documents Dataverse to be."""

import asyncio
import email
import json
import re
from collections.abc import AsyncGenerator
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from sandbox.vendors.dataverse.simulator import SIMULATOR, TABLE
from sandbox.vendors.setup import CLIENT_ID, CLIENT_SECRET, TENANT
from tests.sandbox.vendors.conftest import Simulator, running

LINES = f"{TABLE}s"
NAME = "QJMH25R56-000001-0001"
OTHER = "QJMH25R56-000001-0002"
CREATE_ONLY = {"If-None-Match": "*"}


def line(**further: Any) -> dict[str, Any]:
    return {"kvitt_account": "7140", "kvitt_amount": 100, **further}


def error_of(reply: httpx.Response) -> tuple[int, str]:
    return reply.status_code, reply.json()["error"]["code"]


class Club:
    """An environment of its own for one test, and a client that knows its way."""

    def __init__(self, simulator: Simulator) -> None:
        self.id = f"org{uuid4().hex[:12]}"
        self.simulator = simulator
        self.http = simulator.http
        self.headers: dict[str, str] = {}

    @property
    def api(self) -> str:
        return f"/{self.id}/api/data/v9.2"

    async def open(self) -> None:
        await self.simulator.order("setup", SIMULATOR.found(self.id))
        self.headers = {"Authorization": f"Bearer {await self.token()}"}

    async def token(self, **further: str) -> str:
        reply = await self.http.post(
            f"/{TENANT}/oauth2/v2.0/token", data={**self.credentials(), **further}
        )
        assert reply.status_code == 200, reply.text
        return reply.json()["access_token"]

    def credentials(self) -> dict[str, str]:
        return {
            "grant_type": "client_credentials",
            "client_id": CLIENT_ID,
            "client_secret": CLIENT_SECRET,
            "scope": f"{str(self.http.base_url).rstrip('/')}/{self.id}/.default",
        }

    async def ask(
        self, verb: str, path: str, body: Any = None, *, headers: Any = None, **options: Any
    ) -> httpx.Response:
        return await self.http.request(
            verb,
            f"{self.api}/{path}",
            json=body,
            headers={**self.headers, **(headers or {})},
            params={f"${name}": value for name, value in options.items()} or None,
        )

    async def create(self, name: str, **further: Any) -> httpx.Response:
        return await self.ask("PATCH", at(name), line(**further), headers=CREATE_ONLY)

    async def names(self, where: str | None = None) -> list[str]:
        filtered = {} if where is None else {"filter": where}
        reply = await self.ask("GET", LINES, select="kvitt_name", **filtered)
        assert reply.status_code == 200, reply.text
        return sorted(row["kvitt_name"] for row in reply.json()["value"])

    async def batch(self, *parts: list[str] | str, headers: Any = None) -> httpx.Response:
        return await self.send_batch(multipart(*parts), headers=headers)

    async def send_batch(self, body: str, headers: Any = None) -> httpx.Response:
        kind = {"Content-Type": "multipart/mixed; boundary=b"}
        every = {**self.headers, **kind, **(headers or {})}
        return await self.http.post(f"{self.api}/$batch", content=body, headers=every)

    def creation(self, name: str, **further: Any) -> str:
        body = json.dumps(line(**further))
        head = f"PATCH {self.api}/{at(name)} HTTP/1.1\r\nIf-None-Match: *"
        kind = f"Content-Type: application/json\r\nContent-Length: {len(body)}"
        return f"{head}\r\n{kind}\r\n\r\n{body}"


def at(name: str) -> str:
    return f"{LINES}(kvitt_name='{name}')"


def multipart(*parts: list[str] | str) -> str:
    """Write a batch: a list is a change set, a string a request of its own."""
    written = [
        _set(part, number) if isinstance(part, list) else _part(part)
        for number, part in enumerate(parts)
    ]
    return "\r\n".join([*(f"--b\r\n{part}" for part in written), "--b--", ""])


def _set(requests: list[str], number: int) -> str:
    boundary = f"c{number}"
    parts = [f"--{boundary}\r\n{_part(each, place)}" for place, each in enumerate(requests, 1)]
    head = f"Content-Type: multipart/mixed; boundary={boundary}\r\n\r\n"
    return head + "\r\n".join([*parts, f"--{boundary}--"])


def _part(request: str, number: int | None = None) -> str:
    numbered = "" if number is None else f"Content-ID: {number}\r\n"
    kind = "Content-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n"
    return f"{kind}{numbered}\r\n{request}"


def answers(reply: httpx.Response) -> list[tuple[str | None, str]]:
    """Return the Content-ID and the first line of each answer in a batch's reply."""
    head = f"Content-Type: {reply.headers['Content-Type']}\r\n\r\n".encode()
    whole = email.message_from_bytes(head + reply.content)
    leaves = [part for part in whole.walk() if part.get_content_type() == "application/http"]
    return [
        (part["Content-ID"], part.get_payload(decode=True).decode().partition("\r\n")[0])
        for part in leaves
    ]


@pytest.fixture(scope="module")
async def simulator(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Simulator]:
    books: Path = tmp_path_factory.mktemp("dataverse") / "books.db"
    async with running("dataverse", books) as simulator:
        yield simulator


@pytest.fixture
async def club(simulator: Simulator) -> AsyncGenerator[Club]:
    usual = await simulator.defaults()
    club = Club(simulator)
    await club.open()
    yield club
    await simulator.restore(usual)


# -- who asks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"client_secret": "another"}, "invalid_client"),
        ({"client_id": "nobody"}, "unauthorized_client"),
        ({"scope": "https://api.businesscentral.dynamics.com/.default"}, "invalid_scope"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
    ],
)
async def test_a_token_is_given_for_the_right_words_only(
    club: Club, wrong: dict[str, str], error: str
) -> None:
    form = {**club.credentials(), **wrong}
    reply = await club.http.post(f"/{TENANT}/oauth2/v2.0/token", data=form)
    assert reply.json()["error"] == error


async def test_a_token_of_another_environment_is_nobodys(club: Club) -> None:
    other = Club(club.simulator)
    await other.open()
    reply = await club.ask("GET", "WhoAmI", headers=other.headers)
    assert reply.status_code == 401
    assert reply.headers["WWW-Authenticate"].startswith("Bearer")


async def test_an_expired_token_is_nobodys(club: Club) -> None:
    await club.simulator.settings(clock_offset=3600)
    assert (await club.ask("GET", "WhoAmI")).status_code == 401


async def test_an_app_that_is_no_application_user_is_told_so(club: Club) -> None:
    stranger = {"id": "stranger", "secret": "its own", "registered": False}
    await club.simulator.order("setup", {"clients": [stranger]})
    token = await club.token(client_id="stranger", client_secret="its own")
    reply = await club.ask("GET", "WhoAmI", headers={"Authorization": f"Bearer {token}"})
    assert error_of(reply) == (403, "0x80072560")


# -- create-only, by alternate key -----------------------------------------------------------------


async def test_a_row_is_created_by_its_key_and_not_a_second_time(club: Club) -> None:
    assert (await club.create(NAME)).status_code == 204
    again = await club.create(NAME, kvitt_amount=5)
    assert error_of(again) == (412, "0x80040237")
    row = (await club.ask("GET", at(NAME))).json()
    assert (row["kvitt_name"], row["kvitt_amount"]) == (NAME, 100)


async def test_a_key_knows_no_case(club: Club) -> None:
    await club.create(NAME)
    assert (await club.create(NAME.lower())).status_code == 412


async def test_of_many_that_create_a_row_at_once_one_does(club: Club) -> None:
    replies = await asyncio.gather(*(club.create(NAME) for _ in range(8)))
    assert sorted(reply.status_code for reply in replies) == [204] + [412] * 7


async def test_a_post_with_a_taken_key_is_refused_too(club: Club) -> None:
    await club.create(NAME)
    reply = await club.ask("POST", LINES, line(kvitt_name=NAME))
    assert error_of(reply) == (412, "0x80060892")
    assert "kvitt_byname" in reply.text


async def test_without_the_header_the_row_is_changed(club: Club) -> None:
    await club.create(NAME)
    assert (await club.ask("PATCH", at(NAME), {"kvitt_amount": 5})).status_code == 204
    assert (await club.ask("GET", at(NAME))).json()["kvitt_amount"] == 5


async def test_if_match_creates_nothing(club: Club) -> None:
    reply = await club.ask("PATCH", at(NAME), line(), headers={"If-Match": "*"})
    assert error_of(reply) == (404, "0x80040217")


async def test_a_key_in_the_body_counts_more_than_the_address_when_a_row_is_created(
    club: Club,
) -> None:
    await club.create(NAME, kvitt_name=OTHER)
    assert await club.names() == [OTHER]


@pytest.mark.parametrize("status", ["Pending", "In Progress", "Failed"])
async def test_a_key_that_is_not_active_leads_nowhere(club: Club, status: str) -> None:
    key = {"name": "kvitt_byname", "columns": ["kvitt_name"], "status": status}
    table = {"logical": TABLE, "entity_set": LINES, "keys": [key]}
    await club.simulator.order("setup", {"environments": [{"id": club.id, "tables": [table]}]})
    reply = await club.create(NAME)
    assert error_of(reply) == (400, "0x80060888")
    assert "not a defined key" in reply.text


async def test_a_key_over_rows_that_share_a_value_fails(club: Club) -> None:
    key = {"name": "by_account", "columns": ["kvitt_account"]}
    table = {"logical": TABLE, "entity_set": LINES, "keys": [key]}
    await club.create(NAME)
    await club.create(OTHER)
    await club.simulator.order("setup", {"environments": [{"id": club.id, "tables": [table]}]})
    reply = await club.ask(
        "GET",
        f"EntityDefinitions(LogicalName='{TABLE}')",
        select="LogicalName",
        expand="Keys($select=KeyAttributes,EntityKeyIndexStatus)",
    )
    keys = reply.json()["Keys"]
    found = {tuple(key["KeyAttributes"]): key["EntityKeyIndexStatus"] for key in keys}
    assert found == {("kvitt_name",): "Active", ("kvitt_account",): "Failed"}


async def test_a_row_is_deleted_as_it_was_read(club: Club) -> None:
    await club.create(NAME)
    tag = (await club.ask("GET", at(NAME))).json()["@odata.etag"]
    await club.ask("PATCH", at(NAME), {"kvitt_amount": 5})
    stale = await club.ask("DELETE", at(NAME), headers={"If-Match": tag})
    assert error_of(stale) == (412, "0x80060882")
    assert (await club.ask("DELETE", at(NAME))).status_code == 204
    assert (await club.ask("GET", at(NAME))).status_code == 404
    assert (await club.create(NAME)).status_code == 204


# -- what a row may hold ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "code", "words"),
    [
        ({"kvitt_unknown": "1"}, "0x80048d19", "'kvitt_unknown' does not exist"),
        ({"kvitt_account": 7140}, "0x80048d19", "kvitt_account"),
        ({"kvitt_amount": "100.00"}, "0x80048d19", "kvitt_amount"),
        ({"kvitt_line": 1.5}, "0x80048d19", "kvitt_line"),
        ({"kvitt_line": 2**31}, "0x80048d19", "Int32"),
        ({"kvitt_postingdate": "24.11.2026"}, "0x80048d19", "kvitt_postingdate"),
        ({"kvitt_text": "x" * 201}, "0x80044331", "maximum allowed length of '200'"),
        ({"kvitt_amount": 10**11 + 1}, "0x80044330", "outside the valid range"),
        ({"kvitt_account": "9999"}, "0x80040265", "Account 9999 is not in the chart"),
    ],
)
async def test_what_does_not_fit_its_column_is_refused(
    club: Club, wrong: dict[str, Any], code: str, words: str
) -> None:
    reply = await club.create(NAME, **wrong)
    assert error_of(reply) == (400, code)
    assert words in reply.text
    assert await club.names() == []


async def test_decimals_are_kept_to_the_last_digit_of_their_column(club: Club) -> None:
    body = '{"kvitt_account": "7140", "kvitt_amount": 1234567890.10}'
    headers = {**club.headers, "Content-Type": "application/json"}
    await club.http.patch(f"{club.api}/{at(NAME)}", content=body, headers=headers)
    reply = await club.ask("GET", at(NAME))
    assert '"kvitt_amount":1234567890.10' in reply.text
    await club.create(OTHER, kvitt_amount=1.005)
    row = json.loads((await club.ask("GET", at(OTHER))).text, parse_float=Decimal)
    assert row["kvitt_amount"] == Decimal("1.00")


async def test_more_decimals_than_a_column_has_may_be_refused_instead(club: Club) -> None:
    await club.simulator.settings(excess_decimals="refuse")
    assert error_of(await club.create(NAME, kvitt_amount=1.005)) == (400, "0x80044330")
    assert await club.names() == []


async def test_a_body_has_to_say_that_it_is_json(club: Club) -> None:
    headers = {**club.headers, "Content-Type": "text/plain"}
    reply = await club.http.patch(f"{club.api}/{at(NAME)}", content="{}", headers=headers)
    assert reply.status_code == 400


async def test_a_set_that_no_table_has_is_not_found(club: Club) -> None:
    assert error_of(await club.ask("GET", "contoso_lines")) == (404, "0x8006088a")


# -- reading ---------------------------------------------------------------------------------------


async def test_rows_are_filtered_as_odata_says(club: Club) -> None:
    for sequence in (1, 2, 3):
        name = f"QJMH25R56-{sequence:06d}-0001"
        await club.create(name, kvitt_line=sequence, kvitt_text=f"Tog {sequence}")
    assert len(await club.names("kvitt_name ge 'qjmh25r56-000002' and kvitt_line lt 3")) == 1
    assert len(await club.names("startswith(kvitt_name,'QJMH25R56-')")) == 3
    assert len(await club.names("contains(kvitt_text,'og 1') or kvitt_line eq 3")) == 2
    assert len(await club.names("(kvitt_line eq 1 or kvitt_text eq 'TOG 2')")) == 2


@pytest.mark.parametrize(("counts", "found"), [(True, 1), (False, 2)])
async def test_hyphens_count_where_texts_are_compared_or_not(
    club: Club,
    counts: bool,  # noqa: FBT001 - by pytest
    found: int,
) -> None:
    await club.simulator.settings(hyphens_sort=counts)
    await club.create("AB-2")
    await club.create("AB1")
    assert len(await club.names("kvitt_name ge 'AB1'")) == found


@pytest.mark.parametrize(
    "option", [{"filter": "kvitt_name is 'A'"}, {"filter": "nobody eq 'A'"}, {"skip": "1"}]
)
async def test_a_query_that_is_none_is_refused(club: Club, option: dict[str, str]) -> None:
    assert (await club.ask("GET", LINES, **option)).status_code == 400


async def test_pages_are_as_large_as_preferred_and_linked(club: Club) -> None:
    names = [f"QJMH25R56-{sequence:06d}-0001" for sequence in range(1, 8)]
    for name in names:
        await club.create(name)
    prefer = {"Prefer": "odata.maxpagesize=3"}
    reply = await club.ask("GET", LINES, headers=prefer, select="kvitt_name", top="1")
    sizes, seen = list[int](), list[str]()
    while True:
        page = reply.json()
        sizes.append(len(page["value"]))
        seen += [row["kvitt_name"] for row in page["value"]]
        if "@odata.nextLink" not in page:
            break
        reply = await club.http.get(page["@odata.nextLink"], headers={**club.headers, **prefer})
    assert sizes == [3, 3, 1]
    assert sorted(seen) == names


async def test_columns_show_what_they_take(club: Club) -> None:
    at_table = f"EntityDefinitions(LogicalName='{TABLE}')"
    texts = await club.ask(
        "GET",
        f"{at_table}/Attributes/Microsoft.Dynamics.CRM.StringAttributeMetadata",
        select="LogicalName,MaxLength",
    )
    assert {"LogicalName": "kvitt_text", "MaxLength": 200} in texts.json()["value"]
    nobody = await club.ask("GET", "EntityDefinitions(LogicalName='nobody')", select="LogicalName")
    assert nobody.status_code == 404


# -- $batch ----------------------------------------------------------------------------------------


async def test_a_change_set_is_all_there(club: Club) -> None:
    reply = await club.batch([club.creation(NAME), club.creation(OTHER)])
    assert reply.status_code == 200
    assert answers(reply) == [("1", "HTTP/1.1 204 No Content"), ("2", "HTTP/1.1 204 No Content")]
    assert await club.names() == [NAME, OTHER]


@pytest.mark.parametrize(("setting", "status"), [("inner", 400), ("200", 200)])
async def test_a_change_set_that_fails_leaves_nothing_and_names_its_request(
    club: Club, setting: str, status: int
) -> None:
    await club.simulator.settings(batch_status=setting)
    reply = await club.batch([club.creation(NAME), club.creation(OTHER, kvitt_account="9999")])
    assert reply.status_code == status
    assert answers(reply) == [("2", "HTTP/1.1 400 Bad Request")]
    assert "Account 9999" in reply.text
    assert await club.names() == []


async def test_a_change_set_with_a_row_that_exists_leaves_nothing(club: Club) -> None:
    await club.create(OTHER)
    reply = await club.batch([club.creation(NAME), club.creation(OTHER)])
    assert reply.status_code == 412
    assert await club.names() == [OTHER]


async def test_the_header_may_count_for_nothing_in_a_change_set(club: Club) -> None:
    await club.simulator.settings(create_only_in_sets=False)
    await club.create(OTHER)
    assert (await club.batch([club.creation(NAME), club.creation(OTHER)])).status_code == 200
    assert await club.names() == [NAME, OTHER]


@pytest.mark.parametrize(("wanted", "status"), [(True, 400), (False, 200)])
async def test_a_request_in_a_batch_may_have_to_say_how_long_it_is(
    club: Club,
    wanted: bool,  # noqa: FBT001 - by pytest
    status: int,
) -> None:
    await club.simulator.settings(wants_content_length=wanted)
    silent = re.sub(r"Content-Length: \d+\r\n", "", club.creation(NAME))
    assert (await club.batch([silent])).status_code == status


async def test_what_stands_before_a_change_set_that_fails_stays(club: Club) -> None:
    wrong = [club.creation(OTHER, kvitt_account="9999")]
    reply = await club.batch([club.creation(NAME)], wrong, [club.creation(OTHER)])
    assert [first for _, first in answers(reply)] == [
        "HTTP/1.1 204 No Content",
        "HTTP/1.1 400 Bad Request",
    ]
    assert await club.names() == [NAME]


async def test_told_to_go_on_it_goes_on(club: Club) -> None:
    wrong = [club.creation(OTHER, kvitt_account="9999")]
    prefer = {"Prefer": "odata.continue-on-error"}
    reply = await club.batch(wrong, [club.creation(NAME)], headers=prefer)
    assert reply.status_code == 200
    assert await club.names() == [NAME]


async def test_a_request_may_stand_beside_a_change_set(club: Club) -> None:
    get = f"GET {club.api}/{LINES}?$select=kvitt_name HTTP/1.1\r\n\r\n"
    reply = await club.batch([club.creation(NAME)], get)
    assert [first for _, first in answers(reply)][-1] == "HTTP/1.1 200 OK"
    assert NAME in reply.text


async def test_half_a_batch_is_half_of_its_parts_and_cuts_no_change_set(club: Club) -> None:
    await club.simulator.fault("batch", "half-batch")
    with pytest.raises(httpx.RemoteProtocolError):
        await club.batch([club.creation(NAME)], [club.creation(OTHER)])
    assert await club.names() == [NAME]
    await club.simulator.fault("batch", "half-batch")
    with pytest.raises(httpx.RemoteProtocolError):
        await club.batch([club.creation(OTHER), club.creation("QJMH25R56-000001-0003")])
    assert await club.names() == [NAME]


async def test_a_batch_has_to_be_written_as_documented(club: Club) -> None:
    get = f"GET {club.api}/{LINES} HTTP/1.1\r\n\r\n"
    right = multipart([club.creation(NAME)])
    for wrong, words in (
        (right.replace("\r\n", "\n"), "Stream was not readable"),
        (right.replace("Content-ID: 1\r\n", ""), "Content-ID"),
        (right.replace("Content-Transfer-Encoding: binary\r\n", ""), "binary"),
        (right.replace("--b--", ""), "boundary"),
        (multipart([get]), "GET is not allowed"),
        (multipart([club.creation(NAME).replace("PATCH", "PATSCH")]), "is no request"),
    ):
        reply = await club.send_batch(wrong)
        assert reply.status_code == 400, wrong
        assert words in reply.text
    assert await club.names() == []


async def test_a_batch_takes_a_thousand_requests_and_no_more(club: Club) -> None:
    await club.simulator.settings(batch_operations=3)
    names = [f"QJMH25R56-{sequence:06d}-0001" for sequence in range(1, 5)]
    reply = await club.batch([club.creation(name) for name in names])
    assert reply.status_code == 400
    assert await club.names() == []


# -- limits ----------------------------------------------------------------------------------------


async def test_replies_say_what_is_left(club: Club) -> None:
    await club.simulator.settings(latency_ms=20)
    reply = await club.ask("GET", "WhoAmI")
    assert reply.headers["x-ms-ratelimit-burst-remaining-xrm-requests"] == "5999"
    assert reply.headers["x-ms-ratelimit-time-remaining-xrm-requests"].startswith("1,199.9")


async def test_too_many_requests_are_told_when_there_is_room_again(club: Club) -> None:
    await club.simulator.settings(quota=2)
    await club.ask("GET", "WhoAmI")
    await club.ask("GET", "WhoAmI")
    reply = await club.create(NAME)
    assert error_of(reply) == (429, "0x80072322")
    assert 290 <= int(reply.headers["Retry-After"]) <= 300
    await club.simulator.settings(clock_offset=301)
    club.headers = {"Authorization": f"Bearer {await club.token()}"}
    assert (await club.create(NAME)).status_code == 204


async def test_too_much_execution_time_is_a_limit_of_its_own(club: Club) -> None:
    await club.simulator.settings(execution_seconds=0.02, latency_ms=30)
    await club.ask("GET", "WhoAmI")
    assert error_of(await club.ask("GET", "WhoAmI")) == (429, "0x80072321")


async def test_too_many_at_once_are_refused_at_once(club: Club) -> None:
    await club.simulator.settings(concurrency=2, latency_ms=200)
    replies = await asyncio.gather(*(club.ask("GET", "WhoAmI") for _ in range(3)))
    assert sorted(reply.status_code for reply in replies) == [200, 200, 429]


# -- what an auditor sees --------------------------------------------------------------------------


async def test_the_books_show_lines_in_the_neutral_shape(club: Club) -> None:
    await club.create(
        NAME,
        kvitt_amount=12.5,
        kvitt_voucher=NAME[:16],
        kvitt_record="2026-0001",
        kvitt_costcentre="10",
    )
    (booked,) = (await club.simulator.books(club.id))["posted"]
    assert booked["amount"] == "12.50"
    assert (booked["reference"], booked["document"]) == (NAME, NAME[:16])
    assert (booked["record"], booked["dimensions"]) == ("2026-0001", {"kvitt_costcentre": "10"})


async def test_what_was_written_outlives_a_restart(tmp_path: Path) -> None:
    books = tmp_path / "books.db"
    async with running("dataverse", books) as first:
        club = Club(first)
        await club.open()
        await club.create(NAME)
    async with running("dataverse", books) as second:
        assert len((await second.books(club.id))["posted"]) == 1
