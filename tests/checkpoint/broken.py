"""Deliberately broken set-ups: what is broken, which item is to find it, and what it is to say."""

from __future__ import annotations

import json
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from prefect.client.schemas.actions import VariableCreate, VariableUpdate, WorkPoolUpdate
from pydantic import SecretStr

from blocks import BusinessCentral, SupabaseProject, TaskResults, Xledger
from deployments import automations
from deployments.checkpoint import ITEMS
from kvitt.checkpoint import Group
from sandbox.processes import free_port
from sandbox.stack import POOL
from sandbox.vendors import setup
from tests.checkpoint.scene import BUSINESS_CENTRAL, REMEMBERED, TELLS, XLEDGER, Scene
from tests.checkpoint.warp import Warp

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient
    from prefect.events.schemas.automations import Automation, AutomationCore

Breaking = AbstractContextManager[Any] | AbstractAsyncContextManager[Any]


_GROUPS = {item.id: item.group for item in ITEMS}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One thing that is broken. `seen` and `remedy` are to be in the words of the item."""

    what: str
    item: str
    seen: str
    remedy: str
    breaking: Callable[[Scene], Breaking]

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups that it could disturb: what is declared in Prefect stands beside the rest."""
        if _GROUPS[self.item.partition("/")[0]] is Group.ORCHESTRATION:
            return (Group.ORCHESTRATION,)
        return (Group.FOUNDATION, Group.SERVICES, Group.DATA_FLOW)


SLOTS = {"cost_centre": "glObject1", "project": "glObject2"}
CASES: list[Case] = []


def case(what: str, *, item: str, seen: str, remedy: str) -> Any:
    def add(breaking: Any) -> Any:
        CASES.append(Case(what=what, item=item, seen=seen, remedy=remedy, breaking=breaking))
        return breaking

    return add


def sql(
    what: str, breaking: str, mending: str, *, item: str, seen: str, remedy: str, api: bool = False
) -> None:
    """Declare a case that is broken and mended in the database; `api`: the Data API has to know."""
    case(what, item=item, seen=seen, remedy=remedy)(
        lambda scene: scene.sql(breaking, mending, api=api)
    )


# -- foundation: the project -----------------------------------------------------------------------


@case("another address", item="project", seen="does not answer", remedy="Correct the URL")
def _(scene: Scene) -> Any:
    return scene.project_at(f"http://127.0.0.1:{free_port()}")


@case("an address that is no project", item="project", seen="answers 404", remedy="Correct the URL")
def _(scene: Scene) -> Any:
    return scene.project_at(scene.stack.xledger.url)


@case("a mistyped key", item="key", seen="refuses it (401", remedy="Put a secret key")
def _(scene: Scene) -> Any:
    return scene.told(SUPABASE_SECRET_KEY="sb_secret_mistyped")


@case("the publishable key", item="key", seen="role anon", remedy="Put a secret key")
def _(scene: Scene) -> Any:
    return scene.told(SUPABASE_SECRET_KEY=scene.stack.supabase.publishable_key)


@case("the anon key of the older kind", item="key", seen="role anon", remedy="Put a secret key")
def _(scene: Scene) -> Any:
    return scene.told(SUPABASE_SECRET_KEY=scene.stack.supabase.keys.jwt_of("anon"))


@case("a user's token", item="key", seen="role authenticated", remedy="Put a secret key")
def _(scene: Scene) -> Any:
    return scene.told(SUPABASE_SECRET_KEY=scene.stack.supabase.keys.jwt_of("authenticated"))


sql(
    "the schema is not served",
    "alter role authenticator set pgrst.db_schemas = 'public'; notify pgrst, 'reload config'",
    "alter role authenticator reset pgrst.db_schemas; notify pgrst, 'reload config'",
    item="exposed",
    seen="not among those that the API serves",
    remedy="Add kvitt to the exposed schemas",
    api=True,
)
sql(
    "the schema may not be used",
    "revoke usage on schema kvitt from service_role",
    "grant usage on schema kvitt to service_role",
    item="exposed",
    seen="permission denied for schema kvitt",
    remedy="kvitt migrate",
)


@case(
    "the block leads elsewhere",
    item="project-block",
    seen="it leads to http://127.0.0.1:9",
    remedy="Correct the one that is wrong",
)
def _(scene: Scene) -> Any:
    return scene.block(SupabaseProject, "kvitt", url="http://127.0.0.1:9")


