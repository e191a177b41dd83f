"""An integration's vendor, opened for a flow: with its block, within its connection's budget."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from prefect.events import emit_event

from blocks.links import link_to_this_run
from blocks.vendors import open_vendor
from kvitt.budget import open_budget

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from kvitt.domain.integrations import Integration
    from kvitt.ledger import SupabaseLedger
    from kvitt.ports import Budget, Vendor


@asynccontextmanager
async def open_connection(
    ledger: SupabaseLedger, integration: Integration, *, backfill: bool = False
) -> AsyncGenerator[Vendor]:
    """Open the vendor of an integration. What is asked of it comes out of the month's budget.

    With `backfill`, for a past period that is filled in, out of the share for those.
    Raises LookupError where kvitt does not know the vendor, or the block does not exist.
    """
    async with (
        _budget(ledger, integration, backfill=backfill) as budget,
        open_vendor(integration, budget) as vendor,
    ):
        yield vendor


@asynccontextmanager
async def _budget(
    ledger: SupabaseLedger, integration: Integration, *, backfill: bool
) -> AsyncGenerator[Budget]:
    """Open the budget of an integration's connection, and tell of its end when that is near."""
    who = integration.vendor, integration.connection
    async with open_budget(ledger, *who, backfill=backfill) as budget:
        try:
            yield budget
        finally:
            if budget.warning is not None:
                name = f"{budget.vendor}/{budget.connection}"
                emit_event(
                    event="kvitt.budget.low",
                    resource={
                        "prefect.resource.id": f"kvitt.connection.{name}",
                        "prefect.resource.name": name,
                    },
                    payload={"text": budget.warning, "link": link_to_this_run()},
                )
