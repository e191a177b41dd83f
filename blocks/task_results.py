"""Where Prefect keeps the results of kvitt's tasks: in the ledger's own database.

Each worker then says *Cached* truthfully, and there is one database to back up. Losing the results
loses nothing: a task whose result is gone asks the ledger, which knows.
"""

from __future__ import annotations

import asyncio

from prefect._internal.compatibility.async_dispatch import async_dispatch
from prefect.filesystems import WritableFileSystem
from pydantic import Field, HttpUrl

from blocks.supabase_project import SupabaseProject  # noqa: TC001 - pydantic reads it
from kvitt.ledger import SupabaseLedger


class TaskResults(WritableFileSystem):
    """Task results in the ledger's database.

    Prefect's engines call the same two methods from sync and from async code; a plain coroutine
    would pass its own tests and cache nothing (see the note on storage in docs/decisions.md).

    Example:
        Load it, and have a flow keep its tasks' results there:

        ```python
        from blocks import TaskResults

        results = TaskResults.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Task results (kvitt)"
    _block_type_slug = "kvitt-task-results"
    _description = "Keeps the results of kvitt's tasks in the ledger's database."
    _documentation_url = HttpUrl("https://docs.prefect.io/v3/advanced/results")

    project: SupabaseProject = Field(
        default=..., description="The Supabase project that holds the ledger."
    )

    async def aread_path(self, path: str) -> bytes:
        """Return the result kept under a key; ValueError where there is none."""
        async with self.project.open() as client:
            content = await SupabaseLedger(client).read_task_result(path)
        if content is None:
            raise ValueError(f"no result is kept under {path}")
        return content.encode()

    # The base class declares coroutines, the engines call both ways; so do Prefect's own ones.
    @async_dispatch(aread_path)
    def read_path(self, path: str) -> bytes:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Do the same from sync code."""
        return asyncio.run(self.aread_path(path))

    async def awrite_path(self, path: str, content: bytes) -> None:
        """Keep a result; the first one under a key stays."""
        async with self.project.open() as client:
            await SupabaseLedger(client).write_task_result(path, content.decode())

    @async_dispatch(awrite_path)
    def write_path(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, path: str, content: bytes
    ) -> None:
        """Do the same from sync code."""
        asyncio.run(self.awrite_path(path, content))
