"""The checkpoint, put together: all its items, the site that they look at, and the flow.

The flow is here and not in `flows/`, since it looks at what this package declares, and imports
point down only.
"""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
from prefect import flow, get_run_logger
from prefect.artifacts import acreate_table_artifact
from prefect.events import emit_event
from prefect.states import Completed, Failed

from blocks import SupabaseProject
from blocks.loading import BlockMissing, load_block
from blocks.vendors import address_of, open_vendor
from deployments import orchestration as prefects
from deployments.orchestration import PrefectSite
from flows.sync import PROJECT
from flows.watch import POOL
from kvitt.checkpoint import Group, Item, Report, Verdict, foundation, look, orchestration, services
from kvitt.checkpoint import data_flow as flow_of_data
from kvitt.retries import explain_retries

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection

    from prefect.client.schemas.objects import State

explain_retries()

ITEMS: tuple[Item, ...] = tuple(
    sorted(
        (
            *foundation.ITEMS,
            *services.ITEMS,
            *prefects.ITEMS,
            *orchestration.ITEMS,
            *flow_of_data.ITEMS,
        ),
        key=lambda item: list(Group).index(item.group),
    )
)
"""All of them, group by group."""

EVENT = "kvitt.checkpoint.failed"


async def look_at(
    *, project: str = PROJECT, pool: str = POOL, groups: Collection[Group] = ()
) -> Report:
    """Look at everything, or at some groups and what they need. Raises nothing: it reports."""
    async with _site(project, pool) as site:
        return await look(ITEMS, site, groups=groups)


@asynccontextmanager
async def _site(project: str, pool: str) -> AsyncGenerator[PrefectSite]:
    url, key = os.environ.get("SUPABASE_URL"), os.environ.get("SUPABASE_SECRET_KEY")
    if not (url and key):
        url, key = await _of_block(project)
    site = PrefectSite(url=url, key=key, open_vendor=open_vendor, address_of=address_of)
    site.project, site.pool = project, pool
    async with site:
        yield site


async def _of_block(project: str) -> tuple[str | None, str | None]:
    """Return address and key of the project; None where its block cannot be had."""
    try:
        block = await load_block(SupabaseProject, project)
    except (BlockMissing, httpx.HTTPError, ValueError):
        return None, None
    return block.url, block.secret_key.get_secret_value()


@flow(name="checkpoint", flow_run_name="checkpoint", persist_result=False)
async def checkpoint(project: str = PROJECT, pool: str = POOL) -> State[None]:
    """Look whether all that kvitt depends on is there, and works together; tell what is not.

    A failed item ends the run as failed, with one event for all of them. Nothing is written to a
    vendor, and the run says what it cost.
    """
    report = await look_at(project=project, pool=pool)
    await acreate_table_artifact(
        key=f"checkpoint-{project}", table=rows(report), description=report.summary
    )
    if not report.failed:
        return Completed(message=report.summary)
    get_run_logger().warning("%s", report.as_text())
    emit_event(
        event=EVENT,
        resource={
            "prefect.resource.id": f"kvitt.checkpoint.{project}",
            "prefect.resource.name": project,
        },
        payload={"text": report.as_text(), "items": [result.item for result in report.failed]},
    )
    return Failed(message=report.as_text())


def rows(report: Report) -> list[dict[str, Any]]:
    """Return the results as a table of the UI, what failed first."""
    first = sorted(report.results, key=lambda result: result.verdict is not Verdict.FAILED)
    return [
        {
            "": result.verdict,
            "item": result.item,
            "checks": result.checks,
            "seen": result.seen,
            "why it matters": result.why,
            "what to do": result.remedy or "",
        }
        for result in first
    ]
