"""What is looked at: a Supabase project, and the vendors of its integrations, each opened once."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Self

import httpx

from kvitt.budget import open_budget
from kvitt.checkpoint.items import Broken
from kvitt.ledger import SupabaseLedger
from kvitt.project import open_project

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from contextlib import AbstractAsyncContextManager

    from supabase import AsyncClient

    from kvitt.domain.integrations import Integration
    from kvitt.ports import Budget
    from kvitt.vendors import Client

_SECONDS = 20


class Site:
    """What the items look at, and what one of them leaves for the others.

    `url` and `key` are the project's; None where nobody says them. `open_vendor` opens the vendor
    of an integration to spend a budget, `address_of` says where its API is. `schema` is what the
    ledger's schema is, `integrations` those that can be read, and `unreadable` the
    others' ids, once that is known. What is entered into `stack` is left at the end.
    """

    def __init__(
        self,
        *,
        url: str | None,
        key: str | None,
        open_vendor: Callable[[Integration, Budget], AbstractAsyncContextManager[Client]],
        address_of: Callable[[Integration], Awaitable[str]],
    ) -> None:
        self.url = url
        self.key = key
        self.open_vendor = open_vendor
        self.address_of = address_of
        # Each request on a connection of its own: one that was kept may be gone by the next time.
        limits = httpx.Limits(max_keepalive_connections=0)
        self.http = httpx.AsyncClient(timeout=_SECONDS, limits=limits)
        self.schema: dict[str, Any] = {}
        self.integrations: list[Integration] | None = None
        self.unreadable: list[str] = []
        self._client: AsyncClient | None = None
        self.stack = AsyncExitStack()
        self._vendors: dict[tuple[str, str], Client] = {}
        self._turns: defaultdict[object, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._seen: dict[object, Any] = {}

    async def __aenter__(self) -> Self:
        await self.stack.enter_async_context(self.http)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stack.aclose()

    async def open(self) -> None:
        """Open the project. Raises LedgerRefused for what can be no address or no key."""
        opening = open_project(self.url or "", self.key or "")
        self._client = await self.stack.enter_async_context(opening)

    @property
    def client(self) -> AsyncClient:
        """The project, opened."""
        if self._client is None:
            raise Broken("the project is not open")
        return self._client

    @property
    def ledger(self) -> SupabaseLedger:
        """The ledger of the project."""
        return SupabaseLedger(self.client)

    @property
    def requests(self) -> dict[str, dict[str, int]]:
        """What each connection was asked so far, by purpose."""
        return {f"{v}/{name}": dict(c.requests) for (v, name), c in self._vendors.items()}

    async def vendor(self, who: Integration) -> Client:
        """Return the vendor of an integration, within its budget; one client for a connection.

        Raises LookupError where the block is missing, VendorError never: nothing is asked yet.
        """
        connection = who.vendor, who.connection
        async with self._turns[connection]:
            if connection not in self._vendors:
                budget = await self.stack.enter_async_context(open_budget(self.ledger, *connection))
                opening = self.open_vendor(who, budget)
                self._vendors[connection] = await self.stack.enter_async_context(opening)
            return self._vendors[connection]

    async def once(self, what: object, ask: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Ask something once, whoever wants to know it: an error is raised for each of them."""
        async with self._turns[what]:
            if what not in self._seen:
                try:
                    self._seen[what] = await ask()
                except Exception as error:  # noqa: BLE001 - kept, and raised below
                    self._seen[what] = error
        if isinstance(self._seen[what], Exception):
            raise self._seen[what]
        return self._seen[what]
