"""A rehearsal's stand-in: whatever an Edge Function did with it, nothing of it stays."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest

from tests.cast import NORDVEST, claim_for_travel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from kvitt.ledger import SupabaseLedger
    from tests.cast import Stage

    Enrol = Callable[..., Awaitable[Stage]]

LEASE = timedelta(minutes=2)


async def test_records_that_were_handed_over_for_a_stand_in_go_with_it(
    enrol: Enrol, ledger: SupabaseLedger, database: psycopg.Connection
) -> None:
    stage = await enrol(NORDVEST)
    claim = await ledger.begin_rehearsal(stage.id, uuid4(), LEASE)
    assert claim.period is not None
    stand_in, period = claim.period.integration_id, claim.period
    approved_at = period.due_at - timedelta(hours=1)
    await ledger.add_records([claim_for_travel(stand_in, n, approved_at) for n in range(3)])
    await ledger.add_records([claim_for_travel(stage.id, 1, approved_at)])
    database.execute(
        "select kvitt.collect_page(%s, %s, %s, 2)", [stand_in, period.due_at, period.fence]
    )
    await ledger.end_rehearsal(stand_in)
    await ledger.end_rehearsal(stand_in)
    await ledger.end_rehearsal(stage.id)
    held = database.execute(
        "select integration_id from kvitt.records where integration_id = any(%s)",
        [[stand_in, stage.id]],
    ).fetchall()
    assert held == [(stage.id,)]


@pytest.mark.parametrize("table", ["record_lines", "records"])
async def test_nothing_of_a_real_integration_is_removed(enrol: Enrol, table: str) -> None:
    stage = await enrol(NORDVEST)
    await stage.approve(1)
    with pytest.raises(psycopg.Error, match="does not change") as refused:
        stage.database.execute(
            f"delete from kvitt.{table} where integration_id = %s".encode(),  # noqa: S608 - our own words
            [stage.id],
        )
    assert refused.value.sqlstate == "KV005"
