"""Who may do what, and what never happens to a row: read from the schema itself, and tried."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
import pytest
from postgrest.exceptions import APIError

from kvitt.project import open_project
from sandbox.processes import CHECKOUT
from tests.cast import NORDVEST

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sandbox.supabase import Supabase
    from tests.cast import Stage

TABLES = {
    "integrations",
    "periods",
    "records",
    "record_lines",
    "attempts",
    "chunks",
    "cold_starts",
    "pages",
    "set_aside",
    "decisions",
    "budgets",
    "reservations",
    "incidents",
    "task_results",
    "follow_ups",
    "refusals",
    "heartbeats",
    "deployments",
    "alarms",
    "connections",
    "vendor_modes",
    "connection_changes",
}
STRANGERS = ("anon", "authenticated")
SCHEMA = (CHECKOUT / "supabase/migrations/20261124090000_tables.sql").read_text()


def successors(enum: str) -> dict[str, set[str]]:
    """Read from the schema's comments which state may follow which."""
    [values] = re.findall(rf"create type kvitt\.{enum} as enum \((.*?)\n\);", SCHEMA, re.DOTALL)
    rows = re.findall(r"'(\w+)',?\s+-- →(?: ((?:\w+, )*\w+))?(?=\s|$)", values)
    return {state: {*after.split(", ")} - {""} for state, after in rows}


PERIOD_STATES, CHUNK_STATES = successors("period_state"), successors("chunk_state")


def test_each_table_has_row_level_security_and_no_way_around_it(
    database: psycopg.Connection,
) -> None:
    secured = database.execute(
        "select relname, relrowsecurity from pg_class"
        " where relnamespace = 'kvitt'::regnamespace and relkind in ('r', 'p')"
    ).fetchall()
    assert dict(secured) == dict.fromkeys(TABLES, True)
    policies = database.execute("select * from pg_policies where schemaname = 'kvitt'").fetchall()
    assert policies == []


def test_strangers_have_no_right_to_anything(database: psycopg.Connection) -> None:
    found = database.execute(
        """
        select who, 'schema' from unnest(%(who)s::text[]) who
         where has_schema_privilege(who, 'kvitt', 'usage')
        union all
        select who, relname from unnest(%(who)s::text[]) who, pg_class
         where relnamespace = 'kvitt'::regnamespace and relkind in ('r', 'v', 'm', 'S')
           and has_table_privilege(who, pg_class.oid, 'select, insert, update, delete')
        union all
        select who, proname from unnest(%(who)s::text[]) who, pg_proc
         where pronamespace = 'kvitt'::regnamespace
           and has_function_privilege(who, pg_proc.oid, 'execute')
        """,
        {"who": [*STRANGERS, "public"]},
    ).fetchall()
    assert found == []


def test_the_service_role_reads_tables_but_writes_through_functions_only(
    database: psycopg.Connection,
) -> None:
    rights = database.execute(
        """
        select has_table_privilege('service_role', oid, 'select'),
               has_table_privilege('service_role', oid, 'insert, update, delete, truncate')
          from pg_class where relnamespace = 'kvitt'::regnamespace and relkind = 'r'
        """
    ).fetchall()
    assert set(rights) == {(True, False)}


def test_each_function_fixes_its_search_path(database: psycopg.Connection) -> None:
    loose = database.execute(
        """
        select proname from pg_proc where pronamespace = 'kvitt'::regnamespace
           and prokind <> 'p' -- a procedure with one may not commit; ours is for its owner alone
           and not coalesce(proconfig, '{}') && array['search_path=', 'search_path=""']
        """
    ).fetchall()
    assert loose == []


def test_each_function_that_the_service_role_may_call_runs_as_its_owner(
    database: psycopg.Connection,
) -> None:
    callable_ones = database.execute(
        """
        select proname, prosecdef from pg_proc where pronamespace = 'kvitt'::regnamespace
           and has_function_privilege('service_role', oid, 'execute')
        """
    ).fetchall()
    assert len(callable_ones) > 15
    assert [name for name, as_owner in callable_ones if not as_owner] == []


