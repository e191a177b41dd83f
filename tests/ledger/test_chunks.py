"""A chunk is written down before its call, and what came of the call decides what may follow."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from kvitt.domain.errors import LedgerRefused
from kvitt.domain.money import Totals
from kvitt.ports import ChunkState, Intent
from tests.cast import NORDVEST
from tests.ledger.protocol import SETTLE
from tests.ledger.stages import LEASE_RAN_OUT, close, frozen, intend, post

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from kvitt.domain.periods import Period
    from tests.cast import Stage

    Enrol = Callable[..., Awaitable[Stage]]

GAP = timedelta(minutes=3)


async def decide(stage: Stage, period: Period, outcome: str, number: int = 1) -> str:
    return (await stage.ledger.settle_chunk(period, number, outcome)).state


async def absent(stage: Stage, period: Period, *, absences: int = 1) -> str:
    chunk = await stage.ledger.settle_chunk(period, 1, "absent", absences=absences, gap=GAP)
    return chunk.state


async def uncertain(stage: Stage) -> Period:
    """Send the first voucher, and hear nothing."""
    period = await frozen(stage)
    await intend(stage, period, 1, 1)
    await decide(stage, period, "uncertain")
    return period


async def held_again(stage: Stage) -> Period:
    """Go on as another attempt."""
    await close(stage, "interrupted")
    return await stage.claimed()


# -- the intent ------------------------------------------------------------------------------------


async def test_chunks_follow_one_another_through_the_batch(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    period = await frozen(stage, 5)
    for first, last in ((1, 2), (3, 4), (5, 5)):
        chunk = await intend(stage, period, first, last)
        assert chunk.state is ChunkState.INTENDED
        assert await decide(stage, period, "confirmed", chunk.number) == "confirmed"
    assert stage.chunks("number, first_sequence, last_sequence") == [
        (1, 1, 2),
        (2, 3, 4),
        (3, 5, 5),
    ]
    assert stage.state() == "exporting"


@pytest.mark.parametrize(("first", "last"), [(2, 2), (1, 4), (4, 4), (0, 1)])
async def test_a_chunk_that_does_not_follow_is_refused(enrol: Enrol, first: int, last: int) -> None:
    stage = await enrol(NORDVEST)
    period = await frozen(stage, 3)
    with pytest.raises(LedgerRefused, match="does not follow; the next voucher is 1"):
        await intend(stage, period, first, last)
    assert stage.chunks() == []


async def test_no_voucher_is_in_two_chunks(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    period = await frozen(stage, 5)
    await intend(stage, period, 1, 3)
    with pytest.raises(LedgerRefused, match="the next voucher is 4"):
        await intend(stage, period, 2, 4)
    with pytest.raises(LedgerRefused, match="chunk 1 ends at voucher 3, not 2"):
        await intend(stage, period, 1, 2)


async def test_nothing_is_intended_before_the_batch_is_frozen(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    await stage.approve(3)
    period = await stage.claimed()
    with pytest.raises(LedgerRefused):
        await intend(stage, period, 1, 1)


async def test_an_intent_whose_reply_was_lost_is_simply_written_again(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    period = await frozen(stage)
    first, second = [await intend(stage, period, 1, 2) for _ in range(2)]
    assert first == second
    assert stage.chunks("state, sends") == [("intended", 1)]


@pytest.mark.parametrize(
    ("outcome", "state", "sends"),
    [
        ("unsent", "intended", 2),
        ("refused", "intended", 2),
        ("confirmed", "confirmed", 1),
        ("uncertain", "uncertain", 1),
    ],
)
async def test_a_chunk_may_be_sent_again_only_where_it_surely_did_not_arrive(
    enrol: Enrol, outcome: str, state: str, sends: int
) -> None:
    stage = await enrol(NORDVEST)
    period = await frozen(stage)
    await intend(stage, period, 1, 3)
    await decide(stage, period, outcome)
    assert (await intend(stage, period, 1, 3)).state == state
    assert stage.chunks("sends") == [sends]


def intents(*spans: tuple[int, int]) -> list[Intent]:
    return [Intent(first=first, last=last, totals=Totals()) for first, last in spans]


async def test_what_is_confirmed_and_what_comes_next_go_into_one_call(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    period = await frozen(stage, 6)
    write = stage.ledger.write_chunks
    first, second = await write(period, {}, intents((1, 2), (3, 3)), SETTLE)
    assert (first.number, second.number) == (1, 2)
    both = {2: {"id": "b"}, 1: {"id": "a"}}
    chunks = await write(period, both, intents((4, 5), (6, 6)), SETTLE)
    assert [chunk.number for chunk in chunks] == [2, 1, 3, 4]
    assert stage.chunks("state, first_sequence, reference") == [
        ("confirmed", 1, {"id": "a"}),
        ("confirmed", 3, {"id": "b"}),
        ("intended", 4, None),
        ("intended", 6, None),
    ]
    again = await write(period, both, intents((4, 5), (6, 6)), SETTLE)
    assert again == chunks, "a lost reply is asked for again"


@pytest.mark.parametrize("wrong", [(5, 5), (4, 9)])
async def test_of_what_goes_into_one_call_all_is_written_or_nothing(
    enrol: Enrol, wrong: tuple[int, int]
) -> None:
    stage = await enrol(NORDVEST)
    period = await frozen(stage, 6)
    await intend(stage, period, 1, 2)
    with pytest.raises(LedgerRefused, match="does not follow; the next voucher is 4"):
        await stage.ledger.write_chunks(period, {1: {}}, intents((3, 3), wrong), SETTLE)
    assert stage.chunks("state, last_sequence") == [("intended", 2)]


@pytest.mark.parametrize("outcome", ["confirmed", "refused", "unsent", "uncertain"])
async def test_an_outcome_that_is_told_twice_is_one(enrol: Enrol, outcome: str) -> None:
    stage = await enrol(NORDVEST)
    period = await frozen(stage)
    await intend(stage, period, 1, 3)
    first, second = [
        await stage.ledger.settle_chunk(period, 1, outcome, detail="why", reference={"id": 7})
        for _ in range(2)
    ]
    assert first == second
    assert stage.chunks("detail, reference") == [("why", {"id": 7})]


async def test_what_is_confirmed_stays_confirmed(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    period = await frozen(stage)
    await intend(stage, period, 1, 3)
    await decide(stage, period, "confirmed")
    for outcome in ("unsent", "refused", "uncertain", "absent"):
        with pytest.raises(LedgerRefused, match="confirmed cannot become"):
            await decide(stage, period, outcome)


async def test_a_chunk_that_is_not_there_is_named(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    period = await frozen(stage)
    with pytest.raises(LedgerRefused, match="there is no chunk 7"):
        await decide(stage, period, "confirmed", 7)


# -- no reply --------------------------------------------------------------------------------------


async def test_absent_says_nothing_before_the_settle_time_is_over(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    period = await uncertain(stage)
    for _ in range(5):
        assert await absent(stage, period) == "uncertain"
    assert stage.chunks("absences") == [0]
    stage.time_passes(SETTLE - LEASE_RAN_OUT)
    period = await stage.claimed()
    assert await absent(stage, period) == "uncertain"


async def test_absent_after_the_settle_time_means_that_it_never_arrived(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    await uncertain(stage)
    stage.time_passes(SETTLE)
    period = await stage.claimed()
    assert await absent(stage, period) == "unsent"
    assert (await intend(stage, period, 1, 1)).state == "intended"
    assert stage.chunks("sends, absences, not_before") == [(2, 0, None)]


async def test_where_rows_may_be_on_their_way_two_absences_with_a_gap_are_needed(
    enrol: Enrol,
) -> None:
    stage = await enrol(NORDVEST)
    await uncertain(stage)
    stage.time_passes(SETTLE)
    period = await stage.claimed()
    assert await absent(stage, period, absences=2) == "uncertain"
    assert await absent(stage, period, absences=2) == "uncertain"  # within the gap
    assert stage.chunks("absences") == [1]
    until = await stage.ledger.suspend(period, "seen absent once")
    await close(stage, "uncertain")
    assert (await stage.claim()).outcome == "waiting"
    [not_before] = stage.chunks("not_before")
    assert until == not_before
    stage.time_passes(GAP)
    period = await stage.claimed()
    assert await absent(stage, period, absences=2) == "unsent"


async def test_an_intent_that_is_taken_back_forgets_no_earlier_call(enrol: Enrol) -> None:
    """Half of it may be there: whoever comes next reads first, and sends what is missing."""
    stage = await enrol(NORDVEST)
    period = await uncertain(stage)
    stage.time_passes(SETTLE)
    period = await held_again(stage)
    assert await absent(stage, period) == "unsent"
    again = await intend(stage, period, 1, 1)
    assert (again.sends, again.absences) == (2, 0)
    taken_back = await stage.ledger.settle_chunk(period, 1, "unbegun")
    assert (taken_back.state, taken_back.sends, taken_back.absences) == ("unsent", 1, 1)


async def test_an_intent_that_is_taken_back_was_never_there(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    period = await frozen(stage)
    await intend(stage, period, 1, 1)
    taken_back = await stage.ledger.settle_chunk(period, 1, "unbegun")
    assert (taken_back.state, taken_back.sends, taken_back.absences) == ("unsent", 0, 0)


async def test_an_absence_told_again_after_a_lost_reply_changes_nothing(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    await uncertain(stage)
    stage.time_passes(SETTLE)
    period = await stage.claimed()
    assert [await absent(stage, period) for _ in range(2)] == ["unsent", "unsent"]


async def test_what_is_found_is_confirmed_at_any_time(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    period = await uncertain(stage)
    assert await decide(stage, period, "confirmed") == "confirmed"


async def test_a_period_waits_for_the_first_chunk_that_can_be_decided(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    period = await uncertain(stage)
    [not_before] = stage.chunks("not_before")
    assert await stage.ledger.suspend(period, "no reply") == not_before
    assert stage.period("state, reason") == ("uncertain", "no reply")


# -- posting ---------------------------------------------------------------------------------------


async def test_it_is_posted_when_each_line_is_confirmed_and_not_before(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    period = await frozen(stage)
    with pytest.raises(LedgerRefused, match="not posted before each line is confirmed"):
        await post(stage, period)
    await intend(stage, period, 1, 2)
    await decide(stage, period, "confirmed")
    with pytest.raises(LedgerRefused, match="not posted before each line is confirmed"):
        await post(stage, period)
    await intend(stage, period, 3, 3)
    with pytest.raises(LedgerRefused, match="not posted before each line is confirmed"):
        await post(stage, period)
    await decide(stage, period, "confirmed", 2)
    assert (await post(stage, period)).state == "intended"


async def test_it_is_posted_once(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    period = await frozen(stage)
    await intend(stage, period, 1, 3)
    await decide(stage, period, "confirmed")
    await post(stage, period)
    await decide(stage, period, "confirmed", 2)
    assert (await post(stage, period)).state == "confirmed"
    assert stage.chunks("kind") == ["lines", "post"]


# -- finished --------------------------------------------------------------------------------------


async def test_an_export_is_finished_when_each_voucher_is_confirmed(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    period = await frozen(stage)
    await intend(stage, period, 1, 2)
    await decide(stage, period, "confirmed")
    with pytest.raises(LedgerRefused, match="1 of 3 vouchers are not confirmed"):
        await stage.ledger.finish_export(period)
    await intend(stage, period, 3, 3)
    with pytest.raises(LedgerRefused, match="1 of 3 vouchers are not confirmed"):
        await stage.ledger.finish_export(period)
    await decide(stage, period, "confirmed", 2)
    for _ in range(2):
        await stage.ledger.finish_export(period)
    assert stage.state() == "exported"


async def test_an_export_with_an_open_posting_is_not_finished(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    period = await frozen(stage)
    await intend(stage, period, 1, 3)
    await decide(stage, period, "confirmed")
    await post(stage, period)
    with pytest.raises(LedgerRefused, match="vouchers are not confirmed"):
        await stage.ledger.finish_export(period)


async def test_an_export_that_never_began_is_not_finished(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    await stage.approve(1)
    period = await stage.claimed()
    with pytest.raises(LedgerRefused, match="0 of 0 vouchers"):
        await stage.ledger.finish_export(period)


async def test_chunks_are_read_page_by_page(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    period = await frozen(stage, 5)
    for number in range(1, 6):
        await intend(stage, period, number, number)
    read = await stage.ledger.read_chunks(period, after=1, limit=3)
    assert [chunk.number for chunk in read] == [2, 3, 4]
    assert await stage.ledger.read_chunks(period, after=5, limit=3) == []


async def test_totals_belong_to_the_call_that_carries_them(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    period = await frozen(stage)
    await intend(stage, period, 1, 3, Totals(vouchers=3, lines=5))
    await decide(stage, period, "unsent")
    await intend(stage, period, 1, 3, Totals(vouchers=3, lines=6))
    [totals] = stage.chunks("totals")
    assert totals["lines"] == 6


async def test_another_attempt_goes_on_with_the_same_chunks(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    period = await frozen(stage)
    await intend(stage, period, 1, 2)
    await decide(stage, period, "unsent")
    period = await held_again(stage)
    assert (await intend(stage, period, 1, 2)).state == "intended"
    assert stage.chunks("number, fence, sends") == [(1, 2, 2)]
