"""A run that is overtaken, stopped or killed: who goes on finds what it did; nothing is twice."""

from __future__ import annotations

import asyncio
import signal
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from kvitt import sync as way
from kvitt.domain.errors import LeaseLost
from kvitt.ports import Claim, ClaimOutcome, Trigger
from tests.cast import LEASE
from tests.sync.scene import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from sandbox.supabase import Supabase
    from tests.sync.scene import Books, Scene

    SetScene = Callable[..., Awaitable[Scene]]
    RunApart = Callable[[Scene, timedelta], AbstractAsyncContextManager[asyncio.subprocess.Process]]

RAN_OUT = LEASE + timedelta(seconds=1)
SLOW = 60


async def test_who_is_overtaken_in_the_middle_sends_nothing_more(
    scene: SetScene, books: Books
) -> None:
    it = await scene(books, chunk_lines=2)
    await it.approve(4)
    books.fault("slow", delay=1)
    run = asyncio.create_task(it.run())
    await until(lambda: bool(books.lines("staged")), "the first chunk is in the books")
    it.stage.time_passes(RAN_OUT)
    successor = await it.stage.claimed()
    with pytest.raises(LeaseLost, match="attempt 2 took it over from attempt 1"):
        await run
    assert len(books.lines("staged")) == 2
    assert it.stage.chunks() == ["uncertain"]

    it.stage.time_passes(RAN_OUT)
    await it.receipt()
    assert it.stage.period("fence") == (successor.fence + 1,)
    assert it.audit().clean


async def test_a_lease_that_cannot_be_renewed_ends_by_our_own_clock(
    scene: SetScene, books: Books, supabase: Supabase
) -> None:
    it = await scene(books)
    await it.approve(1)
    short = timedelta(seconds=0.4)
    answer = await way.claim(it.stage.ledger, it.stage.id, Trigger(), lease=short)
    supabase.postgrest.process.pause()
    try:
        attempt = way.attempt(it.stage.ledger, answer)
        held = await attempt.__aenter__()
        held.check()
        await until(lambda: _is_lost(held), "the lease is lost")
    finally:
        supabase.postgrest.process.resume()
    with pytest.raises(LeaseLost, match="ran out before it could be renewed; nothing more is sent"):
        held.check()
    await attempt.__aexit__(None, None, None)
    await it.receipt()


def _is_lost(held: way.Attempt) -> bool:
    try:
        held.check()
    except LeaseLost:
        return True
    return False


async def test_a_short_lease_is_renewed_for_as_long_as_the_work_takes(
    scene: SetScene, books: Books
) -> None:
    it = await scene(books)
    await it.approve(2)
    books.fault("slow", delay=1.5)
    receipt = await it.receipt(lease=timedelta(seconds=0.8))
    assert len(receipt["attempts"]) == 1
    assert it.audit().clean


@pytest.mark.parametrize("committed", [True, False], ids=["committed", "not-committed"])
async def test_what_a_killed_process_had_under_way_is_booked_once(
    scene: SetScene, books: Books, run_apart: RunApart, *, committed: bool
) -> None:
    it = await scene(books)
    await it.approve(3)
    books.fault("slow" if committed else "drop-before", delay=SLOW)
    async with run_apart(it, LEASE) as process:
        await until(lambda: books.first_write in books.calls(), "the call is under way")
        await until(lambda: bool(books.lines("staged")) is committed, "the books are as meant")
        process.kill()
        assert await process.wait() == -signal.SIGKILL
    assert it.stage.chunks() == ["intended"]
    it.stage.time_passes(RAN_OUT)
    if not committed:
        await it.is_uncertain()
    await it.receipt_after_waiting()
    assert books.calls()[books.first_write] == (1 if committed else 2)
    assert it.audit().clean


