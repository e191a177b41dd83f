"""`kvitt skip`: a person leaves a period out, with a reason that is kept."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from kvitt.domain.money import Totals
from tests.cast import FJORDBY, NORDVEST
from tests.ledger.stages import close, frozen, intend

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Awaitable, Callable

    from tests.cast import Stage

    Kvitt = Callable[..., subprocess.CompletedProcess[str]]
    Enrol = Callable[..., Awaitable[Stage]]

REASON = "the company was closed"


def skip(kvitt: Kvitt, stage: Stage, reason: str = REASON) -> subprocess.CompletedProcess[str]:
    return kvitt("skip", stage.id, stage.due[0].isoformat(), "--reason", reason, "--by", "Liv")


async def test_a_skipped_period_keeps_who_and_why(kvitt: Kvitt, enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    assert "is skipped" in skip(kvitt, stage).stdout
    assert stage.period("state, reason") == ("skipped", REASON)
    kept = "select decision, who, reason from kvitt.decisions where integration_id = %(id)s"
    assert stage.ask(kept) == [("skip", "Liv", REASON)]


async def test_what_a_skipped_period_had_not_taken_goes_to_the_next_one(
    kvitt: Kvitt, enrol: Enrol
) -> None:
    stage = await enrol(NORDVEST, periods=2)
    await stage.approve(3)
    skip(kvitt, stage)
    taken = await frozen(stage, 0, period=1)
    assert taken.due_at == stage.due[1]
    assert stage.period("record_count", 1) == (3,)


async def test_it_says_how_much_of_what_was_taken_is_not_in_the_books(
    kvitt: Kvitt, enrol: Enrol
) -> None:
    stage = await enrol(FJORDBY)
    period = await frozen(stage, 3)
    await intend(stage, period, 1, 2)
    await stage.ledger.settle_chunk(period, 1, "confirmed")
    await stage.ledger.fail(period, "account 7140 is blocked")
    await close(stage, "failed")
    assert "2 of them are in the books, 1 are not" in skip(kvitt, stage).stdout


async def test_a_period_of_which_something_may_be_in_the_books_is_not_skipped(
    kvitt: Kvitt, enrol: Enrol
) -> None:
    stage = await enrol(FJORDBY)
    period = await frozen(stage, 3)
    await intend(stage, period, 1, 3)
    stage.time_passes(timedelta(minutes=5))
    refused = skip(kvitt, stage)
    assert refused.returncode == 1
    assert "may still be in the books" in refused.stderr


async def test_a_period_that_a_run_works_on_is_not_skipped(kvitt: Kvitt, enrol: Enrol) -> None:
    stage = await enrol(FJORDBY)
    await stage.claimed()
    assert "a run works on it" in skip(kvitt, stage).stderr
    assert stage.state() == "collecting"


async def test_a_settled_period_is_not_skipped(kvitt: Kvitt, enrol: Enrol) -> None:
    stage = await enrol(FJORDBY)
    period = await frozen(stage, 0)
    await stage.ledger.settle(period, Totals(), {})
    await close(stage, "settled")
    assert "verified cannot become skipped" in skip(kvitt, stage).stderr


async def test_a_reason_of_blanks_is_none(kvitt: Kvitt, enrol: Enrol) -> None:
    stage = await enrol(FJORDBY)
    assert "without a reason" in skip(kvitt, stage, "  ").stderr
    assert stage.state() == "due"


async def test_a_period_that_is_not_due_yet_is_not_skipped(kvitt: Kvitt, enrol: Enrol) -> None:
    stage = await enrol(FJORDBY)
    future = stage.due[0] + timedelta(hours=2)
    refused = kvitt("skip", stage.id, future.isoformat(), "--reason", REASON)
    assert refused.returncode == 1
    assert "only a period that came due is skipped" in refused.stderr
