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
    from kvitt.ports import Budget
    from kvitt.vendors import Client

CONNECTIONS = {
    "business-central": BusinessCentral,
    "dataverse": Dataverse,
    "xledger": Xledger,
}
"""A vendor's id, as integrations name it, and the block that opens it."""


@asynccontextmanager
async def open_vendor(integration: Integration, budget: Budget) -> AsyncGenerator[Client]:
    """Open the vendor of an integration with the block that it names, to spend that budget.

    Raises LookupError where kvitt does not know the vendor, or the block does not exist.
    """
    block = await _connection(integration)
    async with block.open_for(integration, budget) as vendor:
        yield vendor


async def address_of(integration: Integration) -> str:
    """Return where the API of an integration's vendor is. Raises as `open_vendor` does."""
    return (await _connection(integration)).api_url


async def _connection(integration: Integration) -> BusinessCentral | Dataverse | Xledger:
    if integration.vendor not in CONNECTIONS:
        raise LookupError(
            f"integration {integration.id} names the vendor {integration.vendor}, which kvitt does "
            f"not know; it knows {', '.join(sorted(CONNECTIONS))}"
        )
    return await load_block(CONNECTIONS[integration.vendor], integration.connection)
