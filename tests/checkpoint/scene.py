"""A sound set-up on real parts, the second scheduler in it, and ways to break one thing of it.

pg_cron, pg_net and Vault are stand-ins. After the set-up the worker stands still, so that `watch`
mends nothing of what a test breaks; its last sign of life, and the watchers', are kept fresh.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import httpx
import psycopg
import stamina
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import VariableCreate
from prefect.context import AsyncClientContext, SettingsContext, get_settings_context
from prefect.settings import PREFECT_API_URL, Settings, temporary_settings

from blocks import SupabaseProject
from deployments import automations
from deployments.checkpoint import look_at
from flows import deployments
from kvitt import planning
from kvitt.ledger import SupabaseLedger
from kvitt.project import open_project
from sandbox import claims
from sandbox.pg_net import install_pg_net, install_vault, start_pg_net
from sandbox.processes import CHECKOUT, Process
from sandbox.stack import POOL, Stack
from sandbox.vendors.simulators import SIMULATORS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from pathlib import Path

    from prefect.blocks.core import Block

    from kvitt.checkpoint import Group, Report
    from sandbox.processes import Home

REMEMBERED, TELLS = "kvitt_notify", "custom-webhook/finance"
XLEDGER, BUSINESS_CENTRAL = claims.THEATRE.integration, claims.CLUB.integration

# As much of pg_cron as is looked at: Debian's packages have the real one, which takes a minute.
_PG_CRON = """
create schema cron;
create table cron.job (jobid bigserial primary key, jobname text unique, schedule text,
  command text, active boolean not null default true, username text default current_user);
create function cron.schedule(job_name text, schedule text, command text) returns bigint
  language sql as $$
  insert into cron.job (jobname, schedule, command) values (job_name, schedule, command)
  on conflict (jobname) do update set command = excluded.command returning jobid