# -- foundation: the schema ------------------------------------------------------------------------

sql(
    "a migration is not in the history",
    "update supabase_migrations.schema_migrations set version = '1' where version like '%091000'",
    "update supabase_migrations.schema_migrations set version = '20261125091000'"
    " where version = '1'",
    item="schema-version",
    seen="20261125091000 is not applied",
    remedy="kvitt migrate",
)
sql(
    "nobody keeps a history",
    "alter schema supabase_migrations rename to elsewhere",
    "alter schema elsewhere rename to supabase_migrations",
    item="schema-version",
    seen="keeps no history",
    remedy="kvitt migrate",
)
sql(
    "the schema is an older one",
    "alter function kvitt.describe_schema() rename to describe",
    "alter function kvitt.describe() rename to describe_schema",
    item="schema-version",
    seen="older",
    remedy="kvitt migrate",
    api=True,
)
sql(
    "a column is renamed",
    "alter table kvitt.incidents rename column seen_at to looked_at",
    "alter table kvitt.incidents rename column looked_at to seen_at",
    item="tables",
    seen="incidents.seen_at is missing",
    remedy="undo that by hand",
)
sql(
    "a column is of another type",
    "alter table kvitt.cold_starts alter column boot_ms type double precision",
    "alter table kvitt.cold_starts alter column boot_ms type numeric",
    item="tables",
    seen="cold_starts.boot_ms is `double precision` and should be `numeric`",
    remedy="undo that by hand",
)
sql(
    "a column may be empty",
    "alter table kvitt.records alter column digest drop not null",
    "alter table kvitt.records alter column digest set not null",
    item="tables",
    seen="records.digest",
    remedy="undo that by hand",
)
sql(
    "a table is gone",
    "alter table kvitt.alarms set schema public",
    "alter table public.alarms set schema kvitt",
    item="tables",
    seen="alarms.",
    remedy="undo that by hand",
)
sql(
    "a constraint is gone",
    "alter table kvitt.periods drop constraint periods_check",
    "alter table kvitt.periods add constraint periods_check check (opens_at < due_at)",
    item="guards",
    seen="periods constraint periods_check is missing",
    remedy="undo that by hand",
)
sql(
    "a record may be taken twice",
    "alter table kvitt.records drop constraint records_integration_id_period_due_at_sequence_key",
    "alter table kvitt.records add constraint records_integration_id_period_due_at_sequence_key"
    " unique (integration_id, period_due_at, sequence)",
    item="guards",
    seen="records_integration_id_period_due_at_sequence_key is missing",
    remedy="undo that by hand",
)
sql(
    "an index is gone",
    "alter index kvitt.chunks_one_post rename to chunks_some_post",
    "alter index kvitt.chunks_some_post rename to chunks_one_post",
    item="guards",
    seen="chunks index chunks_one_post is missing",
    remedy="undo that by hand",
)
sql(
    "a trigger is switched off",
    "alter table kvitt.records disable trigger guard_content",
    "alter table kvitt.records enable trigger guard_content",
    item="guards",
    seen="records trigger guard_content is",
    remedy="undo that by hand",
)
sql(
    "a function was changed by hand",
    "alter function kvitt.seconds(interval) rename to kept;"
    "create function kvitt.seconds(p_length interval) returns numeric language sql immutable"
    " set search_path = '' as 'select 0::numeric';"
    "revoke execute on function kvitt.seconds from public",
    "drop function kvitt.seconds(interval); alter function kvitt.kept(interval) rename to seconds",
    item="functions",
    seen="seconds(p_length interval) is",
    remedy="undo that by hand",
)
sql(
    "a function is gone",
    "alter function kvitt.skip_period set schema public",
    "alter function public.skip_period set schema kvitt",
    item="functions",
    seen="skip_period(",
    remedy="undo that by hand",
)
sql(
    "a function looks for its names anywhere",
    "alter function kvitt.add_records(jsonb) reset search_path",
    "alter function kvitt.add_records(jsonb) set search_path = ''",
    item="functions",
    seen="add_records(",
    remedy="undo that by hand",
)
sql(
    "a function runs as its caller",
    "alter function kvitt.beat(text, jsonb) security invoker",
    "alter function kvitt.beat(text, jsonb) security definer",
    item="functions",
    seen="beat(",
    remedy="undo that by hand",
)
sql(
    "a table may not be read",
    "revoke select on kvitt.cold_starts from service_role",
    "grant select on kvitt.cold_starts to service_role",
    item="grants",
    seen="cold_starts is missing",
    remedy="Grant or revoke what is named",
)
sql(
    "a function may not be called",
    "revoke execute on function kvitt.fail_period from service_role",
    "grant execute on function kvitt.fail_period to service_role",
    item="grants",
    seen="fail_period(",
    remedy="Grant or revoke what is named",
)
sql(
    "the ledger may be written past its functions",
    "grant update on kvitt.periods to service_role",
    "revoke update on kvitt.periods from service_role",
    item="grants",
    seen="periods is `SELECT, UPDATE`",
    remedy="Grant or revoke what is named",
)
sql(
    "signed-in users may look in",
    "grant usage on schema kvitt to authenticated; grant select on kvitt.records to authenticated",
    "revoke all on schema kvitt from authenticated; revoke all on kvitt.records from authenticated",
    item="strangers",
    seen="SELECT for authenticated on records",
    remedy="Revoke what is named",
)
sql(
    "everybody may call a function",
    "grant execute on function kvitt.add_records(jsonb) to public",
    "revoke execute on function kvitt.add_records(jsonb) from public",
    item="strangers",
    seen="EXECUTE for everybody on add_records",
    remedy="Revoke what is named",
)
sql(
    "anon is a member of service_role",
    "grant service_role to anon",
    "revoke service_role from anon",
    item="strangers",
    seen="the role service_role for anon",
    remedy="Revoke what is named",
)
sql(
    "a table is without row level security",
    "alter table kvitt.records disable row level security",
    "alter table kvitt.records enable row level security",
    item="row-security",
    seen="records is `off`",
    remedy="enable row level security",
)
sql(
    "a policy lets somebody in",
    "create policy everybody on kvitt.records for select using (true)",
    "drop policy everybody on kvitt.records",
    item="row-security",
    seen="records is `on, policy everybody`",
    remedy="drop the policies",
)


