"""Saves many connections: `python -m benchmarks.connections`.

On its standard input: `{"url": str, "first": int, "count": int}`. Half of them are of Business
Central, with an app registration each, half of Xledger, with a budget that allows a probe each
quarter of an hour. They have no records, and nothing is due.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import BlockDocumentCreate

from blocks import BusinessCentral, Xledger
from kvitt.domain.integrations import Integration
from kvitt.ledger import SupabaseLedger
from kvitt.project import open_project

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import BlockDocument

_AT_ONCE = 4


async def save(given: dict[str, Any]) -> None:
    """Save an integration and a block for each."""
    url, key = os.environ["SUPABASE_URL"], os.environ["SUPABASE_SECRET_KEY"]
    async with open_project(url, key) as client:
        ledger = SupabaseLedger(client)
        for number in range(given["first"], given["count"]):
            await ledger.save_integration(_integration(number))
    async with get_client() as prefect:
        kinds = [await _saved(prefect, number, given["url"]) for number in (0, 1)]
        lanes = [range(given["first"] + n, given["count"], _AT_ONCE) for n in range(_AT_ONCE)]
        await asyncio.gather(*(_copy(prefect, kinds, lane, given["url"]) for lane in lanes))


async def _saved(prefect: PrefectClient, number: int, url: str) -> BlockDocument:
    """Save one as a person would; what comes after it is of its type and schema."""
    kind = Xledger if number % 2 else BusinessCentral
    await kind.model_validate(_content(number, url)).asave(_name(number), overwrite=True)
    slug = kind.get_block_type_slug()
    return await prefect.read_block_document_by_name(_name(number), slug)


async def _copy(
    prefect: PrefectClient, kinds: list[BlockDocument], numbers: range, url: str
) -> None:
    for number in numbers:
        if number >= len(kinds):
            kind = kinds[number % 2]
            document = BlockDocumentCreate(
                name=_name(number),
                data=_content(number, url),
                block_schema_id=kind.block_schema_id,
                block_type_id=kind.block_type_id,
            )
            await prefect.create_block_document(document, include_secrets=False)


def _name(number: int) -> str:
    return f"probed-{number:04}"


def _content(number: int, url: str) -> dict[str, Any]:
    if number % 2:
        return {"token": f"token-{number}", "api_url": f"{url}/graphql"}
    return {
        "tenant_id": _name(number),
        "company_id": "3f5c2f0a-7a3e-4c55-8c55-aa2d3a6f0001",
        "client_id": _name(number),
        "client_secret": "secret",
        "api_url": url,
        "login_url": url,
    }


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
