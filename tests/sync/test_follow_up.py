"""After the receipt: what Xledger's own job does with the rows, seen and traced to its record."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from kvitt.domain.errors import LedgerRefused
from kvitt.domain.follow_ups import FollowUpState, in_brief
from kvitt.domain.periods import key_of
from kvitt.follow_up import PutOff, follow_up
from tests.cast import HOUR, MINUTE, claim_for_travel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from kvitt.domain.follow_ups import FollowUp
    from kvitt.domain.records import Record
    from tests.sync.scene import Books, Scene

    SetScene = Callable[..., Awaitable[Scene]]

CLOSED = "Account 7140 is closed."


def close(books: Books, account: str = "7140", *, blocked: bool = True) -> None:
    """Close an account of this company for bookings, or open it again."""
    change = {"code": account, "blocked": blocked}
    books._post("setup", {"entities": [{"id": int(books.company), "accounts": [change]}]})


def delete(books: Books, record: str) -> None:
    """Delete the staged rows of a record, as a person does on Xledger's screen."""
    rows = [row for row in books.lines("staged") if row["invoice"] == record]
    assert rows
    handle(books, rows, "delete")


def handle(books: Books, rows: list[dict[str, Any]], by: str) -> None:
    """Have somebody else do something with staged rows: delete, copy or move them."""
    books._post("setup", {"items": [{"id": int(row["id"]), "by": by} for row in rows]})


async def approve_for(it: Scene, account: str, number: int) -> Record:
    """Approve a claim on an account of its own."""
    claim = claim_for_travel(it.stage.id, number, it.stage.due[0] - HOUR / 2)
    lines = tuple(
        line.model_copy(update={"account": account}) if line.account == "travel" else line
        for line in claim.lines
    )
    claim = claim.model_copy(update={"lines": lines})
    await it.stage.ledger.add_records([claim])
    it.records.append(claim)
    return claim


async def test_rows_that_wait_are_looked_at_until_they_are_posted(
    scene: SetScene, xledger: Books
) -> None:
    it = await scene(xledger)
    await it.approve_one_of_each()
    receipt = await it.receipt()
    before = xledger.calls()
    assert await it.look() is None, "the first look is not due yet"

    seen = await it.looked(after=10 * MINUTE)
    assert (seen.state, seen.lines, seen.posted, seen.held) == (FollowUpState.WAITING, 8, 0, 8)
    assert not seen.is_news
    one_look = {"glImportItems+glImportItemErrors": 1}
    assert _further(xledger, before) == one_look, "a look at what waits costs one request"

    xledger.run_jobs()
    seen = await it.looked()
    assert (seen.state, seen.posted, seen.is_news) == (FollowUpState.POSTED, 8, True)
    assert in_brief(seen).startswith("posted 20")
    assert _further(xledger, before) == {**one_look, "glImportItems+glImportItemErrors": 2} | {
        "journalEntries": 1
    }

    it.stage.time_passes(timedelta(days=2))
    assert await it.look() is None, "what is posted is looked at no more"
    [kept] = it.stage.period("receipt")
    assert kept == receipt, "the receipt stays as it was"
    assert it.audit().clean


def _further(books: Books, before: dict[str, int]) -> dict[str, int]:
    now = books.calls()
    return {name: n - before.get(name, 0) for name, n in now.items() if n > before.get(name, 0)}


async def test_a_period_that_was_posted_when_it_was_settled_is_not_followed_up(
    scene: SetScene, business_central: Books
) -> None:
    it = await scene(business_central)
    await it.approve(2)
    await it.receipt()
    assert await it.stage.ledger.read_follow_ups(it.stage.id) == []


async def test_what_the_job_refuses_is_traced_to_its_record_and_noticed_when_it_is_mended(
    scene: SetScene, xledger: Books
) -> None:
    it = await scene(xledger)
    await it.approve(1)
    other = await approve_for(it, "6999", 700)
    await it.receipt()
    xledger.run_jobs()

    seen = await it.looked()
    assert (seen.state, seen.posted, seen.lines) == (FollowUpState.REFUSED, 2, 4)
    [voucher] = seen.vouchers
    assert (voucher.record, voucher.place, voucher.untold) == (other.id, "refused", True)
    assert voucher.words == (
        f"voucher {voucher.voucher_number} (record {other.id}): Account 6999 does not exist."
    )

    again = await it.looked()
    assert again.is_news, "nobody was told yet"
    await it.stage.ledger.look_told(again)
    assert not (await it.looked()).is_news

    xledger.add_account("6999")
    xledger.run_jobs()
    mended = await it.looked()
    assert (mended.state, mended.posted, mended.is_news) == (FollowUpState.POSTED, 4, True)
    assert "posted since; refused at first for this: Account 6999" in mended.vouchers[0].words
    assert it.audit().clean


