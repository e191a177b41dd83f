"""`kvitt scheduler`: the second one put in and taken out, and what of it is there or missing."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from cli.command import CommandError, Project
from cli.console import out
from cli.ledger import open_ledger
from kvitt.domain.integrations import Scheduler

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from kvitt.ledger.rows import SecondScheduler

# Its job runs each minute; a second one that it misses is worth a word.
_STALE_SECONDS = 130

app = typer.Typer(help="The second scheduler: pg_cron, in the database.")


@app.command("install")
def install(
    project: Project = "kvitt",
    *,
    silence: Annotated[
        int, typer.Option(min=6, help="How many minutes Prefect's watch may give no sign of life.")
    ] = 12,
) -> None:
    """Put the job into pg_cron, or bring it up to date; says what is still missing."""

    async def work() -> None:
        async with open_ledger(project) as ledger:
            await ledger.install_second_scheduler(timedelta(minutes=silence))
            found = await ledger.read_second_scheduler()
        out.print("the second scheduler is installed")
        for problem in missing(found):
            out.print(f"[yellow]but[/] {escape(problem)}", highlight=False, soft_wrap=True)

    asyncio.run(work())


@app.command("status")
def status(project: Project = "kvitt") -> None:
    """Tell what of it is there, and when it was last at work; fails if something is missing."""

    async def work() -> None:
        async with open_ledger(project) as ledger:
            found = await ledger.read_second_scheduler()
        for line in lines(found):
            out.print(line, highlight=False, soft_wrap=True)
        if problems := missing(found):
            raise CommandError("the second scheduler does not work: " + "; ".join(problems))

    asyncio.run(work())


@app.command("uninstall")
def uninstall(project: Project = "kvitt") -> None:
    """Take the job out of pg_cron. Extensions and secrets stay."""

    async def work() -> None:
        async with open_ledger(project) as ledger:
            await ledger.uninstall_second_scheduler()
            found = await ledger.read_second_scheduler()
        out.print("the second scheduler is not installed any more")
        alone = [one.id for one in found.integrations if one.scheduler is Scheduler.PG_CRON]
        if alone:
            words = f"{', '.join(alone)}: only watch starts them now, minutes late"
            out.print(f"[yellow]{words}; set their scheduler to prefect[/]", soft_wrap=True)

    asyncio.run(work())


def missing(found: SecondScheduler) -> list[str]:
    """Return what keeps it from working, in words; empty if it works."""
    return list(_problems(found))


def _problems(found: SecondScheduler) -> Iterator[str]:
    for extension, there in found.extensions.items():
        if not there:
            yield f"the extension {extension} is not enabled (on Supabase: Database, Extensions)"
    for secret in found.secrets:
        if secret.required and not secret.there:
            yield f"Vault has no secret {secret.name}: {secret.what}"
    if found.job is None:
        yield "the job is not there: kvitt scheduler install"
    elif not found.job.active:
        yield "the job is switched off: kvitt scheduler uninstall, then install"
    elif _age(found, "pg_cron") > _STALE_SECONDS:
        yield "the job is there and has not run lately: see cron.job_run_details"
    for one in found.integrations:
        if one.deployment is None:
            yield f"no deployment of {one.id} is known: kvitt apply"


def _age(found: SecondScheduler, who: str) -> float:
    beaten = found.heartbeats.get(who)
    return float("inf") if beaten is None else (found.now - beaten).total_seconds()


def lines(found: SecondScheduler) -> Iterator[str]:
    """Tell what is there, a line each, in rich's markup."""
    for extension, there in found.extensions.items():
        yield f"{_sign(there=there)} extension {extension}"
    for secret in found.secrets:
        note = "" if secret.there else f": {secret.what}{'' if secret.required else ' (optional)'}"
        there = secret.there or not secret.required
        yield f"{_sign(there=there)} secret {secret.name}{escape(note)}"
    if found.job is not None:
        told = f"{found.job.schedule} {found.job.command}, as {found.job.username}"
        yield f"{_sign(there=found.job.active)} job {escape(told)}"
    for one in found.integrations:
        known = one.deployment or "deployment unknown"
        yield f"{_sign(there=one.deployment is not None)} {one.id}: {one.scheduler}, {known}"
    yield f"  last at work: {_when(found, 'pg_cron')}; watch in Prefect: {_when(found, 'watch')}"
    for alarm in found.alarms:
        told = "" if alarm.told else " (not told yet)"
        yield f"[red]![/] since {_minute(alarm.raised_at)}{told}: {escape(alarm.words)}"


def _sign(*, there: bool) -> str:
    return "[green]+[/]" if there else "[red]-[/]"


def _when(found: SecondScheduler, who: str) -> str:
    beaten = found.heartbeats.get(who)
    return "never" if beaten is None else f"{_minute(beaten)} ({_age(found, who):.0f} s ago)"


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
