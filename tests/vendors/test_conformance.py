"""What each vendor must do, against a simulator with real books."""

import logging
from decimal import Decimal

import pytest

from kvitt.domain.errors import LeaseLost, Refused, TurnedAway, Uncertain, Unsent
from kvitt.domain.integrations import Timeouts
from kvitt.domain.periods import Period
from kvitt.domain.reconcile import FoundVoucher, compare
from kvitt.domain.vouchers import totals_of
from kvitt.retries import explain_retries
from kvitt.vendors import Client
from tests.vendors.cast import (
    PRINTER,
    SECRETS,
    Simulator,
    a_claim,
    a_period,
    claims,
    line,
    voucher,
)

VOUCHERS = [
    voucher(1, line("7140", "0.10"), line("6800", "0.20"), line("2910", "-0.30")),
    voucher(2, line("6540", "1234567.89"), line("2400", "-1234567.89", party=PRINTER)),
    voucher(
        3,
        line("7140", "1173.21", amount="100.00"),
        line("2910", "-1173.21", amount="-100.00", party="ANS-102"),
        currency="EUR",
    ),
]


def allow() -> None:
    """Guard nothing."""


async def test_what_was_sent_is_found_posted_and_totalled(
    client: Client, simulator: Simulator, period: Period
) -> None:
    await client.send(period, VOUCHERS, begins=True, guard=allow)
    assert compare(VOUCHERS, await client.find(period, VOUCHERS)).complete
    await client.post(period, guard=allow)
    simulator.run_jobs()

    assert await client.posted(period)
    assert compare(VOUCHERS, await client.find(period, VOUCHERS)).complete
    shown, sent = await client.totals(period), totals_of(VOUCHERS)
    assert (shown.vouchers, shown.lines, shown.booked) == (sent.vouchers, sent.lines, sent.booked)
    assert shown.original in (None, sent.original)
    assert (shown.checksum, shown.staged) == (sent.checksum, 0)
    assert len(simulator.lines(period, "posted")) == 7
    assert simulator.lines(period, "staged") == []


async def test_amounts_arrive_to_the_last_digit(
    client: Client, simulator: Simulator, period: Period
) -> None:
    await client.send(period, VOUCHERS, begins=True, guard=allow)
    amounts = [row["amount"] for row in simulator.lines(period)]
    assert amounts == ["0.10", "0.20", "-0.30", "1234567.89", "-1234567.89", "1173.21", "-1173.21"]


async def test_further_chunks_join_the_first(
    client: Client, simulator: Simulator, period: Period
) -> None:
    await client.send(period, claims(1, 40), begins=True, guard=allow)
    await client.send(period, claims(41, 80), begins=False, guard=allow)
    await client.send(period, claims(81, 90), begins=False, guard=allow)
    await client.post(period, guard=allow)
    simulator.run_jobs()
    shown = await client.totals(period)
    assert (shown.vouchers, shown.lines, shown.booked) == (90, 180, Decimal("4104.00"))


async def test_a_voucher_that_is_sent_twice_is_there_once_or_shows_as_two_copies(
    client: Client, simulator: Simulator, period: Period
) -> None:
    for begins in (True, False):
        await client.send(period, VOUCHERS[:1], begins=begins, guard=allow)
        await client.post(period, guard=allow)
        simulator.run_jobs()
    shown, sent = await client.totals(period), totals_of(VOUCHERS[:1])
    copies = 2 if simulator.of.takes_copies else 1
    assert (shown.vouchers, shown.lines) == (sent.vouchers, copies * sent.lines)
    assert (shown.checksum != sent.checksum) is simulator.of.takes_copies


async def test_a_plain_voucher_is_not_objected_to(client: Client, period: Period) -> None:
    assert [client.objection(period, each) for each in VOUCHERS] == [None, None, None]


async def test_what_never_arrived_is_not_found(client: Client, period: Period) -> None:
    assert await client.find(period, VOUCHERS) == {}