# -- foundation: integrations and connections ------------------------------------------------------


@case(
    "a zone that nobody has",
    item="integrations",
    seen="time_zone",
    remedy="kvitt integrations import",
)
def _(scene: Scene) -> Any:
    return scene.integration(BUSINESS_CENTRAL, time_zone="Mars/Base")


@case(
    "a vendor that kvitt does not know",
    item="integrations",
    seen="knows no vendor visma",
    remedy="kvitt integrations import",
)
def _(scene: Scene) -> Any:
    return scene.integration(BUSINESS_CENTRAL, vendor="visma")


@case(
    "a connection without a block",
    item=f"connection/{XLEDGER}",
    seen="there is no block kvitt-xledger/nordvest",
    remedy="Create or correct the block",
)
def _(scene: Scene) -> Any:
    return scene.without_block(Xledger, "nordvest")


@case(
    "a block with no address",
    item=f"connection/{BUSINESS_CENTRAL}",
    seen="kvitt-business-central/fjordby: what it holds makes no sense",
    remedy="Create or correct the block",
)
def _(scene: Scene) -> Any:
    return scene.block(BusinessCentral, "fjordby", api_url="api.businesscentral.dynamics.com")


# -- core services: the Edge Function --------------------------------------------------------------


@case("the function does not start", item="function", seen="BOOT_ERROR", remedy="see its logs")
def _(scene: Scene) -> Any:
    return scene.function("throw new Error('it does not start');")


@case("another function", item="function", seen="does not answer as docs", remedy="Deploy it")
def _(scene: Scene) -> Any:
    return scene.function("Deno.serve(() => Response.json({ hello: 'world' }));")


@case("the function is not deployed", item="function", seen="NOT_FOUND", remedy="Deploy it")
@contextmanager
def _(scene: Scene) -> Generator[None]:
    file = scene.folder / "supabase" / "functions" / "collect" / "index.ts"
    away = file.rename(file.with_suffix(".away"))
    scene.stack.supabase.functions.end_workers()
    yield
    away.rename(file)


@case(
    "it always says that it had to boot",
    item="function",
    seen="had to boot",
    remedy="docs/edge-function.md",
)
def _(scene: Scene) -> Any:
    return scene.function(scene.collect(("booted = false;", "")))


