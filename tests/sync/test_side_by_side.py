"""Several calls under way: what becomes of one says nothing wrong about another."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from kvitt.attempts import Attempt
from kvitt.domain.errors import LedgerUnavailable, PeriodFailed, PeriodPostponed
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
    from tests.sync.scene import Books, Scene


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


@pytest.mark.usefixtures("no_waiting")
async def test_what_makes_no_sense_further_on_is_met_when_it_is_its_turn(
    scene: Callable[..., Awaitable[Scene]],
    business_central: Books,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kvitt.export._READ_AHEAD", 2)
    it = await scene(business_central, chunk_lines=2, at_once=1)
    await it.approve(6)
    with it.stage.database.transaction():
        it.stage.database.execute("set local session_replication_role = replica")
        it.stage.database.execute(
            "update kvitt.record_lines set dimensions = '{\"project\": 1}' where record_id = %s",
            (it.records[5].id,),
        )
    business_central.fault("rate-limit", on="batch", times=3)
    with pytest.raises(PeriodPostponed, match="the next run asks again"):
        await it.run()
    assert it.stage.state() == "exporting"
    with pytest.raises(PeriodFailed, match="its batch cannot be read"):
        await it.run()
    assert it.stage.state() == "failed"
