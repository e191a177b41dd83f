"""The ledger, opened for a command: from the environment, else from a Prefect block."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from cli.server import demand_server
from kvitt.ledger import SupabaseLedger
from kvitt.project import open_project

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


@asynccontextmanager
async def open_ledger(
    project: str, integration: str | None = None
) -> AsyncGenerator[SupabaseLedger]:
    """Open the ledger of a project, for a command about an integration or about all.

    Raises LookupError where neither the environment nor a block says where it is, and where there
    is no such integration.
    """
    url, key = os.environ.get("SUPABASE_URL"), os.environ.get("SUPABASE_SECRET_KEY")
    if not (url and key):
        await demand_server()
        from blocks import SupabaseProject  # noqa: PLC0415 - Prefect takes seconds to import
        from blocks.loading import load_block  # noqa: PLC0415

        block = await load_block(SupabaseProject, project)
        url, key = block.url, block.secret_key.get_secret_value()
    async with open_project(url, key) as client:
        ledger = SupabaseLedger(client)
        if integration is not None:
            await _demand(ledger, integration)
        yield ledger


async def _demand(ledger: SupabaseLedger, integration: str) -> None:
    found = await ledger.read_integrations()
    there = sorted([*(each.id for each in found.valid), *found.broken])
    if integration not in there:
        known = f"there are {', '.join(there)}" if there else "there is none yet"
        raise LookupError(f"there is no integration {integration}; {known}")
