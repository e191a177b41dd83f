"""Telling changes of modes: Prefect gets an event of each, `kvitt.connection.mode`.

Emitted first and noted as told afterwards: what a crash leaves untold, the next run tells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import get_run_logger
from prefect.events import emit_event

if TYPE_CHECKING:
    from kvitt.ledger import SupabaseLedger


async def tell_modes(ledger: SupabaseLedger) -> None:
    """Raise an event for each change that nobody was told of."""
    untold = await ledger.untold_modes()
    for change in untold:
        payload = change.payload()
        get_run_logger().info("%s", payload["text"])
        emit_event(
            event="kvitt.connection.mode",
            resource={
                "prefect.resource.id": f"kvitt.connection.{change.name}",
                "prefect.resource.name": change.name,
            },
            payload=payload,
        )
    if untold:
        await ledger.modes_told(untold)
