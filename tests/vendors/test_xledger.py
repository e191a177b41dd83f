"""Xledger: limits that come with HTTP 200, two tables, and a clock without a zone."""

import re
from collections.abc import AsyncGenerator, Generator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
import respx
from hypothesis import given
from hypothesis import strategies as some

from kvitt.domain.errors import Refused, Uncertain, Unsent
from kvitt.domain.integrations import Timeouts
from kvitt.domain.periods import Period
from kvitt.domain.reconcile import FoundVoucher, compare
from kvitt.ports import Look, Place, Whereabouts
from kvitt.vendors import Client, exact_json
from kvitt.vendors.http import Patience
from kvitt.vendors.xledger import Xledger, XledgerSettings, changed_since, rows
from tests.vendors.cast import PRINTER, Simulator, a_claim, a_period, claims, line, voucher

SETTINGS = XledgerSettings.model_validate({"token": "token-of-respx"})
NOW = datetime(2026, 11, 24, 4, 0, tzinfo=UTC)


def allow() -> None:
    """Guard nothing."""


@pytest.fixture
def vendor() -> Generator[respx.Route]:
    with respx.mock() as router:
        yield router.post("https://www.xledger.net/graphql")


@pytest.fixture
async def canned(vendor: respx.Route) -> AsyncGenerator[Xledger]:
    assert vendor
    async with Xledger(SETTINGS, Timeouts(), patience=Patience(tries=3), now=lambda: NOW) as client:
        yield client


@pytest.fixture
async def known(vendor: respx.Route) -> AsyncGenerator[Xledger]:
    """A tenant that is known to stage nothing of what it refuses."""
    assert vendor
    settings = SETTINGS.model_copy(update={"all_or_nothing": True})
    async with Xledger(settings, Timeouts(), patience=Patience(tries=3)) as client:
        yield client


def an_error(message: str = "No.", data: Any = None, **other: Any) -> httpx.Response:
    return httpx.Response(200, json={"data": data, "errors": [{"message": message, **other}]})


def some_errors(*errors: dict[str, Any]) -> httpx.Response:
    return httpx.Response(200, json={"data": None, "errors": list(errors)})


def a_page(*rows: dict[str, Any], more: bool = False) -> httpx.Response:
    edges = [{"cursor": str(row["dbId"]), "node": row} for row in rows] or None
    found = {"edges": edges, "pageInfo": {"hasNextPage": more}}
    return httpx.Response(200, json={"data": {"rows": found}})


def a_row(period: Period, db_id: int, amount: str, **other: Any) -> dict[str, Any]:
    known = {
        "dbId": db_id,
        "extIdentifier": f"{period.reference}-000001-{1 if amount[0] != '-' else 2:04d}",
        "amount": amount,
        "invoiceAmount": amount,
        "currency": {"code": "NOK"},
    }
    return {**known, **other}


def sent_to(vendor: respx.Route) -> list[dict[str, Any]]:
    calls: list[respx.models.Call] = list(vendor.calls)
    return [exact_json.loads(call.request.content) for call in calls]


# -- the good case ---------------------------------------------------------------------------------


async def test_a_period_costs_a_call_per_chunk_and_two_to_read(xl: Client, period: Period) -> None:
    await xl.send(period, claims(1, 100), begins=True, guard=allow)
    await xl.post(period, guard=allow)
    assert (await xl.totals(period)).vouchers == 100
    assert dict(xl.requests) == {"export": 1, "read-back": 2}


async def test_a_line_carries_what_the_voucher_says(
    canned: Xledger, vendor: respx.Route, period: Period
) -> None:
    vendor.mock(return_value=an_error(code="INVALID_VALUE"))
    sent = voucher(
        3,
        line("7140", "1173.21", amount="100.00", dimensions={"glObject1": "10", "project": "P"}),
        line("2910", "-1173.21", amount="-100.00", party="ANS-101", tax="1", text="t" * 80),
        currency="EUR",
        source="EXP",
    )
    with pytest.raises(Refused):
        await canned.send(period, [sent], begins=True, guard=allow)
    cost, debt = sent_to(vendor)[0]["variables"]["inputs"]
    assert cost == {
        "clientId": f"{period.reference}-000003-0001",
        "node": {
            "extIdentifier": f"{period.reference}-000003-0001",
            "trRegNumber": 10_003,
            "postedDate": "2026-11-24",
            "invoiceDate": "2026-11-20",
            "invoiceNumber": "claim-3",
            "account": {"code": "7140"},
            "amount": "1173.21",
            "invoiceAmount": "100.00",
            "currency": {"code": "EUR"},
            "text": "Travel",
            "glObject1": {"code": "10"},
            "project": {"code": "P"},
            "transactionSource": {"code": "EXP"},
            "exchangeRate": "11.73210000",
        },
    }
    assert (debt["node"]["subledger"], debt["node"]["taxRule"]) == (
        {"code": "ANS-101"},
        {"code": "1"},
    )
    assert debt["node"]["text"] == "t" * 60
    assert len(debt["node"]["extIdentifier"]) <= 25


