"""Several calls under way: what becomes of one says nothing wrong about another."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from kvitt.attempts import Attempt
from kvitt.domain.errors import LedgerUnavailable
from kvitt.export import _Scribe, _Span
from kvitt.ledger import SupabaseLedger
from kvitt.ports import Chunk, ChunkState
from tests.cast import NORDVEST
from tests.ledger.protocol import SETTLE
from tests.ledger.stages import frozen

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from supabase import AsyncClient

    from tests.cast import Stage


class _AwayOnce(SupabaseLedger):
    """The ledger, away when something is written for the second time, until it is let go on."""

    def __init__(self, client: AsyncClient) -> None:
        super().__init__(client)
        self.writes = 0
        self.away, self.back = asyncio.Event(), asyncio.Event()

    async def write_chunks(self, *what: Any) -> list[Chunk]:
        self.writes += 1
        if self.writes == 2:
            self.away.set()
            await self.back.wait()
            raise LedgerUnavailable("it is away")
        return await super().write_chunks(*what)


def _one(sequence: int) -> _Span:
    return _Span(first=sequence, last=sequence, vouchers=[], missing=[])


async def test_what_is_confirmed_is_kept_though_an_intent_before_it_was_not(
    enrol: Callable[..., Awaitable[Stage]], project: AsyncClient
) -> None:
    stage, ledger = await enrol(NORDVEST), _AwayOnce(project)
    period = await frozen(stage, 3)
    this = Attempt(
        id=uuid4(), integration=NORDVEST, period=period, ledger=ledger, check=lambda: None
    )
    scribe = _Scribe(this, SETTLE)
    first = await scribe.intend(_one(1))
    second = asyncio.create_task(scribe.intend(_one(2)))
    await ledger.away.wait()
    third = asyncio.create_task(scribe.intend(_one(3)))
    confirmed = asyncio.create_task(scribe.confirm(first.number, None))
    await asyncio.sleep(0)  # both wait for the pen
    ledger.back.set()
    assert (await confirmed).state is ChunkState.CONFIRMED
    for intent in (second, third):
        with pytest.raises(LedgerUnavailable):
            await intent
    assert stage.chunks() == ["confirmed"]