async def test_two_integrations_in_one_company_do_not_see_each_other(client: Client) -> None:
    mine, yours = a_period(), a_period()
    await client.send(mine, [a_claim(1, "10.00")], begins=True, guard=allow)
    await client.send(yours, [a_claim(1, "20.00"), a_claim(2, "30.00")], begins=True, guard=allow)
    found = await client.find(mine, VOUCHERS[:2])
    assert found == {1: FoundVoucher(lines=2, booked=Decimal(10))}


async def test_a_lost_reply_is_uncertain_and_reading_back_shows_what_arrived(
    client: Client, simulator: Simulator, period: Period
) -> None:
    simulator.fault(simulator.writes, "reply-lost")
    with pytest.raises(Uncertain, match="read back before anything is sent again"):
        await client.send(period, VOUCHERS, begins=True, guard=allow)
    assert compare(VOUCHERS, await client.find(period, VOUCHERS)).complete
    assert len(simulator.lines(period)) == 7


async def test_a_call_that_was_dropped_before_is_uncertain_too_and_may_be_sent_again(
    client: Client, simulator: Simulator, period: Period
) -> None:
    simulator.fault(simulator.writes, "drop-before")
    with pytest.raises(Uncertain):
        await client.send(period, VOUCHERS, begins=True, guard=allow)
    assert await client.find(period, VOUCHERS) == {}
    await client.send(period, VOUCHERS, begins=True, guard=allow)
    assert len(simulator.lines(period)) == 7


@pytest.mark.parametrize("fault", ["malformed", "truncated"])
async def test_a_reply_that_cannot_be_read_is_uncertain(
    client: Client, simulator: Simulator, period: Period, fault: str
) -> None:
    simulator.fault(simulator.writes, fault)
    with pytest.raises(Uncertain):
        await client.send(period, VOUCHERS, begins=True, guard=allow)
    assert compare(VOUCHERS, await client.find(period, VOUCHERS)).complete


async def test_a_reply_that_takes_too_long_is_uncertain(
    simulator: Simulator, period: Period
) -> None:
    async with simulator.open(Timeouts(read=0.3)) as client:
        await client.probe()
        simulator.fault(simulator.writes, "slow", delay=0.6)
        with pytest.raises(Uncertain, match="ReadTimeout"):
            await client.send(period, VOUCHERS, begins=True, guard=allow)
        assert compare(VOUCHERS, await client.find(period, VOUCHERS)).complete


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504])
async def test_a_server_error_on_a_write_is_uncertain_and_not_sent_again(
    client: Client, simulator: Simulator, period: Period, status: int
) -> None:
    before = simulator.operations().get(simulator.writes, 0)
    simulator.fault(simulator.writes, "status", status=status)
    with pytest.raises(Uncertain, match=f"HTTP {status}"):
        await client.send(period, VOUCHERS, begins=True, guard=allow)
    assert simulator.operations()[simulator.writes] == before + 1


async def test_a_limit_is_waited_for_and_the_call_sent_once(
    client: Client, simulator: Simulator, period: Period
) -> None:
    simulator.fault(simulator.writes, "rate-limit", times=2)
    await client.send(period, VOUCHERS, begins=True, guard=allow)
    assert len(simulator.lines(period)) == 7
    assert client.requests["export"] == 3


async def test_a_limit_that_stays_is_unsent(
    client: Client, simulator: Simulator, period: Period
) -> None:
    simulator.fault(simulator.writes, "rate-limit", times=9)
    with pytest.raises(Unsent, match="the next run asks again"):
        await client.send(period, VOUCHERS, begins=True, guard=allow)
    assert simulator.lines(period) == []


async def test_a_long_wait_is_not_waited_for_but_passed_on(
    client: Client, simulator: Simulator, period: Period
) -> None:
    code = {"xledger": "BAD_REQUEST.INSUFFICIENT_CREDITS"}.get(simulator.vendor)
    simulator.fault(simulator.writes, "rate-limit", times=9, retry_after=300, code=code)
    with pytest.raises(Unsent) as caught:
        await client.send(period, VOUCHERS, begins=True, guard=allow)
    assert caught.value.retry_after is not None
    assert 290 <= caught.value.retry_after.total_seconds() <= 300
    assert client.requests["export"] == 1


