"""What the deployments stand on: the work pool, and where task results are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectNotFound

from blocks import SupabaseProject, TaskResults
from blocks.loading import BlockMissing, load_block
from workers.warm import WarmWorker

if TYPE_CHECKING:
    from prefect.client.schemas.objects import WorkPool

WARM = WarmWorker.type


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


async def ensure_pool(name: str, kind: str = WARM) -> WorkPool:
    """Return the work pool, made if it is not there; one that is there stays, whatever its type.

    Warm by default: one process runs all flows. `process` starts one for each run.
    """
    async with get_client() as prefect:
        try:
            return await prefect.read_work_pool(name)
        except ObjectNotFound:
            template = WarmWorker.get_default_base_job_template() if kind == WARM else None
            wanted = WorkPoolCreate(name=name, type=kind, base_job_template=template or {})
            return await prefect.create_work_pool(wanted)
