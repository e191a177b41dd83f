"""Voucher numbers: each integration counts its own, and two in the same books keep apart."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from kvitt.domain.errors import LedgerRefused
from tests.cast import FJORDBY, NORDVEST, another
from tests.ledger.stages import a_connection, collect

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from kvitt.domain.integrations import Integration
    from kvitt.ledger import SupabaseLedger
    from tests.cast import Stage

    Enrol = Callable[..., Awaitable[Stage]]


@pytest.fixture
def connection() -> str:
    return a_connection()


def with_source(who: Integration, connection: str, source: str | None) -> Integration:
    mapping = {**who.mapping.model_dump(), "source": source}
    return another(who, connection=connection, mapping=mapping)


def changed(who: Integration, source: str | None) -> Integration:
    return who.model_copy(update={"mapping": who.mapping.model_copy(update={"source": source})})


@pytest.mark.parametrize(
    ("one", "other", "why"),
    [
        ("KV", "KV", "both have the source KV. Give one of them another"),
        ("KV", " kv", "both have the source KV. Give one of them another"),
        (None, None, "{second} has no source. Give it one of its own"),
        ("KV", None, "{second} has no source. Give it one of its own"),
        ("KV", "", "{second} has no source. Give it one of its own"),
        (None, "KV", "{first} has no source. Give that one its own first"),
    ],
)
async def test_two_in_the_same_books_need_a_source_each(
    ledger: SupabaseLedger, connection: str, one: str | None, other: str | None, why: str
) -> None:
    first, second = (with_source(NORDVEST, connection, source) for source in (one, other))
    await ledger.save_integration(first)
    with pytest.raises(LedgerRefused) as refused:
        await ledger.save_integration(second)
    assert refused.value.code == "KV003"
    assert (
        f"integration {second.id}: mapping.source: {first.id} writes into the same books "
        f"(connection {connection}), and {why.format(first=first.id, second=second.id)}, or their "
        "voucher numbers meet there"
    ) in str(refused.value)


async def test_one_that_is_off_or_of_another_vendor_or_elsewhere_meets_nobody(
    ledger: SupabaseLedger, connection: str
) -> None:
    first, second = (with_source(NORDVEST, connection, "KV") for _ in range(2))
    await ledger.save_integration(first)
    off = second.model_copy(update={"enabled": False})
    assert await ledger.save_integration(off) == "created"
    with pytest.raises(LedgerRefused, match="both have the source KV"):
        await ledger.save_integration(second)
    assert await ledger.save_integration(with_source(FJORDBY, connection, None)) == "created"
    elsewhere = with_source(NORDVEST, a_connection(), "KV")
    assert await ledger.save_integration(elsewhere) == "created"
    with pytest.raises(LedgerRefused, match="both have the source KV"):
        await ledger.save_integration(elsewhere.model_copy(update={"connection": connection}))


async def test_two_that_have_had_none_get_theirs_one_after_the_other(
    enrol: Enrol, connection: str
) -> None:
    first, second = (with_source(NORDVEST, connection, source) for source in ("KV", "KW"))
    stage = await enrol(NORDVEST)
    for each in (first, second):
        assert await stage.ledger.save_integration(each) == "created"
    # As they may have been saved before the ledger knew of this: with no trigger on.
    stage.ask("select set_config('session_replication_role', 'replica', false)")
    stage.ask(
        "update kvitt.integrations set mapping = '{}' where id = any (%(ids)s) returning id",
        ids=[first.id, second.id],
    )
    stage.ask("select set_config('session_replication_role', 'origin', false)")
    with pytest.raises(LedgerRefused, match=f"{first.id} has no source"):
        await stage.ledger.save_integration(changed(first, None))
    assert await stage.ledger.save_integration(first) == "changed"
    assert await stage.ledger.save_integration(second) == "changed"


async def test_of_two_that_are_saved_at_once_with_one_source_one_is(
    ledger: SupabaseLedger, connection: str
) -> None:
    rivals = [with_source(NORDVEST, connection, "KV") for _ in range(4)]
    answers = await asyncio.gather(
        *(ledger.save_integration(each) for each in rivals), return_exceptions=True
    )
    assert answers.count("created") == 1
    assert sum(isinstance(each, LedgerRefused) for each in answers) == 3


async def test_the_source_of_one_that_was_switched_off_is_taken_over_above_its_numbers(
    enrol: Enrol, connection: str
) -> None:
    old = with_source(NORDVEST, connection, "KV")
    stage = await enrol(NORDVEST, connection=connection, mapping=old.mapping)
    await stage.approve(3)
    await collect(stage, await stage.claimed())
    off = stage.integration.model_copy(update={"enabled": False})
    await stage.ledger.save_integration(off)
    new = with_source(NORDVEST, connection, "KV")
    with pytest.raises(LedgerRefused, match=f"up to 3 under the same source.*Give {new.id}"):
        await stage.ledger.save_integration(new)
    above = new.model_copy(update={"first_voucher_number": 4})
    assert await stage.ledger.save_integration(above) == "created"
    with pytest.raises(LedgerRefused, match="both have the source KV"):
        await stage.ledger.save_integration(stage.integration)


async def test_the_first_number_is_stated_before_a_record_is_taken(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST, first_voucher_number=50_000)
    later = stage.integration.model_copy(update={"first_voucher_number": 60_001})
    assert await stage.ledger.save_integration(later) == "changed"
    await stage.approve(2)
    await collect(stage, await stage.claimed())
    numbers = stage.ask(
        "select voucher_number from kvitt.records where integration_id = %(id)s order by 1"
    )
    assert numbers == [(60_001,), (60_002,)]
    with pytest.raises(LedgerRefused, match="first_voucher_number: it cannot change from 60001 to"):
        await stage.ledger.save_integration(stage.integration)
    assert await stage.ledger.save_integration(later) == "unchanged"
