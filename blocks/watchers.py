"""From an integration to the address of its watcher outside, which Prefect keeps as a secret."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from prefect.blocks.system import Secret

from blocks.loading import BlockMissing, load_block

if TYPE_CHECKING:
    from kvitt.domain.integrations import Integration

_log = logging.getLogger(__name__)


async def outside_watcher(integration: Integration) -> str | None:
    """Return the address that an integration pings, or None.

    A block that is missing is only logged: no sync stops for it, and the watcher, which hears
    nothing, speaks up by itself.
    """
    if integration.ping is None:
        return None
    try:
        block = await load_block(Secret[str], integration.ping)
    except BlockMissing as missing:
        _log.warning("%s pings nobody: %s", integration.id, missing)
        return None
    return block.get()
