"""What a child does: bring one integration up to date once, exactly as kvitt itself does.

`directly` is what flows/sync.py does, without Prefect. `in_prefect` is that flow.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from blocks import SupabaseProject
from blocks.vendors import CONNECTIONS
from deployments import integrations as deployments
from deployments.foundations import ensure_pool, ensure_task_results
from flows.sync import PROJECT
from flows.sync import sync as flow
from kvitt import sync as way
from kvitt.budget import open_budget
from kvitt.domain.errors import PeriodStopped
from kvitt.edge import EdgeFunction
from kvitt.ledger import SupabaseLedger
from kvitt.ports import ClaimOutcome, Trigger
from kvitt.project import open_project
from kvitt.vendors import VENDORS

if TYPE_CHECKING:
    from collections.abc import Mapping


POOL = "kvitt"
DONE = "done"


@dataclass(frozen=True, kw_only=True)
class Job:
    """Whom to bring up to date, and what is needed for it. `settings` are the vendor client's."""

    integration: str
    vendor: str
    settings: Mapping[str, Any]
    supabase_url: str
    supabase_key: str
    lease: float
    trigger: str = "schedule"


async def directly(job: Job) -> str:
    """Work on what is due, without Prefect; returns how it ended."""
    lease, trigger = timedelta(seconds=job.lease), Trigger(kind=job.trigger)
    async with open_project(job.supabase_url, job.supabase_key) as client:
        ledger = SupabaseLedger(client)
        while True:
            answer = await way.claim(ledger, job.integration, trigger, lease=lease)
            if answer.claim.outcome is not ClaimOutcome.CLAIMED:
                return answer.claim.outcome
            try:
                await _work(job, ledger, answer, EdgeFunction(client, seconds=15))
            except PeriodStopped as stopped:
                return type(stopped).__name__
            trigger = trigger.catching_up()


async def _work(
    job: Job, ledger: SupabaseLedger, answer: way.Answer, collector: EdgeFunction
) -> None:
    kind = VENDORS[job.vendor]
    async with way.attempt(ledger, answer) as this:
        settings = kind.settings.model_validate(job.settings)
        who = this.integration
        async with (
            open_budget(ledger, who.vendor, who.connection) as budget,
            kind.client(settings, who.timeouts, budget=budget) as vendor,
        ):
            this.requests = vendor.requests
            await way.warm_up(this, collector)
            await way.collect(this, collector)
            await way.export(this, vendor)
            await way.verify(this, vendor)


async def in_prefect(job: Job) -> str:
    """Run the real flow; its blocks say where everything is. Returns its final state's name."""
    # The flow leaves the length of the lease to its default, which a trial cannot wait for.
    (way.claim.__kwdefaults__ or {})["lease"] = timedelta(seconds=job.lease)
    state = await flow(job.integration, trigger=job.trigger, return_state=True)
    return state.name or state.type.value


async def connect(job: Job) -> str:
    """Save the Prefect block of a trial's own company."""
    await CONNECTIONS[job.vendor](**job.settings).asave(job.integration, overwrite=True)
    return DONE


async def deploy(job: Job) -> str:
    """Bring the deployment of one integration into line, as `kvitt apply` does for all."""
    async with open_project(job.supabase_url, job.supabase_key) as client:
        integration = await SupabaseLedger(client).read_integration(job.integration)
    steps = await deployments.plan([integration], project=PROJECT, pool=POOL)
    own = [step for step in steps if step.name == job.integration]
    await deployments.apply(own, project=PROJECT, pool=POOL)
    return DONE


async def lay_foundations(job: Job) -> str:
    """Save what all flows stand on: the project, where results are kept, the work pool.

    The vendors' block types, too: lanes that save a new one at once collide.
    """
    project = SupabaseProject(url=job.supabase_url, secret_key=SecretStr(job.supabase_key))
    await project.asave(PROJECT, overwrite=True)
    await ensure_task_results(PROJECT)
    await ensure_pool(POOL)
    for connection in CONNECTIONS.values():
        await connection.register_type_and_schema()
    return DONE
