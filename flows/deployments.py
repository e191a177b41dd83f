"""One deployment of `sync` per integration, with its cron and zone, made from the table.

`plan` compares and changes nothing; `apply` does what the plan says. Both are asked by the command
line and, each five minutes, by the flow `watch`, which is why they lie here.

A deployment that is as it should be is not touched: Prefect deletes and recreates the coming runs
of whatever is redeployed, and deletes late ones of what is paused. Those are not lost: the calendar
has their periods, and `watch` starts what is overdue.

The calendar is ours: a cron expression that Prefect cannot read, like `0 6 * * 5L`, makes a
deployment without a schedule, whose periods are started by `watch`, or by pg_cron.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Any

from cronsim import CronSimError
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterTags,
    FlowFilter,
    FlowFilterName,
)
from prefect.client.schemas.schedules import CronSchedule
from prefect.types.entrypoint import EntrypointType

from flows.sync import sync
from kvitt.domain.calendar import due_times
from kvitt.domain.errors import KvittError
from kvitt.domain.integrations import Scheduler

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

    from kvitt.domain.integrations import Integration

TAG = "kvitt"
ENTRYPOINT = "flows.sync.sync"
# One slug for ever: Prefect then keeps the schedule's identity when its cron changes.
_SLUG = "periods"
_PAGE = 200
_SHOWN = 2


class Change(StrEnum):
    """What is to be done with a deployment."""

    CREATE = "create"
    UPDATE = "update"
    KEEP = "keep"
    PAUSE = "pause"


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One line of a plan. `why` says what differs, for a person."""

    name: str
    change: Change
    why: str = ""
    integration: Integration | None = None
    deployment_id: UUID | None = None


async def plan(
    integrations: Sequence[Integration],
    *,
    project: str,
    pool: str,
    untouched: Collection[str] = (),
) -> list[Step]:
    """Compare the integrations with Prefect's deployments; changes nothing.

    `untouched` are integrations that are there but cannot be read: theirs stay as they are.
    """
    async with get_client() as prefect:
        there = {d.name: d for d in await _ours(prefect, project)}
    wanted = {i.id: i for i in integrations}
    steps = [_step(i, there.get(i.id), project, pool) for i in integrations]
    return steps + [
        Step(name=name, change=Change.PAUSE, why="its integration is gone", deployment_id=d.id)
        for name, d in there.items()
        if name not in wanted and name not in untouched and not d.paused
    ]


class NotAligned(KvittError):
    """Some deployments are not as planned; the others are. `failed` says why, by integration."""

    def __init__(self, failed: Mapping[str, str]) -> None:
        told = "; ".join(f"sync/{name}: {why}" for name, why in failed.items())
        super().__init__(f"not brought into line, while the rest was: {told}")
        self.failed = failed


async def apply(steps: Sequence[Step], *, project: str, pool: str) -> None:
    """Do what a plan says: each step, whatever becomes of the others. NotAligned if one failed."""
    failed: dict[str, str] = {}
    for step in steps:
        try:
            await _do(step, project, pool)
        except Exception as error:  # noqa: BLE001 - it is told by name, and the others go on
            failed[step.name] = f"{type(error).__name__}: {' '.join(str(error).split())}"
    if failed:
        raise NotAligned(failed)


async def _do(step: Step, project: str, pool: str) -> None:
    if step.change is Change.PAUSE and step.deployment_id is not None:
        async with get_client() as prefect:
            await prefect.pause_deployment(step.deployment_id)
    elif step.change in (Change.CREATE, Change.UPDATE) and step.integration is not None:
        await _deploy(step.integration, project, pool)


async def deployment_ids(project: str) -> dict[str, str]:
    """Return the id of each integration's deployment, which the second scheduler needs to know."""
    async with get_client() as prefect:
        return {d.name: str(d.id) for d in await _ours(prefect, project)}


async def _deploy(integration: Integration, project: str, pool: str) -> None:
    deployment = await sync.ato_deployment(
        integration.id,
        schedules=[
            DeploymentScheduleCreate(schedule=schedule, active=active, slug=_SLUG)
            for schedule, active in _schedules(integration)
        ],
        paused=not integration.enabled,
        work_pool_name=pool,
        entrypoint_type=EntrypointType.MODULE_PATH,
        **_settings(integration, project),
    )
    deployment_id = await deployment.aapply()
    if not deployment.schedules:  # then Prefect leaves those that were there before
        async with get_client() as prefect:
            for schedule in await prefect.read_deployment_schedules(deployment_id):
                await prefect.delete_deployment_schedule(deployment_id, schedule.id)


