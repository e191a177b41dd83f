"""Saves many connections: `python -m benchmarks.connections`.

On its standard input: `{"url": str, "count": int}`. Half of them are of Business Central, with an
app registration each, half of Xledger, with a budget that allows a probe each quarter of an hour.
They have no records, and nothing is due.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from blocks import BusinessCentral, Xledger
from kvitt.domain.integrations import Integration
from kvitt.ledger import SupabaseLedger
from kvitt.project import open_project

if TYPE_CHECKING:
    from prefect.blocks.core import Block

_AT_ONCE = 4


async def save(given: dict[str, Any]) -> None:
    """Save an integration and a block for each."""
    url, key = os.environ["SUPABASE_URL"], os.environ["SUPABASE_SECRET_KEY"]
    numbers = range(given["count"])
    async with open_project(url, key) as client:
        ledger = SupabaseLedger(client)
        for number in numbers:
            await ledger.save_integration(_integration(number))
    for first in (0, 1):  # two processes that save a new block type at once would collide
        await _block(first, given["url"]).asave(_name(first), overwrite=True)
    lanes = [numbers[start + 2 :: _AT_ONCE] for start in range(_AT_ONCE)]
    await asyncio.gather(*(_save(lane, given["url"]) for lane in lanes))


async def _save(numbers: range, url: str) -> None:
    for number in numbers:
        await _block(number, url).asave(_name(number), overwrite=True)


def _name(number: int) -> str:
    return f"probed-{number:04}"


def _block(number: int, url: str) -> Block:
    if number % 2:
        return Xledger(token=f"token-{number}", api_url=f"{url}/graphql")  # pyright: ignore[reportArgumentType] - read as a secret
    return BusinessCentral(
        tenant_id=_name(number),
        company_id="3f5c2f0a-7a3e-4c55-8c55-aa2d3a6f0001",
        client_id=_name(number),
        client_secret="secret",  # noqa: S106 # pyright: ignore[reportArgumentType] - no real one
        api_url=url,
        login_url=url,
    )


def _integration(number: int) -> Integration:
    xledger = bool(number % 2)
    return Integration.model_validate(
        {
            "id": _name(number),
            "organisation": "Teater Nordvest",
            "vendor": "xledger" if xledger else "business-central",
            "connection": _name(number),
            "cron": "0 6 1 1 *",
            "time_zone": "UTC",
            "first_period": datetime(2090, 1, 1, 6, tzinfo=UTC),
            "book_currency": "NOK",
            "limits": {"budget": {"requests": 100_000}} if xledger else {},
        }
    )


if __name__ == "__main__":
    asyncio.run(save(json.load(sys.stdin)))
