"""What the checkpoint asks Prefect: its server, the blocks, the worker, and what is declared here.

Deployments and automations are compared with their declarations as they stand: with the table of
integrations, prefect.yaml, and `deployments.automations`.
"""

from __future__ import annotations

import ipaddress
import os
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import prefect
import yaml
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import get_current_settings

from blocks import SupabaseProject, TaskResults
from blocks.loading import BlockMissing, load_block
from deployments import automations as declared
from flows import deployments
from kvitt.checkpoint import Awaits, Broken, Group, NotApplicable, Site, each, once
from kvitt.checkpoint.clocks import compared_by_date
from kvitt.checkpoint.orchestration import CLOCK, used
from kvitt.checkpoint.schema import in_short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.responses import DeploymentResponse
    from prefect.events.schemas.automations import AutomationCore

    from kvitt.domain.integrations import Integration

FIXED = Path(__file__).parent.parent / "prefect.yaml"
_REFUSED = (401, 403)
_APPLY = "kvitt apply"


class PrefectSite(Site):
    """A site with the Prefect server of the settings: the names of its blocks, and of its pool."""

    project: str
    pool: str

    async def prefect(self) -> PrefectClient:
        """Return a client of the server, the same for all: making one costs more than asking."""

        async def enter() -> PrefectClient:
            return await self.stack.enter_async_context(get_client())

        return await self.once("prefect", enter)


# -- the server ------------------------------------------------------------------------------------


@once(
    "server",
    Group.ORCHESTRATION,
    checks="the Prefect server answers",
    why="It starts the runs, and keeps the blocks with all addresses and keys.",
    remedy="Start it, and name it in PREFECT_API_URL, which ends in /api",
)
async def server(site: Site) -> str:
    """Ask for its health, which needs no password."""
    try:
        reply = await site.http.get(f"{_api()}/health")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Broken(f"{_host()} does not answer ({type(error).__name__})") from error
    if not reply.is_success:
        raise Broken(f"{_host()} answers {reply.status_code} to /health")
    return f"{_host()} answers"


@once(
    "server-key",
    Group.ORCHESTRATION,
    checks="the Prefect server takes our password or key",
    why="Without it neither worker nor command line learns anything.",
    remedy="Set PREFECT_API_AUTH_STRING (Prefect Cloud: PREFECT_API_KEY) as the server has it",
    needs=("server",),
)
async def server_key(site: PrefectSite) -> str:
    """Ask for something that needs it."""
    try:
        await (await site.prefect()).read_work_pools(limit=1)
    except PrefectHTTPStatusError as error:
        raise Broken(f"it answers {error.response.status_code}") from error
    except httpx.HTTPError as error:
        raise Broken(f"it does not answer ({type(error).__name__})") from error
    return "it is taken"


@once(
    "protected",
    Group.ORCHESTRATION,
    checks="the Prefect server tells strangers nothing",
    why="An open one gives away each secret in its blocks: the key of the ledger, the credentials "
    "of the accounting systems.",
    remedy="Start the server with PREFECT_SERVER_API_AUTH_STRING, and give the same to worker and "
    "command line as PREFECT_API_AUTH_STRING",
    needs=("server",),
)
async def protected(site: Site) -> str:
    """Ask as a stranger would. One that only this machine reaches may be open."""
    reply = await site.http.post(f"{_api()}/block_types/filter", json={"limit": 1})
    if reply.status_code in _REFUSED:
        return f"without a password it answers {reply.status_code}"
    if _is_loopback(urlsplit(_api()).hostname or ""):
        return "open, at an address that only this machine reaches"
    raise Broken("it answers without a password")


@once(
    "server-version",
    Group.ORCHESTRATION,
    checks="the Prefect server has the version that is installed here",
    why="Other pairs are not tried; an older server refuses what a newer client says.",
    remedy="Install the same version on both: requirements.lock names it",
    needs=("server-key",),
)
async def server_version(site: PrefectSite) -> str:
    """Compare the two."""
    there = await (await site.prefect()).api_version()
    if there != prefect.__version__:
        raise Broken(f"the server has {there}, and here is {prefect.__version__}")
    return there


