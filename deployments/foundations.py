"""What the deployments stand on: the work pool, and where task results are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectNotFound

from blocks import SupabaseProject, TaskResults
from blocks.loading import BlockMissing, load_block

if TYPE_CHECKING:
    from prefect.client.schemas.objects import WorkPool


async def ensure_task_results(project: str) -> None:
    """Save the block that keeps task results, if it is not there.

    It is saved here, once, since Prefect wants result storage saved before it is used, and two
    processes that save a new block type at once collide.
    """
    try:
        await load_block(TaskResults, project)
    except BlockMissing:
        block = TaskResults(project=await load_block(SupabaseProject, project))
        await block.asave(project)


async def ensure_pool(name: str) -> WorkPool:
    """Return the work pool, made of type process if it is not there; one that is there stays."""
    async with get_client() as prefect:
        try:
            return await prefect.read_work_pool(name)
        except ObjectNotFound:
            return await prefect.create_work_pool(WorkPoolCreate(name=name, type="process"))