$$;
"""


@dataclass(kw_only=True)
class Scene:
    """The running parts, and how they are addressed."""

    stack: Stack
    database: psycopg.Connection
    prefect_database: psycopg.Connection
    worker: Process
    folder: Path
    prefect_url: str
    usual_url: str
    env: dict[str, str] = field(default_factory=dict[str, str])
    who_is_silent: str | None = None

    async def look(self, *groups: Group) -> Report:
        """Look as the command does."""
        self.freshen()
        with stamina.set_testing(True, attempts=2, cap=True), self.at_hand():
            async with AsyncExitStack() as stack:
                if self.prefect_url == self.usual_url:  # else it may not answer
                    await stack.enter_async_context(AsyncClientContext.get_or_create())
                return await look_at(groups=groups)

    def freshen(self) -> None:
        """Let both watchers and the worker have just been at work, but for who is silent."""
        self.database.execute("select kvitt.beat('pg_cron'), kvitt.beat('watch')")
        self.prefect_database.execute("update worker set last_heartbeat_time = now()")
        if self.who_is_silent == "worker":
            self.prefect_database.execute(
                "update worker set last_heartbeat_time = now() - interval '30 minutes'"
            )
        else:
            self.database.execute(
                "update kvitt.heartbeats set beat_at = now() - interval '30 minutes'"
                " where who = %s",
                [self.who_is_silent],
            )

    @contextmanager
    def at_hand(self) -> Generator[None]:
        """Let this process be a command that somebody types."""
        told = {
            "SUPABASE_URL": self.stack.supabase.url,
            "SUPABASE_SECRET_KEY": self.stack.supabase.secret_key,
            **self.env,
        }
        profile, settings = get_settings_context().profile, _settings(self.prefect_url)
        with patch.dict(os.environ, told), SettingsContext(profile=profile, settings=settings):
            yield

    # -- ways to break one thing -------------------------------------------------------------------

    @contextmanager
    def sql(self, breaking: str, mending: str, *, api: bool = False) -> Generator[None]:
        """Change the database; `api`: and wait until the Data API knows."""
        self._execute(breaking, api=api)
        try:
            yield
        finally:
            self._execute(mending, api=api)

    def _execute(self, statements: str, *, api: bool) -> None:
        self.database.execute(statements.encode())
        if api:
            self.stack.supabase.reload_schema()

    @contextmanager
    def told(self, **env: str) -> Generator[None]:
        self.env = env
        yield
        self.env = {}

    @asynccontextmanager
    async def project_at(self, url: str) -> AsyncGenerator[None]:
        """Name another address as the project's, to flows and to commands."""
        async with self.block(SupabaseProject, "kvitt", url=url):
            with self.told(SUPABASE_URL=url):
                yield

    @contextmanager
    def silent(self, who: str) -> Generator[None]:
        """Let one of them have been silent for half an hour: watch, pg_cron or worker."""
        self.who_is_silent = who
        yield
        self.who_is_silent = None

    @contextmanager
    def integration(self, which: str, **changes: Any) -> Generator[None]:
        """Change a row past kvitt, as an app may."""
        was = self.database.execute(
            "select to_jsonb(i) from kvitt.integrations i where id = %s", [which]
        ).fetchone()
        assert was is not None
        self._write(which, changes)
        try:
            yield
        finally:
            self._write(which, {name: was[0][name] for name in changes})

    def _write(self, which: str, values: dict[str, Any]) -> None:
        for column, value in values.items():
            given = json.dumps(value) if isinstance(value, dict) else value
            self.database.execute(
                f"update kvitt.integrations set {column} = %s where id = %s".encode(),  # noqa: S608 - our own names
                [given, which],
            )

    @contextmanager
    def function(self, code: str) -> Generator[None]:
        """Put another Edge Function in the place of `collect`."""
        file = self.folder / "supabase" / "functions" / "collect" / "index.ts"
        was = file.read_text()
        file.write_text(code)
        self.stack.supabase.functions.end_workers()
        try:
            yield
        finally:
            file.write_text(was)
            self.stack.supabase.functions.end_workers()

    def collect(self, *changes: tuple[str, str]) -> str:
        """Return the code of our function with some of it replaced."""
        code = (CHECKOUT / "supabase" / "functions" / "collect" / "index.ts").read_text()
        for old, new in changes:
            assert old in code
            code = code.replace(old, new)
        return code

    @contextmanager
    def vendor(self, vendor: Process, wish: Any, mending: Any) -> Generator[None]:
        """Change the set-up of an accounting system."""
        self.set_up(vendor, wish)
        try:
            yield
        finally:
            self.set_up(vendor, mending)

    @contextmanager
    def settings(self, vendor: Process, **changes: Any) -> Generator[None]:
        was = httpx.get(f"{vendor.url}/_sandbox/settings", trust_env=False).json()
        mending = {"settings": {name: was[name] for name in changes}}
        with self.vendor(vendor, {"settings": changes}, mending):
            yield

    def set_up(self, vendor: Process, wish: dict[str, Any]) -> None:
        answer = httpx.post(f"{vendor.url}/_sandbox/setup", json=wish, trust_env=False)
        answer.raise_for_status()

    @contextmanager
    def faults(self, vendor: Process, **fault: Any) -> Generator[None]:
        url = f"{vendor.url}/_sandbox/faults"
        httpx.post(url, json={"times": 1000, **fault}, trust_env=False).raise_for_status()
        try:
            yield
        finally:
            httpx.delete(url, trust_env=False).raise_for_status()

    @asynccontextmanager
    async def block(self, kind: type[Block], name: str, **changes: Any) -> AsyncGenerator[None]:
        """Save a block with other fields."""
        with self.at_hand():
            was = await kind.aload(name)
            other = was.model_copy(update=changes)
            await other.asave(name, overwrite=True)
        try:
            yield
        finally:
            with self.at_hand():
                await was.asave(name, overwrite=True)

    @asynccontextmanager
    async def without_block(self, kind: type[Block], name: str) -> AsyncGenerator[None]:
        with self.at_hand():
            was = await kind.aload(name)
            await kind.adelete(name)
        try:
            yield
        finally:
            with self.at_hand():
                await kind(**{n: getattr(was, n) for n in kind.model_fields}).asave(name)

    @contextmanager
    def server_at(self, url: str) -> Generator[None]:
        """Name another address as Prefect's."""
        was, self.prefect_url = self.prefect_url, url
        try:
            yield
        finally:
            self.prefect_url = was

    @asynccontextmanager
    async def prefect(
        self, breaking: Callable[[Any], Any], mending: Callable[[Any], Any]
    ) -> AsyncGenerator[None]:
        """Change something in Prefect by its client."""
        with self.at_hand():
            async with get_client() as client:
                await breaking(client)
        try:
            yield
        finally:
            with self.at_hand():
                async with get_client() as client:
                    await mending(client)

    @property
    def vendors(self) -> dict[str, Process]:
        return {"xledger": self.stack.xledger, "business-central": self.stack.business_central}

    def books(self) -> list[Any]:
        """Return all that the accounting systems hold."""
        urls = [f"{vendor.url}/_sandbox/books" for vendor in self.vendors.values()]
        return [httpx.get(url, trust_env=False).json() for url in urls]

    def events(self, named: str) -> list[dict[str, Any]]:
        """Return the events of a name that Prefect has heard of."""
        wish = {"filter": {"event": {"name": [named]}}}
        answer = httpx.post(f"{self.prefect_url}/events/filter", json=wish, trust_env=False)
        return answer.raise_for_status().json()["events"]

    def artifact(self, key: str) -> dict[str, Any]:
        answer = httpx.get(f"{self.prefect_url}/artifacts/{key}/latest", trust_env=False)
        return answer.raise_for_status().json()

    async def align(self) -> None:
        """Bring the deployments into line again, and tell the second scheduler."""
        supabase = self.stack.supabase
        async with open_project(supabase.url, supabase.secret_key) as client:
            ledger = SupabaseLedger(client)
            found = await ledger.read_integrations()
            steps = await deployments.plan(found.valid, project="kvitt", pool=POOL)
            await deployments.apply(steps, project="kvitt", pool=POOL)
            await ledger.name_deployments(await deployments.deployment_ids("kvitt"))


