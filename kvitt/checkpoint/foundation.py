"""The foundation: the project, its key, the schema, and the integrations in it."""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING, Any, cast

import httpx

from kvitt.checkpoint.items import Awaits, Broken, Group, NotApplicable, each, once
from kvitt.checkpoint.schema import differences, expected, in_short
from kvitt.domain.errors import LedgerRefused
from kvitt.project import SCHEMA
from kvitt.vendors import VENDORS

if TYPE_CHECKING:
    from kvitt.checkpoint.site import Site
    from kvitt.domain.integrations import Integration

_SERVER_ERROR, _NOT_FOUND = 500, 404
_REFUSED = (401, 403)
_MIGRATE = "Bring the schema up to date: kvitt migrate (or supabase db push)"
_AS_MADE = (
    "Find out who changed it, and undo that by hand: a migration that has been applied is not "
    "applied again"
)


@once(
    "project",
    Group.FOUNDATION,
    checks="the Supabase project answers at its address",
    why="The ledger is there: without it nothing is exported, and nothing is known.",
    remedy="Correct the URL in the block kvitt-supabase-project (or SUPABASE_URL), or start the "
    "project: a hosted one that was not used is paused",
)
async def project(site: Site) -> str:
    """Ask without a key: whatever the API says, it is there."""
    if site.url is None:
        raise Awaits("project-block", "its address is in a block")
    try:
        reply = await site.http.get(f"{site.url.rstrip('/')}/rest/v1/")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Broken(f"{site.url} does not answer ({type(error).__name__})") from error
    if reply.status_code >= _SERVER_ERROR or reply.status_code == _NOT_FOUND:
        raise Broken(f"{site.url} answers {reply.status_code} where its Data API should be")
    return f"{site.url} answers"


@once(
    "key",
    Group.FOUNDATION,
    checks="the project's key is taken, and is a secret one (service_role)",
    why="With a publishable key (anon) the ledger refuses everything; and a key that others have "
    "must not be the one that may write to it.",
    remedy="Put a secret key (sb_secret_…, or the service_role key) into the block "
    "kvitt-supabase-project: Supabase, Project Settings, API keys",
    needs=("project",),
)
async def key(site: Site) -> str:
    """Look at the key itself, then try it."""
    role = _role_of(site.key or "")
    if role not in (None, "service_role"):
        raise Broken(f"it is a key of the role {role}")
    await site.open()
    reply = await _ask_for_integrations(site)
    code = _code_of(reply)
    if reply.status_code in _REFUSED and code != "42501":
        raise Broken(f"the project refuses it ({reply.status_code} {code}".rstrip() + ")")
    return "a secret key, and the project takes it"


@once(
    "exposed",
    Group.FOUNDATION,
    checks="the Data API serves the schema kvitt to that key",
    why="The ledger's functions are called through the Data API.",
    remedy="Add kvitt to the exposed schemas: Supabase, Project Settings, Data API; and run kvitt "
    "migrate, which grants its use to service_role",
    needs=("key",),
)
async def exposed(site: Site) -> str:
    """Ask for nothing of a table of it."""
    reply = await _ask_for_integrations(site)
    message = str(_body_of(reply).get("message", ""))
    if _code_of(reply) == "PGRST106":
        raise Broken(f"the schema {SCHEMA} is not among those that the API serves")
    if _code_of(reply) == "42501" and "schema" in message:
        raise Broken(f"service_role may not use it: {message}")
    return f"the schema {SCHEMA} is served"