async def test_each_line_leads_to_the_claim_in_the_room_that_there_is(
    xl: Client, xledger: Simulator, period: Period
) -> None:
    short, long = (
        a_claim(1),
        voucher(2, *a_claim(2).lines, record_id="reiseregning/2026/" + "9" * 20),
    )
    await xl.send(period, [short, long], begins=True, guard=allow)
    xledger.run_jobs()
    numbers = {row["document"]: row["invoice"] for row in xledger.lines(period, "posted")}
    assert numbers["10001"] == "claim-1"
    assert len(numbers["10002"]) == 25
    assert re.fullmatch(r"reiseregning/202-[0-9a-f]{8}", numbers["10002"])


async def test_an_accountant_sees_what_they_would_have_typed(
    xl: Client, xledger: Simulator, period: Period
) -> None:
    cost = line("7140", "80.00", dimensions={"glObject1": "10", "glObject2": "P-CUP"}, tax="1")
    told = voucher(
        5,
        cost,
        line("2710", "20.00", text="25 % of 80.00"),
        line("2400", "-100.00", party=PRINTER, text="Posters"),
        source="KV",
    )
    await xl.send(period, [told], begins=True, guard=allow)
    xledger.run_jobs()
    lines = xledger.lines(period, "posted")
    seen = [(row["account"], row["party"], row["amount"], row["text"]) for row in lines]
    assert seen == [
        ("7140", None, "80.00", "Travel"),
        ("2710", None, "20.00", "25 % of 80.00"),
        ("2400", PRINTER, "-100.00", "Posters"),
    ]
    assert {row["document"] for row in lines} == {"10005"}
    assert lines[0]["dimensions"] == {"glObject1": "10", "glObject2": "P-CUP"}
    assert (lines[0]["tax"], lines[0]["date"]) == ("1", "2026-11-24")


async def test_a_voucher_in_the_book_currency_has_no_rate(
    canned: Xledger, vendor: respx.Route, period: Period
) -> None:
    vendor.mock(return_value=an_error(code="INVALID_VALUE"))
    with pytest.raises(Refused):
        await canned.send(period, [a_claim(1)], begins=True, guard=allow)
    assert "exchangeRate" not in sent_to(vendor)[0]["variables"]["inputs"][0]["node"]


async def test_original_currencies_are_read_back(xl: Client, period: Period) -> None:
    euros = voucher(
        2,
        line("7140", "1173.21", amount="100.00"),
        line("2910", "-1173.21", amount="-100.00"),
        currency="EUR",
    )
    await xl.send(period, [a_claim(1, "0.30"), euros], begins=True, guard=allow)
    shown = await xl.totals(period)
    assert shown.original == {"NOK": Decimal("0.30"), "EUR": Decimal(100)}
    assert shown.booked == Decimal("1173.51")


async def test_currencies_that_are_not_shown_are_not_guessed(
    canned: Xledger, vendor: respx.Route, period: Period
) -> None:
    row = a_row(period, 1, "5.00", currency=None)
    vendor.mock(side_effect=[a_page(row), a_page()])
    assert (await canned.totals(period)).original is None


async def test_a_line_that_is_nothing_in_the_vouchers_currency_goes_with_its_rate(
    xl: Client, xledger: Simulator, period: Period
) -> None:
    lines = [
        line("7140", "11.64", amount="1.00"),
        line("2910", "-11.63", amount="-1.00"),
        line("7770", "-0.01", amount="0"),
    ]
    await xl.send(period, [voucher(1, *lines, currency="EUR")], begins=True, guard=allow)
    totals = await xl.totals(period)
    assert (totals.lines, totals.booked) == (3, Decimal("11.64"))
    assert totals.original == {"EUR": Decimal("1.00")}
    assert len(xledger.lines(period)) == 3


async def test_a_dimension_that_is_no_slot_is_objected_to_and_never_sent(
    xl: Client, period: Period
) -> None:
    wrong = voucher(1, line("7140", "1.00", dimensions={"department": "10"}))
    assert "'department'" in (xl.objection(period, wrong) or "")
    with pytest.raises(Refused, match=r"'department'.*mapping"):
        await xl.send(period, [wrong], begins=True, guard=allow)
    assert xl.requests["export"] == 0


async def test_a_voucher_of_more_lines_than_a_call_takes_is_objected_to(
    xl: Client, period: Period
) -> None:
    long = voucher(1, *[line("7140", "1.00") for _ in range(501)])
    assert xl.objection(period, long) == (
        "has 501 lines, and Xledger takes 500 at once, vouchers whole: split the claim"
    )
    assert xl.objection(period, a_claim(1)) is None


@pytest.mark.parametrize(("booked", "amount"), [("10.00", "0"), ("0", "10.00")])
async def test_a_voucher_without_an_exchange_rate_is_objected_to(
    xl: Client, period: Period, booked: str, amount: str
) -> None:
    lines = [line("7140", booked, amount=amount), line("2910", f"-{booked}", amount=f"-{amount}")]
    objection = xl.objection(period, voucher(1, *lines, currency="EUR")) or ""
    assert "from which no exchange rate follows" in objection