def _schedules(integration: Integration) -> list[tuple[CronSchedule, bool]]:
    """Return the schedule of a deployment and whether it is on; none that Prefect cannot read."""
    try:
        schedule = CronSchedule(cron=integration.cron, timezone=integration.time_zone)
    except ValueError:
        return []
    return [(schedule, _scheduled_by_prefect(integration))]


def _note(integration: Integration) -> str:
    """Say who starts the periods of a schedule that Prefect cannot read."""
    if _schedules(integration):
        return ""
    who = "watch starts" if integration.scheduler is Scheduler.PREFECT else "pg_cron starts"
    return f"no schedule, since Prefect cannot read `{integration.cron}`: {who} its periods"


def _scheduled_by_prefect(integration: Integration) -> bool:
    """Tell whether the deployment's own schedule is on; pg_cron starts the others."""
    return integration.scheduler is not Scheduler.PG_CRON


def _settings(integration: Integration, project: str) -> dict[str, Any]:
    """Return what is compared and deployed as it is."""
    return {
        "parameters": {"integration": integration.id, "project": project},
        "tags": [TAG, integration.vendor],
        "description": (
            f"{integration.organisation} → {integration.vendor} ({integration.connection}), "
            f"`{integration.cron}` in {integration.time_zone}"
            + (f" ({note})" if (note := _note(integration)) else "")
        ),
    }


def _step(
    integration: Integration, there: DeploymentResponse | None, project: str, pool: str
) -> Step:
    if there is None:
        return Step(
            name=integration.id,
            change=Change.CREATE,
            why="; ".join(filter(None, ["it is new", _note(integration)])),
            integration=integration,
        )
    differs = [
        _difference(name, actual, wanted)
        for name, (wanted, actual) in _compared(integration, there, project, pool).items()
        if wanted != actual
    ]
    return Step(
        name=integration.id,
        change=Change.UPDATE if differs else Change.KEEP,
        why="; ".join(filter(None, [*differs, _note(integration)])),
        integration=integration,
        deployment_id=there.id,
    )


def _compared(
    integration: Integration, there: DeploymentResponse, project: str, pool: str
) -> dict[str, tuple[Any, Any]]:
    wanted = _settings(integration, project)
    schedules = [
        (getattr(s.schedule, "cron", None), getattr(s.schedule, "timezone", None), s.active)
        for s in there.schedules
    ]
    return {
        "schedule": (
            [(s.cron, s.timezone, active) for s, active in _schedules(integration)],
            schedules,
        ),
        "enabled": (integration.enabled, not there.paused),
        "work pool": (pool, there.work_pool_name),
        "entrypoint": (ENTRYPOINT, there.entrypoint),
        "parameters": (wanted["parameters"], there.parameters),
        "tags": (sorted(wanted["tags"]), sorted(there.tags)),
        "description": (wanted["description"], there.description),
    }


def _difference(name: str, actual: Any, wanted: Any) -> str:
    """Say what a setting is and what it becomes; of schedules, also what is due by them."""
    if name != "schedule":
        return f"{name}: {actual} → {wanted}"
    return f"schedule: {_scheduled(actual)} → {_scheduled(wanted)}"


def _scheduled(schedules: list[tuple[str | None, str | None, bool]]) -> str:
    return " and ".join(_due_by(*schedule) for schedule in schedules) or "none"


def _due_by(cron: str | None, zone: str | None, active: bool) -> str:  # noqa: FBT001 - as it is kept
    words = f"`{cron}` {zone}" + ("" if active else " (off)")
    try:
        due = islice(due_times(cron or "", zone or "", after=datetime.now(UTC)), _SHOWN)
        return f"{words}, due {', '.join(f'{moment:%Y-%m-%d %H:%M}' for moment in due)} UTC"
    except (CronSimError, ValueError, LookupError):
        return words  # somebody else's, which our calendar cannot read


async def _ours(prefect: PrefectClient, project: str) -> list[DeploymentResponse]:
    """Return the deployments of `sync` that carry our tag and are of this project, page by page."""
    found: list[DeploymentResponse] = []
    while True:
        page = await prefect.read_deployments(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[sync.name])),
            deployment_filter=DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG])),
            offset=len(found),
            limit=_PAGE,
        )
        found += page
        if len(page) < _PAGE:
            return [d for d in found if d.parameters.get("project", project) == project]