@cache
def _settings(url: str) -> Settings:
    """Return Prefect's settings for a server; making them takes a while."""
    with temporary_settings({PREFECT_API_URL: url}) as settings:
        return settings


def start(home: Home, say: Callable[[str], None]) -> Scene:
    """Start it all, set up as the README says, with the second scheduler for one integration."""
    folder = home.path / "project"
    shutil.copytree(CHECKOUT / "supabase", folder / "supabase")
    stack = Stack.start(home, say=say, project=folder)
    url = stack.supabase.database_url
    install_vault(url)
    install_pg_net(url)
    stack.set_up_and_load(say=say)
    database = psycopg.connect(url, autocommit=True)
    database.execute(_PG_CRON)
    start_pg_net(home, stack.supabase.postgres)
    for name, secret in {
        "kvitt_prefect_api_url": f"{stack.prefect.url}/api",
        "kvitt_function_url": f"{stack.supabase.url}/functions/v1/collect",
        "kvitt_function_key": stack.supabase.publishable_key,
        "kvitt_webhook_url": "http://127.0.0.1:9/",
    }.items():
        database.execute("select vault.create_secret(%s, %s)", [secret, name])
    database.execute("update kvitt.integrations set scheduler = 'both' where id = %s", [XLEDGER])
    database.execute("select kvitt.install_second_scheduler('12 minutes')")
    worker = stack.prefect.start_worker(POOL)
    return Scene(
        stack=stack,
        database=database,
        prefect_database=psycopg.connect(stack.supabase.postgres.url("prefect"), autocommit=True),
        worker=worker,
        folder=folder,
        prefect_url=f"{stack.prefect.url}/api",
        usual_url=f"{stack.prefect.url}/api",
    )


async def finish(scene: Scene) -> None:
    """Write the calendar, as `watch` does, and name a block that tells people.

    The vendors allow any number of requests: they are looked at a hundred times in three minutes.
    """
    for kind, vendor in scene.vendors.items():
        scene.set_up(vendor, {"settings": SIMULATORS[kind].unlimited})
    supabase = scene.stack.supabase
    async with open_project(supabase.url, supabase.secret_key) as client:
        ledger = SupabaseLedger(client)
        for who in (await ledger.read_integrations()).valid:
            await planning.write_ahead(ledger, who)
    with scene.at_hand():
        block = CustomWebhookNotificationBlock(
            name="finance", url="http://127.0.0.1:9/", json_data={"text": "{{body}}"}
        )
        await block.asave("finance")
        async with get_client() as client:
            await client.create_variable(VariableCreate(name=REMEMBERED, value=TELLS))
        wanted, _ = await automations.wanted_automations()
        await automations.apply_automations(wanted)
