"""From an integration to its vendor: the block type that holds each vendor's connection."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from blocks.business_central import BusinessCentral
from blocks.dataverse import Dataverse
from blocks.loading import load_block
from blocks.xledger import Xledger

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from kvitt.domain.integrations import Integration
    from kvitt.ports import Budget, Vendor

CONNECTIONS = {
    "business-central": BusinessCentral,
    "dataverse": Dataverse,
    "xledger": Xledger,
}
"""A vendor's id, as integrations name it, and the block that opens it."""


@asynccontextmanager
async def open_vendor(integration: Integration, budget: Budget) -> AsyncGenerator[Vendor]:
    """Open the vendor of an integration with the block that it names, to spend that budget.

    Raises LookupError where kvitt does not know the vendor, or the block does not exist.
    """
    if integration.vendor not in CONNECTIONS:
        raise LookupError(
            f"integration {integration.id} names the vendor {integration.vendor}, which kvitt does "
            f"not know; it knows {', '.join(sorted(CONNECTIONS))}"
        )
    block = await load_block(CONNECTIONS[integration.vendor], integration.connection)
    async with block.open_for(integration, budget) as vendor:
        yield vendor