@once(
    "clock-server",
    Group.ORCHESTRATION,
    checks="the clock of the Prefect server is within seconds of this machine's",
    why="It says when a run is due.",
    remedy=CLOCK,
    needs=("server",),
)
async def clock_server(site: Site) -> str:
    """Look at the time that its replies bear."""
    return await compared_by_date(site.http, f"{_api()}/health", whose="the Prefect server")


# -- blocks ----------------------------------------------------------------------------------------


@once(
    "project-block",
    Group.FOUNDATION,
    checks="the block of the Supabase project exists",
    why="Flows find the ledger by it.",
    remedy="Create it in the Prefect UI, under Blocks: Supabase project (kvitt), named kvitt",
    needs=("server-key",),
)
async def project_block(site: PrefectSite) -> str:
    """Load it, and see that it leads where the command line goes."""
    try:
        block = await load_block(SupabaseProject, site.project)
    except BlockMissing as missing:
        raise Broken(str(missing)) from missing
    told = os.environ.get("SUPABASE_URL")
    if told and told.rstrip("/") != block.url.rstrip("/"):
        raise Broken(
            f"it leads to {block.url}, and SUPABASE_URL to {told}",
            remedy="Correct the one that is wrong: flows use the block, the command line the other",
        )
    return f"kvitt-supabase-project/{site.project}, for {block.url}"


@once(
    "results",
    Group.ORCHESTRATION,
    checks="task results are kept in the ledger's database, where each worker finds them",
    why="Otherwise a second worker does not see what the first one has done, and shows it as new.",
    remedy=f"Delete the block kvitt-task-results in the Prefect UI, then {_APPLY}, which saves it",
    needs=("project-block", "functions", "grants"),
)
async def results(site: PrefectSite) -> str:
    """Load the block, compare its project, and ask for a result that nobody has written."""
    try:
        block = await load_block(TaskResults, site.project)
        project = await load_block(SupabaseProject, site.project)
    except BlockMissing as missing:
        raise Broken(str(missing)) from missing
    if block.project.url.rstrip("/") != project.url.rstrip("/"):
        raise Broken(f"they are kept at {block.project.url}, and the ledger is at {project.url}")
    if block.project.secret_key != project.secret_key:
        raise Broken("its key is another one than the block of the project has")
    try:
        await block.aread_path("checkpoint/nobody")
    except ValueError:
        return f"kvitt-task-results/{site.project} reads in the ledger's database"
    raise Broken("it finds a result that nobody has written")


# -- who works -------------------------------------------------------------------------------------


@once(
    "pool",
    Group.ORCHESTRATION,
    checks="the work pool is there, and neither it nor one of its queues is paused",
    why="Runs wait in it for a worker.",
    remedy=f"{_APPLY} makes it; resume it in the Prefect UI, or: prefect work-pool resume kvitt",
    needs=("server-key",),
)
async def pool(site: PrefectSite) -> str:
    """Read it."""
    client = await site.prefect()
    try:
        it = await client.read_work_pool(site.pool)
    except ObjectNotFound:
        raise Broken(f"there is no work pool {site.pool}") from None
    queues = await client.read_work_queues(work_pool_name=site.pool)
    if it.is_paused:
        raise Broken(f"the work pool {site.pool} is paused")
    if paused := [queue.name for queue in queues if queue.is_paused]:
        raise Broken(f"in the work pool {site.pool}, paused: {', '.join(paused)}")
    if it.concurrency_limit == 0:
        raise Broken(f"the work pool {site.pool} lets no run through: its limit is 0")
    return f"{site.pool}, of the type {it.type}"


