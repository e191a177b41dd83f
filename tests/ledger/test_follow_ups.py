"""Follow-ups in the ledger: who looks, when again, and what a look means."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest

from kvitt.domain.errors import LeaseLost, LedgerRefused
from kvitt.domain.follow_ups import FollowUpState
from kvitt.follow_up import PutOff, follow_up
from kvitt.ports import Place, Whereabouts
from tests.cast import MINUTE
from tests.ledger.followed import (
    GAP,
    LEASE,
    NEITHER,
    REFUSED,
    Followed,
    settled_with_waiting_lines,
)
from tests.ledger.stages import totals

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from kvitt.domain.integrations import Integration
    from kvitt.ports import Vendor
    from tests.cast import Stage

    Enrol = Callable[..., Awaitable[Stage]]


@pytest.fixture
def followed(enrol: Enrol) -> Callable[..., Awaitable[Followed]]:
    return partial(settled_with_waiting_lines, enrol)


Settle = "Callable[..., Awaitable[Followed]]"


async def test_only_what_waited_when_it_was_settled_is_followed_up(followed: Settle) -> None:
    it = await followed(staged=0)
    assert await it.ledger.read_follow_ups(it.stage.id) == []
    assert not await it.is_due()


async def test_the_first_look_is_due_after_ten_minutes(followed: Settle) -> None:
    it = await followed(after=timedelta(minutes=9))
    assert not await it.is_due()
    it.stage.time_passes(MINUTE)
    claimed = await it.claim()
    assert claimed is not None
    assert (claimed[1].lines, claimed[1].period.record_count) == (4, 2)


async def test_looks_grow_apart_from_minutes_to_half_a_day(followed: Settle) -> None:
    it = await followed()
    waits: list[float] = []
    for _ in range(16):
        seen = await it.look()
        assert seen.next_look_at is not None
        assert seen.looked_at is not None
        wait = seen.next_look_at - seen.looked_at
        waits.append(wait.total_seconds() / 60)
        it.stage.time_passes(wait)
    assert [int(wait) for wait in waits[:5]] == [10, 10, 15, 22, 33]
    assert round(waits[-1]) == 720
    ages = [10 + sum(waits[:looks]) for looks in range(len(waits))]
    assert sum(age < 24 * 60 for age in ages) == 12


async def test_one_looker_at_a_time_also_when_many_ask_at_once(followed: Settle) -> None:
    it = await followed()
    it.stage.database.execute(
        "update kvitt.follow_ups set next_look_at = now() + interval '1 hour'"
        " where integration_id <> %s and next_look_at is not null",
        [it.stage.id],
    )
    asked = await asyncio.gather(*(it.ledger.claim_looks(uuid4(), LEASE) for _ in range(12)))
    assert [each.integration.id for each in asked if each is not None] == [it.stage.id]


async def test_a_claim_that_is_asked_twice_gets_the_same_looks(followed: Settle) -> None:
    it = await followed()
    claimed = await it.claim()
    assert claimed is not None
    again = await it.ledger.claim_looks(claimed[0], LEASE)
    assert again is not None
    assert again.looks == (claimed[1],)


async def test_a_looker_that_is_gone_is_followed_by_another_and_writes_nothing_over_it(
    followed: Settle,
) -> None:
    it = await followed()
    gone = await it.claim()
    assert gone is not None
    assert not await it.is_due()
    it.stage.time_passes(LEASE)
    with pytest.raises(LeaseLost):
        await it.record(*gone)
    seen = await it.look(posted=it.sent)
    assert seen.state is FollowUpState.POSTED
    with pytest.raises(LeaseLost):
        await it.record(*gone)


async def test_a_look_that_is_written_down_twice_counts_once(followed: Settle) -> None:
    it = await followed()
    claimed = await it.claim()
    assert claimed is not None
    first = await it.record(*claimed, v1=REFUSED)
    assert await it.record(*claimed, v1=REFUSED) == first
    assert first.looks == 1
    [[requests]] = it.stage.ask(
        "select requests from kvitt.follow_ups where integration_id = %(id)s"
    )
    assert requests == {"read-back": 1}


async def test_all_that_was_sent_must_be_posted_and_nothing_else_be_there(
    followed: Settle,
) -> None:
    it = await followed()
    one = totals(it.records[:1])
    assert (await it.look(posted=one)).state is FollowUpState.WAITING
    it.stage.time_passes(LEASE * 6)
    other = it.sent.model_copy(update={"checksum": it.sent.checksum + 1})
    assert (await it.look(posted=other, held=other)).state is FollowUpState.WAITING
    it.stage.time_passes(LEASE * 6)
    assert (await it.look(posted=other, held=other)).state is FollowUpState.DIFFERS
    it.stage.time_passes(timedelta(hours=12))
    seen = await it.look(posted=it.sent)
    assert (seen.state, seen.next_look_at) == (FollowUpState.POSTED, None)
    assert seen.posted_at == seen.looked_at


async def test_what_is_odd_once_is_looked_at_again_after_some_minutes(followed: Settle) -> None:
    it = await followed()
    it.stage.time_passes(timedelta(days=3))
    less = totals(it.records[:1])
    seen = await it.look(held=less, v2=NEITHER)
    assert seen.looked_at is not None
    assert seen.next_look_at == seen.looked_at + GAP
    assert not seen.is_news
    it.stage.time_passes(GAP)
    seen = await it.look(v2=Whereabouts(place=Place.STAGED))
    assert (seen.state, seen.vouchers) == (FollowUpState.WAITING, ())


async def test_a_voucher_that_was_refused_and_is_posted_since_is_kept(followed: Settle) -> None:
    it = await followed()
    seen = await it.look(v2=REFUSED)
    assert (seen.state, [v.record for v in seen.news]) == (
        FollowUpState.REFUSED,
        [it.records[1].id],
    )
    await it.ledger.look_told(seen)
    it.stage.time_passes(LEASE * 6)
    claimed = await it.claim()
    assert claimed is not None
    assert claimed[1].open == {2}
    seen = await it.record(*claimed, posted=it.sent, v2=Whereabouts(place=Place.POSTED))
    assert seen.state is FollowUpState.POSTED
    assert [(v.place, v.reason) for v in seen.vouchers] == [("posted", REFUSED.reason)]


async def test_only_a_record_that_is_not_posted_can_be_said_to_be_deleted(
    followed: Settle,
) -> None:
    it = await followed()
    record = it.records[0].id
    with pytest.raises(LedgerRefused, match="not one that was sent and then not posted"):
        await it.ledger.say_deleted(it.stage.id, record, who="Inger", reason="deleted")
    await it.look(v1=REFUSED)
    it.stage.time_passes(LEASE * 6)
    await it.look(posted=it.sent, v1=Whereabouts(place=Place.POSTED))
    with pytest.raises(LedgerRefused, match="is posted; reverse it there"):
        await it.ledger.say_deleted(it.stage.id, record, who="Inger", reason="deleted")


async def test_a_deletion_needs_a_reason(followed: Settle) -> None:
    it = await followed()
    await it.look(v1=REFUSED)
    with pytest.raises(LedgerRefused, match="say what was done"):
        await it.ledger.say_deleted(it.stage.id, it.records[0].id, who="Inger", reason=" ")


async def test_two_looks_too_close_to_each_other_are_one(followed: Settle) -> None:
    it = await followed()
    await it.look(v1=REFUSED)
    await it.ledger.say_deleted(it.stage.id, it.records[0].id, who="Inger", reason="deleted")
    rest = it.sent + totals(it.records[:1]).model_copy(update={"vouchers": 0})
    await it.look(held=rest, v1=NEITHER)
    it.stage.database.execute(
        "update kvitt.follow_ups set next_look_at = now() where integration_id = %s", [it.stage.id]
    )
    seen = await it.look(held=rest, v1=NEITHER)
    assert (seen.vouchers[0].absences, seen.vouchers[0].mended_as) == (1, None)
    it.stage.time_passes(GAP)
    seen = await it.look(held=rest, v1=NEITHER)
    assert seen.vouchers[0].mended_as == f"{it.records[0].id}~2"


async def test_after_two_months_nobody_looks_until_a_person_asks(followed: Settle) -> None:
    it = await followed(after=timedelta(days=61))
    seen = await it.look()
    assert (seen.state, seen.next_look_at, seen.is_news) == (FollowUpState.ABANDONED, None, True)
    it.stage.time_passes(timedelta(days=1))
    assert not await it.is_due()
    await it.ledger.look_again(it.stage.id, it.stage.due[0])
    assert (await it.look()).state is FollowUpState.WAITING


async def test_what_is_posted_stays_posted(followed: Settle) -> None:
    it = await followed()
    await it.look(posted=it.sent)
    with pytest.raises(LedgerRefused, match="all of it is posted"):
        await it.ledger.look_again(it.stage.id, it.stage.due[0])
    with pytest.raises(psycopg.DatabaseError, match="posted cannot become waiting"):
        it.stage.database.execute(
            "update kvitt.follow_ups set state = 'waiting', next_look_at = now(), posted_at = null"
            " where integration_id = %s",
            [it.stage.id],
        )


async def test_an_integration_that_cannot_be_read_is_put_off_and_stops_nobody_else(
    followed: Settle,
) -> None:
    it = await followed()
    it.stage.database.execute(
        "update kvitt.integrations set limits = '{\"chunk_lines\": 0}' where id = %s", [it.stage.id]
    )
    seen = [result async for result in follow_up(it.ledger, open_nothing)]
    told = [each.why for each in seen if isinstance(each, PutOff) and it.stage.id in each.why]
    assert len(told) == 1
    assert "limits.chunk_lines" in told[0]
    [kept] = await it.ledger.read_follow_ups(it.stage.id)
    assert "limits.chunk_lines" in (kept.note or "")


@asynccontextmanager
async def open_nothing(integration: Integration) -> AsyncGenerator[Vendor]:
    """Open no connection: no block holds one."""
    raise LookupError(f"there is no block {integration.connection}")
    yield


async def test_what_is_not_followed_up_is_said_so(followed: Settle) -> None:
    it = await followed(staged=0)
    with pytest.raises(LedgerRefused, match="nothing of it is followed up"):
        await it.ledger.look_again(it.stage.id, it.stage.due[0])


async def test_looks_go_to_where_the_period_was_exported_after_its_integration_moved(
    followed: Settle,
) -> None:
    it = await followed()
    before = it.stage.integration
    moved = before.model_copy(update={"vendor": "dataverse", "connection": "elsewhere"})
    await it.ledger.save_integration(moved)
    opened: list[tuple[str, str]] = []

    @asynccontextmanager
    async def open_one(integration: Integration) -> AsyncGenerator[Vendor]:
        if integration.id == it.stage.id:
            opened.append((integration.vendor, integration.connection))
        raise LookupError(f"there is no block {integration.connection}")
        yield

    _ = [seen async for seen in follow_up(it.ledger, open_one)]
    assert opened == [(before.vendor, before.connection)]
    [shown] = await it.ledger.read_follow_ups(it.stage.id)
    assert shown.vendor == before.vendor