@case(
    "it counts otherwise",
    item="function-page",
    seen="to an empty period it says",
    remedy="docs/edge-function.md",
)
def _(scene: Scene) -> Any:
    reply = "return Response.json({ key: body.key, taken: 1, total: 1, done: true });"
    return scene.function(scene.collect(("  return await collect(request, body, boot);", reply)))


@case(
    "it says by itself that the batch is frozen",
    item="function-page",
    seen="the ledger has not frozen it",
    remedy="docs/edge-function.md",
)
def _(scene: Scene) -> Any:
    reply = "return Response.json({ key: body.key, taken: 0, total: 0, done: true });"
    return scene.function(scene.collect(("  return await collect(request, body, boot);", reply)))


@case(
    "it hides that the lease is lost",
    item="function-again",
    seen="does not say KV001",
    remedy="docs/edge-function.md",
)
def _(scene: Scene) -> Any:
    hidden = """  const said = await collect(request, body, boot);
  return said.ok ? said : answer({ code: "SORRY", message: "no" }, said.status);"""
    return scene.function(scene.collect(("  return await collect(request, body, boot);", hidden)))


@case(
    "it lets in everybody",
    item="function-strangers",
    seen="without a key it answers 200",
    remedy="use none of its own",
)
def _(scene: Scene) -> Any:
    own = 'Deno.env.get("SUPABASE_SERVICE_ROLE_KEY") ?? "";'
    return scene.function(
        scene.collect(
            ('request.headers.get("apikey") ?? "";', own),
            ('request.headers.get("authorization") ?? `Bearer ${key}`;', "`Bearer ${key}`;"),
        )
    )


# -- core services: vendors ------------------------------------------------------------------------


@case(
    "a dimension for which there is no slot",
    item=f"mapping/{XLEDGER}",
    seen="Xledger has no slot 'department'",
    remedy="kvitt integrations import",
)
def _(scene: Scene) -> Any:
    return scene.integration(XLEDGER, mapping={"dimensions": {"cost_centre": "department"}})


@case(
    "the accounting system is not there",
    item=f"vendor/{BUSINESS_CENTRAL}",
    seen="Business Central could not be asked",
    remedy="open the way out",
)
def _(scene: Scene) -> Any:
    return scene.block(BusinessCentral, "fjordby", api_url=f"http://127.0.0.1:{free_port()}")


@case(
    "the accounting system is down",
    item=f"vendor/{XLEDGER}",
    seen="503",
    remedy="status page",
)
def _(scene: Scene) -> Any:
    return scene.faults(scene.stack.xledger, on="*", fault="status", status=503)


@case(
    "a token that was renewed",
    item=f"credentials/{XLEDGER}",
    seen="Xledger",
    remedy="Renew them",
)
def _(scene: Scene) -> Any:
    return scene.block(Xledger, "nordvest", token=SecretStr("a-token-of-yesterday"))


@case(
    "a client secret that ran out",
    item=f"credentials/{BUSINESS_CENTRAL}",
    seen="Business Central",
    remedy="Renew them",
)
def _(scene: Scene) -> Any:
    return scene.block(BusinessCentral, "fjordby", client_secret=SecretStr("of-yesterday"))


@case(
    "the company is closed for posting",
    item=f"set-up/{BUSINESS_CENTRAL}",
    seen="Open the period",
    remedy="Change in the accounting system",
)
def _(scene: Scene) -> Any:
    closed = {"allow_posting_from": "2020-01-01", "allow_posting_to": "2020-12-31"}
    return scene.settings(scene.stack.business_central, **closed)


@case(
    "the books are in another currency",
    item=f"set-up/{BUSINESS_CENTRAL}",
    seen="local currency in Business Central is SEK",
    remedy="Change in the accounting system",
)
def _(scene: Scene) -> Any:
    return scene.settings(scene.stack.business_central, local_currency="SEK")


@case(
    "rows cannot be read back by reference",
    item=f"set-up/{XLEDGER}",
    seen="filter_by_reference off",
    remedy="Change in the accounting system",
)
def _(scene: Scene) -> Any:
    return scene.block(Xledger, "nordvest", filter_by_reference=True)


@case(
    "an account that is not there",
    item=f"accounts/{XLEDGER}",
    seen="7141 (mapping.accounts.travel) is not there",
    remedy="correct the mapping",
)
def _(scene: Scene) -> Any:
    accounts = {"travel": "7141", "meals": "7150"}
    return scene.integration(XLEDGER, mapping={"accounts": accounts, "dimensions": SLOTS})


