"""Business Central: journals, batches, posting, and what the books say afterwards."""

import traceback
from collections.abc import AsyncGenerator, Generator
from decimal import Decimal
from typing import Any

import pytest
import respx
from hypothesis import given
from hypothesis import strategies as some

from kvitt.domain.errors import Refused, Uncertain, Unsent
from kvitt.domain.integrations import Timeouts
from kvitt.domain.periods import Period
from kvitt.domain.reconcile import FoundVoucher, compare
from kvitt.vendors import Client, exact_json
from kvitt.vendors.business_central import (
    BusinessCentral,
    BusinessCentralSettings,
    line_number,
)
from kvitt.vendors.http import Patience
from tests.vendors.cast import SECRETS, Simulator, a_claim, claims, line, voucher

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
    await bc.send(period, claims(1, 50), guard=allow)
    await bc.send(period, claims(51, 60), guard=allow)
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
    await bc.send(period, [a_claim(1)], guard=allow)
    await bc.send(period, [sent], guard=allow)
    cost, debt = business_central.lines(period)[2:]
    assert cost["document"] == f"{period.reference}-000007"
    assert cost["dimensions"] == {"AVDELING": "10", "PROSJEKT": "P-CUP"}
    assert cost["text"] == text[:100]
    assert cost["batch"] == f"{period.reference}K"
    assert (debt["account_type"], debt["account"], debt["tax"]) == ("Vendor", "ANS-101", "NONE")
    assert len(cost["reference"]) == 35
    assert cost["reference"] == debt["reference"] != ("CLAIM/" + "Y" * 60)[:35]


async def test_amounts_leave_as_exact_numbers(
    canned: BusinessCentral, microsoft: respx.MockRouter, period: Period
) -> None:
    big = voucher(1, line("7140", "12345678901234567.89"), line("2910", "-12345678901234567.89"))
    await canned.send(period, [big], guard=allow)
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


