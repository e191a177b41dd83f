"""Loading a block with a type that checkers understand, and an error that says what to do."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from prefect.blocks.core import Block

B = TypeVar("B", bound="Block")


class BlockMissing(LookupError):
    """A block document that something names does not exist."""


async def load_block(kind: type[B], name: str, *, max_age: float = 0) -> B:
    """Load the block document of that type and name; BlockMissing where there is none.

    With `max_age`, in seconds, one that this process loaded no longer ago than that will do: of
    many runs that start at once, one asks. What somebody changes in the UI holds after that time
    at the latest, and at once after `forget_block`.
    """
    if max_age <= 0:
        return await _load(kind, name)
    kept: _Kept[B] = _kept.setdefault((asyncio.get_running_loop(), kind, name), _Kept())
    async with kept.turn:
        if kept.block is None or time.monotonic() - kept.loaded_at > max_age:
            kept.block, kept.loaded_at = await _load(kind, name), time.monotonic()
        return kept.block


def forget_block(kind: type[Block], name: str) -> None:
    """Load it anew the next time, since what it holds was refused."""
    for key in [key for key in _kept if key[1:] == (kind, name)]:
        del _kept[key]


@dataclass(kw_only=True, slots=True)
class _Kept(Generic[B]):
    """A block that was loaded, and the turn of those who want it."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    block: B | None = None
    loaded_at: float = 0


# By loop as well: a lock belongs to one, and so do the clients that a block may open.
_kept: dict[tuple[asyncio.AbstractEventLoop, type[Block], str], _Kept[Any]] = {}


async def _load(kind: type[B], name: str) -> B:
    """Load it; `Block.aload` is typed as any block, and answers a missing one with ValueError."""
    try:
        return await kind.aload(name)
    except ValueError as error:
        slug = kind.get_block_type_slug()
        raise BlockMissing(
            f"there is no block {slug}/{name}: create it in the Prefect UI under Blocks, or with "
            f"{kind.__name__}(...).save({name!r})"
        ) from error