# -- whose fault it is -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("naming", "culprits"),
    [("value", [2]), ("client-id", [2]), ("place", [2]), ("path", [2]), ("nobody", [])],
)
async def test_a_bad_node_fails_all_and_is_named_where_the_message_says_so(
    xl: Client, xledger: Simulator, period: Period, naming: str, culprits: list[int]
) -> None:
    xledger.change(refusals_name=naming, unknown_codes="import")
    wrong = voucher(2, line("9999", "1.00"), line("2910", "-1.00"))
    with pytest.raises(Refused) as caught:
        await xl.send(period, [a_claim(1), wrong, a_claim(3)], begins=True, guard=allow)
    assert list(caught.value.culprits) == culprits
    assert caught.value.of_content
    assert xledger.lines(period) == []


async def test_a_bad_node_that_is_alone_is_to_blame(
    xl: Client, xledger: Simulator, period: Period
) -> None:
    xledger.change(refusals_name="nobody", unknown_codes="import")
    wrong = voucher(2, line("9999", "1.00"), line("2910", "-1.00"))
    with pytest.raises(Refused) as caught:
        await xl.send(period, [wrong], begins=True, guard=allow)
    assert caught.value.culprits == {2: "The value is not valid"}


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("Field 'glObject9' is not defined by type 'GLImportItemInput'.", "INVALID_VALUE"),
        ("The token has no access to this entity.", "INVALID_VALUE"),
        ("Cannot query field 'edges' on type 'X'.", None),
        ("Argument 'inputs' has an invalid value.", "ARGUMENTS_OF_CORRECT_TYPE"),
    ],
)
async def test_what_concerns_no_single_voucher_blames_nobody(
    canned: Xledger, vendor: respx.Route, period: Period, message: str, code: str | None
) -> None:
    vendor.mock(return_value=an_error(message, code=code))
    with pytest.raises(Refused) as caught:
        await canned.send(period, [a_claim(1)], begins=True, guard=allow)
    assert (caught.value.culprits, caught.value.of_content) == ({}, False)


async def test_a_wrong_type_is_blamed_on_the_node_whose_place_is_named(
    canned: Xledger, vendor: respx.Route, period: Period
) -> None:
    message = "Variable '$inputs' got invalid value '1.234' at 'inputs[3].node.amount'."
    vendor.mock(return_value=an_error(message, code="ARGUMENTS_OF_CORRECT_TYPE"))
    with pytest.raises(Refused) as caught:
        await canned.send(period, claims(1, 3), begins=True, guard=allow)
    assert list(caught.value.culprits) == [2]


async def test_a_number_that_is_no_code_blames_nobody(
    known: Xledger, vendor: respx.Route, period: Period
) -> None:
    message = "The field 'text' of account takes at most 7140 characters"
    vendor.mock(return_value=an_error(message, code="INVALID_VALUE"))
    with pytest.raises(Refused) as caught:
        await known.send(period, claims(1, 2), begins=True, guard=allow)
    assert (caught.value.culprits, caught.value.of_content) == ({}, True)


async def test_xledger_takes_nothing_back(xl: Client, period: Period) -> None:
    with pytest.raises(Refused, match="posts imported rows by itself"):
        await xl.withdraw(period, [1], guard=allow)
    assert xl.requests == {}


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "extensions", "seconds"),
    [
        ("BAD_REQUEST.BURST_RATE_LIMIT_REACHED", {}, 5),
        ("BAD_REQUEST.CONCURRENCY_LIMIT_REACHED", {}, 1),
        ("BAD_REQUEST.INSUFFICIENT_CREDITS", {}, 1200),
        ("BAD_REQUEST.INSUFFICIENT_CREDITS", {"resetAt": "2026-11-24T05:30:00"}, 1800),
        ("BAD_REQUEST.INSUFFICIENT_CREDITS", {"resetAt": "2026-11-24T04:30:00Z"}, 1800),
        ("BAD_REQUEST.INSUFFICIENT_CREDITS", {"resetAt": "tomorrow"}, 1200),
        (None, {"code": "BAD_REQUEST.INSUFFICIENT_CREDITS"}, 1200),
    ],
)
async def test_limits_come_with_status_200_and_say_when_to_come_back(
    canned: Xledger,
    vendor: respx.Route,
    period: Period,
    code: str | None,
    extensions: dict[str, str],
    seconds: int,
) -> None:
    vendor.mock(return_value=an_error(code=code, extensions=extensions))
    with pytest.raises(Unsent) as caught:
        await canned.send(period, [a_claim(1)], begins=True, guard=allow)
    assert caught.value.retry_after is not None
    assert caught.value.retry_after.total_seconds() == seconds
    assert vendor.call_count == (1 if seconds > 15 else 3)


