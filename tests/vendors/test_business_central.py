"""Business Central: journals, batches, posting, and what the books say afterwards."""

import asyncio
import json
import re
import traceback
from collections.abc import AsyncGenerator, Generator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest
import respx
from hypothesis import given
from hypothesis import strategies as some

from kvitt.domain.errors import LeaseLost, Refused, Uncertain, Unsent
from kvitt.domain.integrations import Timeouts
from kvitt.domain.periods import Period
from kvitt.domain.reconcile import FoundVoucher, compare
from kvitt.domain.vouchers import Voucher, totals_of
from kvitt.vendors import Client, exact_json
from kvitt.vendors import business_central as business_central_module
from kvitt.vendors.business_central import (
    BusinessCentral,
    BusinessCentralSettings,
    line_number,
)
from kvitt.vendors.http import Patience
from tests.vendors.cast import SECRETS, Simulator, a_claim, a_period, claims, line, voucher

HOST = "https://api.businesscentral.dynamics.com"
LOGIN = "https://login.microsoftonline.com/tenant/oauth2/v2.0/token"
ROOT = f"{HOST}/v2.0/tenant/production/api/v2.0"
COMPANY = "c1a7e0de-0000-4000-8000-000000000001"
JOURNAL = "5f1f4d3c-0000-4000-8000-000000000009"
SETTINGS = BusinessCentralSettings.model_validate(
    {
        "tenant_id": "tenant",
        "environment": "production",
        "company_id": COMPANY,
        "client_id": "kvitt",
        "client_secret": "secret-of-respx",
    }
)


def allow() -> None:
    """Guard nothing."""


@pytest.fixture
def microsoft() -> Generator[respx.MockRouter]:
    with respx.mock(assert_all_called=False) as router:
        token = {"access_token": "token-of-respx", "expires_in": 3599}
        router.post(LOGIN).respond(json=token)
        router.post(url__regex=r".*/journals$").respond(201, json={"id": JOURNAL})
        yield router


@pytest.fixture
async def canned(microsoft: respx.MockRouter) -> AsyncGenerator[BusinessCentral]:
    assert microsoft
    async with BusinessCentral(SETTINGS, Timeouts(), patience=Patience(tries=3)) as client:
        yield client


def a_long_voucher(sequence: int, lines: int) -> Any:
    costs = [line("7140", "1.00") for _ in range(lines - 1)]
    return voucher(sequence, *costs, line("2910", f"-{lines - 1}"))


# -- the good case ---------------------------------------------------------------------------------


async def test_a_period_costs_a_call_per_chunk_one_to_post_and_one_to_read(
    bc: Client, period: Period
) -> None:
    await bc.send(period, claims(1, 50), begins=True, guard=allow)
    await bc.send(period, claims(51, 60), begins=False, guard=allow)
    await bc.post(period, guard=allow)
    assert (await bc.totals(period)).vouchers == 60
    assert dict(bc.requests) == {"token": 1, "export": 3, "read-back": 1}