@once(
    "schema-version",
    Group.FOUNDATION,
    checks="each migration of this kvitt has been applied",
    why="The code calls what the latest migration makes.",
    remedy=_MIGRATE,
    needs=("exposed",),
)
async def schema_version(site: Site) -> str:
    """Let the schema describe itself, for the items that follow, and look at its history."""
    try:
        site.schema = await site.ledger.describe_schema()
    except LedgerRefused as error:
        raise Broken(f"it is older than 20261125091000, or damaged: {error}") from error
    there: list[str] | None = site.schema["versions"]
    if there is None:
        raise Broken("it keeps no history of migrations (supabase_migrations.schema_migrations)")
    wanted: list[str] = expected()["versions"]
    missing = sorted(set(wanted) - set(there))
    if missing:
        raise Broken(f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not applied")
    return f"all {len(wanted)} migrations, up to {wanted[-1]}"


@once(
    "tables",
    Group.FOUNDATION,
    checks="tables, columns and enumerations are those of the migrations",
    why="A column that is not there stops a period half-way.",
    remedy=_AS_MADE,
    needs=("schema-version",),
)
async def tables(site: Site) -> str:
    """Compare them."""
    return _compared(site, "tables", "columns and enumerations")


@once(
    "guards",
    Group.FOUNDATION,
    checks="constraints, indexes and triggers are those of the migrations",
    why="That a record is taken once, and a call written down once, they hold and nothing else.",
    remedy=_AS_MADE,
    needs=("tables",),
)
async def guards(site: Site) -> str:
    """Compare them."""
    return _compared(site, "guards", "constraints, indexes and triggers")


@once(
    "functions",
    Group.FOUNDATION,
    checks="functions are those of the migrations: signature, owner's rights, search_path, body",
    why="Each change of state is one of them.",
    remedy=_AS_MADE,
    needs=("schema-version",),
)
async def functions(site: Site) -> str:
    """Compare them."""
    return _compared(site, "functions", "functions")


@once(
    "grants",
    Group.FOUNDATION,
    checks="service_role may do what kvitt does, and no more",
    why="What it lacks stops a period; and with more, a mistake could write past the functions.",
    remedy="Grant or revoke what is named, as the migrations have it",
    needs=("tables", "functions"),
)
async def grants(site: Site) -> str:
    """Compare them."""
    return _compared(site, "grants", "rights of service_role")


@once(
    "row-security",
    Group.FOUNDATION,
    checks="row level security is on for each table, without a policy",
    why="It keeps signed-in users of the app out of the ledger, whatever is granted by mistake.",
    remedy="alter table kvitt.… enable row level security; drop the policies that are named",
    needs=("tables",),
)
async def row_security(site: Site) -> str:
    """Compare it."""
    return _compared(site, "row_security", "tables have it")


@once(
    "strangers",
    Group.FOUNDATION,
    checks="nobody but service_role has any right in the schema kvitt",
    why="Whoever has the publishable key, as each browser has, could read salaries and claims.",
    remedy="Revoke what is named: revoke all on … from …",
    needs=("schema-version",),
)
async def strangers(site: Site) -> str:
    """Look at all rights but the owner's and service_role's; and ask without any key."""
    others: dict[str, str] = site.schema["others"]
    if others:
        told = in_short([f"{rights} for {who}" for who, rights in sorted(others.items())])
        raise Broken(f"others have rights: {told}")
    headers = {"Accept-Profile": SCHEMA}
    reply = await site.http.get(f"{site.url}/rest/v1/integrations?limit=1", headers=headers)
    if reply.is_success:
        raise Broken(
            "the Data API answers without any key",
            remedy="Demand a key at the gateway in front of PostgREST",
        )
    return "neither anon, nor authenticated, nor anybody else; without a key the API refuses"


@once(
    "integrations",
    Group.FOUNDATION,
    checks="each row of the table of integrations can be read, and names a vendor that kvitt knows",
    why="Nobody works on one that cannot be read.",
    remedy="Correct the row: kvitt integrations import FILE.yaml",
    needs=("exposed",),
)
async def integrations(site: Site) -> str:
    """Read them all; those that can be read are looked at, whatever the others are."""
    found = await site.ledger.read_integrations()
    site.integrations = [who for who in found.valid if who.vendor in VENDORS]
    site.unreadable = [*found.broken, *(w.id for w in found.valid if w.vendor not in VENDORS)]
    unknown = {
        who.id: f"{who.id}: kvitt knows no vendor {who.vendor}, only {', '.join(sorted(VENDORS))}"
        for who in found.valid
        if who.vendor not in VENDORS
    }
    if wrong := {**found.broken, **unknown}:
        raise Broken(in_short(list(wrong.values())))
    if not found.valid:
        raise NotApplicable("there are none yet")
    return f"{len(found.valid)}: {in_short([who.id for who in found.valid])}"


@each(
    "connection",
    Group.FOUNDATION,
    checks="its connection's block exists and opens",
    why="Address and credentials of the accounting system are in it.",
    remedy="Create or correct the block in the Prefect UI, under Blocks, with the name that the "
    "integration has as its connection",
    needs=("server-key",),
)
async def connection(site: Site, who: Integration) -> str:
    """Open it; nothing is asked yet."""
    try:
        address = await site.address_of(who)
        httpx.URL(address)
        await site.vendor(who)
    except (LookupError, ValueError, httpx.InvalidURL) as error:
        words = str(error) if isinstance(error, LookupError) else "what it holds makes no sense"
        raise Broken(f"kvitt-{who.vendor}/{who.connection}: {words}") from error
    if not address.startswith(("http://", "https://")):
        raise Broken(f"kvitt-{who.vendor}/{who.connection}: its API URL is no address")
    return f"kvitt-{who.vendor}/{who.connection}, for {address}"


ITEMS = (
    project,
    key,
    exposed,
    schema_version,
    tables,
    guards,
    functions,
    grants,
    row_security,
    strangers,
    integrations,
    connection,
)


def _compared(site: Site, part: str, what: str) -> str:
    if found := differences(part, site.schema):
        raise Broken(in_short(found))
    return f"{len(expected()[part])} {what}, as the migrations make them"


async def _ask_for_integrations(site: Site) -> httpx.Response:
    headers = {
        "apikey": site.key or "",
        "Authorization": f"Bearer {site.key}",
        "Accept-Profile": SCHEMA,
    }
    address = f"{site.url}/rest/v1/integrations?select=id&limit=1"
    try:
        return await site.http.get(address, headers=headers)
    except httpx.HTTPError as error:
        raise Broken(f"the Data API does not answer ({type(error).__name__})") from error


def _body_of(reply: httpx.Response) -> dict[str, Any]:
    try:
        body = reply.json()
    except ValueError:
        return {}
    return cast("dict[str, Any]", body) if isinstance(body, dict) else {}


def _code_of(reply: httpx.Response) -> str:
    return str(_body_of(reply).get("code") or "")


def _role_of(key: str) -> str | None:
    """Return the role that a key says it has, where it says so."""
    if key.startswith("sb_publishable_"):
        return "anon"
    if key.startswith("sb_secret_"):
        return "service_role"
    try:
        payload = key.split(".")[1]
        content = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return str(content["role"])
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error):
        return None