@pytest.mark.parametrize(
    "error",
    [
        {"code": "INVALID_VALUE"},
        {"code": "ARGUMENTS_OF_CORRECT_TYPE"},
        {"extensions": {"code": "INVALID_VALUE"}},
        {"message": "Cannot query field 'x' on type 'Query'."},
        {"message": "The token is invalid or has expired."},
        {"message": "Unauthorized"},
    ],
)
async def test_a_permanent_error_is_refused(
    canned: Xledger, vendor: respx.Route, period: Period, error: dict[str, Any]
) -> None:
    vendor.mock(return_value=an_error(**error))
    with pytest.raises(Refused):
        await canned.send(period, [a_claim(1)], begins=True, guard=allow)
    assert vendor.call_count == 1


@pytest.mark.parametrize(
    "reply",
    [
        an_error("Something went wrong"),
        an_error("The CancellationToken was signalled after 30 s"),
        an_error("The operation took too long", code="BAD_REQUEST.TIMEOUT"),
        an_error("A mutation takes at most 500 nodes.", code="BAD_REQUEST"),
        some_errors({"code": "INVALID_VALUE"}, {"message": "Internal error"}),
        some_errors(
            {"code": "BAD_REQUEST.BURST_RATE_LIMIT_REACHED"}, {"message": "Internal error"}
        ),
        an_error(code="INVALID_VALUE", data={"addGLImportItems": None}),
        httpx.Response(200, json={}),
        httpx.Response(200, json={"data": {"addGLImportItems": {"edges": []}}}),
    ],
)
async def test_a_write_whose_reply_says_neither_yes_nor_no_is_uncertain(
    canned: Xledger, vendor: respx.Route, period: Period, reply: httpx.Response
) -> None:
    vendor.mock(return_value=reply)
    with pytest.raises(Uncertain):
        await canned.send(period, [a_claim(1)], begins=True, guard=allow)
    assert vendor.call_count == 1


async def test_a_token_that_is_not_known_is_refused(xledger: Simulator) -> None:
    async with xledger.open(token="nobodys-token") as client:
        with pytest.raises(Refused, match="token is invalid") as caught:
            await client.probe()
    assert "nobodys-token" not in str(caught.value)


async def test_a_reading_without_a_field_is_refused_with_the_fields_name(
    canned: Xledger, vendor: respx.Route, period: Period
) -> None:
    row = {"dbId": 1, "extIdentifier": "of-somebody", "invoiceAmount": "5", "currency": None}
    vendor.mock(return_value=a_page(row))
    with pytest.raises(Refused, match=r"at rows\.edges\.0\.node\.amount \(missing\)") as caught:
        await canned.find(period, claims(1, 1))
    assert "of-somebody" not in str(caught.value)
    assert vendor.call_count == 1


# -- reading back ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("due_at", "since"),
    [
        (datetime(2026, 11, 24, 5, 0, tzinfo=UTC), "2026-11-24T04:00:00"),  # UTC+1, 2 h before
        (datetime(2026, 7, 1, 5, 0, tzinfo=UTC), "2026-07-01T05:00:00"),  # UTC+2, 2 h before
    ],
)
async def test_the_window_is_in_central_european_time(
    canned: Xledger, vendor: respx.Route, due_at: datetime, since: str
) -> None:
    vendor.mock(side_effect=[a_page(), a_page()])
    await canned.totals(a_period().model_copy(update={"due_at": due_at}))
    assert all(f'modifiedAt_gte: "{since}"' in each["query"] for each in sent_to(vendor))


async def test_a_period_that_is_filled_in_a_year_late_is_read_like_todays(
    canned: Xledger, vendor: respx.Route
) -> None:
    today = a_period()
    late = a_period().model_copy(
        update={
            "due_at": today.due_at - timedelta(days=365),
            "backfill": True,
            "first_sent_at": today.due_at,
        }
    )
    vendor.mock(side_effect=[a_page(), a_page()] * 4)
    await canned.totals(today)
    await canned.totals(late)
    await canned.find(late, claims(1, 1))
    queries = [each["query"] for each in sent_to(vendor)]
    assert queries[0:2] == queries[2:4] == queries[4:6]


async def test_the_follow_up_of_a_period_that_was_filled_in_begins_when_it_was_sent(
    canned: Xledger, vendor: respx.Route
) -> None:
    sent_at = datetime(2026, 11, 24, 5, 0, tzinfo=UTC)
    late = a_period().model_copy(
        update={"due_at": sent_at - timedelta(days=365), "first_sent_at": sent_at}
    )
    none = {"edges": None, "pageInfo": {"hasNextPage": False}}
    vendor.mock(return_value=httpx.Response(200, json={"data": {"rows": none, "problems": none}}))
    await canned.standings([Look(period=late, lines=2)])
    assert 'modifiedAt_gte: "2026-11-24T04:00:00"' in sent_to(vendor)[0]["query"]


def as_xledger_writes(moment: datetime) -> str:
    """Write a moment as Xledger does: Central European, without a zone."""
    return f"{moment.astimezone(ZoneInfo('Europe/Oslo')):%Y-%m-%dT%H:%M:%S}"


