"""Vouchers that the accounting system does not take: out of the way of the rest, and named."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from kvitt.domain.errors import LedgerRefused
from kvitt.domain.money import Totals
from kvitt.ports import ChunkState
from tests.cast import HOUR, NORDVEST, claim_for_travel
from tests.ledger.protocol import SETTLE
from tests.ledger.stages import close, collect, frozen, intend, post, totals

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.cast import Stage

    Enrol = Callable[..., Awaitable[Stage]]

BLOCKED = "account 7140 is blocked"


async def test_what_is_set_aside_is_not_read_and_the_rest_goes_on(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    records = await stage.approve(4)
    period = await stage.claimed()
    await collect(stage, period)
    await stage.ledger.set_aside(period, {1: BLOCKED, 3: BLOCKED}, most=5)
    read = await stage.ledger.read_batch(period, after=0, records=10, lines=100)
    assert [record.sequence for record in read] == [2, 4]
    with pytest.raises(LedgerRefused, match="the next voucher is 2"):
        await intend(stage, period, 1, 4)
    second = totals(records[1:2], first=2) + totals(records[3:], first=4)
    await intend(stage, period, 2, 4, second)
    await stage.ledger.settle_chunk(period, 1, "confirmed")
    assert await stage.ledger.finish_export(period) == 2
    receipt = await stage.ledger.settle(period, second, {})
    assert receipt is not None
    assert (receipt["taken"]["vouchers"], receipt["sent"]["vouchers"]) == (4, 2)
    assert [aside["record"] for aside in receipt["set_aside"]] == [records[0].id, records[2].id]
    assert receipt["set_aside"][0]["reason"] == BLOCKED
    assert Decimal(receipt["set_aside"][0]["booked"]) == records[0].lines[0].amount


async def test_books_that_hold_what_was_set_aside_are_not_verified(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    records = await stage.approve(2)
    period = await stage.claimed()
    await collect(stage, period)
    await stage.ledger.set_aside(period, {2: BLOCKED}, most=5)
    await intend(stage, period, 1, 1, totals(records[:1]))
    await stage.ledger.settle_chunk(period, 1, "confirmed")
    assert await stage.ledger.settle(period, totals(records), {}) is None
    assert stage.state() == "failed"


async def test_all_of_a_batch_may_be_set_aside(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    period = await frozen(stage, 2)
    await intend(stage, period, 1, 2)
    await stage.ledger.settle_chunk(period, 1, "refused", detail=BLOCKED)
    await stage.ledger.set_aside(period, {1: BLOCKED, 2: BLOCKED}, most=5)
    assert await stage.ledger.intend(period, "post", None, None, Totals(), SETTLE) is None
    assert await stage.ledger.finish_export(period) == 0
    receipt = await stage.ledger.settle(period, Totals(), {})
    assert receipt is not None
    assert receipt["sent"]["vouchers"] == 0


async def test_what_may_be_in_the_books_is_not_set_aside(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    period = await frozen(stage, 2)
    await intend(stage, period, 1, 2)
    for _ in range(2):
        with pytest.raises(LedgerRefused, match="may be in the books"):
            await stage.ledger.set_aside(period, {1: BLOCKED}, most=5)
        await stage.ledger.settle_chunk(period, 1, "uncertain")


async def test_many_that_are_set_aside_are_a_matter_of_set_up(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    period = await frozen(stage, 3)
    await stage.ledger.set_aside(period, {1: BLOCKED}, most=2)
    await stage.ledger.set_aside(period, {1: BLOCKED}, most=2)
    with pytest.raises(LedgerRefused, match="3 vouchers would be set aside") as refused:
        await stage.ledger.set_aside(period, {2: BLOCKED, 3: BLOCKED}, most=2)
    assert refused.value.code == "KV006"
    assert stage.ask("select count(*) from kvitt.set_aside where integration_id = %(id)s") == [(1,)]


async def test_what_was_staged_is_taken_back_before_the_rest_is_posted(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    records = await stage.approve(3)
    period = await stage.claimed()
    await collect(stage, period)
    await intend(stage, period, 1, 3, totals(records))
    await stage.ledger.settle_chunk(period, 1, "confirmed")
    posting = await post(stage, period)
    with pytest.raises(LedgerRefused, match="may be in the books"):
        await stage.ledger.set_aside(period, {2: BLOCKED}, most=5)
    await stage.ledger.settle_chunk(period, posting.number, "refused", detail=BLOCKED)
    await stage.ledger.set_aside(period, {2: BLOCKED}, most=5)
    assert await stage.ledger.to_withdraw(period) == [2]
    with pytest.raises(LedgerRefused, match="not posted before each line is confirmed"):
        await post(stage, period)
    await stage.ledger.withdrawn(period, [2])
    assert await stage.ledger.to_withdraw(period) == []
    assert (await post(stage, period)).state is ChunkState.INTENDED
    await stage.ledger.settle_chunk(period, posting.number, "confirmed")
    kept = totals(records[:1]) + totals(records[2:], first=3)
    receipt = await stage.ledger.settle(period, kept, {})
    assert receipt is not None
    assert receipt["sent"]["vouchers"] == 2


async def test_a_refused_chunk_is_cut_in_two_wherever_it_stands(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    period = await frozen(stage, 6)
    await intend(stage, period, 1, 4)
    await intend(stage, period, 5, 6)
    with pytest.raises(LedgerRefused, match="ends at voucher 4, not 2"):
        await intend(stage, period, 1, 2)
    await stage.ledger.settle_chunk(period, 1, "refused")
    with pytest.raises(LedgerRefused, match="ends at voucher 4, not 5"):
        await intend(stage, period, 1, 5)
    cut = await intend(stage, period, 1, 2)
    assert (cut.state, cut.last_sequence, cut.sends) == ("intended", 2, 2)
    assert await intend(stage, period, 1, 2) == cut
    assert stage.chunks("number, first_sequence, last_sequence, state, sends, absences") == [
        (1, 1, 2, "intended", 2, 0),
        (2, 5, 6, "intended", 1, 0),
        (3, 3, 4, "unsent", 0, 0),
    ]
    rest = await intend(stage, period, 3, 4)
    assert (rest.number, rest.sends) == (3, 1)
    for number in (1, 2, 3):
        await stage.ledger.settle_chunk(period, number, "confirmed")
    with pytest.raises(LedgerRefused, match="ends at voucher 2, not 1"):
        await intend(stage, period, 1, 1)


async def test_what_is_cut_off_a_chunk_that_was_sent_twice_is_to_be_read_back_first(
    enrol: Enrol,
) -> None:
    stage = await enrol(NORDVEST)
    period = await frozen(stage, 4)
    await intend(stage, period, 1, 4)
    await stage.ledger.settle_chunk(period, 1, "unsent")
    await intend(stage, period, 1, 4)
    await stage.ledger.settle_chunk(period, 1, "refused")
    await intend(stage, period, 1, 2)
    assert stage.chunks("number, sends, absences")[1] == (2, 0, 1)


async def test_an_intent_that_was_not_begun_is_as_if_it_had_never_been(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    period = await frozen(stage, 4)
    await intend(stage, period, 1, 2)
    for _ in range(2):
        chunk = await stage.ledger.settle_chunk(period, 1, "unbegun", detail="in the way")
        assert (chunk.state, chunk.sends) == ("unsent", 0)
    assert (await intend(stage, period, 1, 2)).sends == 1


async def test_a_record_that_was_set_aside_goes_again_when_it_is_mended(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    [record] = await stage.approve(1)
    period = await stage.claimed()
    await collect(stage, period)
    await stage.ledger.set_aside(period, {1: BLOCKED}, most=5)
    how = {"who": "Inger", "reason": "the account is open again"}
    with pytest.raises(LedgerRefused, match="is not finished"):
        await stage.ledger.mend_record(stage.id, record.id, **how)
    await stage.ledger.settle(period, Totals(), {})
    await close(stage, "settled")
    assert [aside.record_id for aside in await stage.ledger.read_set_aside(stage.id)] == [record.id]

    with pytest.raises(LedgerRefused, match="say what was mended"):
        await stage.ledger.mend_record(stage.id, record.id, who="Inger", reason="")
    with pytest.raises(LedgerRefused, match="was not set aside"):
        await stage.ledger.mend_record(stage.id, "another", **how)
    again = await stage.ledger.mend_record(stage.id, record.id, **how)
    assert again == f"{record.id}~2"
    assert await stage.ledger.mend_record(stage.id, record.id, **how) == again
    assert await stage.ledger.read_set_aside(stage.id) == []

    # Approved now, so that the next period that comes due takes it.
    [[due_at, debit]] = stage.ask(
        "select period_due_at, (select max(amount) from kvitt.record_lines l"
        "   where (l.integration_id, l.record_id) = (r.integration_id, r.id))"
        " from kvitt.records r where integration_id = %(id)s and id = %(again)s"
        " and approved_at > now() - interval '1 minute'",
        again=again,
    )
    assert (due_at, debit) == (None, record.lines[0].amount)


async def set_aside_all(stage: Stage, *names: str) -> None:
    """Have a period take records of these names, and set all of them aside."""
    at = stage.due[0] - HOUR / 2
    records = [
        claim_for_travel(stage.id, number, at + timedelta(seconds=number)).model_copy(
            update={"id": name}
        )
        for number, name in enumerate(names, start=1)
    ]
    await stage.ledger.add_records(records)
    period = await stage.claimed()
    await collect(stage, period)
    why = dict.fromkeys(range(1, len(names) + 1), BLOCKED)
    await stage.ledger.set_aside(period, why, most=len(names))
    await stage.ledger.finish_export(period)
    assert await stage.ledger.settle(period, Totals(), {}) is not None
    await close(stage, "settled")


async def copies_of(stage: Stage, *names: str) -> list[str]:
    return [
        await stage.ledger.mend_record(stage.id, name, who="Inger", reason="open again")
        for name in names
    ]


async def test_a_copy_takes_the_next_name_that_is_free(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    names = ("claim-7", "claim-7~2", "claim-8~5", "claim-9~007", "claim-9~99999999999")
    await set_aside_all(stage, *names)
    assert await copies_of(stage, *names) == [
        "claim-7~3",
        "claim-7~4",
        "claim-8~6",
        "claim-9~007~2",
        "claim-9~99999999999~2",
    ]
    lines = "select count(*) from kvitt.record_lines where integration_id = %(id)s"
    assert stage.ask(lines) == [(2 * 2 * len(names),)]


async def test_copies_of_long_names_fit_and_do_not_meet(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    names = ("x" * 99 + "A", "x" * 99 + "B", "y" * 91 + "-A", "y" * 91 + "-B")
    await set_aside_all(stage, *names)
    assert await copies_of(stage, *names) == [
        "x" * 98 + "~2",
        "x" * 98 + "~3",
        "y" * 91 + "-A~2",
        "y" * 91 + "-B~2",
    ]


async def test_copies_that_are_made_at_once_have_names_of_their_own(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    names = tuple("x" * 99 + last for last in "ABCD")
    await set_aside_all(stage, *names)
    copies = await asyncio.gather(*(copies_of(stage, name) for name in names))
    assert sorted(copy for [copy] in copies) == [f"{'x' * 98}~{n}" for n in (2, 3, 4, 5)]