async def test_lines_carry_what_the_voucher_says(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    text = "x" * 130
    sent = voucher(
        7,
        line("7140", "10.00", dimensions={"AVDELING": "10", "PROSJEKT": "P-CUP"}, text=text),
        line("2910", "-10.00", party="ANS-101", tax="NONE"),
        record_id="claim/" + "y" * 60,
    )
    await bc.send(period, [a_claim(1)], begins=True, guard=allow)
    await bc.send(period, [sent], begins=True, guard=allow)
    cost, debt = business_central.lines(period)[2:]
    assert cost["document"] == f"{period.reference}-000007"
    assert cost["dimensions"] == {"AVDELING": "10", "PROSJEKT": "P-CUP"}
    assert cost["text"] == text[:100]
    assert cost["batch"] == f"{period.reference}K"
    assert (debt["account_type"], debt["account"], debt["tax"]) == ("Vendor", "ANS-101", "NONE")
    assert len(cost["reference"]) == 35
    assert cost["reference"] == debt["reference"] != ("CLAIM/" + "Y" * 60)[:35]


async def test_a_comment_of_the_mappings_own_stands_before_what_a_long_text_leaves_over(
    canned: BusinessCentral, microsoft: respx.MockRouter, period: Period
) -> None:
    long = "Tog " * 40
    lines = [
        line("7140", "1", text=long, comment="86.40 EUR " * 30),
        line("7150", "1", text=long),
        line("7150", "1", text="Tog"),
        line("2910", "-3", text="Tog", comment="86.40 EUR"),
    ]
    await canned.send(period, [voucher(1, *lines)], begins=True, guard=allow)
    rows = exact_json.loads(microsoft.calls.last.request.content)["journalLines"]
    comments = [row.get("comment") for row in rows]
    assert comments == [("86.40 EUR " * 30)[:250], long, None, "86.40 EUR"]
    assert {len(row["description"]) for row in rows} == {100, 3}


async def test_amounts_leave_as_exact_numbers(
    canned: BusinessCentral, microsoft: respx.MockRouter, period: Period
) -> None:
    big = voucher(1, line("7140", "12345678901234567.89"), line("2910", "-12345678901234567.89"))
    await canned.send(period, [big], begins=True, guard=allow)
    body = microsoft.calls.last.request.content
    assert b'"amount":12345678901234567.89,' in body
    amounts = [row["amount"] for row in exact_json.loads(body)["journalLines"]]
    assert amounts == [Decimal("12345678901234567.89"), Decimal("-12345678901234567.89")]


@given(some.integers(1, 999_999), some.integers(1, 1_999))
def test_a_line_number_fits_the_field_and_leaves_room_for_the_blank_line(
    sequence: int, number: int
) -> None:
    assert 0 < line_number(sequence, number) < 2**31
    assert line_number(sequence, number) % 10_000 != 0
    assert divmod(line_number(sequence, number), 2_000) == (sequence, number)


async def test_vouchers_of_one_period_are_found_whatever_their_posting_dates(
    bc: Client, period: Period
) -> None:
    """By the range of their numbers alone: claims of October that are approved in November."""
    days = (date(2026, 10, 1), date(2026, 11, 24), date(2025, 12, 31), date(2026, 11, 24))
    sent = [
        voucher(n, *a_claim(n, f"{n}.10").lines, posting_date=day)
        for n, day in enumerate(days, start=1)
    ]
    await bc.send(period, sent, begins=True, guard=allow)
    assert compare(sent, await bc.find(period, sent)).complete
    await bc.post(period, guard=allow)
    assert compare(sent, await bc.find(period, sent)).complete
    assert set(await bc.find(period, claims(2, 3))) == {2, 3}
    assert await bc.posted(period)
    shown = await bc.totals(period)
    assert (shown.vouchers, shown.lines, shown.booked) == (4, 8, Decimal("10.40"))


async def test_a_read_back_follows_the_pages(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    business_central.change(page_size=3)
    await bc.send(period, claims(1, 5), begins=True, guard=allow)
    assert compare(claims(1, 5), await bc.find(period, claims(1, 5))).complete
    await bc.post(period, guard=allow)
    assert (await bc.totals(period)).lines == 10
    business_central.change(page_size=20_000)


# -- several calls at a time -----------------------------------------------------------------------


async def test_of_several_calls_at_a_time_one_creates_the_journal(
    bc: Client, period: Period
) -> None:
    parts = [claims(first, first + 9) for first in (1, 11, 21, 31)]
    calls = (bc.send(period, part, begins=False, guard=allow) for part in parts)
    references = await asyncio.gather(*calls)
    assert len({reference["journal"] for reference in references}) == 1
    assert compare(claims(1, 40), await bc.find(period, claims(1, 40))).complete


async def test_several_calls_at_a_time_share_one_renewal_of_the_token(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    await bc.send(period, claims(1, 2), begins=True, guard=allow)
    business_central.fault("batch", "token-expired")
    parts = [claims(first, first + 4) for first in (3, 8, 13, 18)]
    await asyncio.gather(*(bc.send(period, each, begins=False, guard=allow) for each in parts))
    assert bc.requests["token"] == 2
    assert compare(claims(1, 22), await bc.find(period, claims(1, 22))).complete


LOCKED = {
    "error": {
        "code": "Application_DialogException",
        "message": "The record in table Gen. Journal Line is locked by another user.",
    }
}


@pytest.mark.usefixtures("no_waiting")
async def test_lines_that_met_a_lock_were_not_written_and_blame_nobody(
    canned: BusinessCentral, microsoft: respx.MockRouter, period: Period
) -> None:
    route = microsoft.post(url__regex=r".*/journals$")
    route.side_effect = [
        httpx.Response(400, json=LOCKED),
        httpx.Response(201, json={"id": JOURNAL}),
    ]
    await canned.send(period, claims(1, 2), begins=True, guard=allow)
    assert route.call_count == 2


async def test_a_posting_that_met_a_lock_is_uncertain(
    canned: BusinessCentral, microsoft: respx.MockRouter, period: Period
) -> None:
    await canned.send(period, claims(1, 2), begins=True, guard=allow)
    microsoft.post(url__regex=r".*NAV\.post$").respond(400, json=LOCKED)
    with pytest.raises(Uncertain, match="locked by another user"):
        await canned.post(period, guard=allow)


# -- tokens ----------------------------------------------------------------------------------------


async def test_an_expired_token_is_renewed_once(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    business_central.fault("journals.create", "token-expired")
    await bc.send(period, claims(1, 2), begins=True, guard=allow)
    assert bc.requests["token"] == 2
    assert len(business_central.lines(period)) == 4


async def test_a_connection_that_stays_locked_out_is_refused_after_one_renewal(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    business_central.fault("journals.create", "token-expired", times=9)
    with pytest.raises(Refused, match="HTTP 401"):
        await bc.send(period, claims(1, 2), begins=True, guard=allow)
    assert (bc.requests["token"], bc.requests["export"]) == (2, 2)


async def test_a_token_is_kept_until_shortly_before_it_expires(
    microsoft: respx.MockRouter,
) -> None:
    seconds = [0.0]
    microsoft.get(f"{ROOT}/companies").respond(json={"value": []})
    async with BusinessCentral(SETTINGS, Timeouts(), clock=lambda: seconds[0]) as client:
        for seconds[0] in (0.0, 3_538.0, 3_540.0):
            await client.probe()
    assert client.requests["token"] == 2


async def test_a_wrong_secret_is_named_but_not_shown(business_central: Simulator) -> None:
    async with business_central.open(client_secret="not-" + SECRETS[0]) as client:
        with pytest.raises(Refused, match="AADSTS7000215") as caught:
            await client.probe()
    assert SECRETS[0] not in str(caught.value)


async def test_a_secret_that_the_vendor_says_back_is_blotted_out(
    canned: BusinessCentral, microsoft: respx.MockRouter
) -> None:
    message = "no company for token-of-respx, secret-of-respx"
    error = {"error": {"code": "BadRequest", "message": message}}
    microsoft.get(f"{ROOT}/companies").respond(400, json=error)
    with pytest.raises(Refused, match=r"no company for \(secret\), \(secret\)"):
        await canned.probe()


async def test_a_token_reply_that_cannot_be_read_is_not_quoted(
    canned: BusinessCentral, microsoft: respx.MockRouter
) -> None:
    microsoft.post(LOGIN).respond(json={"access_token": "fresh-token", "expires_in": "soon"})
    with pytest.raises(Refused, match=r"at expires_in \(float_parsing\)") as caught:
        await canned.probe()
    assert "fresh-token" not in "".join(traceback.format_exception(caught.value))


# -- batches ---------------------------------------------------------------------------------------


async def test_a_rolled_back_batch_is_refused_although_its_operations_say_created(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    await bc.send(period, claims(1, 2), begins=True, guard=allow)
    wrong = voucher(4, line("9999", "1.00"), line("2910", "-1.00"))
    with pytest.raises(Refused, match="9999"):
        await bc.send(period, [a_claim(3), wrong], begins=False, guard=allow)
    assert len(business_central.lines(period)) == 4


@pytest.mark.parametrize("statuses", [[201], [201, 201, 201], []])
async def test_a_batch_with_another_number_of_answers_is_uncertain(
    canned: BusinessCentral, microsoft: respx.MockRouter, period: Period, statuses: list[int]
) -> None:
    answers = [{"id": str(n), "status": status} for n, status in enumerate(statuses)]
    microsoft.post(f"{ROOT}/$batch").respond(json={"responses": answers})
    await canned.send(period, [a_claim(1)], begins=True, guard=allow)
    with pytest.raises(Uncertain, match="answers to 2 operations"):
        await canned.send(period, [a_claim(2)], begins=False, guard=allow)


async def test_half_a_batch_is_found_and_the_rest_completes_it(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    await bc.send(period, [a_claim(1)], begins=True, guard=allow)
    business_central.fault("batch", "half-batch")
    with pytest.raises(Uncertain):
        await bc.send(period, claims(2, 5), begins=False, guard=allow)
    there = compare(claims(2, 5), await bc.find(period, claims(2, 5)))
    assert [v.sequence for v in there.missing] == [4, 5]
    await bc.send(period, there.missing, begins=False, guard=allow)
    assert compare(claims(2, 5), await bc.find(period, claims(2, 5))).complete


async def test_half_a_first_chunk_is_completed_in_the_journal_that_it_made(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    business_central.fault("journals.create", "half-batch")
    with pytest.raises(Uncertain):
        await bc.send(period, claims(1, 4), begins=True, guard=allow)
    there = compare(claims(1, 4), await bc.find(period, claims(1, 4)))
    await bc.send(period, there.missing, begins=False, guard=allow)
    assert len(business_central.lines(period)) == 8


async def test_the_same_lines_again_collide_and_are_uncertain(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    await bc.send(period, claims(1, 2), begins=True, guard=allow)
    with pytest.raises(Uncertain, match="EntityWithSameKeyExists"):
        await bc.send(period, claims(1, 2), begins=True, guard=allow)
    async with business_central.open() as another:
        with pytest.raises(Uncertain, match="EntityWithSameKeyExists"):
            await another.send(period, claims(1, 2), begins=True, guard=allow)
    assert len(business_central.lines(period)) == 4


async def test_another_process_looks_the_journal_up_once(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    await bc.send(period, claims(1, 2), begins=True, guard=allow)
    async with business_central.open() as another:
        await another.send(period, claims(3, 4), begins=False, guard=allow)
        await another.send(period, claims(5, 6), begins=False, guard=allow)
        await another.post(period, guard=allow)
        assert another.requests["read-back"] == 1
    assert len(business_central.lines(period, "posted")) == 12


async def test_a_period_whose_first_chunk_was_refused_begins_with_a_later_one(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    await bc.send(period, claims(3, 4), begins=False, guard=allow)
    assert len(business_central.lines(period)) == 4


async def test_a_long_voucher_takes_several_batches(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    await bc.send(period, [a_claim(1)], begins=True, guard=allow)
    long = a_long_voucher(2, 250)
    await bc.send(period, [long, a_claim(3)], begins=False, guard=allow)
    found = await bc.find(period, [long])
    assert found == {2: FoundVoucher(lines=250, booked=Decimal(249))}
    assert bc.requests["export"] == 4
    assert len(business_central.lines(period)) == 254


async def test_a_long_voucher_whose_end_is_refused_is_taken_back(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    await bc.send(period, [a_claim(1)], begins=True, guard=allow)
    wrong = voucher(2, *[line("7140", "1.00") for _ in range(149)], line("9999", "-149.00"))
    with pytest.raises(Refused, match="9999") as caught:
        await bc.send(period, [wrong], begins=False, guard=allow)
    assert list(caught.value.culprits) == [2]
    assert len(business_central.lines(period)) == 2


async def test_a_long_voucher_that_cannot_be_taken_back_is_uncertain(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    await bc.send(period, [a_claim(1)], begins=True, guard=allow)
    business_central.fault("batch", "rate-limit", nth=2, times=99)
    with pytest.raises(Uncertain, match="in the journal already"):
        await bc.send(period, [a_long_voucher(2, 150)], begins=False, guard=allow)


def a_voucher_of_pairs(sequence: int, lines: int) -> Voucher:
    """A voucher whose lines balance two by two: so does what an interrupted call leaves of it."""
    return voucher(sequence, *[line("7140", f"{1 - n % 2 * 2}.00") for n in range(lines)])


@pytest.mark.parametrize("fault", ["reply-lost", "drop-before", "half-batch"])
@pytest.mark.parametrize("nth", [1, 2])
async def test_a_voucher_that_was_left_in_part_is_begun_anew_though_the_part_balances(
    bc: Client, business_central: Simulator, period: Period, fault: str, nth: int
) -> None:
    await bc.send(period, [a_claim(1)], begins=True, guard=allow)
    long = a_voucher_of_pairs(2, 120)
    business_central.fault("batch", fault, nth=nth)
    with pytest.raises(Uncertain):
        await bc.send(period, [long], begins=False, guard=allow)
    there = compare([long], await bc.find(period, [long]))
    assert (there.short, there.contradictions) == ((), ())
    if there.missing:
        await bc.send(period, [long], begins=False, guard=allow)
    assert compare([long], await bc.find(period, [long])).complete
    assert len(business_central.lines(period)) == 122


async def test_a_voucher_that_was_taken_back_in_part_is_begun_anew(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    await bc.send(period, [a_claim(1)], begins=True, guard=allow)
    long = a_voucher_of_pairs(2, 120)
    await bc.send(period, [long], begins=False, guard=allow)
    business_central.fault("batch", "rate-limit", nth=2, times=99)
    with pytest.raises(Unsent):
        await bc.withdraw(period, [2], guard=allow)
    business_central.reset()
    assert len(business_central.lines(period)) == 22
    assert await bc.find(period, [long]) == {}
    with pytest.raises(Uncertain, match="EntityWithSameKeyExists"):
        await bc.send(period, [long], begins=False, guard=allow)
    assert compare([long], await bc.find(period, [long])).complete


async def test_fewer_lines_that_are_not_as_we_wrote_them_are_no_part_of_ours(
    bc: Client, period: Period
) -> None:
    other = voucher(1, line("7140", "7.00"), line("7140", "-7.00"))
    await bc.send(period, [other], begins=True, guard=allow)
    long = a_voucher_of_pairs(1, 4)
    there = compare([long], await bc.find(period, [long]))
    assert "the books show 2 of 7.00" in there.contradictions[0]


async def test_a_voucher_longer_than_the_line_numbers_is_refused(
    bc: Client, period: Period
) -> None:
    with pytest.raises(Refused, match="split the claim"):
        await bc.send(period, [a_long_voucher(1, 2_000)], begins=True, guard=allow)


# -- default dimensions ----------------------------------------------------------------------------


def a_dimensioned(sequence: int, **other: str) -> Voucher:
    """A voucher whose cost brings dimensions to an account that has a default one."""
    dimensions = {"AVDELING": "20", "PROSJEKT": "P-CUP", **other}
    cost = line("7199", "50.00", dimensions=dimensions)
    return voucher(sequence, cost, line("2910", "-50.00", party="ANS-101"))


@pytest.fixture(params=["english", "norwegian"])
def language(business_central: Simulator, request: pytest.FixtureRequest) -> str:
    """Let a company answer as it is asked to [C], or in its own language all the same."""
    business_central.change(honours_accept_language=request.param == "english")
    return request.param


@pytest.fixture
def defaulting(business_central: Simulator) -> Simulator:
    business_central.give_default("7199", "AVDELING", "10")
    return business_central


@pytest.mark.usefixtures("language")
async def test_a_default_dimension_is_changed_to_what_the_voucher_says(
    bc: Client, defaulting: Simulator, period: Period
) -> None:
    await bc.send(period, [a_claim(1), a_dimensioned(2)], begins=True, guard=allow)
    await bc.send(period, [a_dimensioned(3, AVDELING="10"), a_claim(4)], begins=False, guard=allow)
    lines = defaulting.lines(period)
    costs = {row["document"][-1]: row["dimensions"] for row in lines if row["account"] == "7199"}
    assert costs == {
        "2": {"AVDELING": "20", "PROSJEKT": "P-CUP"},
        "3": {"AVDELING": "10", "PROSJEKT": "P-CUP"},
    }
    await bc.post(period, guard=allow)
    sent = [a_claim(1), a_dimensioned(2), a_dimensioned(3), a_claim(4)]
    assert (await bc.totals(period)).checksum == totals_of(sent).checksum


async def test_the_clash_is_met_once_and_then_foreseen(
    bc: Client, defaulting: Simulator, period: Period
) -> None:
    await bc.send(period, [a_claim(1)], begins=True, guard=allow)
    before = defaulting.operations().get("batch", 0)
    await bc.send(period, [a_dimensioned(2)], begins=False, guard=allow)
    assert defaulting.operations()["batch"] == before + 3
    await bc.send(period, [a_dimensioned(3)], begins=False, guard=allow)
    assert defaulting.operations()["batch"] == before + 5


@pytest.mark.usefixtures("language")
async def test_calls_side_by_side_that_all_meet_the_clash_all_arrive(
    bc: Client, defaulting: Simulator, period: Period
) -> None:
    await bc.send(period, [a_claim(1)], begins=True, guard=allow)
    async with asyncio.TaskGroup() as group:
        for sequence in range(2, 7):
            calling = bc.send(period, [a_dimensioned(sequence)], begins=False, guard=allow)
            group.create_task(calling)
    lines = [line for line in defaulting.lines(period) if line["account"] == "7199"]
    assert len(lines) == 5
    assert all(line["dimensions"] == {"AVDELING": "20", "PROSJEKT": "P-CUP"} for line in lines)


@pytest.mark.parametrize("fault", ["reply-lost", "drop-before", "half-batch"])
@pytest.mark.parametrize("nth", [2, 3])
async def test_a_voucher_that_was_interrupted_before_it_had_its_dimensions_is_begun_anew(
    bc: Client, defaulting: Simulator, period: Period, fault: str, nth: int
) -> None:
    await bc.send(period, [a_claim(1)], begins=True, guard=allow)
    defaulting.fault("batch", fault, nth=nth)
    with pytest.raises(Uncertain):
        await bc.send(period, [a_dimensioned(2), a_claim(3)], begins=False, guard=allow)
    async with defaulting.open() as another:
        found = await another.find(period, [a_dimensioned(2), a_claim(3)])
        missing = compare([a_dimensioned(2), a_claim(3)], found)
        assert (missing.short, missing.contradictions) == ((), ())
        if missing.missing:
            await another.send(period, missing.missing, begins=False, guard=allow)
        await another.post(period, guard=allow)
    lines = defaulting.lines(period, "posted")
    assert [row["dimensions"] for row in lines if row["account"] == "7199"] == [
        {"AVDELING": "20", "PROSJEKT": "P-CUP"}
    ]
    assert len(lines) == 6


@pytest.mark.usefixtures("language")
async def test_a_bare_voucher_cannot_be_posted(
    bc: Client, defaulting: Simulator, period: Period
) -> None:
    await bc.send(period, [a_claim(1)], begins=True, guard=allow)
    defaulting.fault("batch", "drop-before", nth=3)
    with pytest.raises(Uncertain):
        await bc.send(period, [a_dimensioned(2)], begins=False, guard=allow)
    with pytest.raises(Refused, match=r"out of balance|ute av balanse") as caught:
        await bc.post(period, guard=allow)
    assert list(caught.value.culprits) == [2]


@pytest.mark.usefixtures("language")
async def test_a_dimension_that_is_refused_takes_its_voucher_back(
    bc: Client, defaulting: Simulator, period: Period
) -> None:
    await bc.send(period, [a_claim(1)], begins=True, guard=allow)
    wrong = a_dimensioned(3, AVDELING="99")
    with pytest.raises(Refused) as caught:
        await bc.send(period, [a_dimensioned(2), wrong], begins=False, guard=allow)
    assert list(caught.value.culprits) == [3]
    assert len(defaulting.lines(period)) == 2


async def test_lines_that_somebody_changed_stop_for_a_person(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    await bc.send(period, claims(1, 2), begins=True, guard=allow)
    crooked = voucher(3, line("7140", "9.00"), line("2910", "-8.00"))
    await bc.send(period, [crooked], begins=False, guard=allow)
    with pytest.raises(Refused, match="that kvitt did not write"):
        await bc.send(period, [a_claim(3)], begins=False, guard=allow)
    assert len(business_central.lines(period)) == 6


# -- whose fault it is -----------------------------------------------------------------------------


async def test_a_code_that_is_too_long_is_objected_to(bc: Client, period: Period) -> None:
    wrong = voucher(1, line("7140", "1.00", dimensions={"PROSJEKT": "P" * 21}))
    assert (bc.objection(period, wrong) or "").startswith(
        "has the PROSJEKT code 'PPPPPPPPPPPPPPPPPPPPP' of 21 characters"
    )


@pytest.mark.usefixtures("language")
@pytest.mark.parametrize("naming", ["account", "line", "nobody"])
async def test_a_batch_that_is_refused_names_the_voucher_of_its_operation(
    bc: Client, business_central: Simulator, period: Period, naming: str
) -> None:
    business_central.change(refusals_name=naming)
    await bc.send(period, [a_claim(1)], begins=True, guard=allow)
    wrong = voucher(4, line("9999", "1.00"), line("2910", "-1.00"))
    with pytest.raises(Refused) as caught:
        await bc.send(period, [*claims(2, 3), wrong, a_claim(5)], begins=False, guard=allow)
    assert list(caught.value.culprits) == [4]
    assert len(business_central.lines(period)) == 2


@pytest.mark.usefixtures("language")
@pytest.mark.parametrize(("naming", "culprits"), [("account", [2]), ("line", [2]), ("nobody", [])])
async def test_a_deep_insert_that_is_refused_names_a_voucher_by_what_the_message_quotes(
    bc: Client, business_central: Simulator, period: Period, naming: str, culprits: list[int]
) -> None:
    business_central.change(refusals_name=naming)
    wrong = voucher(2, line("9999", "1.00"), line("2910", "-1.00"))
    with pytest.raises(Refused) as caught:
        await bc.send(period, [a_claim(1), wrong, a_claim(3)], begins=True, guard=allow)
    assert list(caught.value.culprits) == culprits
    assert caught.value.of_content
    assert business_central.lines(period) == []


@pytest.mark.usefixtures("language")
@pytest.mark.parametrize(
    ("naming", "culprits"), [("account", [1, 3]), ("line", [1]), ("nobody", [])]
)
async def test_a_posting_that_is_refused_names_those_who_use_the_blocked_account(
    bc: Client, business_central: Simulator, period: Period, naming: str, culprits: list[int]
) -> None:
    business_central.change(refusals_name=naming)
    other = voucher(2, line("6800", "5.00"), line("2910", "-5.00", party="ANS-101"))
    await bc.send(period, [a_claim(1), other, a_claim(3)], begins=True, guard=allow)
    business_central.block("7140")
    with pytest.raises(Refused) as caught:
        await bc.post(period, guard=allow)
    assert sorted(caught.value.culprits) == culprits
    assert caught.value.of_content == bool(culprits)
    assert all("CorrelationId" not in words for words in caught.value.culprits.values())
    assert len(business_central.lines(period)) == 6


@pytest.mark.usefixtures("language")
async def test_a_missing_mandatory_dimension_names_the_line_and_so_the_voucher(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    business_central.demand_dimension("7320", "AVDELING")
    wrong = voucher(2, line("7320", "5.00"), line("2910", "-5.00", party="ANS-101"))
    await bc.send(period, [a_claim(1), wrong], begins=True, guard=allow)
    with pytest.raises(Refused) as caught:
        await bc.post(period, guard=allow)
    assert list(caught.value.culprits) == [2]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("Application_DialogException", "You do not have the following permissions on TableData"),
        (
            "Application_FieldValidationException",
            "Posting Date is not within your range of allowed posting dates in {line}.",
        ),
        ("BadRequest", "The property 'currencyCode' does not exist on type 'journalLine'."),
        ("Authorization_RequestDenied", "No."),
    ],
)
async def test_what_concerns_the_whole_company_blames_nobody(
    canned: BusinessCentral, microsoft: respx.MockRouter, period: Period, code: str, message: str
) -> None:
    words = message.replace("{line}", f"Gen. Journal Line GENERAL, {period.reference}K, 2001")
    error = {"error": {"code": code, "message": words}}
    microsoft.post(url__regex=r".*/journals$").respond(400, json=error)
    with pytest.raises(Refused) as caught:
        await canned.send(period, claims(1, 2), begins=True, guard=allow)
    assert (caught.value.culprits, caught.value.of_content) == ({}, False)


@pytest.mark.usefixtures("language")
async def test_a_closed_month_blames_nobody(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    await bc.send(period, claims(1, 2), begins=True, guard=allow)
    business_central.change(allow_posting_from="2026-12-01")
    with pytest.raises(Refused, match=r"allowed posting dates|tillatte bokf.ringsdatoer") as caught:
        await bc.post(period, guard=allow)
    assert (caught.value.culprits, caught.value.of_content) == ({}, False)


@pytest.mark.usefixtures("language")
async def test_a_day_that_is_closed_holds_back_the_vouchers_of_that_day_alone(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    """The others need not wait for somebody who opens October again."""
    october, november = date(2026, 10, 30), date(2026, 11, 24)
    days = {1: november, 2: october, 3: november, 4: october}
    sent = [voucher(n, *a_claim(n).lines, posting_date=day) for n, day in days.items()]
    await bc.send(period, sent, begins=True, guard=allow)
    business_central.change(allow_posting_from="2026-11-01")
    with pytest.raises(Refused, match=r"allowed posting dates|tillatte bokf.ringsdatoer") as caught:
        await bc.post(period, guard=allow)
    assert sorted(caught.value.culprits) == [2, 4]
    await bc.withdraw(period, [2, 4], guard=allow)
    await bc.post(period, guard=allow)
    assert set(await bc.find(period, claims(1, 4))) == {1, 3}


# -- misfits of the set-up -------------------------------------------------------------------------

TODAY = date(2026, 11, 24)


async def test_a_company_that_fits_is_left_as_it_was(
    bc: Client, business_central: Simulator
) -> None:
    for _ in range(2):
        assert await bc.misfits(book_currency="NOK", today=TODAY) == []
    assert business_central.operations()["journals.delete"] >= 2
    assert bc.requests["export"] == bc.requests["read-back"] == 0


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("local_currency", "EUR", "Correct the one that is wrong"),
        ("allow_posting_from", "2026-12-01", "from 2026-12-01 to any day only"),
        ("allow_posting_to", "2026-10-31", "from any day to 2026-10-31 only"),
        ("number_series", "G00041", "the trial line got G00042.*Clear No. Series"),
        ("template_balancing_account", "1920", "balancing account 1920.*Clear Bal. Account No."),
    ],
)
async def test_a_setting_that_breaks_posting_or_reading_back_is_named_with_its_remedy(
    bc: Client, business_central: Simulator, setting: str, value: str, words: str
) -> None:
    business_central.change(**{setting: value})
    [misfit] = await bc.misfits(book_currency="NOK", today=TODAY)
    assert re.search(words, misfit)


async def test_a_job_queue_is_seen_while_something_waits_in_it_and_by_its_log_after_that(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    business_central.change(post_with_job_queue=True, job_queue_seconds=60)
    await bc.send(period, claims(1, 2), begins=True, guard=allow)
    await bc.post(period, guard=allow)
    [waiting] = await bc.misfits(book_currency="NOK", today=TODAY)
    assert waiting.endswith("Turn it off: General Ledger Setup, Post with Job Queue")
    business_central.run_jobs()
    [logged] = await bc.misfits(book_currency="NOK", today=TODAY)
    assert re.search(r"the last one on \d{4}-\d\d-\d\d.*accept the set-up as it is$", logged)
    business_central.change(has_job_queue_log=False)
    assert await bc.misfits(book_currency="NOK", today=TODAY) == []


async def test_what_cannot_be_looked_at_is_said(
    canned: BusinessCentral, microsoft: respx.MockRouter
) -> None:
    error = {"error": {"code": "BadRequest_NotFound", "message": "No HTTP resource was found"}}
    microsoft.get(url__regex=r".*/generalLedgerSetup\?.*").respond(404, json=error)
    microsoft.get(url__regex=r".*/jobQueueLogEntries\?.*").respond(404, json=error)
    microsoft.get(url__regex=r".*/(jobQueueEntries|journals|journalLines)\?.*").respond(
        json={"value": []}
    )
    microsoft.delete(url__regex=r".*/journals\(.*").respond(204)
    [misfit] = await canned.misfits(book_currency="NOK", today=TODAY)
    assert misfit.startswith("A part of the set-up could not be looked at")


# -- taking back -----------------------------------------------------------------------------------


async def test_what_is_withdrawn_is_not_posted_and_the_rest_is(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    await bc.send(period, claims(1, 5), begins=True, guard=allow)
    await bc.withdraw(period, [2, 4], guard=allow)
    await bc.post(period, guard=allow)
    documents = {row["document"][-1] for row in business_central.lines(period, "posted")}
    assert documents == {"1", "3", "5"}


async def test_withdrawing_twice_or_what_was_never_there_is_no_error(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    await bc.withdraw(period, [1], guard=allow)
    await bc.send(period, claims(1, 3), begins=True, guard=allow)
    for _ in range(2):
        await bc.withdraw(period, [2, 9], guard=allow)
    assert len(business_central.lines(period)) == 4


async def test_many_vouchers_are_withdrawn_a_hundred_lines_at_a_time(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    await bc.send(period, claims(1, 130), begins=True, guard=allow)
    await bc.withdraw(period, range(1, 121), guard=allow)
    assert len(business_central.lines(period)) == 20


@pytest.mark.parametrize("fault", ["reply-lost", "drop-before", "half-batch", "malformed"])
async def test_a_lost_reply_to_withdrawing_is_read_back_and_done_again(
    bc: Client, business_central: Simulator, period: Period, fault: str
) -> None:
    await bc.send(period, claims(1, 3), begins=True, guard=allow)
    business_central.fault("batch", fault)
    await bc.withdraw(period, [1, 2], guard=allow)
    assert {row["document"][-1] for row in business_central.lines(period)} == {"3"}


async def test_withdrawing_asks_the_guard(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    def lost() -> None:
        raise LeaseLost("taken over")

    await bc.send(period, claims(1, 3), begins=True, guard=allow)
    with pytest.raises(LeaseLost):
        await bc.withdraw(period, [1], guard=lost)
    assert len(business_central.lines(period)) == 6


# -- posting ---------------------------------------------------------------------------------------


async def test_a_lost_reply_to_posting_is_uncertain_and_then_seen_to_be_posted(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    await bc.send(period, claims(1, 2), begins=True, guard=allow)
    assert not await bc.posted(period)
    business_central.fault("post", "reply-lost")
    with pytest.raises(Uncertain):
        await bc.post(period, guard=allow)
    assert await bc.posted(period)


async def test_an_error_after_the_ledger_was_committed_counts_as_posted(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    business_central.change(analysis_view_fails=True)
    await bc.send(period, claims(1, 2), begins=True, guard=allow)
    await bc.post(period, guard=allow)
    business_central.change(analysis_view_fails=False)
    assert len(business_central.lines(period, "posted")) == 4


async def test_a_refusal_that_cannot_be_checked_is_uncertain(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    await bc.send(period, claims(1, 2), begins=True, guard=allow)
    business_central.fault("post", "status", status=400, code="Application_DialogException")
    business_central.fault("generalLedgerEntries.list", "status", status=503, times=9)
    with pytest.raises(Uncertain, match="Whether it was posted before that is not known"):
        await bc.post(period, guard=allow)


async def test_a_journal_that_may_not_be_posted_is_refused_in_the_vendors_words(
    bc: Client, period: Period
) -> None:
    crooked = voucher(1, line("7140", "1.00"), line("2910", "-0.99"))
    await bc.send(period, [crooked], begins=True, guard=allow)
    with pytest.raises(Refused, match="out of balance"):
        await bc.post(period, guard=allow)


async def test_lines_both_posted_and_staged_stop_for_a_person(bc: Client, period: Period) -> None:
    await bc.send(period, claims(1, 2), begins=True, guard=allow)
    await bc.post(period, guard=allow)
    await bc.send(
        period, claims(1, 2), begins=True, guard=allow
    )  # a late commit: its line numbers are free
    with pytest.raises(Refused, match="may book them twice"):
        await bc.posted(period)
    found = await bc.find(period, claims(1, 2))
    assert found[1] == FoundVoucher(lines=4, booked=Decimal("2.20"))


async def test_posting_by_job_queue_is_not_posted_before_the_job_has_run(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    business_central.change(post_with_job_queue=True, job_queue_seconds=60)
    await bc.send(period, claims(1, 2), begins=True, guard=allow)
    await bc.post(period, guard=allow)
    assert not await bc.posted(period)
    with pytest.raises(Unsent, match=r"waits in Business Central's job queue.*Turn it off"):
        await bc.totals(period)
    business_central.run_jobs()
    assert await bc.posted(period)
    assert (await bc.totals(period)).checksum == totals_of(claims(1, 2)).checksum


async def test_lines_that_no_job_is_to_post_are_shown_to_be_missing_in_the_ledger(
    bc: Client, period: Period
) -> None:
    await bc.send(period, claims(1, 2), begins=True, guard=allow)
    assert (await bc.totals(period)).lines == 0


async def test_a_journal_posted_under_other_numbers_stops_for_a_person(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    business_central.change(posting_number_series="POST-0001")
    await bc.send(period, claims(1, 2), begins=True, guard=allow)
    await bc.post(period, guard=allow)
    business_central.change(posting_number_series=None)
    for look in (bc.totals(period), bc.posted(period), bc.find(period, claims(1, 2))):
        with pytest.raises(Refused, match=r"was posted, and .* Clear Posting No\. Series|clear"):
            await look


@pytest.mark.parametrize("copies", [True, False])
async def test_vat_that_is_split_off_at_posting_shows_as_another_count_than_was_sent(
    bc: Client, business_central: Simulator, period: Period, *, copies: bool
) -> None:
    business_central.calculate_vat("7299", 25)
    business_central.change(copies_vat_setup=copies)
    sent = [voucher(1, line("7299", "125.00"), line("2910", "-125.00", party="ANS-101"))]
    await bc.send(period, sent, begins=True, guard=allow)
    await bc.post(period, guard=allow)
    seen = compare(sent, await bc.find(period, sent))
    assert (seen.complete, len(seen.contradictions)) == (not copies, int(copies))
    assert ((await bc.totals(period)).checksum == totals_of(sent).checksum) is not copies


async def test_a_periods_journal_is_never_deleted(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    """Its code, and the numbers of its lines, are all that Business Central keeps unique."""
    before = business_central.operations().get("journals.delete", 0)
    wrong = voucher(3, line("9999", "1.00"), line("2910", "-1.00"))
    with pytest.raises(Refused):
        await bc.send(period, [*claims(1, 2), wrong], begins=True, guard=allow)
    await bc.send(period, claims(1, 2), begins=True, guard=allow)
    await bc.withdraw(period, [1, 2], guard=allow)
    await bc.send(period, claims(4, 5), begins=False, guard=allow)
    await bc.post(period, guard=allow)
    assert await bc.posted(period)
    assert business_central.operations().get("journals.delete", 0) == before


async def test_a_journal_that_is_a_mere_header_stops_for_a_person(
    bc: Client, period: Period
) -> None:
    await bc.send(period, claims(1, 2), begins=True, guard=allow)
    await bc.withdraw(period, [1, 2], guard=allow)
    assert (await bc.totals(period)).lines == 0
    with pytest.raises(Refused, match="it is a mere header"):
        await bc.find(period, claims(1, 2))


async def test_a_further_chunk_that_is_missing_does_not_look_like_an_empty_journal(
    bc: Client, period: Period
) -> None:
    await bc.send(period, claims(1, 2), begins=True, guard=allow)
    assert await bc.find(period, claims(3, 4)) == {}


async def test_a_page_that_leads_elsewhere_does_not_get_our_token(
    canned: BusinessCentral, microsoft: respx.MockRouter, period: Period
) -> None:
    elsewhere = microsoft.get(url__startswith="https://elsewhere.example/").respond(json={})
    entries = microsoft.get(url__regex=r".*/generalLedgerEntries\?.*")
    entries.respond(json={"value": [], "@odata.nextLink": "https://elsewhere.example/page2"})
    with pytest.raises(Refused, match="another host"):
        await canned.totals(period)
    assert not elsewhere.called


async def test_a_lagging_replica_is_never_asked_for(
    canned: BusinessCentral, microsoft: respx.MockRouter, period: Period
) -> None:
    entries = microsoft.get(url__regex=r".*/generalLedgerEntries\?.*")
    entries.respond(json={"value": []})
    microsoft.get(url__regex=r".*/journals\?.*").respond(json={"value": []})
    await canned.totals(period)
    request = entries.calls.last.request
    assert "Data-Access-Intent" not in request.headers
    low, high = f"{period.reference}-000000", f"{period.reference}-999999"
    wanted = f"documentNumber ge '{low}' and documentNumber le '{high}'"
    assert request.url.params["$filter"] == wanted


# -- what is uncertain, either way -----------------------------------------------------------------


@pytest.mark.parametrize("folds", [True, False])
async def test_references_survive_whether_codes_are_folded_or_not(
    bc: Client, business_central: Simulator, period: Period, *, folds: bool
) -> None:
    business_central.change(folds_codes=folds)
    await bc.send(period, claims(1, 3), begins=True, guard=allow)
    await bc.send(period, claims(4, 5), begins=False, guard=allow)
    assert compare(claims(1, 5), await bc.find(period, claims(1, 5))).complete
    await bc.post(period, guard=allow)
    assert (await bc.totals(period)).vouchers == 5


@pytest.mark.parametrize("status", [400, 409])
async def test_a_key_that_exists_is_known_by_its_code_whatever_the_status(
    bc: Client, business_central: Simulator, period: Period, status: int
) -> None:
    business_central.change(same_key_status=status)
    await bc.send(period, claims(1, 2), begins=True, guard=allow)
    with pytest.raises(Uncertain, match="EntityWithSameKeyExists"):
        await bc.send(period, claims(1, 2), begins=False, guard=allow)


@pytest.mark.parametrize("onto", ["append", "refuse"])
async def test_a_deep_insert_onto_a_journal_that_exists_doubles_nothing(
    bc: Client, business_central: Simulator, period: Period, onto: str
) -> None:
    business_central.change(deep_insert_on_existing=onto)
    await bc.send(period, claims(1, 2), begins=True, guard=allow)
    async with business_central.open() as another:
        with pytest.raises(Uncertain, match="EntityWithSameKeyExists"):
            await another.send(period, claims(1, 2), begins=True, guard=allow)
        assert compare(claims(1, 2), await another.find(period, claims(1, 2))).complete
    assert len(business_central.lines(period)) == 4


@pytest.mark.parametrize(
    ("shown", "complete"),
    [
        (["G/L Account", "Customer", "Vendor", "Bank Account"], True),
        (["G/L Account", "Bank Account"], False),
    ],
)
async def test_vendor_lines_that_are_not_shown_are_not_taken_for_all_there_is(
    bc: Client, business_central: Simulator, period: Period, shown: list[str], *, complete: bool
) -> None:
    business_central.change(readable_account_types=shown)
    await bc.send(period, claims(1, 2), begins=True, guard=allow)
    found = compare(claims(1, 2), await bc.find(period, claims(1, 2)))
    assert found.complete is complete
    await bc.post(period, guard=allow)
    assert (await bc.totals(period)).lines == 4


@pytest.mark.parametrize("status", [409, 412])
async def test_a_line_that_changed_meanwhile_is_read_again_before_it_is_deleted(
    canned: BusinessCentral, microsoft: respx.MockRouter, period: Period, status: int
) -> None:
    line_id = "5f1f4d3c-0000-4000-8000-000000000010"
    pages = iter([[1], [2], []])

    def lines(_: Any) -> httpx.Response:
        rows = [
            {"id": line_id, "documentNumber": f"{period.reference}-000001", "@odata.etag": f"W/{n}"}
            for n in next(pages)
        ]
        return httpx.Response(200, json={"value": rows})

    def answer(status: int, **body: Any) -> httpx.Response:
        return httpx.Response(200, json={"responses": [{"id": line_id, "status": status, **body}]})

    changed = {"error": {"code": "Request_EntityChanged", "message": "Changed."}}
    microsoft.get(url__regex=r".*/journals\?.*").respond(json={"value": [{"id": JOURNAL}]})
    microsoft.get(url__regex=r".*/journalLines\?.*").mock(side_effect=lines)
    batch = microsoft.post(url__regex=r".*/\$batch$")
    batch.mock(side_effect=[answer(status, body=changed), answer(204)])
    await canned.withdraw(period, [1], guard=allow)
    sent = [exact_json.loads(call.request.content)["requests"][0] for call in batch.calls]
    assert [each["headers"]["If-Match"] for each in sent] == ["W/1", "W/2"]


# -- facts of the page that have no other place ----------------------------------------------------


async def test_a_token_is_asked_for_by_client_credentials_and_calls_go_to_the_companys_address(
    canned: BusinessCentral, microsoft: respx.MockRouter, period: Period
) -> None:
    entries = microsoft.get(url__regex=r".*/generalLedgerEntries\?.*")
    entries.respond(json={"value": []})
    microsoft.get(url__regex=r".*/journals\?.*").respond(json={"value": []})
    await canned.totals(period)
    token, asked, _ = (call.request for call in microsoft.calls)
    assert str(token.url) == LOGIN
    assert dict(parse_qsl(token.content.decode())) == {
        "grant_type": "client_credentials",
        "client_id": "kvitt",
        "client_secret": "secret-of-respx",
        "scope": "https://api.businesscentral.dynamics.com/.default",
    }
    assert str(asked.url).startswith(f"{ROOT}/companies({COMPANY})/generalLedgerEntries?")
    assert asked.headers["Authorization"] == "Bearer token-of-respx"


async def test_each_call_and_each_operation_of_a_batch_asks_for_english(
    canned: BusinessCentral, microsoft: respx.MockRouter, period: Period
) -> None:
    microsoft.get(url__regex=r".*/journals\?.*").respond(json={"value": [{"id": JOURNAL}]})
    batch = microsoft.post(url__regex=r".*/\$batch$")
    responses = [{"id": str(n), "status": 201, "body": {}} for n in range(4)]
    batch.respond(json={"responses": responses})
    await canned.send(period, claims(1, 2), begins=False, guard=allow)
    asked = [call.request for call in microsoft.calls if "oauth2" not in str(call.request.url)]
    assert {each.headers["Accept-Language"] for each in asked} == {"en-US"}
    [sent] = batch.calls
    operations = json.loads(sent.request.content)["requests"]
    assert {each["headers"]["Accept-Language"] for each in operations} == {"en-US"}


@pytest.mark.parametrize("status", [400, 500])
async def test_what_the_service_says_of_itself_is_uncertain_by_its_code_whatever_the_status(
    canned: BusinessCentral, microsoft: respx.MockRouter, period: Period, status: int
) -> None:
    error = {"error": {"code": "Internal_ServerError", "message": "Transaksjonen ble avbrutt."}}
    microsoft.post(url__regex=r".*/journals$").respond(status, json=error)
    with pytest.raises(Uncertain):
        await canned.send(period, claims(1, 2), begins=True, guard=allow)


async def test_a_probe_is_a_get_of_one_company(
    canned: BusinessCentral, microsoft: respx.MockRouter
) -> None:
    companies = microsoft.get(f"{ROOT}/companies?$top=1&$select=id")
    companies.respond(json={"value": [{"id": COMPANY}]})
    await canned.probe()
    assert [call.request.method for call in microsoft.calls] == ["POST", "GET"]


@pytest.mark.parametrize(
    "code",
    [
        "BadRequest_NotFound",
        "Authorization_RequestDenied",
        "Application_DialogException",
        "Internal_RecordNotFound",
        "Internal_InvalidTableRelation",
    ],
)
async def test_a_permanent_error_is_refused_once_and_shown(
    canned: BusinessCentral, microsoft: respx.MockRouter, period: Period, code: str
) -> None:
    error = {"error": {"code": code, "message": "No, said the vendor."}}
    create = microsoft.post(url__regex=r".*/journals$")
    create.respond(400, json=error)
    with pytest.raises(Refused, match=f"{code}: No, said the vendor"):
        await canned.send(period, [a_claim(1)], begins=True, guard=allow)
    assert create.call_count == 1


async def test_no_address_is_longer_than_the_vendor_takes(
    microsoft: respx.MockRouter, period: Period
) -> None:
    long = {"tenant_id": "t" * 60, "environment": "e" * 60}
    lines = microsoft.get(url__regex=r".*/journalLines\?.*").respond(json={"value": []})
    microsoft.post(url__regex=r".*/token$").respond(json={"access_token": "t", "expires_in": 3599})
    microsoft.get(url__regex=r".*/journals\?.*").respond(json={"value": [{"id": JOURNAL}]})
    async with BusinessCentral(SETTINGS.model_copy(update=long), Timeouts()) as client:
        await client.withdraw(period, range(1, 121), guard=allow)
    assert lines.call_count == 3
    assert max(len(str(call.request.url)) for call in microsoft.calls) < 8000


def test_the_settle_time_is_the_sum_of_the_documented_limits() -> None:
    queue, gateway = timedelta(minutes=8), timedelta(minutes=10)
    assert BusinessCentral.habits.settle == queue + gateway
    assert BusinessCentral.habits.answer > gateway
    assert BusinessCentral.habits.chunk_lines == 100
    assert BusinessCentral.habits.posts


@given(
    due_at=some.integers(0, 42_000_000).map(
        lambda minutes: datetime(2020, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
    )
)
def test_a_journals_code_has_ten_characters_never_ends_in_a_digit_and_is_no_trial(
    due_at: datetime,
) -> None:
    period = a_period().model_copy(update={"due_at": due_at})
    code = business_central_module._code(period)
    assert (len(code), code[-1]) == (10, "K")
    assert not business_central_module._TRIAL.endswith("K")