@given(
    around=some.sampled_from(
        [datetime(2026, 10, 25, 1, tzinfo=UTC), datetime(2026, 3, 29, 1, tzinfo=UTC)]
    ),
    due=some.integers(-300, 300),
    later=some.integers(-60, 300),
)
def test_the_window_holds_what_was_written_since_also_when_the_clock_is_changed(
    around: datetime, due: int, later: int
) -> None:
    """By a clock an hour behind ours, too; in the hour that comes twice, and over the lost one."""
    due_at = around + timedelta(minutes=due)
    written = as_xledger_writes(due_at + timedelta(minutes=later))
    since = changed_since(due_at).partition('"')[2].rstrip('"')
    assert since <= written


@pytest.mark.parametrize(
    ("now", "seconds"),
    [
        (datetime(2026, 10, 25, 0, 15, tzinfo=UTC), 15 * 60),  # 02:15, the first time
        (datetime(2026, 10, 25, 0, 45, tzinfo=UTC), 45 * 60),  # 02:45: the second 02:30 is meant
        (datetime(2026, 10, 25, 1, 15, tzinfo=UTC), 15 * 60),  # 02:15 again
        (datetime(2026, 10, 25, 1, 45, tzinfo=UTC), 20 * 60),  # it is over, and says nothing
    ],
)
async def test_a_limit_that_ends_in_the_hour_that_comes_twice_is_not_taken_for_over(
    vendor: respx.Route, period: Period, now: datetime, seconds: int
) -> None:
    reset = {"resetAt": "2026-10-25T02:30:00"}
    vendor.mock(return_value=an_error(code="BAD_REQUEST.INSUFFICIENT_CREDITS", extensions=reset))
    async with Xledger(SETTINGS, Timeouts(), patience=Patience(tries=1), now=lambda: now) as client:
        with pytest.raises(Unsent) as caught:
            await client.send(period, [a_claim(1)], begins=True, guard=allow)
    assert caught.value.retry_after is not None
    assert caught.value.retry_after.total_seconds() == seconds


@pytest.mark.parametrize("nothing", [None, []])
async def test_nothing_is_said_in_two_ways(
    canned: Xledger, vendor: respx.Route, period: Period, nothing: list[Any] | None
) -> None:
    empty = {"edges": nothing, "pageInfo": {"hasNextPage": False}}
    vendor.mock(return_value=httpx.Response(200, json={"data": {"rows": empty, "problems": empty}}))
    assert await canned.find(period, [a_claim(1)]) == {}
    assert (await canned.totals(period)).lines == 0
    assert await canned.refused_lines(period) == {}
    [standing] = await canned.standings([Look(period=period, lines=2)])
    assert standing.held.lines == 0


@pytest.mark.parametrize("number", [9_007_199_254_740_993, "9007199254740993"])
async def test_an_id_may_be_a_string_or_a_number_of_64_bits(
    canned: Xledger, vendor: respx.Route, period: Period, number: int | str
) -> None:
    names = [f"{period.reference}-000001-{n:04d}" for n in (1, 2)]
    edges = [{"clientId": name, "node": {"dbId": number}} for name in names]
    reply = {"data": {"addGLImportItems": {"edges": edges}}}
    vendor.mock(return_value=httpx.Response(200, json=reply))
    sent = await canned.send(period, [a_claim(1)], begins=True, guard=allow)
    assert sent == {"first": "9007199254740993", "last": "9007199254740993", "rows": 2}


# -- reading back by reference, where the tenant's schema can --------------------------------------


@pytest.fixture
async def by_reference(xledger: Simulator) -> AsyncGenerator[Client]:
    xledger.change(filter_by_ext_identifier=True)
    async with xledger.open(filter_by_reference=True) as client:
        yield client
    xledger.change(filter_by_ext_identifier=False)


async def test_by_reference_only_rows_of_the_period_are_read(
    by_reference: Client, xledger: Simulator, period: Period
) -> None:
    xledger.change(largest_page=5)
    other = a_period()
    await by_reference.send(other, claims(1, 20), begins=True, guard=allow)
    await by_reference.send(period, claims(1, 2), begins=True, guard=allow)
    assert (await by_reference.totals(period)).lines == 4
    assert by_reference.requests["read-back"] == 2, "as there are no rows of others among them"
    xledger.change(largest_page=1000)


async def test_by_reference_a_range_of_vouchers_is_found_to_its_last_line(
    by_reference: Client, xledger: Simulator, period: Period
) -> None:
    long = voucher(4, line("7140", "100.00"), *[line("2910", "-1.00")] * 100)
    await by_reference.send(period, [*claims(1, 3), long, a_claim(5)], begins=True, guard=allow)
    for _ in range(2):
        found = await by_reference.find(period, claims(2, 4))
        assert compare([*claims(2, 3), long], found).complete
        assert set(found) == {2, 3, 4}
        xledger.run_jobs()


async def test_by_reference_a_period_that_is_followed_up_is_read_alone(
    by_reference: Client, xledger: Simulator, period: Period
) -> None:
    await by_reference.send(a_period(), claims(1, 20), begins=True, guard=allow)
    await by_reference.send(period, claims(1, 2), begins=True, guard=allow)
    followed = period.model_copy(update={"record_count": 2})
    xledger.run_jobs()
    [standing] = await by_reference.standings([Look(period=followed, lines=4)])
    assert (standing.posted.lines, standing.held.lines, standing.vouchers) == (4, 4, {})