async def test_other_words_about_a_voucher_are_news_again(scene: SetScene, xledger: Books) -> None:
    it = await scene(xledger)
    await approve_for(it, "6999", 700)
    await it.receipt()
    xledger.run_jobs()
    await it.stage.ledger.look_told(await it.looked())
    xledger.add_account("6999")
    close(xledger, "6999")
    xledger.run_jobs()
    seen = await it.looked()
    assert [voucher.reason for voucher in seen.news] == ["Account 6999 is closed."]


async def test_a_record_that_waits_there_is_not_sent_a_second_time(
    scene: SetScene, xledger: Books
) -> None:
    it = await refused_at_posting(scene, xledger)
    with pytest.raises(LedgerRefused, match="a copy could be booked twice") as refused:
        await mend(it)
    assert "--deleted" in str(refused.value)
    assert it.stage.ask("select count(*) from kvitt.records where integration_id = %(id)s") == [
        (1,)
    ]


async def refused_at_posting(scene: SetScene, books: Books) -> Scene:
    """Set a scene in which the posting job has refused the only voucher, and a look has seen it."""
    it = await scene(books, periods=1)
    await it.approve(1)
    await it.receipt()
    close(books)
    books.run_jobs()
    seen = await it.looked()
    assert [voucher.reason for voucher in seen.vouchers] == [CLOSED]
    return it


async def mend(it: Scene) -> str:
    return await it.stage.ledger.mend_record(
        it.stage.id, it.records[0].id, who="Inger", reason="account 7140 is open again"
    )


async def say_deleted(it: Scene, *, goes_again: bool = True) -> str | None:
    return await it.stage.ledger.say_deleted(
        it.stage.id,
        it.records[0].id,
        goes_again=goes_again,
        who="Inger",
        reason="deleted on the screen",
    )


async def test_a_copy_goes_once_two_looks_have_seen_that_the_rows_were_deleted(
    scene: SetScene, xledger: Books
) -> None:
    it = await refused_at_posting(scene, xledger)
    delete(xledger, it.records[0].id)
    assert await say_deleted(it) is None
    first = await it.look()
    assert not isinstance(first, PutOff)
    assert first is not None
    assert first.vouchers[0].mended_as is None, "once may be while the job moves them"
    assert await it.look() is None, "the second look is some minutes later"

    second = await it.looked(after=3 * MINUTE)
    copy = f"{it.records[0].id}~2"
    assert second.vouchers[0].mended_as == copy
    assert await say_deleted(it) == copy, "said twice is said once"
    assert second.lines == 0, "nothing of it is to be there any more"
    kept = "select decision, who from kvitt.decisions where integration_id = %(id)s"
    assert it.stage.ask(kept) == [("mend record", "Inger")]
    copies = (
        "select period_due_at from kvitt.records where integration_id = %(id)s and id = %(copy)s"
    )
    assert it.stage.ask(copies, copy=copy) == [(None,)], "it waits for the next period"


async def test_what_was_deleted_for_a_correction_is_not_missed_and_not_sent_again(
    scene: SetScene, xledger: Books
) -> None:
    it = await refused_at_posting(scene, xledger)
    delete(xledger, it.records[0].id)
    await say_deleted(it, goes_again=False)
    await it.look()
    seen = await it.looked(after=3 * MINUTE)
    assert (seen.state, seen.lines, seen.vouchers[0].mended_as) == (FollowUpState.POSTED, 0, None)
    assert it.stage.ask("select count(*) from kvitt.records where integration_id = %(id)s") == [
        (1,)
    ]


async def test_rows_that_are_still_there_are_not_believed_to_be_deleted(
    scene: SetScene, xledger: Books
) -> None:
    it = await refused_at_posting(scene, xledger)
    assert await say_deleted(it) is None
    for _ in range(3):
        seen = await it.looked()
        assert seen.vouchers[0].mended_as is None
        assert "they are still there, and may be posted" in seen.vouchers[0].words

    close(xledger, blocked=False)
    xledger.run_jobs()
    seen = await it.looked()
    assert (seen.state, seen.vouchers[0].place) == (FollowUpState.POSTED, "posted")
    assert it.audit().clean, "booked once, by the job"


async def test_rows_that_are_in_neither_table_for_a_moment_are_not_gone(
    scene: SetScene, xledger: Books
) -> None:
    it = await refused_at_posting(scene, xledger)
    await say_deleted(it)
    close(xledger, blocked=False)
    handle(xledger, xledger.lines("staged"), "move")
    seen = await it.look()
    assert not isinstance(seen, PutOff)
    assert seen is not None
    assert seen.vouchers[0].place == "neither"
    xledger.run_jobs()
    seen = await it.looked(after=3 * MINUTE)
    assert (seen.state, seen.vouchers[0].mended_as) == (FollowUpState.POSTED, None)
    assert it.audit().clean


async def test_rows_that_vanish_without_a_word_are_told_of_when_that_was_seen_twice(
    scene: SetScene, xledger: Books
) -> None:
    it = await scene(xledger)
    await it.approve(2)
    await it.receipt()
    delete(xledger, it.records[1].id)
    first = await it.looked()
    assert (first.state, first.is_news) == (FollowUpState.WAITING, False)
    second = await it.looked()
    assert (second.state, second.is_news) == (FollowUpState.DIFFERS, True)
    assert [voucher.record for voucher in second.news] == [it.records[1].id]
    assert "4 lines are to be there, and 2 are" in in_brief_of_lines(second)


