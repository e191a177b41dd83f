"""An integration's vendor, opened for a flow: with its block, within its connection's budget.

What the work with it says of the connection's health is written down at its end.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from prefect import get_run_logger
from prefect.context import FlowRunContext
from prefect.events import emit_event

from blocks.links import link_to_this_run
from blocks.vendors import open_vendor
from kvitt import health
from kvitt.budget import open_budget

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from kvitt.domain.errors import TurnedAway
    from kvitt.domain.integrations import Integration
    from kvitt.ledger import SupabaseLedger
    from kvitt.ports import Budget, Vendor


@asynccontextmanager
async def open_connection(
    ledger: SupabaseLedger,
    integration: Integration,
    *,
    backfill: bool = False,
    exports: bool = True,
) -> AsyncGenerator[Vendor]:
    """Open the vendor of an integration. What is asked of it comes out of the month's budget.

    With `backfill`, for a past period that is filled in, out of the share for those. A failure says
    something of the connection's health only where it `exports`.
    Raises LookupError where kvitt does not know the vendor, or the block does not exist.
    """
    async with (
        _budget(ledger, integration, backfill=backfill) as budget,
        open_vendor(integration, budget) as vendor,
    ):
        try:
            yield vendor
        except Exception as error:
            if exports:
                await health.note_traffic(ledger, integration, vendor, error)
            raise
        else:
            await health.note_traffic(ledger, integration, vendor, None)
        finally:
            if vendor.limit is not None:
                tell_limit(integration.vendor, integration.connection, vendor.limit, "export")


def tell_limit(vendor: str, connection: str, limit: TurnedAway, purpose: str) -> None:
    """Raise an event: a limit turned us away. An automation has the connection not probed then.

    `purpose` is what it was asked for, probe or export.
    """
    name = f"{vendor}/{connection}"
    text = f"{name} ({purpose}): {limit}"
    get_run_logger().warning("%s", text)
    context = FlowRunContext.get()
    emit_event(
        event="kvitt.connection.rate-limited",
        resource={
            "prefect.resource.id": f"kvitt.connection.{name}",
            "prefect.resource.name": name,
        },
        payload={
            "vendor": vendor,
            "connection": connection,
            "project": ((context and context.parameters) or {}).get("project"),
            "purpose": purpose,
            "retry_after_seconds": (limit.retry_after or timedelta(0)).total_seconds(),
            "text": text,
        },
    )


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