async def test_a_schema_that_cannot_filter_by_reference_is_a_misfit_with_its_remedy(
    xledger: Simulator,
) -> None:
    async with xledger.open(filter_by_reference=True) as client:
        staged, posted = await client.misfits(book_currency="NOK", today=NOW.date())
    assert "glImportItems" in staged
    assert "turn the connection's filter_by_reference off" in posted


async def test_a_schema_that_can_filter_by_reference_has_no_misfits(by_reference: Client) -> None:
    assert await by_reference.misfits(book_currency="NOK", today=NOW.date()) == []


async def test_a_read_back_follows_the_pages(
    xl: Client, xledger: Simulator, period: Period
) -> None:
    xledger.change(largest_page=3)
    await xl.send(period, claims(1, 4), begins=True, guard=allow)
    xledger.run_jobs()
    await xl.send(period, claims(5, 9), begins=False, guard=allow)
    assert compare(claims(1, 9), await xl.find(period, claims(1, 9))).complete
    xledger.change(largest_page=1000)


async def test_a_row_that_moves_while_we_read_counts_once(
    canned: Xledger, vendor: respx.Route, period: Period
) -> None:
    staged, posted = a_row(period, 1, "5.00"), a_row(period, 2, "5.00")
    replies = [a_page(staged), a_page(posted), a_page(), a_page(posted)]
    vendor.mock(side_effect=replies)
    found = await canned.find(period, [a_claim(1)])
    assert found == {1: FoundVoucher(lines=1, booked=Decimal(5))}


async def test_a_row_that_is_staged_beside_its_posted_twin_counts_twice(
    xl: Client, xledger: Simulator, period: Period
) -> None:
    await xl.send(period, [a_claim(1, "5.00")], begins=True, guard=allow)
    xledger.run_jobs()
    await xl.send(period, [a_claim(1, "5.00")], begins=True, guard=allow)  # a late commit
    found = await xl.find(period, [a_claim(1)])
    assert found == {1: FoundVoucher(lines=4, booked=Decimal(10))}


async def test_lines_that_wait_for_the_posting_job_are_counted(
    xl: Client, xledger: Simulator, period: Period
) -> None:
    await xl.send(period, claims(1, 2), begins=True, guard=allow)
    xledger.run_jobs()
    await xl.send(period, claims(3, 5), begins=False, guard=allow)
    shown = await xl.totals(period)
    assert (shown.lines, shown.staged) == (10, 6)


async def test_a_job_that_moves_faster_than_we_read_is_left_to_the_next_run(
    canned: Xledger, vendor: respx.Route, period: Period
) -> None:
    posted = a_page(a_row(period, 9, "5.00"))
    replies = [a_page(a_row(period, 1, f"{n}.00")) if n % 2 else posted for n in range(1, 99)]
    vendor.mock(side_effect=replies)
    with pytest.raises(Unsent, match="The next run reads them again"):
        await canned.totals(period)


async def test_rows_sent_twice_count_twice(xl: Client, period: Period) -> None:
    for _ in range(2):
        await xl.send(period, [a_claim(1, "5.00")], begins=True, guard=allow)
    assert (await xl.totals(period)).lines == 4


async def test_what_the_posting_job_refuses_is_traced_to_its_voucher(
    xl: Client, xledger: Simulator, period: Period
) -> None:
    wrong = voucher(2, line("9999", "1.00"), line("2910", "-1.00"))
    await xl.send(period, [a_claim(1), wrong, a_claim(3)], begins=True, guard=allow)
    xledger.run_jobs()
    assert await xl.refused_lines(period) == {2: "Account 9999 does not exist."}
    shown = await xl.totals(period)
    assert (shown.lines, shown.staged) == (6, 2)


async def test_a_tenant_that_fits_has_no_misfits(xl: Client) -> None:
    assert await xl.misfits(book_currency="NOK", today=NOW.date()) == []
    assert xl.requests == {"set-up": 3}


async def test_a_schema_without_a_reference_on_refusals_is_a_misfit(
    xl: Client, xledger: Simulator
) -> None:
    xledger.change(errors_carry_ext_identifier=False)
    [misfit] = await xl.misfits(book_currency="NOK", today=NOW.date())
    assert "glImportItemErrors with extIdentifier" in misfit
    xledger.change(errors_carry_ext_identifier=True)


async def test_rows_that_the_posting_job_refused_are_named(
    canned: Xledger, vendor: respx.Route, period: Period
) -> None:
    problem = {"dbId": 9, "extIdentifier": f"{period.reference}-000001-0001", "message": "Closed."}
    vendor.mock(side_effect=[a_page(), a_page(), a_page(problem)])
    with pytest.raises(Refused, match="Closed"):
        await canned.find(period, [a_claim(1)])