def test_money_is_numeric(database: psycopg.Connection) -> None:
    columns = database.execute(
        """
        select table_name, column_name, data_type from information_schema.columns
         where table_schema = 'kvitt' and (column_name like '%amount%'
            or data_type in ('real', 'double precision', 'money'))
        """
    ).fetchall()
    assert sorted(columns) == [
        ("record_lines", "amount", "numeric"),
        ("record_lines", "approved_amount", "numeric"),
        ("record_lines", "approved_book_amount", "numeric"),
        ("record_lines", "book_amount", "numeric"),
    ]


def test_each_table_says_what_it_is_for(database: psycopg.Connection) -> None:
    silent = database.execute(
        """
        select relname from pg_class where relnamespace = 'kvitt'::regnamespace and relkind = 'r'
           and obj_description(oid) is null
        """
    ).fetchall()
    assert silent == []


@pytest.mark.parametrize("role", STRANGERS)
async def test_a_stranger_is_refused_by_tables_and_functions(supabase: Supabase, role: str) -> None:
    async with open_project(supabase.url, supabase.keys.jwt_of(role)) as stranger:
        for table in sorted(TABLES):
            with pytest.raises(APIError, match="permission denied for schema kvitt"):
                await stranger.table(table).select("*").execute()
        with pytest.raises(APIError, match="permission denied"):
            await stranger.rpc("integrations_with_work", {}).execute()


async def test_the_publishable_key_is_refused(supabase: Supabase) -> None:
    async with open_project(supabase.url, supabase.publishable_key) as stranger:
        with pytest.raises(APIError, match="permission denied"):
            await stranger.rpc("add_records", {"p_records": []}).execute()


async def test_the_service_role_cannot_write_past_the_functions(
    supabase: Supabase, enrol: Callable[..., Awaitable[Stage]]
) -> None:
    stage = await enrol(NORDVEST)
    async with open_project(supabase.url, supabase.secret_key) as client:
        for table in ("periods", "records", "chunks"):
            with pytest.raises(APIError, match="permission denied for table"):
                await client.table(table).delete().eq("integration_id", stage.id).execute()
        with pytest.raises(APIError, match=r"permission denied|Could not find the function"):
            await client.rpc("period_key", {"p_integration": "a", "p_due": "now"}).execute()
    assert stage.state() == "due"


async def test_the_edge_function_lets_nobody_in_who_has_no_right_to_the_ledger(
    supabase: Supabase, enrol: Callable[..., Awaitable[Stage]]
) -> None:
    stage = await enrol(NORDVEST)
    await stage.approve(1)
    period = await stage.claimed()
    body = {
        "key": period.key,
        "integration": stage.id,
        "due_at": period.due_at.isoformat(),
        "fence": period.fence,
        "page": 10,
    }
    headers = {"apikey": supabase.publishable_key}
    async with httpx.AsyncClient(trust_env=False) as stranger:
        url = f"{supabase.url}/functions/v1/collect"
        answer = await stranger.post(url, json=body, headers=headers)
        assert answer.status_code in {401, 403}
        answer = await stranger.post(url, json=body)
        assert answer.status_code == 401
    assert stage.period("record_count") == (0,)


# -- states ----------------------------------------------------------------------------------------


def test_the_comments_name_each_state(database: psycopg.Connection) -> None:
    for enum, named in (("period_state", PERIOD_STATES), ("chunk_state", CHUNK_STATES)):
        [[states]] = database.execute(
            f"select enum_range(null::kvitt.{enum})::text[]".encode()
        ).fetchall()
        assert set(states) == set(named)
        assert set().union(*named.values()) <= set(named)


@pytest.mark.parametrize("before", PERIOD_STATES)
async def test_a_period_goes_only_where_the_schema_says(
    database: psycopg.Connection, enrol: Callable[..., Awaitable[Stage]], before: str
) -> None:
    stage = await enrol(NORDVEST)
    database.execute(
        """
        update kvitt.periods set frozen_at = now(), reason = 'told', not_before = now()
         where integration_id = %s
        """,
        [stage.id],
    )
    await _force(stage, "periods", before)
    assert {after for after in PERIOD_STATES if _goes(stage, "periods", after)} == (
        PERIOD_STATES[before] | {before}
    )