@once(
    "worker",
    Group.ORCHESTRATION,
    checks="a worker of the work pool is alive",
    why="Without one, runs are due and nothing happens.",
    remedy="prefect worker start --pool kvitt; as a service that starts by itself: docs/worker.md",
    needs=("pool",),
)
async def worker(site: PrefectSite) -> str:
    """Look for signs of life, not older than a few of its own intervals."""
    known = await (await site.prefect()).read_workers_for_work_pool(site.pool)
    now = datetime.now(UTC)
    silent = {
        one.name: (now - one.last_heartbeat_time).total_seconds()
        for one in known
        if one.last_heartbeat_time is not None
    }
    patience = {one.name: 3.0 * (one.heartbeat_interval_seconds or 30) for one in known}
    alive = sorted(name for name, seconds in silent.items() if seconds <= patience[name])
    if alive:
        return f"{in_short(alive)}"
    if silent:
        name = min(silent, key=lambda name: silent[name])
        raise Broken(f"the last sign of life, of {name}, is {silent[name]:.0f} s old")
    raise Broken("none has ever been there")


# -- what is declared ------------------------------------------------------------------------------


@each(
    "deployment",
    Group.ORCHESTRATION,
    checks="its deployment in Prefect, with its schedule, is what the table of integrations says",
    why="Prefect starts its runs by it.",
    remedy=f"{_APPLY}, or let watch do it",
    needs=("server-key",),
)
async def deployment(site: PrefectSite, who: Integration) -> str:
    """Find it in the plan that `kvitt plan` shows."""
    step = next(step for step in await _plan(site) if step.name == who.id)
    if step.change is not deployments.Change.KEEP:
        raise Broken(f"sync/{who.id}: {step.why}")
    return f"sync/{who.id} is as it should be"


@once(
    "strays",
    Group.ORCHESTRATION,
    checks="no deployment runs for an integration that is gone",
    why="Its runs would fail, at each due time.",
    remedy=f"{_APPLY}, which pauses it; or delete it in the Prefect UI",
    needs=("server-key", "integrations"),
)
async def strays(site: PrefectSite) -> str:
    """Find them in the same plan."""
    gone = [s.name for s in await _plan(site) if s.change is deployments.Change.PAUSE]
    if gone:
        raise Broken(f"nobody's: {in_short([f'sync/{name}' for name in gone])}")
    return "none"


@once(
    "fixed-deployments",
    Group.ORCHESTRATION,
    checks="the deployments of prefect.yaml are there, with their schedules",
    why="They watch, follow up, and look here each day.",
    remedy="prefect --no-prompt deploy --all",
    needs=("server-key",),
)
async def fixed_deployments(site: PrefectSite) -> str:
    """Compare each of them."""
    if not FIXED.exists():
        raise NotApplicable("prefect.yaml is not here: start from the checkout")
    told = yaml.safe_load(FIXED.read_text(encoding="utf-8"))["deployments"]
    client, found = await site.prefect(), list[str]()
    for wanted in told:
        module, _, function = wanted["entrypoint"].rpartition(".")
        flow = getattr(import_module(module), function)
        name = f"{flow.name}/{wanted['name']}"
        try:
            there = await client.read_deployment_by_name(name)
        except ObjectNotFound:
            found.append(f"{name} is missing")
        else:
            found += [f"{name}: {words}" for words in _differences(wanted, there)]
    if found:
        raise Broken(in_short(found))
    return f"{len(told)} deployments"


def _differences(wanted: dict[str, Any], there: DeploymentResponse) -> list[str]:
    schedules = [
        (getattr(s.schedule, "cron", None), getattr(s.schedule, "timezone", None), s.active)
        for s in there.schedules
    ]
    told = [(s["cron"], s["timezone"], s["active"]) for s in wanted.get("schedules", [])]
    pairs = {
        "schedules": (told, schedules),
        "paused": (False, there.paused),
        "work pool": (wanted["work_pool"]["name"], there.work_pool_name),
        "entrypoint": (wanted["entrypoint"], there.entrypoint),
        "parameters": (wanted.get("parameters", {}), there.parameters),
    }
    return [f"{what} is {is_}, not {want}" for what, (want, is_) in pairs.items() if want != is_]


