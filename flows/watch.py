"""The flow `watch`: looks after everything, so that no period is missed unseen.

Each five minutes, in this order:

1. it gives a sign of life, for the other watcher to see;
2. it writes the calendar ahead;
3. it plans the runs of the next half hour that Prefect's schedules lack, as where clocks change;
4. it brings Prefect's deployments into line with the integrations;
5. it marks runs as crashed that Prefect shows as running, and that nobody works on;
6. it notes what is late, missed, uncertain, failed, stuck or silent, and tells what is new;
7. it starts a run of each integration that has a period overdue, or an uncertain one whose time has
   come. One too many is harmless.

Each step is tried whatever became of the one before it.
"""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from prefect import flow, get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.deployments import arun_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed, Crashed, Failed, Scheduled

from blocks import SupabaseProject
from blocks.loading import load_block
from flows import deployments
from flows.incidents import tell
from flows.sync import PROJECT, sync
from kvitt import planning
from kvitt.domain.calendar import lacking
from kvitt.domain.incidents import IncidentKind
from kvitt.domain.integrations import Scheduler
from kvitt.domain.periods import PeriodState, key_of
from kvitt.ledger import SupabaseLedger

if TYPE_CHECKING:
    from collections.abc import Generator

    from prefect.client.schemas.objects import FlowRun, State

    from kvitt.ledger.rows import Integrations, Work

POOL = "kvitt"
"""The work pool of the deployments, unless told else."""

# A run that is on time needs no help. What is older than this has no run, or one that is late.
_OVERDUE = timedelta(minutes=2)
# Less than Prefect's scheduler plans ahead (an hour at least): what it lacks, it does not have.
_AHEAD = timedelta(minutes=30)
# One run for one try at a period; where that run never begins, as without a worker, a further one.
_PATIENCE = timedelta(minutes=15)
# Of a run that works, the ledger hears each half minute.
_UNHEARD_OF = timedelta(minutes=10)


@flow(name="watch", flow_run_name="watch", persist_result=False)
async def watch(project: str = PROJECT, pool: str = POOL) -> State[None]:
    """Look after all integrations: calendar, deployments, dead runs, incidents, overdue periods."""
    supabase = await load_block(SupabaseProject, project)
    async with supabase.open() as client:
        ledger = SupabaseLedger(client)
        await ledger.beat("watch", {"every_seconds": 300})
        integrations = await ledger.read_integrations()
        troubles: dict[str, str] = {}
        for integration in integrations.valid:
            if integration.enabled:
                with _going_on(troubles, integration.id):
                    await planning.write_ahead(ledger, integration)
        with _going_on(troubles, "runs ahead"):
            await _plan_ahead(troubles, ledger, integrations, project)
        unaligned: dict[str, str] = {}
        with _going_on(unaligned, "all integrations"):
            unaligned.update(await _align(ledger, integrations, project, pool))
        troubles.update({f"deployment of {name}": why for name, why in unaligned.items()})
        with _going_on(troubles, "dead runs"):
            await _end_dead_runs(ledger, project)
        await ledger.note_findings(IncidentKind.UNREADABLE, _unreadable(integrations))
        await ledger.note_findings(IncidentKind.UNALIGNED, _unaligned(unaligned))
        told = await tell(ledger)
        started = 0
        for work in await ledger.integrations_with_work():
            if _is_overdue(work):
                with _going_on(troubles, work.integration_id):
                    started += await _start(work)
    words = f"{started} overdue, each with a run; {len(told)} told"
    if integrations.broken:
        told_broken = "; ".join(f"{name}: {why}" for name, why in integrations.broken.items())
        troubles["integrations"] = f"cannot be read, and are not worked on: {told_broken}"
    if troubles:
        wrong = "; ".join(f"{where}: {what}" for where, what in troubles.items())
        return Failed(message=f"{wrong}. The rest was done: {words}")
    return Completed(message=words)


