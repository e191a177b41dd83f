"""The Supabase project that holds the ledger."""

from __future__ import annotations

from contextlib import asynccontextmanager
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
        """Open the project; one client serves a whole run."""
        async with open_project(self.url, self.secret_key.get_secret_value()) as client:
            yield client

    async def check(self) -> str:
        """Ask the ledger for its integrations; returns what was seen, raises what is wrong.

        Raises LedgerUnavailable where the project does not answer, LedgerRefused where the key is
        wrong or the schema is not there, or not exposed.
        """
        async with self.open() as client:
            integrations = await SupabaseLedger(client).read_integrations()
        return f"{self.url} answers; its ledger has {len(integrations.valid)} integrations"
