"""The Supabase project that holds the ledger."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prefect.blocks.core import Block
from pydantic import Field, HttpUrl, SecretStr

from kvitt.ledger import SupabaseLedger
from kvitt.project import open_project

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from supabase import AsyncClient


class SupabaseProject(Block):
    """A Supabase project with kvitt's schema: hosted, `supabase start`, or the sandbox.

    Example:
        Load it, and ask whether it can be reached and holds the ledger:

        ```python
        from blocks import SupabaseProject

        project = SupabaseProject.load("BLOCK_NAME")
        print(await project.check())
        ```
    """

    _block_type_name = "Supabase project (kvitt)"
    _block_type_slug = "kvitt-supabase-project"
    _description = "A Supabase project that holds kvitt's ledger and its Edge Functions."
    _documentation_url = HttpUrl("https://supabase.com/docs/guides/api/api-keys")

    url: str = Field(
        default=...,
        title="Project URL",
        description="The project's URL, like https://abcdefgh.supabase.co.",
        pattern=r"^https?://\S+$",
    )
    secret_key: SecretStr = Field(
        default=...,
        title="Secret key",
        description="A secret API key (sb_secret_...) or the service_role key of the project.",
    )

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[AsyncClient]:
        """Open the project. All who have it open at the same time share one client.

        Making one costs 33 ms (measured), and each result of a task is read and written through
        one. It is closed when the last of them is done with it, so that a key which was changed is
        used from the next run on.
        """
        place = (asyncio.get_running_loop(), self.url, self.secret_key.get_secret_value())
        opened = _opened.setdefault(place, _Opened())
        opened.users += 1
        try:
            yield await opened.client_of(self)
        finally:
            opened.users -= 1
            if not opened.users:
                del _opened[place]
                await opened.stack.aclose()

    async def check(self) -> str:
        """Ask the ledger for its integrations; returns what was seen, raises what is wrong.

        Raises LedgerUnavailable where the project does not answer, LedgerRefused where the key is
        wrong or the schema is not there, or not exposed.
        """
        async with self.open() as client:
            integrations = await SupabaseLedger(client).read_integrations()
        return f"{self.url} answers; its ledger has {len(integrations.valid)} integrations"


@dataclass(kw_only=True, slots=True)
class _Opened:
    """A project that is open, and how many use it."""

    users: int = 0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    client: AsyncClient | None = None

    async def client_of(self, project: SupabaseProject) -> AsyncClient:
        """Return the client, opened by whoever comes first."""
        async with self.turn:
            if self.client is None:
                opening = open_project(project.url, project.secret_key.get_secret_value())
                self.client = await self.stack.enter_async_context(opening)
            return self.client


_opened: dict[tuple[asyncio.AbstractEventLoop, str, str], _Opened] = {}