async def test_what_the_vendor_commits_after_the_sender_was_killed_is_booked_once(
    scene: SetScene, books: Books, run_apart: RunApart
) -> None:
    it = await scene(books)
    await it.approve(3)
    books.fault("late-commit", commit_after=2, delay=SLOW)
    async with run_apart(it, LEASE) as process:
        await until(lambda: books.first_write in books.calls(), "the call is under way")
        process.kill()
        await process.wait()
    it.stage.time_passes(RAN_OUT)
    await it.is_uncertain()
    await until(lambda: bool(books.lines("staged")), "the vendor commits")
    await it.receipt_after_waiting()
    assert books.calls()[books.first_write] == 1
    assert it.audit().clean


async def test_a_process_that_slept_past_its_lease_wakes_up_and_sends_nothing(
    scene: SetScene, books: Books, run_apart: RunApart
) -> None:
    it = await scene(books, chunk_lines=2)
    await it.approve(3)
    books.fault("slow", delay=1)
    async with run_apart(it, LEASE) as process:
        await until(lambda: bool(books.lines("staged")), "the first chunk is in the books")
        process.send_signal(signal.SIGSTOP)
        it.stage.time_passes(RAN_OUT)
        await it.receipt()
        before = books.calls()
        process.send_signal(signal.SIGCONT)
        _, said = await process.communicate()
    assert b"LeaseLost" in said
    assert process.returncode == 1
    assert books.calls() == before
    assert it.audit().clean


async def test_a_run_that_is_cancelled_gives_its_lease_back_and_says_so(
    scene: SetScene, books: Books
) -> None:
    it = await scene(books)
    await it.approve(2)
    books.fault("slow", delay=SLOW)
    run = asyncio.create_task(it.run())
    await until(lambda: bool(books.lines("staged")), "the call is under way")
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    attempts = "select outcome::text from kvitt.attempts where integration_id = %(id)s"
    assert it.stage.ask(attempts) == [("interrupted",)]
    await it.receipt()
    assert books.calls()[books.first_write] == 1
    assert it.audit().clean


async def test_a_posting_that_was_killed_in_the_middle_happens_once(
    scene: SetScene, business_central: Books, run_apart: RunApart
) -> None:
    it = await scene(business_central)
    await it.approve(2)
    business_central.fault("slow", on="post", delay=SLOW)
    async with run_apart(it, LEASE) as process:
        await until(lambda: bool(business_central.lines("posted")), "the journal is posted")
        process.kill()
        await process.wait()
    it.stage.time_passes(RAN_OUT)
    await it.receipt()
    assert business_central.calls()["post"] == 1
    assert it.audit().clean


async def test_runs_at_the_same_time_export_once(scene: SetScene, books: Books) -> None:
    it = await scene(books, chunk_lines=2)
    await it.approve(5)
    answers = await asyncio.gather(*(it.run() for _ in range(6)))
    receipts = [answer for answer in answers if isinstance(answer, dict)]
    assert len(receipts) == 1
    assert it.audit().clean


async def test_a_ledger_that_is_away_for_a_moment_costs_time_and_nothing_else(
    scene: SetScene, books: Books, supabase: Supabase
) -> None:
    it = await scene(books)
    await it.approve(2)
    books.fault("slow", delay=0.5)
    run = asyncio.create_task(it.run())
    await until(lambda: bool(books.lines("staged")), "the call is under way")
    supabase.postgrest.process.kill()
    await asyncio.to_thread(supabase.postgrest.process.restart)
    assert isinstance(await run, dict)
    assert books.calls()[books.first_write] == 1
    assert it.audit().clean


async def test_however_often_it_is_asked_too_early_nothing_is_sent(
    scene: SetScene, books: Books
) -> None:
    it = await scene(books)
    await it.approve(2)
    books.fault("drop-before")
    await it.is_uncertain()
    before = books.calls()
    for _ in range(3):
        it.stage.time_passes(timedelta(minutes=3))
        answer = await it.run()
        assert isinstance(answer, Claim)
        assert answer.outcome is ClaimOutcome.WAITING
    assert books.calls() == before
    await it.receipt_after_waiting()
    assert it.audit().clean
