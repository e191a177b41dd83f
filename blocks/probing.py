"""The clients that probe, opened with their blocks, and kept by a process from run to run.

A client that is kept has its access token still, so that a probe is one request. A process that
lives for one run, as of a stock worker, asks for a token with each probe of Microsoft's.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from prefect.client.orchestration import get_client
from pydantic import ValidationError

from blocks.loading import BlockMissing
from blocks.vendors import CONNECTIONS
from kvitt.budget import Allotment
from kvitt.health import AT_ONCE, Prober
from kvitt.vendors.http import Line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from prefect.blocks.core import Block

    from kvitt.ports import Due

# As many as Prefect hands out at a time.
_PAGE = 200


async def open_probers(due: Sequence[Due]) -> Mapping[str, Prober | LookupError]:
    """Open the connections that are to be probed, by name, with what this process has of them.

    Their blocks are read anew each time, all of a vendor's together: a changed secret holds at
    once.
    """
    kept = _kept.setdefault(asyncio.get_running_loop(), _Probers())
    found: dict[str, Prober | LookupError] = {}
    for vendor in sorted({each.vendor for each in due}):
        documents = await _documents(CONNECTIONS[vendor])
        for each in due:
            if each.vendor == vendor:
                found[each.name] = kept.open(each, documents.get(each.connection))
    return found


async def close_probers() -> None:
    """Close what this process has kept on this loop."""
    kept = _kept.pop(asyncio.get_running_loop(), None)
    if kept is not None:
        await kept.line.close()


class _Probers:
    """One line, and on it a client for each connection, as long as its block stays as it is."""

    def __init__(self) -> None:
        self.line = Line(most=AT_ONCE)
        self._clients: dict[str, tuple[Mapping[str, Any], Prober]] = {}

    def open(self, due: Due, document: Mapping[str, Any] | None) -> Prober | LookupError:
        kind = CONNECTIONS[due.vendor]
        if document is None:
            self._clients.pop(due.name, None)
            slug = kind.get_block_type_slug()
            return BlockMissing(
                f"there is no block {slug}/{due.connection}: create it in the Prefect UI"
            )
        content, prober = self._clients.get(due.name, (None, None))
        if prober is None or content != document:
            try:
                block = kind.model_validate(document)
                purse = Allotment()
                prober = Prober(vendor=block.open_to_probe(purse, self.line), purse=purse)
            except ValidationError as error:  # it hides its input, which may be a secret
                return LookupError(f"the block of {due.name} cannot be used: {error}")
            self._clients[due.name] = document, prober
        return prober


async def _documents(kind: type[Block]) -> dict[str, Mapping[str, Any]]:
    """Return what the blocks of a type hold, by name."""
    found: dict[str, Mapping[str, Any]] = {}
    async with get_client() as prefect:
        while True:
            page = await prefect.read_block_documents_by_type(
                kind.get_block_type_slug(), offset=len(found), limit=_PAGE
            )
            found |= {str(each.name): each.data for each in page}
            if len(page) < _PAGE:
                return found


# By loop: the line's connections belong to one.
_kept: dict[asyncio.AbstractEventLoop, _Probers] = {}