@pytest.mark.parametrize("fault", ["drop-before", "truncated", "malformed"])
async def test_a_read_is_made_again(
    client: Client, simulator: Simulator, period: Period, fault: str
) -> None:
    await client.send(period, VOUCHERS, begins=True, guard=allow)
    simulator.fault(simulator.reads, fault, times=2)
    assert len(await client.find(period, VOUCHERS)) == 3


async def test_a_read_that_never_comes_through_is_unsent(
    client: Client, simulator: Simulator, period: Period
) -> None:
    simulator.fault(simulator.reads, "status", status=503, times=9)
    with pytest.raises(Unsent, match="HTTP 503"):
        await client.totals(period)


async def test_an_account_that_the_vendor_does_not_know_is_named(
    client: Client, simulator: Simulator, period: Period
) -> None:
    if simulator.vendor == "xledger":
        simulator.change(unknown_codes="import")
    wrong = voucher(1, line("9999", "1.00"), line("2910", "-1.00"))
    with pytest.raises(Refused, match=r"9999.*a person has mended"):
        await client.send(period, [wrong], begins=True, guard=allow)
    assert simulator.lines(period) == []


async def test_the_guard_is_asked_before_each_try_of_a_write_and_stops_it(
    client: Client, simulator: Simulator, period: Period
) -> None:
    asked: list[int] = []

    def guard() -> None:
        asked.append(client.requests["export"])
        if len(asked) == 3:
            raise LeaseLost("taken over")

    simulator.fault(simulator.writes, "rate-limit", times=2)
    with pytest.raises(LeaseLost):
        await client.send(period, VOUCHERS, begins=True, guard=guard)
    assert asked == [0, 1, 2]
    assert simulator.lines(period) == []


async def test_a_vendor_that_is_not_there_is_unsent_and_costs_nothing(
    simulator: Simulator, period: Period
) -> None:
    async with simulator.open(api_url="http://127.0.0.1:9") as client:
        with pytest.raises(Unsent, match="ConnectError"):
            await client.send(period, VOUCHERS, begins=True, guard=allow)
        assert client.requests["export"] == 0


async def test_a_probe_is_counted_apart(client: Client) -> None:
    await client.probe()
    assert client.requests["probe"] == 1
    assert client.requests["export"] == client.requests["read-back"] == 0


async def test_no_secret_is_said_or_logged(
    client: Client, simulator: Simulator, period: Period, caplog: pytest.LogCaptureFixture
) -> None:
    explain_retries()  # as every process of ours does
    caplog.set_level(logging.DEBUG)
    errors: list[BaseException] = []
    for fault in ("reply-lost", "malformed", "rate-limit", "token-expired", "status"):
        simulator.reset()
        simulator.fault("*", fault, times=9)
        with pytest.raises((Unsent, Uncertain, Refused)) as caught:
            await client.send(period, VOUCHERS, begins=True, guard=allow)
        errors.append(caught.value)
    told = " ".join([repr(client), *map(repr, errors), *map(repr, map(vars, errors)), caplog.text])
    told += " ".join(repr(record.__dict__) for record in caplog.records)
    assert "Trying again in" in told
    assert not [secret for secret in SECRETS if secret in told]
    assert "Bearer " not in told


async def test_a_limit_is_told_from_other_reasons_and_is_remembered(
    client: Client, simulator: Simulator, period: Period
) -> None:
    assert client.limit is None
    simulator.fault(simulator.writes, "rate-limit", times=1)
    await client.send(period, VOUCHERS, begins=True, guard=allow)
    assert isinstance(client.limit, TurnedAway)
    simulator.fault("*", "rate-limit", times=99)
    with pytest.raises(TurnedAway):
        await client.probe()
