"""Loading a block with a type that checkers understand, and an error that says what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from prefect.blocks.core import Block

B = TypeVar("B", bound="Block")


class BlockMissing(LookupError):
    """A block document that something names does not exist."""


async def load_block(kind: type[B], name: str) -> B:
    """Load the block document of that type and name; BlockMissing where there is none.

    `Block.aload` is typed as returning any block, and answers a missing one with a bare ValueError.
    """
    try:
        return await kind.aload(name)
    except ValueError as error:
        slug = kind.get_block_type_slug()
        raise BlockMissing(
            f"there is no block {slug}/{name}: create it in the Prefect UI under Blocks, or with "
            f"{kind.__name__}(...).save({name!r})"
        ) from error