def in_brief_of_lines(it: FollowUp) -> str:
    """Return the sentence about lines, which a brief with vouchers leaves out."""
    return in_brief(it.model_copy(update={"vouchers": ()}))


async def test_what_is_booked_twice_after_the_receipt_is_told_of(
    scene: SetScene, xledger: Books
) -> None:
    it = await scene(xledger)
    await it.approve(1)
    await it.receipt()
    handle(xledger, xledger.lines("staged"), "copy")
    assert (await it.looked()).state is FollowUpState.WAITING
    seen = await it.looked()
    assert (seen.state, seen.lines, seen.held) == (FollowUpState.DIFFERS, 2, 4)


async def test_one_reading_serves_all_periods_of_a_connection(
    scene: SetScene, xledger: Books
) -> None:
    it = await scene(xledger, periods=3)
    for period in range(3):
        await it.approve(1, period=period)
        await it.receipt()
    before = xledger.calls()
    it.stage.time_passes(11 * MINUTE)
    await it.look()
    assert _further(xledger, before) == {"glImportItems+glImportItemErrors": 1}
    seen = await it.stage.ledger.read_follow_ups(it.stage.id)
    assert [(each.looks, each.held) for each in seen] == [(1, 2)] * 3
    spent = "select requests from kvitt.follow_ups where integration_id = %(id)s order by due_at"
    assert it.stage.ask(spent) == [({"read-back": 1},), ({},), ({},)]


@pytest.mark.usefixtures("no_waiting")
async def test_a_look_that_cannot_be_made_is_put_off_with_the_reason(
    scene: SetScene, xledger: Books
) -> None:
    it = await scene(xledger)
    await it.approve(1)
    await it.receipt()
    xledger.fault("status", on="glImportItems+glImportItemErrors", status=503, times=3)
    it.stage.time_passes(11 * MINUTE)
    seen = await it.look()
    assert isinstance(seen, PutOff)
    assert "503" in seen.why
    assert await it.look() is None, "not at once again"
    [kept] = await it.stage.ledger.read_follow_ups(it.stage.id)
    assert "503" in (kept.note or "")
    assert (await it.looked()).note is None


async def test_a_schema_that_does_not_say_who_was_refused_is_looked_at_all_the_same(
    scene: SetScene, xledger: Books
) -> None:
    it = await scene(xledger)
    await it.approve(1)
    await it.receipt()
    xledger.change(errors_carry_ext_identifier=False)
    try:
        seen = await it.looked()
    finally:
        xledger.change(errors_carry_ext_identifier=True)
    assert seen.state is FollowUpState.WAITING
    assert "whom the posting job refused is not shown" in (seen.note or "")


async def test_a_deleted_record_whose_copys_name_is_taken_goes_again_under_the_next_one(
    scene: SetScene, xledger: Books
) -> None:
    it = await scene(xledger)
    own, taken = [
        claim_for_travel(it.stage.id, number, it.stage.due[0] - HOUR / 2).model_copy(
            update={"id": name}
        )
        for number, name in ((1, "claim-7"), (2, "claim-7~2"))
    ]
    await it.stage.ledger.add_records([own, taken])
    it.records += [own, taken]
    await it.receipt()
    close(xledger)
    xledger.run_jobs()
    await it.looked()
    delete(xledger, own.id)
    await say_deleted(it)
    await it.looked()
    seen = await it.looked()
    [voucher] = [each for each in seen.vouchers if each.record == own.id]
    assert voucher.mended_as == "claim-7~3"


async def test_a_look_that_the_ledger_does_not_take_stops_none_of_the_others(
    scene: SetScene, xledger: Books
) -> None:
    it = await scene(xledger, periods=3)
    for period in range(3):
        await it.approve(1, period=period)
        await it.receipt()
    broken = it.stage.due[0]
    with it.stage.database.transaction():
        it.stage.database.execute("set local session_replication_role = replica")  # past the guards
        it.stage.database.execute(
            "update kvitt.periods set receipt = jsonb_set(receipt, '{sent,booked}', '\"much\"')"
            " where (integration_id, due_at) = (%s, %s)",
            [it.stage.id, broken],
        )
    it.stage.time_passes(11 * MINUTE)
    seen = [each async for each in follow_up(it.stage.ledger, it._open)]
    own = [each for each in seen if it.stage.id in str(each)]
    assert [type(each).__name__ for each in own] == ["FollowUp", "FollowUp", "PutOff"]
    key = key_of(it.stage.id, broken)
    assert isinstance(own[-1], PutOff)
    assert own[-1].why.startswith(f"{key}: ")
    kept = "select looks, note from kvitt.follow_ups where integration_id = %(id)s order by due_at"
    (put_off, note), *others = it.stage.ask(kept)
    assert (put_off, [looks for looks, _ in others]) == (0, [1, 1])
    assert key in note
