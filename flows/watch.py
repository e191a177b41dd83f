"""The flow `watch`: looks after the calendar, so that no period is missed unseen.

Each five minutes it writes the calendar ahead and starts a `sync` run for each integration that has
a period overdue, or an uncertain one whose time has come. Starting one too many is harmless.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from prefect import flow, get_run_logger
from prefect.deployments import arun_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed, Failed

from blocks import SupabaseProject
from blocks.loading import load_block
from flows.sync import PROJECT
from kvitt import planning
from kvitt.domain.periods import PeriodState
from kvitt.ledger import SupabaseLedger

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

    from kvitt.ledger.rpc import Work

# A run that is on time needs no help. What is older than this has no run, or one that is late.
_OVERDUE = timedelta(minutes=2)


@flow(name="watch", flow_run_name="watch", persist_result=False)
async def watch(project: str = PROJECT) -> State[None]:
    """Write the calendar ahead, and start what is overdue."""
    supabase = await load_block(SupabaseProject, project)
    async with supabase.open() as client:
        ledger = SupabaseLedger(client)
        integrations = await ledger.read_integrations()
        for integration in integrations.valid:
            if integration.enabled:
                await planning.write_ahead(ledger, integration)
        waiting = await ledger.integrations_with_work()
        await ledger.beat("watch")  # the second scheduler tells a person when this stops
    now = datetime.now(UTC)
    overdue = [work for work in waiting if _is_overdue(work, now)]
    missing = [work.integration_id for work in overdue if not await _start(work)]
    if integrations.broken:
        told = "; ".join(f"{name}: {why}" for name, why in integrations.broken.items())
        return Failed(message=f"these integrations cannot be read, and are not worked on: {told}")
    if missing:
        return Failed(
            name="No deployment",
            message=f"overdue, but without a deployment: {', '.join(missing)}; run `kvitt apply`",
        )
    return Completed(message=f"{len(overdue)} overdue, each with a run")


def _is_overdue(work: Work, now: datetime) -> bool:
    return work.state is PeriodState.UNCERTAIN or now - work.due_at >= _OVERDUE


async def _start(work: Work) -> bool:
    """Start a run of an integration's deployment; False where it has none."""
    try:
        run = await arun_deployment(
            f"sync/{work.integration_id}", parameters={"trigger": "watch"}, timeout=0
        )
    except ObjectNotFound:
        return False
    get_run_logger().warning(
        "%s has been due since %s and is %s: started run %s",
        work.integration_id,
        work.due_at,
        work.state,
        run.name,
    )
    return True