@once(
    "automations",
    Group.ORCHESTRATION,
    checks="each automation of kvitt is there, switched on, and as declared",
    why="They start again what crashed, and take a connection out of the way that is throttled.",
    remedy=f"{_APPLY}, which brings them into line",
    needs=("server-key",),
)
async def automations(site: Site) -> str:
    """Compare each with its declaration."""
    del site
    set_mode = await declared.set_mode_deployment()
    after_limit = [] if set_mode is None else [declared.passive_after_limit(set_mode)]
    return await _declared([*declared.AUTOMATIONS, *after_limit])


@once(
    "notify",
    Group.ORCHESTRATION,
    checks="somebody is told what goes wrong: a block is named, and is there",
    why="What nobody hears of, nobody mends.",
    remedy="Create a block that tells people (Slack, Teams, e-mail, a webhook), and name it once: "
    "kvitt apply --notify slack-webhook/NAME",
    needs=("server-key",),
)
async def notify(site: Site) -> str:
    """Look at what was named last."""
    del site
    try:
        if await declared.remembered_block() is None:
            raise Broken("nobody is told: no block was ever named")
    except BlockMissing as missing:
        raise Broken(str(missing)) from missing
    return "a block is named, and is there"


@once(
    "notifications",
    Group.ORCHESTRATION,
    checks="each event that people are to hear of is passed on to them",
    why="What nobody hears of, nobody mends.",
    remedy=f"{_APPLY}, which brings them into line",
    needs=("notify",),
)
async def notifications(site: Site) -> str:
    """Compare each with its declaration."""
    del site
    block = await declared.remembered_block()
    if block is None:
        raise Awaits("notify", "no block is named")
    return await _declared(declared.notifications(block))


@once(
    "scheduler-deployments",
    Group.ORCHESTRATION,
    checks="the second scheduler, if used: it knows the deployment of each integration left to it",
    why="It asks Prefect for a run by the deployment's id.",
    remedy=f"{_APPLY}, which tells it",
    needs=("server-key", "scheduler"),
)
async def scheduler_deployments(site: PrefectSite) -> str:
    """Compare what it was told with what there is."""
    found = await used(site)
    there = await deployments.deployment_ids(site.project)
    wrong = [one.id for one in found.integrations if str(one.deployment) != there.get(one.id)]
    if wrong:
        raise Broken(f"it does not know the deployment of {in_short(wrong)}")
    return f"{len(found.integrations)} deployments are known"


ITEMS = (
    server,
    server_key,
    protected,
    server_version,
    project_block,
    results,
    pool,
    worker,
    deployment,
    strays,
    fixed_deployments,
    automations,
    notify,
    notifications,
    clock_server,
    scheduler_deployments,
)


async def _declared(wanted: Sequence[AutomationCore]) -> str:
    ours = {one.name for one in wanted}
    steps = [each for each in await declared.plan_automations(wanted) if each.name in ours]
    found = [
        f"`{each.name}` is missing"
        if each.change is declared.Change.CREATE
        else f"`{each.name}`: {each.why}"
        for each in steps
        if each.change is not declared.Change.KEEP
    ]
    if found:
        raise Broken(in_short(found))
    return f"{len(wanted)} automations"


async def _plan(site: PrefectSite) -> list[deployments.Step]:
    async def ask() -> list[deployments.Step]:
        return await deployments.plan(
            site.integrations or [],
            project=site.project,
            pool=site.pool,
            untouched=site.unreadable,
        )

    return await site.once("plan", ask)


def _api() -> str:
    url = get_current_settings().api.url
    if not url:
        raise Broken("PREFECT_API_URL is not set, so there is no server to ask")
    return str(url).rstrip("/")


def _host() -> str:
    """Return where the server is, without a password that its address may hold."""
    parts = urlsplit(_api())
    return f"{parts.scheme}://{parts.hostname}:{parts.port or ''}".rstrip(":")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