@case(
    "an account that is not in Business Central",
    item=f"accounts/{BUSINESS_CENTRAL}",
    seen="7141 (mapping.accounts.travel) is not there",
    remedy="correct the mapping",
)
def _(scene: Scene) -> Any:
    return scene.integration(BUSINESS_CENTRAL, mapping={"accounts": {"travel": "7141"}})


@case(
    "an account that is blocked",
    item=f"accounts/{BUSINESS_CENTRAL}",
    seen="7140 (mapping.accounts.travel) is blocked",
    remedy="Create or open the account",
)
def _(scene: Scene) -> Any:
    def wish(*, blocked: bool) -> Any:
        account = {"number": "7140", "blocked": blocked}
        return {"companies": [{"id": setup.CLUB, "accounts": [account]}]}

    return scene.vendor(scene.stack.business_central, wish(blocked=True), wish(blocked=False))


@case(
    "a dimension that is not there",
    item=f"dimensions/{BUSINESS_CENTRAL}",
    seen="STED (mapping.dimensions.place) is not there",
    remedy="correct the mapping",
)
def _(scene: Scene) -> Any:
    return scene.integration(BUSINESS_CENTRAL, mapping={"dimensions": {"place": "STED"}})


@case(
    "a value that is not there",
    item=f"dimensions/{BUSINESS_CENTRAL}",
    seen="AVDELING 99 (mapping.values.cost_centre.hall) is not there",
    remedy="correct the mapping",
)
def _(scene: Scene) -> Any:
    mapping = {
        "dimensions": {"cost_centre": "AVDELING"},
        "values": {"cost_centre": {"hall": "99", "office": "10"}},
    }
    return scene.integration(BUSINESS_CENTRAL, mapping=mapping)


@case(
    "an object that is not in Xledger",
    item=f"dimensions/{XLEDGER}",
    seen="glObject1 99 (mapping.values.cost_centre.hall) is not there",
    remedy="correct the mapping",
)
def _(scene: Scene) -> Any:
    mapping = {
        "dimensions": SLOTS,
        "values": {"cost_centre": {"hall": "99", "office": "10"}},
    }
    return scene.integration(XLEDGER, mapping=mapping)


# -- orchestration: the server ---------------------------------------------------------------------


@case("the server is down", item="server", seen="does not answer", remedy="Start it")
def _(scene: Scene) -> Any:
    return scene.server_at(f"http://127.0.0.1:{free_port()}/api")


@contextmanager
def _warped(scene: Scene, **bent: Any) -> Generator[None]:
    with Warp(scene.stack.prefect.url, **bent) as warp, scene.server_at(f"{warp.url}/api"):
        yield


@case(
    "another password",
    item="server-key",
    seen="it answers 401",
    remedy="Set PREFECT_API_AUTH_STRING",
)
def _(scene: Scene) -> Any:
    def bend(path: str, status: int, body: bytes) -> tuple[int, bytes]:
        return (status, body) if path == "/api/health" else (401, b"{}")

    return _warped(scene, bend=bend)


@case(
    "a server that is open to others",
    item="protected",
    seen="answers without a password",
    remedy="PREFECT_SERVER_API_AUTH_STRING",
)
def _(scene: Scene) -> Any:
    return scene.server_at(scene.prefect_url.replace("127.0.0.1", "0.0.0.0"))  # noqa: S104 - an address that is not this machine's alone


@case(
    "a server of another version",
    item="server-version",
    seen="the server has 3.0.1",
    remedy="Install the same version",
)
def _(scene: Scene) -> Any:
    def bend(path: str, status: int, body: bytes) -> tuple[int, bytes]:
        return (status, b'"3.0.1"' if path == "/api/admin/version" else body)

    return _warped(scene, bend=bend)


@case(
    "the server's clock is ahead",
    item="clock-server",
    seen="ahead of this machine",
    remedy="NTP",
)
def _(scene: Scene) -> Any:
    return _warped(scene, ahead=timedelta(minutes=2))


