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
async def open_ledger(project: str) -> AsyncGenerator[SupabaseLedger]:
    """Open the ledger of a project.

    Raises LookupError where neither the environment nor a block says where it is.
    """
    url, key = os.environ.get("SUPABASE_URL"), os.environ.get("SUPABASE_SECRET_KEY")
    if not (url and key):
        await demand_server()
        from blocks import SupabaseProject  # noqa: PLC0415 - Prefect takes seconds to import
        from blocks.loading import load_block  # noqa: PLC0415

        block = await load_block(SupabaseProject, project)
        url, key = block.url, block.secret_key.get_secret_value()
    async with open_project(url, key) as client:
        yield SupabaseLedger(client)
