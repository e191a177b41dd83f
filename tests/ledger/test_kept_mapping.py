"""A period keeps the mapping that its first call went with, until a person says what was mended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from kvitt.domain.errors import LedgerRefused
from tests.cast import LEASE, NORDVEST, PERSON, another
from tests.ledger.stages import LEASE_RAN_OUT, close, frozen, intend

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from kvitt.ports import Claim
    from tests.cast import Stage

    Enrol = Callable[..., Awaitable[Stage]]

OTHER = {"accounts": {"travel": "7999"}}


async def change(stage: Stage, **changes: Any) -> None:
    """Save another mapping, as an administrator would at any moment."""
    changed = another(NORDVEST, id=stage.id, mapping=OTHER, **changes)
    assert await stage.ledger.save_integration(changed) == "changed"


def travel_in(claim: Claim) -> str:
    assert claim.integration is not None
    return claim.integration.mapping.accounts["travel"]


async def test_before_anything_was_sent_each_claim_takes_the_mapping_of_the_day(
    enrol: Enrol,
) -> None:
    stage = await enrol(NORDVEST)
    await frozen(stage)
    await close(stage, "interrupted")
    await change(stage)
    assert travel_in(await stage.claim()) == "7999"


async def test_whoever_asks_again_gets_the_mapping_that_it_was_given(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    await stage.claimed()
    [[holder]] = stage.ask(
        "select holder from kvitt.periods where holder is not null and integration_id = %(id)s"
    )
    await change(stage)
    again = await stage.ledger.claim(stage.id, holder, PERSON, lease=LEASE, due_at=None)
    assert travel_in(again) == "7140"


@pytest.mark.parametrize("outcome", [None, "confirmed", "uncertain"])
async def test_from_the_first_call_on_a_period_keeps_its_mapping(
    enrol: Enrol, outcome: str | None
) -> None:
    stage = await enrol(NORDVEST)
    period = await frozen(stage)
    chunk = await intend(stage, period, 1, 2)
    if outcome:
        await stage.ledger.settle_chunk(period, chunk.number, outcome)
    await change(stage, time_zone="America/New_York")
    stage.time_passes(LEASE_RAN_OUT)
    answer = await stage.claim()
    assert travel_in(answer) == "7140"
    assert answer.integration is not None
    assert answer.integration.time_zone == "Europe/Oslo"


@pytest.mark.parametrize("outcome", ["unsent", "refused"])
async def test_a_call_that_brought_nothing_holds_no_mapping(enrol: Enrol, outcome: str) -> None:
    stage = await enrol(NORDVEST)
    period = await frozen(stage)
    chunk = await intend(stage, period, 1, 2)
    await stage.ledger.settle_chunk(period, chunk.number, outcome)
    await change(stage)
    stage.time_passes(LEASE_RAN_OUT)
    assert travel_in(await stage.claim()) == "7999"


async def test_a_part_that_was_found_holds_the_mapping_for_the_rest(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    period = await frozen(stage)
    chunk = await intend(stage, period, 1, 2)
    await stage.ledger.settle_chunk(period, chunk.number, "uncertain")
    stage.ask(
        "update kvitt.chunks set not_before = now() where integration_id = %(id)s returning 1"
    )
    absent = await stage.ledger.settle_chunk(period, chunk.number, "absent")
    assert absent.state == "unsent"
    await change(stage)
    stage.time_passes(LEASE_RAN_OUT)
    assert travel_in(await stage.claim()) == "7140"


async def test_a_mended_period_goes_on_with_the_mapping_of_the_day(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    period = await frozen(stage)
    await intend(stage, period, 1, 1)
    await stage.ledger.settle_chunk(period, 1, "confirmed")
    await stage.ledger.fail(period, "account 7140 is gone")
    await close(stage, "failed")
    await change(stage)
    await stage.mend()
    assert travel_in(await stage.claim()) == "7999"


async def test_a_mended_period_keeps_its_mapping_while_it_is_not_known_what_is_in_the_books(
    enrol: Enrol,
) -> None:
    stage = await enrol(NORDVEST)
    period = await frozen(stage)
    await intend(stage, period, 1, 1)
    await stage.ledger.settle_chunk(period, 1, "uncertain")
    await stage.ledger.fail(period, "the books hold something else than was sent")
    await close(stage, "failed")
    await change(stage)
    await stage.mend()
    assert (await stage.ledger.read_period(stage.id, period.due_at)).mapping is not None
    assert travel_in(await stage.claim()) == "7140"


async def test_an_unsent_call_of_which_all_was_set_aside_holds_no_period_back(
    enrol: Enrol,
) -> None:
    stage = await enrol(NORDVEST)
    period = await frozen(stage, 2)
    await intend(stage, period, 1, 2)
    await stage.ledger.settle_chunk(period, 1, "unsent")
    with pytest.raises(LedgerRefused, match="2 of 2 vouchers are not confirmed"):
        await stage.ledger.finish_export(period)
    await stage.ledger.set_aside(period, {1: "not listed", 2: "not listed"}, most=5)
    assert await stage.ledger.finish_export(period) == 0


async def test_a_record_is_read_by_its_name_or_else_the_next_one(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    with pytest.raises(LedgerRefused, match="has no record yet"):
        await stage.ledger.read_record(stage.id)
    [first, second] = await stage.approve(2)
    with pytest.raises(LedgerRefused, match="has no record unknown"):
        await stage.ledger.read_record(stage.id, "unknown")
    assert (await stage.ledger.read_record(stage.id, second.id)).period_due_at is None
    period = await stage.claimed()
    stage.ask(
        "select kvitt.collect_page(%(id)s, %(due)s, %(fence)s, 9)",
        due=period.due_at,
        fence=period.fence,
    )
    latest = await stage.ledger.read_record(stage.id)
    assert (latest.id, latest.period_due_at) == (second.id, period.due_at)
    assert (await stage.ledger.read_record(stage.id, first.id)).voucher_number == 1