@contextmanager
def _going_on(troubles: dict[str, str], where: str) -> Generator[None]:
    """Keep what goes wrong in one place from stopping the watch over all others."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - it is told, and the run ends as failed
        troubles[where] = f"{type(error).__name__}: {error}"
        get_run_logger().exception("%s could not be looked after", where)


def _unreadable(integrations: Integrations) -> dict[str, str]:
    return {
        name: f"{name}: its row cannot be read, so that nobody works on it: {why}. Mend it with "
        "kvitt integrations import"
        for name, why in integrations.broken.items()
    }


def _unaligned(failed: dict[str, str]) -> dict[str, str]:
    return {
        name: f"{name}: Prefect could not be brought into line with the table of integrations: "
        f"{why}. Until it is, its runs are as they were before. Try it by hand: kvitt plan, then "
        "kvitt apply"
        for name, why in failed.items()
    }


async def _plan_ahead(
    troubles: dict[str, str], ledger: SupabaseLedger, integrations: Integrations, project: str
) -> None:
    """Create the runs of the next half hour that Prefect's schedules lack, of those it schedules.

    Done before deployments change: right after, Prefect has not yet made their runs anew.
    """
    there = await deployments.deployment_ids(project)
    for integration in integrations.valid:
        by_prefect = integration.enabled and integration.scheduler is not Scheduler.PG_CRON
        if by_prefect and integration.id in there:
            with _going_on(troubles, f"runs ahead of {integration.id}"):
                await _plan_ahead_of(ledger, integration.id, UUID(there[integration.id]))


async def _plan_ahead_of(ledger: SupabaseLedger, integration: str, deployment: UUID) -> None:
    now = datetime.now(UTC)
    until = now + _AHEAD
    due = await ledger.read_planned(integration, after=now, until=until)
    if not due:
        return
    async with get_client() as prefect:
        runs: list[FlowRun] = await prefect.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                deployment_id=FlowRunFilterDeploymentId(any_=[deployment]),
                expected_start_time=FlowRunFilterExpectedStartTime.model_validate(
                    {"after_": now, "before_": until}
                ),
            )
        )
        scheduled = [run.expected_start_time for run in runs if run.expected_start_time]
        for moment in lacking(due, scheduled):
            key = key_of(integration, moment)
            await prefect.create_flow_run_from_deployment(
                deployment,
                parameters={"trigger": "watch"},
                state=Scheduled(scheduled_time=moment),
                idempotency_key=key,
            )
            get_run_logger().info("%s: Prefect's schedule lacks it; its run is planned", key)


async def _align(
    ledger: SupabaseLedger, integrations: Integrations, project: str, pool: str
) -> dict[str, str]:
    """Bring the deployments into line. The runs that this deletes are in the calendar all the same.

    What was late among them is overdue, and started below. Returns what failed, by integration.
    """
    failed: dict[str, str] = {}
    steps = await deployments.plan(
        integrations.valid, project=project, pool=pool, untouched=set(integrations.broken)
    )
    try:
        await deployments.apply(steps, project=project, pool=pool)
    except deployments.NotAligned as error:
        failed.update(error.failed)
        get_run_logger().error("%s", error)
    await ledger.name_deployments(await deployments.deployment_ids(project))
    for step in steps:
        if step.change is not deployments.Change.KEEP and step.name not in failed:
            get_run_logger().info("%s sync/%s: %s", step.change, step.name, step.why)
    return failed


async def _end_dead_runs(ledger: SupabaseLedger, project: str) -> None:
    """Mark runs as crashed that Prefect shows as running, and that the ledger has not heard of.

    Their process is gone. The ledger has long let others take over; but Prefect goes on showing
    them as running, and counts them where runs are limited.
    """
    at_work = await ledger.runs_at_work(_UNHEARD_OF)
    before = datetime.now(UTC) - _UNHEARD_OF
    async with get_client() as prefect:
        running: list[FlowRun] = await prefect.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[sync.name])),
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING])),
                start_time=FlowRunFilterStartTime.model_validate({"before_": before}),
            ),
        )
        for run in running:
            if str(run.id) in at_work or run.parameters.get("project", PROJECT) != project:
                continue
            why = f"the ledger has not heard of this run for {_UNHEARD_OF}: its process is gone"
            await prefect.set_flow_run_state(run.id, Crashed(message=why), force=True)
            get_run_logger().warning("%s is marked as crashed: %s", run.name, why)


def _is_overdue(work: Work) -> bool:
    """Tell by the ledger's clock: ours may be wrong."""
    return work.state is PeriodState.UNCERTAIN or work.late_seconds >= _OVERDUE.total_seconds()


async def _start(work: Work) -> int:
    """Start a run of an integration's deployment; returns how many runs that are."""
    key = key_of(work.integration_id, work.due_at)
    window = int(datetime.now(UTC).timestamp() // _PATIENCE.total_seconds())
    name = f"sync/{work.integration_id}"
    try:
        run = await arun_deployment(
            name,
            parameters={"trigger": "watch"},
            timeout=0,
            idempotency_key=f"{key}/{work.fence}/{window}",
        )
    except ObjectNotFound as missing:
        raise LookupError(f"{key} is overdue, and there is no deployment {name}") from missing
    get_run_logger().warning(
        "%s is %s, %d s after it was due: run %s", key, work.state, work.late_seconds, run.name
    )
    return 1
