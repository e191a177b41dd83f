"""Saves the blocks of the sandbox: `python -m sandbox.connections`, their fields as JSON on stdin.

A person does this once in the Prefect UI.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from blocks import BusinessCentral, SupabaseProject, Xledger
from flows.sync import PROJECT


async def save(given: dict[str, Any]) -> None:
    """Save a block for the project and for each vendor, and try each of them."""
    project = SupabaseProject(**given["supabase"])
    xledger = _named(Xledger, given["xledger"])
    business_central = _named(BusinessCentral, given["business_central"])
    for name, block in ((PROJECT, project), xledger, business_central):
        await block.asave(name, overwrite=True)
        print(await block.check())


def _named(kind: Any, fields: dict[str, Any]) -> tuple[str, Any]:
    name = fields.pop("name")
    return name, kind(**fields)


if __name__ == "__main__":
    asyncio.run(save(json.load(sys.stdin)))