@case(
    "the database's clock is ahead",
    item="clock-database",
    seen="ahead of this machine",
    remedy="NTP",
)
@asynccontextmanager
async def _(scene: Scene) -> AsyncGenerator[None]:
    def bend(path: str, status: int, body: bytes) -> tuple[int, bytes]:
        if not path.endswith("/describe_schema"):
            return status, body
        described = json.loads(body)
        there = datetime.fromisoformat(described["at"]) + timedelta(minutes=2)
        return status, json.dumps({**described, "at": there.isoformat()}).encode()

    with Warp(scene.stack.supabase.url, bend=bend) as warp:
        async with scene.project_at(warp.url):
            yield


@case(
    "the accounting system's clock is behind",
    item=f"clock-vendor/{XLEDGER}",
    seen="behind of this machine",
    remedy="NTP",
)
@asynccontextmanager
async def _(scene: Scene) -> AsyncGenerator[None]:
    with Warp(scene.stack.xledger.url, ahead=timedelta(minutes=-2)) as warp:
        async with scene.block(Xledger, "nordvest", api_url=f"{warp.url}/graphql"):
            yield


# -- orchestration: who works ----------------------------------------------------------------------


def _pool(breaking: WorkPoolUpdate, mending: WorkPoolUpdate) -> Callable[[Scene], Any]:
    return lambda scene: scene.prefect(
        lambda client: client.update_work_pool(POOL, breaking),
        lambda client: client.update_work_pool(POOL, mending),
    )


case("the work pool is paused", item="pool", seen="is paused", remedy="resume it")(
    _pool(WorkPoolUpdate(is_paused=True), WorkPoolUpdate(is_paused=False))
)
case("the work pool lets nothing through", item="pool", seen="its limit is 0", remedy="resume it")(
    _pool(WorkPoolUpdate(concurrency_limit=0), WorkPoolUpdate(concurrency_limit=None))
)


@case("a queue is paused", item="pool", seen="paused: default", remedy="resume it")
def _(scene: Scene) -> Any:
    async def pause(client: PrefectClient, *, on: bool) -> None:
        queue = await client.read_work_queue_by_name("default", work_pool_name=POOL)
        await client.update_work_queue(queue.id, is_paused=on)

    return scene.prefect(lambda c: pause(c, on=True), lambda c: pause(c, on=False))


@case("no worker is alive", item="worker", seen="of worker, is", remedy="prefect worker start")
def _(scene: Scene) -> Any:
    return scene.silent("worker")


@case("watch is silent", item="watch", seen="no sign of life for 30 minutes", remedy="watch/kvitt")
def _(scene: Scene) -> Any:
    return scene.silent("watch")


# -- orchestration: what is declared ---------------------------------------------------------------


async def _deployment(client: PrefectClient, name: str) -> UUID:
    return (await client.read_deployment_by_name(name)).id


def _deployments(breaking: Callable[[PrefectClient], Any]) -> Callable[[Scene], Any]:
    def broken(scene: Scene) -> Any:
        async def mend(_: PrefectClient) -> None:
            await scene.align()

        return scene.prefect(breaking, mend)

    return broken


@case(
    "a deployment is paused",
    item=f"deployment/{BUSINESS_CENTRAL}",
    seen="enabled: False → True",
    remedy="kvitt apply",
)
@_deployments
async def _(client: PrefectClient) -> None:
    await client.pause_deployment(await _deployment(client, f"sync/{BUSINESS_CENTRAL}"))


@case(
    "a deployment is gone",
    item=f"deployment/{BUSINESS_CENTRAL}",
    seen="it is new",
    remedy="kvitt apply",
)
@_deployments
async def _(client: PrefectClient) -> None:
    await client.delete_deployment(await _deployment(client, f"sync/{BUSINESS_CENTRAL}"))


@case(
    "a schedule is switched off",
    item=f"deployment/{XLEDGER}",
    seen="schedule:",
    remedy="kvitt apply",
)
@_deployments
async def _(client: PrefectClient) -> None:
    there = await client.read_deployment_by_name(f"sync/{XLEDGER}")
    await client.update_deployment_schedule(there.id, there.schedules[0].id, active=False)


@case(
    "the schedule is another one than the table's",
    item=f"deployment/{BUSINESS_CENTRAL}",
    seen="schedule: `30 6 * * 1-5`",
    remedy="kvitt apply",
)
def _(scene: Scene) -> Any:
    return scene.integration(BUSINESS_CENTRAL, cron="45 6 * * 1-5")