async def test_a_read_back_follows_the_pages(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    business_central.change(page_size=3)
    await bc.send(period, claims(1, 5), guard=allow)
    assert compare(claims(1, 5), await bc.find(period, first=1, last=5)).complete
    await bc.post(period, guard=allow)
    assert (await bc.totals(period)).lines == 10
    business_central.change(page_size=20_000)


# -- tokens ----------------------------------------------------------------------------------------


async def test_an_expired_token_is_renewed_once(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    business_central.fault("journals.create", "token-expired")
    await bc.send(period, claims(1, 2), guard=allow)
    assert bc.requests["token"] == 2
    assert len(business_central.lines(period)) == 4


async def test_a_connection_that_stays_locked_out_is_refused_after_one_renewal(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    business_central.fault("journals.create", "token-expired", times=9)
    with pytest.raises(Refused, match="HTTP 401"):
        await bc.send(period, claims(1, 2), guard=allow)
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
    with pytest.raises(Unsent, match="cannot be read") as caught:
        await canned.probe()
    assert "fresh-token" not in "".join(traceback.format_exception(caught.value))


# -- batches ---------------------------------------------------------------------------------------


async def test_a_rolled_back_batch_is_refused_although_its_operations_say_created(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    await bc.send(period, claims(1, 2), guard=allow)
    wrong = voucher(4, line("9999", "1.00"), line("2910", "-1.00"))
    with pytest.raises(Refused, match="9999"):
        await bc.send(period, [a_claim(3), wrong], guard=allow)
    assert len(business_central.lines(period)) == 4


@pytest.mark.parametrize("statuses", [[201], [201, 201, 201], []])
async def test_a_batch_with_another_number_of_answers_is_uncertain(
    canned: BusinessCentral, microsoft: respx.MockRouter, period: Period, statuses: list[int]
) -> None:
    answers = [{"id": str(n), "status": status} for n, status in enumerate(statuses)]
    microsoft.post(f"{ROOT}/$batch").respond(json={"responses": answers})
    await canned.send(period, [a_claim(1)], guard=allow)
    with pytest.raises(Uncertain, match="answers to 2 operations"):
        await canned.send(period, [a_claim(2)], guard=allow)


async def test_half_a_batch_is_found_and_the_rest_completes_it(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    await bc.send(period, [a_claim(1)], guard=allow)
    business_central.fault("batch", "half-batch")
    with pytest.raises(Uncertain):
        await bc.send(period, claims(2, 5), guard=allow)
    there = compare(claims(2, 5), await bc.find(period, first=2, last=5))
    assert [v.sequence for v in there.missing] == [4, 5]
    await bc.send(period, there.missing, guard=allow)
    assert compare(claims(2, 5), await bc.find(period, first=2, last=5)).complete


async def test_half_a_first_chunk_is_completed_in_the_journal_that_it_made(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    business_central.fault("journals.create", "half-batch")
    with pytest.raises(Uncertain):
        await bc.send(period, claims(1, 4), guard=allow)
    there = compare(claims(1, 4), await bc.find(period, first=1, last=4))
    await bc.send(period, there.missing, guard=allow)
    assert len(business_central.lines(period)) == 8


async def test_the_same_lines_again_collide_and_are_uncertain(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    await bc.send(period, claims(1, 2), guard=allow)
    with pytest.raises(Uncertain, match="EntityWithSameKeyExists"):
        await bc.send(period, claims(1, 2), guard=allow)
    async with business_central.open() as another:
        with pytest.raises(Uncertain, match="EntityWithSameKeyExists"):
            await another.send(period, claims(1, 2), guard=allow)
    assert len(business_central.lines(period)) == 4


async def test_another_process_looks_the_journal_up_once(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    await bc.send(period, claims(1, 2), guard=allow)
    async with business_central.open() as another:
        await another.send(period, claims(3, 4), guard=allow)
        await another.send(period, claims(5, 6), guard=allow)
        await another.post(period, guard=allow)
        assert another.requests["read-back"] == 1
    assert len(business_central.lines(period, "posted")) == 12


async def test_a_later_chunk_without_a_journal_is_refused(bc: Client, period: Period) -> None:
    with pytest.raises(Refused, match="is gone"):
        await bc.send(period, claims(3, 4), guard=allow)


async def test_a_long_voucher_takes_several_batches(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    await bc.send(period, [a_claim(1)], guard=allow)
    await bc.send(period, [a_long_voucher(2, 250), a_claim(3)], guard=allow)
    found = await bc.find(period, first=2, last=2)
    assert found == {2: FoundVoucher(lines=250, booked=Decimal(249))}
    assert bc.requests["export"] == 4
    assert len(business_central.lines(period)) == 254


async def test_what_goes_wrong_after_the_first_of_several_batches_is_uncertain(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    await bc.send(period, [a_claim(1)], guard=allow)
    business_central.fault("batch", "rate-limit", nth=2, times=9)
    with pytest.raises(Uncertain, match="in the journal already"):
        await bc.send(period, [a_long_voucher(2, 150)], guard=allow)


async def test_a_voucher_longer_than_the_line_numbers_is_refused(
    bc: Client, period: Period
) -> None:
    with pytest.raises(Refused, match="split the record"):
        await bc.send(period, [a_long_voucher(1, 2_000)], guard=allow)


# -- posting ---------------------------------------------------------------------------------------


async def test_a_lost_reply_to_posting_is_uncertain_and_then_seen_to_be_posted(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    await bc.send(period, claims(1, 2), guard=allow)
    assert not await bc.posted(period)
    business_central.fault("post", "reply-lost")
    with pytest.raises(Uncertain):
        await bc.post(period, guard=allow)
    assert await bc.posted(period)


async def test_an_error_after_the_ledger_was_committed_counts_as_posted(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    business_central.change(analysis_view_fails=True)
    await bc.send(period, claims(1, 2), guard=allow)
    await bc.post(period, guard=allow)
    business_central.change(analysis_view_fails=False)
    assert len(business_central.lines(period, "posted")) == 4


async def test_a_refusal_that_cannot_be_checked_is_uncertain(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    await bc.send(period, claims(1, 2), guard=allow)
    business_central.fault("post", "status", status=400, code="Application_DialogException")
    business_central.fault("journalLines.list", "status", status=503, times=9)
    with pytest.raises(Uncertain, match="Whether it was posted before that is not known"):
        await bc.post(period, guard=allow)


async def test_a_journal_that_may_not_be_posted_is_refused_in_the_vendors_words(
    bc: Client, period: Period
) -> None:
    crooked = voucher(1, line("7140", "1.00"), line("2910", "-0.99"))
    await bc.send(period, [crooked], guard=allow)
    with pytest.raises(Refused, match="out of balance"):
        await bc.post(period, guard=allow)


async def test_lines_both_posted_and_staged_stop_for_a_person(bc: Client, period: Period) -> None:
    await bc.send(period, claims(1, 2), guard=allow)
    await bc.post(period, guard=allow)
    await bc.send(period, claims(1, 2), guard=allow)  # a late commit: its line numbers are free
    with pytest.raises(Refused, match="may book them twice"):
        await bc.posted(period)
    found = await bc.find(period, first=1, last=2)
    assert found[1] == FoundVoucher(lines=4, booked=Decimal("2.20"))


async def test_posting_by_job_queue_is_not_posted_before_the_job_has_run(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    business_central.change(post_with_job_queue=True, job_queue_seconds=60)
    await bc.send(period, claims(1, 2), guard=allow)
    await bc.post(period, guard=allow)
    assert not await bc.posted(period)
    assert (await bc.totals(period)).lines == 0
    business_central.run_jobs()
    business_central.change(post_with_job_queue=False)
    assert await bc.posted(period)


async def test_a_journal_posted_under_other_numbers_stops_for_a_person(
    bc: Client, business_central: Simulator, period: Period
) -> None:
    business_central.change(posting_number_series="POST-0001")
    await bc.send(period, claims(1, 2), guard=allow)
    await bc.post(period, guard=allow)
    business_central.change(posting_number_series=None)
    with pytest.raises(Refused, match="posted under other document numbers"):
        await bc.find(period, first=1, last=2)


async def test_a_further_chunk_that_is_missing_does_not_look_like_an_empty_journal(
    bc: Client, period: Period
) -> None:
    await bc.send(period, claims(1, 2), guard=allow)
    assert await bc.find(period, first=3, last=4) == {}


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
    microsoft.get(url__regex=r".*/generalLedgerEntries\?.*").respond(json={"value": []})
    await canned.totals(period)
    request = microsoft.calls.last.request
    assert "Data-Access-Intent" not in request.headers
    low, high = f"{period.reference}-000000", f"{period.reference}-999999"
    wanted = f"documentNumber ge '{low}' and documentNumber le '{high}'"
    assert request.url.params["$filter"] == wanted
