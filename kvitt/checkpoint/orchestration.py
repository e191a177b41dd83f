"""Orchestration, as far as it shows without asking Prefect: the watcher, pg_cron, and clocks.

What asks Prefect is in `deployments/checkpoint.py`.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import httpx

from kvitt.checkpoint.clocks import compared, compared_by_date
from kvitt.checkpoint.items import Broken, Group, NotApplicable, each, once
from kvitt.checkpoint.schema import in_short
from kvitt.domain.integrations import Scheduler

if TYPE_CHECKING:
    from kvitt.checkpoint.site import Site
    from kvitt.domain.integrations import Integration
    from kvitt.ledger.rows import SecondScheduler

_SILENT = timedelta(minutes=12)  # watch runs each 5 minutes
_MISSED = timedelta(seconds=130)  # pg_cron's job runs each minute
_REPLIES_SECONDS = 35  # pg_net gives up after 30
_LOOK_SECONDS = 0.2
CLOCK = (
    "Let each machine set its clock by the network (NTP): timedatectl says whether it does. Hosted "
    "services keep time, so look at this machine first"
)


@once(
    "watch",
    Group.ORCHESTRATION,
    checks="the flow watch was at work within the last minutes",
    why="It writes the calendar, starts what is overdue, and tells what is wrong.",
    remedy="prefect deployment run watch/kvitt --watch; if it does not start, look at the worker. "
    "Right after the first deployment, wait 5 minutes",
    needs=("grants", "fixed-deployments", "worker"),
)
async def watch(site: Site) -> str:
    """Look at its heartbeat, by the ledger's clock."""
    beats = {beat.who: beat.beat_at for beat in await site.ledger.read_heartbeats()}
    if "watch" not in beats:
        raise Broken("it has never been at work")
    silent = datetime.fromisoformat(site.schema["at"]) - beats["watch"]
    if silent > _SILENT:
        raise Broken(f"it has given no sign of life for {silent.total_seconds() / 60:.0f} minutes")
    return f"at work {max(0, silent.total_seconds()):.0f} s ago"


@once(
    "clock-database",
    Group.ORCHESTRATION,
    checks="the clock of the database is within seconds of this machine's",
    why="Leases and due times go by the database's clock, schedules by the worker's.",
    remedy=CLOCK,
    needs=("schema-version",),
)
async def clock_database(site: Site) -> str:
    """Have it tell the time."""
    asked = datetime.now(UTC)
    described = await site.ledger.describe_schema()
    there = datetime.fromisoformat(described["at"])
    return compared(there, asked=asked, answered=datetime.now(UTC), whose="the database")


@each(
    "clock-vendor",
    Group.ORCHESTRATION,
    checks="the clock of its accounting system is within seconds of this machine's",
    why="Lines are looked for by when they were changed there.",
    remedy=CLOCK,
    needs=("vendor",),
)
async def clock_vendor(site: Site, who: Integration) -> str:
    """Ask the front door, which counts in no budget, since it knows nobody."""
    origin = httpx.URL(await site.address_of(who)).copy_with(raw_path=b"/")

    async def ask() -> str:
        return await compared_by_date(site.http, str(origin), whose=who.vendor)

    return await site.once(("clock", origin.host, origin.port), ask)


# -- the second scheduler --------------------------------------------------------------------------


@once(
    "scheduler",
    Group.ORCHESTRATION,
    checks="the second scheduler, if used: pg_cron, pg_net and Vault are there, its job is on",
    why="Integrations that are left to pg_cron are started by nobody else in time.",
    remedy="docs/second-scheduler.md: enable the extensions, then kvitt scheduler install. Or "
    "leave all integrations to Prefect (scheduler: prefect)",
    needs=("grants",),
)
async def scheduler(site: Site) -> str:
    """Look at what the database says of it."""
    found = await used(site)
    lacking = [name for name, there in found.extensions.items() if not there]
    if lacking:
        raise Broken(f"the database has no {', '.join(lacking)}")
    if found.job is None:
        raise Broken("its job is not there")
    if not found.job.active:
        raise Broken("its job is switched off")
    return f"the job runs as {found.job.username}"


@once(
    "scheduler-secrets",
    Group.ORCHESTRATION,
    checks="the second scheduler, if used: Vault has its addresses and keys",
    why="Without them it can call nobody.",
    remedy="select vault.create_secret('…', 'NAME') for what is named; docs/second-scheduler.md",
    needs=("scheduler",),
)
async def scheduler_secrets(site: Site) -> str:
    """Look whether they are there; what they are is nobody's business."""
    found = await used(site)
    lacking = [f"{s.name} ({s.what})" for s in found.secrets if s.required and not s.there]
    if lacking:
        raise Broken(f"Vault has no {in_short(lacking)}")
    return "all that are needed"


@once(
    "scheduler-calls-out",
    Group.ORCHESTRATION,
    checks="the second scheduler, if used: Prefect and the Edge Function answer the database",
    why="It asks Prefect for runs, and warms the function up.",
    remedy="Correct the secret in Vault (address or authorization), and let the database reach "
    "that address: a Prefect server on somebody's own machine it cannot reach",
    needs=("scheduler-secrets", "server-key", "function"),
)
async def scheduler_calls_out(site: Site) -> str:
    """Let the database send a harmless request to each, and wait for what comes."""
    await used(site)
    requests = await site.ledger.call_out()
    until = asyncio.get_running_loop().time() + _REPLIES_SECONDS
    replies: dict[str, int] = {}
    while len(replies) < len(requests) and asyncio.get_running_loop().time() < until:
        await asyncio.sleep(_LOOK_SECONDS)
        replies = await site.ledger.called_out(requests)
    wrong = [
        f"{whom} {'answers ' + str(status) if (status := replies.get(whom)) else 'does not answer'}"
        for whom in sorted(requests)
        if not httpx.codes.is_success(replies.get(whom, 0))
    ]
    if wrong:
        raise Broken("; ".join(wrong))
    return f"{' and '.join(sorted(requests))} answer the database"


@once(
    "scheduler-at-work",
    Group.ORCHESTRATION,
    checks="the second scheduler, if used: its job has run within the last minutes",
    why="A job that is there may still not run: pg_cron may be stopped, or short of connections.",
    remedy="See cron.job_run_details. Right after the installation, wait two minutes",
    needs=("scheduler",),
)
async def scheduler_at_work(site: Site) -> str:
    """Look at its heartbeat."""
    found = await used(site)
    beaten = found.heartbeats.get("pg_cron")
    if beaten is None or found.now - beaten > _MISSED:
        since = "ever" if beaten is None else f"{beaten:%Y-%m-%d %H:%M} UTC"
        raise Broken(f"it has not run since {since}")
    return f"it ran {max(0, (found.now - beaten).total_seconds()):.0f} s ago"


ITEMS = (
    watch,
    clock_database,
    clock_vendor,
    scheduler,
    scheduler_secrets,
    scheduler_calls_out,
    scheduler_at_work,
)


async def used(site: Site) -> SecondScheduler:
    """Return what of the second scheduler is there; NotApplicable where nobody uses it."""
    used = [who for who in site.integrations or () if who.scheduler is not Scheduler.PREFECT]
    found = await site.ledger.read_second_scheduler()
    if not used and found.job is None:
        raise NotApplicable("no integration is left to pg_cron")
    return found
