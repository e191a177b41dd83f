"""How a period ends: with a receipt, with a reason, or waiting for the vendor."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from kvitt.domain.errors import LeaseLost, LedgerRefused
from kvitt.domain.money import Totals, checksum_of
from kvitt.ports import ColdStart, ColdStartKind, Consequence
from tests.cast import HOUR, LEASE, NORDVEST, claim_from_abroad
from tests.ledger.protocol import SETTLE
from tests.ledger.stages import LEASE_RAN_OUT, close, collect, intend, post, totals

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from kvitt.domain.periods import Period
    from tests.cast import Stage

    Enrol = Callable[..., Awaitable[Stage]]


GAP = timedelta(minutes=3)


async def exported(stage: Stage, number: int = 3) -> tuple[Period, Totals]:
    """Bring a period to where only the totals are missing; returns what was sent."""
    records = await stage.approve(number)
    period = await stage.claimed()
    await collect(stage, period)
    sent = totals(records)
    chunk = await intend(stage, period, 1, number, sent)
    await stage.ledger.settle_chunk(period, chunk.number, "confirmed")
    await stage.ledger.finish_export(period)
    return period, sent


def but(shown: Totals, **changes: Any) -> Totals:
    return shown.model_copy(update=changes)


async def test_what_was_taken_sent_and_read_back_is_one_and_the_receipt_says_so(
    enrol: Enrol,
) -> None:
    stage = await enrol(NORDVEST)
    period, sent = await exported(stage)
    receipt = await stage.ledger.settle(period, sent, {"export": 1, "read-back": 2})
    assert receipt is not None
    side = {
        "vouchers": 3,
        "lines": 6,
        "original": {"NOK": "1543.2"},
        "booked": "1543.2",
        "checksum": sent.checksum,
    }
    assert receipt["taken"] == receipt["sent"] == side
    assert Totals.model_validate(receipt["read_back"]) == sent
    assert receipt["key"] == period.key
    assert receipt["requests"] == {"export": 1, "read-back": 2}
    assert receipt["resent"] == receipt["cold_starts"] == []
    assert HOUR.total_seconds() <= receipt["drift_seconds"] < 1.1 * HOUR.total_seconds()
    [attempt] = receipt["attempts"]
    assert (attempt["trigger"], attempt["outcome"]) == ("person", "settled")
    assert stage.period("state, receipt") == ("verified", receipt)


async def test_a_receipt_that_was_lost_on_its_way_is_given_again(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    period, sent = await exported(stage)
    first, second = [await stage.ledger.settle(period, sent, {}) for _ in range(2)]
    assert first == second
    await close(stage, "settled")
    assert await stage.ledger.settle(period, sent, {}) == first


async def test_amounts_are_compared_and_not_their_spelling(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    period, sent = await exported(stage)
    spelled = but(sent, booked=Decimal("1543.2000"), original={"NOK": Decimal("1543.20")})
    assert await stage.ledger.settle(period, spelled, {}) is not None


async def test_a_vendor_that_shows_no_original_currencies_proves_the_rest(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    period, sent = await exported(stage)
    receipt = await stage.ledger.settle(period, but(sent, original=None), {})
    assert receipt is not None
    assert "original" not in receipt["read_back"]


async def test_foreign_currencies_are_on_the_receipt(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    await stage.ledger.add_records([claim_from_abroad(stage.id, 1, stage.due[0] - HOUR / 2)])
    period = await stage.claimed()
    await collect(stage, period)
    sent = Totals(
        vouchers=1,
        lines=3,
        booked=Decimal("1397.30"),
        original={"EUR": Decimal("120.10")},
        checksum=checksum_of(1, 3, Decimal("1397.30")),
    )
    await intend(stage, period, 1, 1, sent)
    await stage.ledger.settle_chunk(period, 1, "confirmed")
    await stage.ledger.finish_export(period)
    receipt = await stage.ledger.settle(period, sent, {})
    assert receipt is not None
    assert receipt["taken"]["original"] == {"EUR": "120.1"}
    assert receipt["taken"]["booked"] == "1397.3"


async def test_a_period_without_records_ends_with_a_receipt_of_nothing(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    period = await stage.claimed()
    await collect(stage, period)
    await stage.ledger.finish_export(period)
    receipt = await stage.ledger.settle(period, Totals(), {})
    assert receipt is not None
    nothing = {"vouchers": 0, "lines": 0, "original": {}, "booked": "0", "checksum": 0}
    assert receipt["taken"] == receipt["sent"] == nothing
    assert stage.state() == "verified"


async def test_a_period_without_records_that_once_failed_ends_so_too(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    period = await stage.claimed()
    await collect(stage, period)
    await stage.ledger.fail(period, "the connection is missing")
    await close(stage, "failed")
    await stage.mend()
    period = await stage.claimed()
    await stage.ledger.finish_export(period)
    assert await stage.ledger.settle(period, Totals(), {}) is not None
    assert stage.state() == "verified"


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"booked": Decimal("1543.21")}, "3 vouchers, 6 lines, 1543.21 booked,"),
        ({"vouchers": 4, "lines": 8}, "4 vouchers, 8 lines, 1543.2 booked,"),
        ({"vouchers": 2}, "2 vouchers, 6 lines, 1543.2 booked,"),
        ({"checksum": 4711}, "3 vouchers, 6 lines, 1543.2 booked, checksum 1267."),
    ],
)
async def test_books_that_show_something_else_stop_the_period_with_both_sides_in_words(
    enrol: Enrol, change: dict[str, Any], shown: str
) -> None:
    stage = await enrol(NORDVEST)
    period, sent = await exported(stage)
    assert await stage.ledger.settle(period, but(sent, **change), {"read-back": 1}) is None
    state, reason, receipt = stage.period("state, reason, receipt")
    assert (state, receipt) == ("failed", None)
    assert "To be sent: 3 vouchers, 6 lines, 1543.2 booked," in reason
    assert "Sent: 3 vouchers, 6 lines, 1543.2 booked," in reason
    assert f"Read back: {shown}" in reason


async def test_books_that_show_another_currency_stop_the_period(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    period, sent = await exported(stage)
    assert await stage.ledger.settle(period, but(sent, original={"EUR": sent.booked}), {}) is None
    assert stage.state() == "failed"


async def test_calls_that_carried_less_than_was_taken_stop_the_period(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    records = await stage.approve(3)
    period = await stage.claimed()
    await collect(stage, period)
    await intend(stage, period, 1, 3, totals(records[:2]))
    await stage.ledger.settle_chunk(period, 1, "confirmed")
    await stage.ledger.finish_export(period)
    assert await stage.ledger.settle(period, totals(records[:2]), {}) is None
    state, reason = stage.period("state, reason")
    assert state == "failed"
    assert "To be sent: 3 vouchers" in reason
    assert "Sent: 2 vouchers" in reason


async def test_less_than_was_sent_is_uncertain_while_the_vendor_may_still_move_rows(
    enrol: Enrol,
) -> None:
    stage = await enrol(NORDVEST)
    period, sent = await exported(stage)
    fewer = but(sent, lines=4, vouchers=2, booked=Decimal("1029.80"))
    assert await stage.ledger.settle(period, fewer, {}) is None
    state, not_before = stage.period("state, not_before")
    assert state == "uncertain"
    await close(stage, "uncertain")
    assert (await stage.claim()).outcome == "waiting"
    stage.time_passes(SETTLE / 5)
    period = await stage.claimed()
    await stage.ledger.finish_export(period)
    assert await stage.ledger.settle(period, sent, {}) is not None
    assert not_before is not None


async def long_exported(stage: Stage) -> tuple[Period, Totals]:
    """Bring a period to where its totals are read long after the vendor's settle time."""
    period, sent = await exported(stage)
    stage.time_passes(LEASE / 2)
    for _ in range(10):
        await stage.ledger.renew(period, LEASE)
        stage.time_passes(LEASE / 2)
    await stage.ledger.renew(period, LEASE)
    return period, sent