@case(
    "a deployment of an integration that is gone",
    item="strays",
    seen="sync/nobody",
    remedy="pauses it",
)
def _(scene: Scene) -> Any:
    async def create(client: PrefectClient) -> None:
        flow = (await client.read_deployment_by_name(f"sync/{XLEDGER}")).flow_id
        await client.create_deployment(
            flow_id=flow,
            name="nobody",
            tags=["kvitt"],
            parameters={"integration": "nobody", "project": "kvitt"},
        )

    async def delete(client: PrefectClient) -> None:
        await client.delete_deployment(await _deployment(client, "sync/nobody"))

    return scene.prefect(create, delete)


@case(
    "watch has no schedule",
    item="fixed-deployments",
    seen="watch/kvitt: schedules",
    remedy="deploy --all",
)
def _(scene: Scene) -> Any:
    async def switch(client: PrefectClient, *, on: bool) -> None:
        there = await client.read_deployment_by_name("watch/kvitt")
        await client.update_deployment_schedule(there.id, there.schedules[0].id, active=on)

    return scene.prefect(lambda c: switch(c, on=False), lambda c: switch(c, on=True))


@case(
    "follow-up is paused",
    item="fixed-deployments",
    seen="follow-up/kvitt: paused is True",
    remedy="deploy --all",
)
def _(scene: Scene) -> Any:
    async def pause(client: PrefectClient) -> None:
        await client.pause_deployment(await _deployment(client, "follow-up/kvitt"))

    async def resume(client: PrefectClient) -> None:
        await client.resume_deployment(await _deployment(client, "follow-up/kvitt"))

    return scene.prefect(pause, resume)


async def _automation(client: PrefectClient, name: str) -> Automation:
    return (await client.read_automations_by_name(name))[0]


def _automations(breaking: Callable[[PrefectClient], Any]) -> Callable[[Scene], Any]:
    async def mend(_: PrefectClient) -> None:
        wanted, _ = await automations.wanted_automations()
        await automations.apply_automations(wanted)

    return lambda scene: scene.prefect(breaking, mend)


FIRST = automations.AUTOMATIONS[0]


@case(
    "an automation is gone",
    item="automations",
    seen=f"`{FIRST.name}` is missing",
    remedy="kvitt apply",
)
@_automations
async def _(client: PrefectClient) -> None:
    await client.delete_automation((await _automation(client, FIRST.name)).id)


@case(
    "an automation is switched off",
    item="automations",
    seen=f"`{FIRST.name}`: it was switched off",
    remedy="kvitt apply",
)
@_automations
async def _(client: PrefectClient) -> None:
    await client.pause_automation((await _automation(client, FIRST.name)).id)


@case(
    "an automation does something else",
    item="automations",
    seen=f"`{FIRST.name}`: its trigger was another one",
    remedy="kvitt apply",
)
@_automations
async def _(client: PrefectClient) -> None:
    other: AutomationCore = FIRST.model_copy(deep=True)
    other.trigger.expect = {"prefect.flow-run.Failed"}  # pyright: ignore[reportAttributeAccessIssue]
    await client.update_automation((await _automation(client, FIRST.name)).id, other)


@case(
    "an event is passed on to nobody",
    item="notifications",
    seen="`kvitt: tell of period.failed` is missing",
    remedy="kvitt apply",
)
@_automations
async def _(client: PrefectClient) -> None:
    told = await _automation(client, "kvitt: tell of period.failed")
    await client.delete_automation(told.id)


@case("nobody was ever named", item="notify", seen="no block was ever named", remedy="--notify")
def _(scene: Scene) -> Any:
    return scene.prefect(
        lambda client: client.delete_variable_by_name(REMEMBERED),
        lambda client: client.create_variable(VariableCreate(name=REMEMBERED, value=TELLS)),
    )


@case(
    "the block that tells people is gone",
    item="notify",
    seen="there is no block custom-webhook/gone",
    remedy="--notify",
)
def _(scene: Scene) -> Any:
    gone = VariableUpdate(name=REMEMBERED, value="custom-webhook/gone")
    return scene.prefect(
        lambda client: client.update_variable(gone),
        lambda client: client.update_variable(VariableUpdate(name=REMEMBERED, value=TELLS)),
    )