async def test_a_schema_whose_errors_have_no_reference_shows_what_is_missing_all_the_same(
    xl: Client, xledger: Simulator, period: Period
) -> None:
    xledger.change(errors_carry_ext_identifier=False)
    assert await xl.find(period, [a_claim(1)]) == {}
    xledger.change(errors_carry_ext_identifier=True)


async def test_rows_in_neither_table_are_not_there_yet(
    xl: Client, xledger: Simulator, period: Period
) -> None:
    await xl.send(period, [a_claim(1)], begins=True, guard=allow)
    assert xl.habits.absences == 2
    xledger.run_jobs()
    assert len(await xl.find(period, [a_claim(1)])) == 1


# -- the follow-up ---------------------------------------------------------------------------------


async def test_a_look_follows_the_pages_of_rows_and_of_refusals(
    xl: Client, xledger: Simulator
) -> None:
    first, second = a_period(), a_period()
    # Numbers that nobody else has: rows of one number are one voucher to the posting job.
    right = [voucher(n, *a_claim(n).lines, number=70_000 + n) for n in range(1, 5)]
    nobodys = line("9999", "1.00")
    wrong = [voucher(n, nobodys, line("2910", "-1.00"), number=80_000 + n) for n in range(1, 6)]
    await xl.send(first, right, begins=True, guard=allow)
    xledger.run_jobs()
    await xl.send(second, wrong, begins=True, guard=allow)
    xledger.run_jobs()
    xledger.change(largest_page=3)
    looks = [
        Look(period=first.model_copy(update={"record_count": 4}), lines=8),
        Look(period=second.model_copy(update={"record_count": 5}), lines=10),
    ]
    posted, refused = await xl.standings(looks)  # type: ignore[attr-defined]
    xledger.change(largest_page=1000)
    assert (posted.posted.lines, posted.vouchers) == (8, {})
    assert (refused.posted.lines, refused.held.lines) == (0, 10)
    places = {sequence: where.place for sequence, where in refused.vouchers.items()}
    assert places == dict.fromkeys(range(1, 6), Place.REFUSED)


async def test_a_voucher_of_which_a_line_is_left_is_not_called_posted(
    canned: Xledger, vendor: respx.Route, period: Period
) -> None:
    staged, posted = a_row(period, 1, "-5.00"), a_row(period, 9, "5.00")
    rows = {"edges": [{"cursor": "1", "node": staged}], "pageInfo": {"hasNextPage": False}}
    none = {"edges": None, "pageInfo": {"hasNextPage": False}}
    both = httpx.Response(200, json={"data": {"rows": rows, "problems": none}})
    vendor.mock(side_effect=[both, a_page(posted)])
    look = Look(period=period.model_copy(update={"record_count": 1}), lines=2, open=frozenset({1}))
    [standing] = await canned.standings([look])
    assert standing.vouchers == {1: Whereabouts(place=Place.STAGED)}
    assert (standing.posted.lines, standing.held.lines) == (1, 2)


async def test_what_is_left_out_is_not_missing(
    canned: Xledger, vendor: respx.Route, period: Period
) -> None:
    none = {"edges": [], "pageInfo": {"hasNextPage": False}}
    both = httpx.Response(200, json={"data": {"rows": none, "problems": none}})
    vendor.mock(side_effect=[both, a_page()])
    followed = period.model_copy(update={"record_count": 300})
    [standing] = await canned.standings(
        [Look(period=followed, lines=2, left_out=frozenset({1, 3}), open=frozenset({299}))]
    )
    assert {where.place for where in standing.vouchers.values()} == {Place.NEITHER}
    assert len(standing.vouchers) == 101, "the open one, and the first hundred"
    assert {1, 3}.isdisjoint(standing.vouchers)
    assert {2, 4, 299} <= set(standing.vouchers)


# -- what is uncertain, either way -----------------------------------------------------------------


@pytest.mark.parametrize("balance", ["import", "posting", "never"])
async def test_vouchers_balance_wherever_it_is_checked(
    xl: Client, xledger: Simulator, period: Period, balance: str
) -> None:
    xledger.change(balance=balance)
    await xl.send(period, claims(1, 3), begins=True, guard=allow)
    xledger.run_jobs()
    assert compare(claims(1, 3), await xl.find(period, claims(1, 3))).complete


@pytest.mark.parametrize("checked_at", ["import", "posting"])
async def test_an_unknown_code_is_traced_to_its_voucher_wherever_it_is_checked(
    xl: Client, xledger: Simulator, period: Period, checked_at: str
) -> None:
    xledger.change(unknown_codes=checked_at)
    wrong = voucher(2, line("9999", "1.00"), line("2910", "-1.00"))
    if checked_at == "import":
        with pytest.raises(Refused) as caught:
            await xl.send(period, [a_claim(1), wrong], begins=True, guard=allow)
        assert list(caught.value.culprits) == [2]
    else:
        await xl.send(period, [a_claim(1), wrong], begins=True, guard=allow)
        xledger.run_jobs()
        assert list(await xl.refused_lines(period)) == [2]


