"""Saves many integrations that are due at one moment: `python -m benchmarks.enrolment`.

On its standard input: `{"prefix": str, "count": int, "due": ISO time, "pool": str, "type": str}`.
They have no records: what is measured is how a period begins, not how long an export takes.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

from deployments.foundations import ensure_pool
from flows.deployments import Change, apply, plan
from flows.sync import PROJECT
from kvitt import planning
from kvitt.domain.integrations import Integration
from kvitt.ledger import SupabaseLedger
from kvitt.project import open_project

if TYPE_CHECKING:
    from flows.deployments import Step

_AT_ONCE = 4


async def enrol(given: dict[str, Any]) -> None:
    """Save the integrations, write their calendars, deploy them into a pool."""
    due = datetime.fromisoformat(given["due"])
    names = [f"{given['prefix']}-{number:03}" for number in range(given["count"])]
    integrations = [_integration(name, due) for name in names]
    url, key = os.environ["SUPABASE_URL"], os.environ["SUPABASE_SECRET_KEY"]
    async with open_project(url, key) as client:
        ledger = SupabaseLedger(client)
        for integration in integrations:
            await ledger.save_integration(integration)
            await planning.write_ahead(ledger, integration)
    await ensure_pool(given["pool"], given["type"])
    steps = await plan(integrations, project=PROJECT, pool=given["pool"])
    new = [step for step in steps if step.change is Change.CREATE]
    await asyncio.gather(*(_deploy(new[i::_AT_ONCE], given["pool"]) for i in range(_AT_ONCE)))


async def _deploy(steps: list[Step], pool: str) -> None:
    await apply(steps, project=PROJECT, pool=pool)


def _integration(name: str, due: datetime) -> Integration:
    """Return one that is due at that minute, once a day."""
    return Integration.model_validate(
        {
            "id": name,
            "organisation": "Teater Nordvest",
            "vendor": "xledger",
            "connection": "nordvest",
            "cron": f"{due.minute} {due.hour} * * *",
            "time_zone": "UTC",
            "first_period": due,
            "book_currency": "NOK",
            "mapping": {"source": name[-20:]},  # all of them write into the same books
        }
    )


if __name__ == "__main__":
    asyncio.run(enrol(json.load(sys.stdin)))