@case(
    "the block that is to tell people tells nobody",
    item="notify",
    seen="the block kvitt-supabase-project/kvitt tells nobody",
    remedy="--notify",
)
def _(scene: Scene) -> Any:
    wrong = VariableUpdate(name=REMEMBERED, value="kvitt-supabase-project/kvitt")
    return scene.prefect(
        lambda client: client.update_variable(wrong),
        lambda client: client.update_variable(VariableUpdate(name=REMEMBERED, value=TELLS)),
    )


@case(
    "task results have no block",
    item="results",
    seen="there is no block kvitt-task-results/kvitt",
    remedy="kvitt apply, which saves it",
)
def _(scene: Scene) -> Any:
    return scene.without_block(TaskResults, "kvitt")


@case(
    "task results are kept elsewhere",
    item="results",
    seen="they are kept at http://127.0.0.1:9",
    remedy="Delete the block",
)
@asynccontextmanager
async def _(scene: Scene) -> AsyncGenerator[None]:
    elsewhere = SupabaseProject(url="http://127.0.0.1:9", secret_key=SecretStr("sb_secret_other"))
    with scene.at_hand():
        await elsewhere.asave("elsewhere", overwrite=True)
    async with scene.block(TaskResults, "kvitt", project=elsewhere):
        yield


# -- orchestration: the second scheduler -----------------------------------------------------------

sql(
    "pg_net is not there",
    "alter function net.http_post rename to http_put",
    "alter function net.http_put rename to http_post",
    item="scheduler",
    seen="the database has no pg_net",
    remedy="enable the extensions",
)
sql(
    "the job is not there",
    "update cron.job set jobname = 'kept'",
    "update cron.job set jobname = 'kvitt'",
    item="scheduler",
    seen="its job is not there",
    remedy="kvitt scheduler install",
)
sql(
    "the job is switched off",
    "update cron.job set active = false",
    "update cron.job set active = true",
    item="scheduler",
    seen="its job is switched off",
    remedy="kvitt scheduler install",
)
sql(
    "a secret is missing",
    "update vault.secrets set name = 'kept' where name = 'kvitt_webhook_url'",
    "update vault.secrets set name = 'kvitt_webhook_url' where name = 'kept'",
    item="scheduler-secrets",
    seen="kvitt_webhook_url (where alarms are posted)",
    remedy="vault.create_secret",
)
sql(
    "the database cannot reach Prefect",
    "update vault.secrets set description = secret, secret = 'http://127.0.0.1:9/api'"
    " where name = 'kvitt_prefect_api_url'",
    "update vault.secrets set secret = description where name = 'kvitt_prefect_api_url'",
    item="scheduler-calls-out",
    seen="Prefect does not answer",
    remedy="let the database reach",
)


@case(
    "the second scheduler knows another deployment",
    item="scheduler-deployments",
    seen=f"it does not know the deployment of {XLEDGER}",
    remedy="kvitt apply",
)
@asynccontextmanager
async def _(scene: Scene) -> AsyncGenerator[None]:
    scene.database.execute("update kvitt.deployments set deployment = gen_random_uuid()")
    yield
    with scene.at_hand():
        await scene.align()


@case(
    "the job does not run",
    item="scheduler-at-work",
    seen="it has not run since",
    remedy="cron.job_run_details",
)
def _(scene: Scene) -> Any:
    return scene.silent("pg_cron")


# -- the data flow ---------------------------------------------------------------------------------


@case(
    "no time for the function to answer",
    item=f"rehearsal/{XLEDGER}",
    seen="did not answer within 0.001 s",
    remedy="Mend what the message says",
)
def _(scene: Scene) -> Any:
    return scene.integration(XLEDGER, timeouts={"function": 0.001}, limits={"warm_up": 0})


sql(
    "the calendar is not written ahead",
    "create table public.kept as select * from kvitt.periods where due_at > now()"
    " and integration_id = 'nordvest-xledger';"
    "delete from kvitt.periods where key in (select key from public.kept)",
    "insert into kvitt.periods select * from public.kept; drop table public.kept",
    item=f"next-period/{XLEDGER}",
    seen="its calendar is not written ahead",
    remedy="See that watch runs",
)


@case(
    "vouchers that would be set aside",
    item=f"next-period/{BUSINESS_CENTRAL}",
    seen="vouchers would be set aside",
    remedy="kvitt preview",
)
def _(scene: Scene) -> Any:
    mapping = {"accounts": {"owed-to-suppliers": "2400"}, "strict": ["accounts"]}
    return scene.integration(BUSINESS_CENTRAL, mapping=mapping)