@pytest.mark.parametrize("before", CHUNK_STATES)
async def test_a_chunk_goes_only_where_the_schema_says(
    database: psycopg.Connection, enrol: Callable[..., Awaitable[Stage]], before: str
) -> None:
    stage = await enrol(NORDVEST)
    database.execute(
        """
        insert into kvitt.chunks (integration_id, due_at, number, kind, first_sequence,
          last_sequence, fence, settle, not_before)
        values (%s, %s, 1, 'lines', 1, 1, 1, '0', now())
        """,
        [stage.id, stage.due[0]],
    )
    await _force(stage, "chunks", before)
    assert {after for after in CHUNK_STATES if _goes(stage, "chunks", after)} == (
        CHUNK_STATES[before] | {before}
    )


def _set(table: str) -> str:
    receipt = (
        ", receipt = case when %(state)s = 'verified' then '{}'::jsonb end,"
        " settled_at = case when %(state)s = 'verified' then now() end"
    )
    return (
        f"update kvitt.{table} set state = %(state)s::kvitt.{table[:-1]}_state"  # noqa: S608 - our own names
        f"{receipt if table == 'periods' else ''}"
        " where integration_id = %(id)s and due_at = %(due)s"
    )


async def _force(stage: Stage, table: str, state: str) -> None:
    """Put a row into a state past its guard, as only a test may."""
    given = {"state": state, "id": stage.id, "due": stage.due[0]}
    with stage.database.transaction():
        stage.database.execute("set local session_replication_role = replica")
        stage.database.execute(_set(table).encode(), given)


def _goes(stage: Stage, table: str, state: str) -> bool:
    """Try to change a state, and take it back."""
    given: dict[str, Any] = {"state": state, "id": stage.id, "due": stage.due[0]}
    try:
        with stage.database.transaction(force_rollback=True):
            stage.database.execute(_set(table).encode(), given)
    except psycopg.Error as error:
        refused = error
    else:
        return True
    assert refused.sqlstate == "KV005", refused
    assert "cannot become" in str(refused)
    return False


# -- what was approved stays as it is --------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        "update kvitt.records set text = 'another' where integration_id = %(id)s",
        "update kvitt.records set currency = 'EUR' where integration_id = %(id)s",
        "update kvitt.records set approved_at = now() where integration_id = %(id)s",
        "delete from kvitt.records where integration_id = %(id)s",
        "update kvitt.record_lines set amount = amount * 2 where integration_id = %(id)s",
        "update kvitt.record_lines set dimensions = '{}' where integration_id = %(id)s",
        "delete from kvitt.record_lines where integration_id = %(id)s",
    ],
)
async def test_not_even_the_owner_changes_what_was_approved(
    enrol: Callable[..., Awaitable[Stage]], change: str
) -> None:
    stage = await enrol(NORDVEST)
    await stage.approve(1)
    with pytest.raises(psycopg.Error, match="change") as refused:
        stage.database.execute(change.encode(), {"id": stage.id})
    assert refused.value.sqlstate == "KV005"


@pytest.mark.parametrize(
    "change",
    [
        "period_due_at = null, sequence = null, voucher_number = null",
        "sequence = sequence + 1",
        "voucher_number = voucher_number + 1",
    ],
)
async def test_what_a_period_took_is_neither_given_back_nor_moved(
    enrol: Callable[..., Awaitable[Stage]], change: str
) -> None:
    stage = await enrol(NORDVEST)
    await stage.approve(1)
    period = await stage.claimed()
    stage.database.execute(
        "select kvitt.collect_page(%s, %s, %s, 10)", [stage.id, period.due_at, period.fence]
    )
    with pytest.raises(psycopg.Error, match="a record does not change") as refused:
        stage.database.execute(
            f"update kvitt.records set {change} where integration_id = %s".encode(),  # noqa: S608 - our own words
            [stage.id],
        )
    assert refused.value.sqlstate == "KV005"
