"""Exports one period after the other, each told by a line of JSON; answers when it is settled."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from typing import Any

from kvitt import sync as way
from kvitt.edge import EdgeFunction
from kvitt.ledger import SupabaseLedger
from kvitt.ports import Trigger
from kvitt.project import open_project
from sandbox.ground import Books


async def export(told: dict[str, Any]) -> str:
    """Bring an integration's oldest period into the books; returns its key."""
    books = Books(vendor=told["vendor"], url=told["vendor_url"])
    async with open_project(told["url"], told["key"]) as project:
        ledger = SupabaseLedger(project)
        answer = await way.claim(ledger, told["integration"], Trigger())
        async with way.attempt(ledger, answer) as this:
            timeouts = this.integration.timeouts
            async with books.open(timeouts) as vendor:
                this.requests = vendor.requests
                await way.collect(this, EdgeFunction(project, seconds=timeouts.function))
                await way.export(this, vendor)
                receipt = await way.verify(this, vendor)
    return receipt["key"]


if __name__ == "__main__":
    for line in sys.stdin:
        print(asyncio.run(export(json.loads(line))), flush=True)
        gc.collect()