@pytest.mark.parametrize("way", ["is-left-out", "is-left-out-without-data"])
async def test_a_bad_node_that_is_left_out_is_missing_and_then_to_blame(
    xledger: Simulator, period: Period, way: str
) -> None:
    xledger.change(unknown_codes="import", one_bad_node=way)
    wrong = voucher(2, line("9999", "1.00"), line("9998", "-1.00"))
    async with xledger.open(all_or_nothing=False) as xl:
        with pytest.raises(Uncertain) as uncertain:
            await xl.send(period, [a_claim(1), wrong], begins=True, guard=allow)
        assert uncertain.value.refusal is not None
        assert uncertain.value.refusal.culprits == {2: "Account 9999 does not exist"}
        there = compare([a_claim(1), wrong], await xl.find(period, claims(1, 2)))
        assert [each.sequence for each in there.missing] == [2]


async def test_a_single_voucher_that_is_refused_is_refused_whatever_is_known(
    xledger: Simulator, period: Period
) -> None:
    xledger.change(unknown_codes="import")
    wrong = voucher(2, line("9999", "1.00"), line("9998", "-1.00"))
    async with xledger.open(all_or_nothing=False) as xl:
        with pytest.raises(Refused) as caught:
            await xl.send(period, [wrong], begins=True, guard=allow)
    assert list(caught.value.culprits) == [2]


@pytest.mark.parametrize("ids_as", ["string", "number"])
async def test_ids_are_read_as_strings_and_as_numbers(
    xl: Client, xledger: Simulator, period: Period, ids_as: str
) -> None:
    xledger.change(ids_as=ids_as)
    reference = await xl.send(period, [a_claim(1)], begins=True, guard=allow)
    assert int(reference["first"]) > 2**53
    assert reference["rows"] == 2
    assert len(await xl.find(period, [a_claim(1)])) == 1


@pytest.mark.parametrize("empty", ["null", "list"])
async def test_no_hits_are_read_in_both_forms(
    xl: Client, xledger: Simulator, period: Period, empty: str
) -> None:
    xledger.change(empty_edges=empty)
    assert await xl.find(period, [a_claim(1)]) == {}
    assert (await xl.totals(period)).lines == 0


@pytest.mark.parametrize("status", [200, 401])
async def test_a_wrong_token_is_refused_whatever_the_status(
    xledger: Simulator, status: int
) -> None:
    xledger.change(token_error_status=status)
    async with xledger.open(token="nobodys-token") as client:
        with pytest.raises(Refused, match="token is invalid"):
            await client.probe()


@pytest.mark.parametrize("filterable", [False, True])
async def test_what_was_sent_is_found_whether_one_can_filter_by_reference_or_not(
    xl: Client, xledger: Simulator, period: Period, *, filterable: bool
) -> None:
    xledger.change(filter_by_ext_identifier=filterable)
    await xl.send(period, claims(1, 2), begins=True, guard=allow)
    assert compare(claims(1, 2), await xl.find(period, claims(1, 2))).complete


# -- facts of the page that have no other place ----------------------------------------------------


async def test_the_address_is_the_public_one_and_the_token_goes_in_the_header(
    canned: Xledger, vendor: respx.Route
) -> None:
    vendor.respond(json={"data": {"__typename": "Query"}})
    await canned.probe()
    request = vendor.calls.last.request
    assert str(request.url) == "https://www.xledger.net/graphql"
    assert request.headers["Authorization"] == "token token-of-respx"
    assert exact_json.loads(request.content)["query"] == "query { __typename }"


def test_the_megabytes_of_a_month_last_for_a_million_lines(period: Period) -> None:
    """1,000 MB each way are included with 5,000 requests a month; kvitt counts requests only."""
    each = line("7140", "1173.21", amount="100.00", tax="1", text="X" * 60, party="ANS-102")
    longest = voucher(1, each, each, currency="EUR", source="KV", record_id="R" * 25)
    sent = len(exact_json.dumps(rows(period, longest)[0]))
    assert 1_000 * 10**6 / sent > 1_000_000


async def test_references_and_texts_keep_to_the_careful_lengths(
    xl: Client, xledger: Simulator, period: Period
) -> None:
    long = voucher(999_999, line("7140", "1.00", text="X" * 90), line("2910", "-1.00", text="Y"))
    await xl.send(period, [long], begins=True, guard=allow)
    staged = xledger.lines(period)
    assert max(len(row["reference"]) for row in staged) <= 25
    assert max(len(row["text"]) for row in staged) == 60


async def test_the_hour_that_comes_twice_is_within_the_window(
    canned: Xledger, vendor: respx.Route
) -> None:
    # 02:30 local, the second time: in local time without a zone, the first one looks the same.
    due_at = datetime(2026, 10, 25, 1, 30, tzinfo=UTC)
    vendor.mock(side_effect=[a_page(), a_page()])
    await canned.totals(a_period().model_copy(update={"due_at": due_at}))
    assert 'modifiedAt_gte: "2026-10-25T01:30:00"' in sent_to(vendor)[0]["query"]
