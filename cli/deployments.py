"""`kvitt plan` and `kvitt apply`: Prefect brought into line with the integrations."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from cli.command import Pool, Project
from cli.console import err, out
from cli.integrations import warn_of
from cli.ledger import open_ledger
from cli.server import demand_server

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from deployments.automations import Step as AutomationStep
    from flows.deployments import Step

PoolType = Annotated[
    str,
    typer.Option(
        help="Type of the work pool, where it is not there yet: kvitt-warm runs all flows in one "
        "process, process starts one for each run."
    ),
]
Notify = Annotated[
    str | None,
    typer.Option(
        envvar="KVITT_NOTIFY",
        help="The notification block that tells people, TYPE/NAME; remembered.",
    ),
]

_SIGNS = {
    "create": "[green]+[/]",
    "update": "[yellow]~[/]",
    "pause": "[red]-[/]",
    "remove": "[red]-[/]",
    "keep": "=",
}


def plan(project: Project = "kvitt", pool: Pool = "kvitt") -> None:
    """Show how Prefect's deployments and automations differ from ours; changes nothing."""

    async def work() -> None:
        _show_plan(await _plan(project, pool))
        from deployments import automations  # noqa: PLC0415 - Prefect is slow

        wanted, lacking = await automations.wanted_automations()
        _show_automations(await automations.plan_automations(wanted), lacking)
        await automations.remembered_block()  # raises where it is gone: nobody is told anything

    asyncio.run(work())


def apply(
    project: Project = "kvitt",
    pool: Pool = "kvitt",
    pool_type: PoolType = "kvitt-warm",
    notify: Notify = None,
) -> None:
    """Bring Prefect into line with the integrations: deployments, automations, result storage."""

    async def work() -> None:
        await demand_server()
        from deployments import automations  # noqa: PLC0415 - Prefect is slow
        from deployments.foundations import ensure_pool, ensure_task_results  # noqa: PLC0415
        from flows.deployments import NotAligned, deployment_ids  # noqa: PLC0415
        from flows.deployments import apply as apply_deployments  # noqa: PLC0415

        await ensure_task_results(project)
        await ensure_pool(pool, pool_type)
        steps = await _plan(project, pool)
        not_aligned: NotAligned | None = None
        failed: Collection[str] = ()
        try:
            await apply_deployments(steps, project=project, pool=pool)
        except NotAligned as error:
            not_aligned, failed = error, error.failed
        async with open_ledger(project) as ledger:
            await ledger.name_deployments(await deployment_ids(project))
        _show_plan([step for step in steps if step.name not in failed])
        if notify is not None:
            await automations.remember_block(notify)
        wanted, lacking = await automations.wanted_automations()
        _show_automations(await automations.apply_automations(wanted), lacking)
        if not_aligned is not None:
            raise not_aligned
        await automations.remembered_block()  # raises where it is gone: nobody is told anything

    asyncio.run(work())


def _show_automations(steps: Sequence[AutomationStep], lacking: Sequence[str]) -> None:
    """Show what differs, and what could not be there: those as they should be are many."""
    for step in steps:
        if step.change != "keep":
            line = escape(f"automation {step.name}: {step.why}")
            out.print(f"{_SIGNS[step.change]} {line}", highlight=False, soft_wrap=True)
    for words in lacking:
        err.print(words)


async def _plan(project: str, pool: str) -> list[Step]:
    await demand_server()
    from flows.deployments import plan as compare  # noqa: PLC0415 - Prefect is slow

    async with open_ledger(project) as ledger:
        integrations = await ledger.read_integrations()
        warn_of(integrations)
        known = set(integrations.broken)
        return await compare(integrations.valid, project=project, pool=pool, untouched=known)


def _show_plan(steps: list[Step]) -> None:
    for step in steps:
        line = escape(f"sync/{step.name} {step.why}".rstrip())
        out.print(f"{_SIGNS[step.change]} {line}", highlight=False, soft_wrap=True)
    if not steps:
        out.print("there are no integrations yet: kvitt integrations import FILE.yaml")
