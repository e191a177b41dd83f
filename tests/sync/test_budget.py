"""A budget that is spent in the middle of a period: it waits, and nothing is lost or uncertain."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

from kvitt.domain.errors import PeriodPostponed
from kvitt.ports import Claim, ClaimOutcome
from kvitt.sync import LEASE
from tests.sync.scene import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from kvitt.ledger.rows import Spending
    from tests.sync.scene import Books, Scene

    SetScene = Callable[..., Awaitable[Scene]]
    RunApart = Callable[..., Any]


async def its_own_budget(it: Scene, **stated: Any) -> None:
    """Give the integration a connection that nobody else spends from, and state a budget."""
    who = it.stage.integration.model_dump()
    own = {**who, "connection": it.stage.id, "limits": {**who["limits"], "budget": stated}}
    it.stage.integration = it.stage.integration.model_validate(own)
    await it.stage.ledger.save_integration(it.stage.integration)
    it.stage.fit()


async def spending(it: Scene) -> Spending:
    return (await it.stage.ledger.read_budgets(it.stage.id))[0]


async def test_what_a_receipt_says_was_spent_is_what_the_budget_and_the_vendor_counted(
    scene: SetScene, books: Books
) -> None:
    it = await scene(books)
    await its_own_budget(it)
    await it.approve(5)
    receipt = await it.receipt()
    now = await spending(it)
    assert now.spent == receipt["requests"]
    assert now.counted == sum(receipt["requests"].values()) == sum(books.calls().values())
    assert now.allowance == (5_000 if books.vendor == "xledger" else None)


async def test_where_it_is_spent_nothing_is_sent_and_it_goes_on_when_more_is_allowed(
    scene: SetScene, books: Books
) -> None:
    it = await scene(books, chunk_lines=2)
    # Of three chunks the second cannot be sent: Business Central wants a token as well.
    few = 1 if books.vendor == "xledger" else 2
    await its_own_budget(it, requests=few)
    await it.approve(3)
    with pytest.raises(PeriodPostponed, match=r"or limits\.budget\.paid: true") as postponed:
        await it.run()
    # Whether the third is intended before the second is known to be in the way is a matter of luck.
    first, *others = it.stage.chunks()
    assert first == "confirmed"
    assert set(others) == {"unsent"}
    assert it.stage.period("state, waiting_for") == ("exporting", "budget")
    assert f"({few} of {few} requests)" in str(postponed.value)
    assert sum(books.calls().values()) == few
    answer = await it.run(trigger="watch")
    assert isinstance(answer, Claim)
    assert answer.outcome is ClaimOutcome.WAITING

    await its_own_budget(it, requests=few, paid=True)
    receipt = await it.receipt(trigger="watch")
    assert [attempt["outcome"] for attempt in receipt["attempts"]] == ["postponed", "settled"]
    assert receipt["resent"][0]["sends"] == 2
    assert (await spending(it)).spent == receipt["requests"]
    assert it.audit().clean


async def test_where_only_the_read_back_is_left_it_waits_and_sends_nothing_again(
    scene: SetScene, xledger: Books
) -> None:
    it = await scene(xledger)
    await its_own_budget(it, requests=2)
    await it.approve(2)
    with pytest.raises(PeriodPostponed):
        await it.run()
    assert it.stage.period("state, waiting_for") == ("exported", "budget")
    await its_own_budget(it, requests=9)
    await it.receipt(trigger="watch")
    assert xledger.calls()["addGLImportItems"] == 1
    assert it.audit().clean


async def test_a_killed_run_has_spent_at_least_what_the_vendor_was_asked(
    scene: SetScene, books: Books, run_apart: RunApart
) -> None:
    it = await scene(books)
    await its_own_budget(it)
    await it.approve(2)
    books.fault("slow", delay=30)
    async with run_apart(it, LEASE) as process:
        await until(lambda: books.first_write in books.calls(), "the call is under way")
        process.kill()
        assert await process.wait() == -signal.SIGKILL
    now = await spending(it)
    assert sum(books.calls().values()) <= now.counted == 8
    assert now.spent == {}


async def test_a_period_without_records_reserves_nothing(scene: SetScene, books: Books) -> None:
    it = await scene(books)
    await its_own_budget(it)
    await it.receipt()
    assert await it.stage.ledger.read_budgets(it.stage.id) == []
