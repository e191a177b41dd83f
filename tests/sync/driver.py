"""The way of a period without Prefect: what a run does, in this process or in one of its own."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from kvitt import sync as way
from kvitt.budget import open_budget
from kvitt.edge import EdgeFunction
from kvitt.ledger import SupabaseLedger
from kvitt.ports import Claim, ClaimOutcome, Trigger
from kvitt.project import open_project
from kvitt.vendors import VENDORS
from kvitt.vendors.http import Patience

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from supabase import AsyncClient

    from kvitt.domain.integrations import Timeouts
    from kvitt.ports import Budget
    from kvitt.vendors import Client

from contextlib import asynccontextmanager


@dataclass(frozen=True, kw_only=True)
class Connection:
    """How a vendor is reached: what a Prefect block keeps."""

    vendor: str
    settings: Mapping[str, Any]

    def open(self, timeouts: Timeouts, budget: Budget | None = None) -> Client:
        """Return a client that gives up soon, as tests are impatient."""
        kind = VENDORS[self.vendor]
        told = kind.settings.model_validate(self.settings)
        return kind.client(told, timeouts, patience=Patience(tries=3, total=10), budget=budget)


@asynccontextmanager
async def working(
    project: AsyncClient, connection: Connection, answer: way.Answer, function: str = "collect"
) -> AsyncGenerator[tuple[way.Attempt, EdgeFunction, Client]]:
    """Hold the lease of a claimed period, with all that its steps need."""
    ledger = SupabaseLedger(project)
    async with way.attempt(ledger, answer) as attempt:
        who, timeouts = attempt.integration, attempt.integration.timeouts
        async with (
            open_budget(
                ledger, who.vendor, who.connection, backfill=attempt.period.backfill
            ) as budget,
            connection.open(timeouts, budget) as vendor,
        ):
            attempt.requests = vendor.requests
            yield attempt, EdgeFunction(project, name=function, seconds=timeouts.function), vendor


async def bring_up_to_date(
    project: AsyncClient,
    connection: Connection,
    integration: str,
    *,
    lease: timedelta = way.LEASE,
    function: str = "collect",
    trigger: str = "person",
) -> dict[str, Any] | Claim:
    """Work on the next period; returns its receipt, or the claim's answer if it was not given."""
    answer = await way.claim(
        SupabaseLedger(project), integration, Trigger(kind=trigger), lease=lease
    )
    if answer.claim.outcome is not ClaimOutcome.CLAIMED:
        return answer.claim
    async with working(project, connection, answer, function) as (attempt, collector, vendor):
        await way.warm_up(attempt, collector)
        await way.collect(attempt, collector)
        await way.export(attempt, vendor)
        return await way.verify(attempt, vendor)


async def _run(told: Mapping[str, Any]) -> None:
    connection = Connection(**told["connection"])
    lease = timedelta(seconds=told["lease"])
    async with open_project(told["url"], told["key"]) as project:
        await bring_up_to_date(project, connection, told["integration"], lease=lease)


def instructions(
    url: str, key: str, connection: Connection, integration: str, lease: timedelta
) -> str:
    """Return what a process of its own is told on its standard input."""
    return json.dumps(
        {
            "url": url,
            "key": key,
            "connection": asdict(connection),
            "integration": integration,
            "lease": lease.total_seconds(),
        }
    )


if __name__ == "__main__":
    asyncio.run(_run(json.load(sys.stdin)))
