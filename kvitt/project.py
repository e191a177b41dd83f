"""One Supabase project, opened: the client that the ledger and the Edge Function share."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx
from supabase import AsyncClient, AsyncClientOptions, AsyncSupabaseException, acreate_client

from kvitt.domain.errors import LedgerRefused

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

SCHEMA = "kvitt"

# The callers bound each call by what it is for (asyncio.timeout). What is bounded here is only what
# they cannot see: how long it takes to connect, and a connection that has died without a word. A
# hosted function may run for 400 s.
_TIMEOUT = httpx.Timeout(420, connect=10)

# Many runs may share a client: one whose function hangs must not keep another one's lease from
# being renewed for want of a connection.
_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=100)


@asynccontextmanager
async def open_project(url: str, key: str) -> AsyncGenerator[AsyncClient]:
    """Open a project by its URL and its secret key; no request is made yet.

    Raises LedgerRefused for what cannot be an address or a key.

    Making a client costs 33 ms (measured), so one serves a whole run, or many at once.
    """
    async with httpx.AsyncClient(timeout=_TIMEOUT, limits=_LIMITS) as http:
        options = AsyncClientOptions(
            schema=SCHEMA,
            httpx_client=http,
            auto_refresh_token=False,
            persist_session=False,
            postgrest_client_retry=False,  # the ledger owns its retries
        )
        try:
            client = await acreate_client(url, key, options)
        except AsyncSupabaseException as error:
            raise LedgerRefused(
                f"{url!r} and its key open no Supabase project: {error}. Give its address, like "
                "https://abcdefgh.supabase.co, and a key that begins with sb_secret_",
                code="KV003",
            ) from error
        yield client