async def test_one_late_reading_of_less_than_was_sent_is_uncertain_still(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    period, sent = await long_exported(stage)
    assert await stage.ledger.settle(period, but(sent, lines=4), {}, gap=GAP) is None
    assert stage.state() == "uncertain"
    await close(stage, "uncertain")
    assert (await stage.claim()).outcome == "waiting"
    stage.time_passes(GAP)
    period = await stage.claimed()
    await stage.ledger.finish_export(period)
    assert await stage.ledger.settle(period, sent, {}, gap=GAP) is not None


async def test_two_late_readings_of_less_than_was_sent_say_that_it_is_wrong(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    period, sent = await long_exported(stage)
    fewer = but(sent, lines=4)
    assert await stage.ledger.settle(period, fewer, {}, gap=GAP) is None
    await close(stage, "uncertain")
    stage.time_passes(GAP)
    period = await stage.claimed()
    await stage.ledger.finish_export(period)
    assert await stage.ledger.settle(period, fewer, {}, gap=GAP) is None
    assert stage.state() == "failed"


async def test_a_stale_attempt_gets_no_receipt(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    old, sent = await exported(stage)
    stage.time_passes(LEASE_RAN_OUT)
    new = await stage.claimed()
    assert new.state == "exported"
    assert await stage.ledger.settle(new, sent, {}) is not None
    with pytest.raises(LeaseLost):
        await stage.ledger.settle(old, sent, {})


async def test_the_receipt_tells_what_went_wrong_on_the_way(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    records = await stage.approve(3)
    period = await stage.claimed()
    [[attempt]] = stage.ask("select id from kvitt.attempts where integration_id = %(id)s")
    seen = ColdStart(
        kind=ColdStartKind.BOOT_ERROR,
        reply_ms=12.5,
        consequence=Consequence.CALLED_AGAIN,
        cost_ms=1012.5,
        detail="503",
    )
    await stage.ledger.record_cold_start(period, attempt, "collect", seen)
    await collect(stage, period)
    sent = totals(records)
    await intend(stage, period, 1, 3, sent)
    await stage.ledger.settle_chunk(period, 1, "uncertain", detail="no reply")
    await stage.ledger.suspend(period, "no reply")
    await stage.ledger.close(attempt, "uncertain", "no reply", {"export": 1, "token": 1})
    stage.time_passes(SETTLE)
    period = await stage.claimed()
    await stage.ledger.settle_chunk(period, 1, "confirmed", detail="found when read back")
    await post(stage, period)
    await stage.ledger.settle_chunk(period, 2, "confirmed")
    await stage.ledger.finish_export(period)
    receipt = await stage.ledger.settle(period, sent, {"export": 1, "read-back": 3})
    assert receipt is not None
    assert receipt["requests"] == {"export": 2, "token": 1, "read-back": 3}
    assert [attempt["outcome"] for attempt in receipt["attempts"]] == ["uncertain", "settled"]
    assert receipt["resent"] == [{"chunk": 1, "sends": 1, "detail": "found when read back"}]
    [start] = receipt["cold_starts"]
    assert (start["kind"], start["consequence"]) == ("boot_error", "called again")
    assert start["cost_ms"] == 1012.5


async def test_a_failed_period_keeps_what_it_took_and_goes_on_from_there(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    records = await stage.approve(3)
    period = await stage.claimed()
    await collect(stage, period)
    await intend(stage, period, 1, 1, totals(records[:1]))
    await stage.ledger.settle_chunk(period, 1, "confirmed")
    await intend(stage, period, 2, 3, totals(records[1:], first=2))
    await stage.ledger.settle_chunk(period, 2, "refused", detail="blocked")
    await stage.ledger.fail(period, "the account is blocked")
    with pytest.raises(LedgerRefused):
        await stage.ledger.finish_export(period)
    await close(stage, "failed")
    await stage.mend()
    period = await stage.claimed()
    assert period.state == "exporting"
    assert stage.chunks() == ["confirmed", "refused"]
    assert (await intend(stage, period, 2, 3, totals(records[1:], first=2))).state == "intended"


async def test_the_latest_periods_come_newest_first(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST, periods=3)
    read = await stage.ledger.read_periods(stage.id, limit=2)
    assert [period.due_at for period in read] == stage.due[:0:-1]
    assert all(period.due_at - period.opens_at == timedelta(hours=1) for period in read)
