"""The clients that probe, opened with their blocks, and kept by a process from run to run.

A client that is kept has its access token still, so that a probe is one request. A process that
lives for one run, as of a stock worker, asks for a token with each probe of Microsoft's.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectHTTPStatusError
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

# As many as Prefect hands out at a time at most, where it minds what it is asked for.
_PAGE = 200
# A client remembers each token that it had, so as never to show it.
_LIFE_SECONDS = 86_400


async def open_probers(project: str, due: Sequence[Due]) -> Mapping[str, Prober | LookupError]:
    """Open a project's connections that are to be probed, by name, with what this process has.

    Their blocks are read anew each time, all of a vendor's together: a changed secret holds at
    once.
    """
    kept = _kept.setdefault((asyncio.get_running_loop(), project), _Probers())
    found: dict[str, Prober | LookupError] = {}
    for vendor in sorted({each.vendor for each in due}):
        documents = await _documents(CONNECTIONS[vendor])
        for each in due:
            if each.vendor == vendor:
                found[each.name] = kept.open(each, documents.get(each.connection))
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class _Kept:
    """A client, what its block held, and until when it is used by our monotonic clock."""

    document: Mapping[str, Any]
    prober: Prober
    until: float


class _Probers:
    """One line, and on it a client for each connection, as long as its block stays as it is."""

    def __init__(self) -> None:
        self.line = Line(most=AT_ONCE)
        self._clients: dict[str, _Kept] = {}

    def open(self, due: Due, document: Mapping[str, Any] | None) -> Prober | LookupError:
        kind = CONNECTIONS[due.vendor]
        if document is None:
            self._clients.pop(due.name, None)
            slug = kind.get_block_type_slug()
            return BlockMissing(
                f"there is no block {slug}/{due.connection}: create it in the Prefect UI"
            )
        kept = self._clients.get(due.name)
        if kept is None or kept.document != document or time.monotonic() >= kept.until:
            try:
                block = kind.model_validate(document)
                purse = Allotment()
                prober = Prober(vendor=block.open_to_probe(purse, self.line), purse=purse)
            except ValidationError as error:  # it hides its input, which may be a secret
                return LookupError(f"the block of {due.name} cannot be used: {error}")
            until = time.monotonic() + _LIFE_SECONDS
            kept = self._clients[due.name] = _Kept(document=document, prober=prober, until=until)
        return kept.prober


async def _documents(kind: type[Block]) -> dict[str, Mapping[str, Any]]:
    """Return what the blocks of a type hold, by name; none where Prefect does not know the type.

    A server of 3.8.8 hands out all of them at once, whatever it is asked for, and so would never
    come to a last page.
    """
    found: dict[str, Mapping[str, Any]] = {}
    async with get_client() as prefect:
        while True:
            before = len(found)
            try:
                page = await prefect.read_block_documents_by_type(
                    kind.get_block_type_slug(), offset=before, limit=_PAGE
                )
            except PrefectHTTPStatusError as error:
                if error.response.status_code == HTTPStatus.NOT_FOUND:
                    return found
                raise
            found |= {str(each.name): each.data for each in page}
            if len(page) < _PAGE or len(found) == before:
                return found


# By loop, since the line's connections belong to one, and by project: each has its own ledger.
_kept: dict[tuple[asyncio.AbstractEventLoop, str], _Probers] = {}
