"""The real ledger on a clock of our own: kvitt's schema in a database whose time a test sets.

Only the words `now()` and `clock_timestamp()` in the migrations are replaced, before they are
applied: all else is what production runs.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import psycopg
from psycopg import sql

from kvitt.ledger.migrate import migrate, read_migrations
from sandbox.processes import CHECKOUT

if TYPE_CHECKING:
    from datetime import datetime

    from sandbox.postgres import Postgres

_CLOCK = """
create schema sim;
create function sim.now() returns timestamptz language sql stable
  as $$ select current_setting('sim.now')::timestamptz $$;
"""
_ASKED = re.compile(r"\b(now|clock_timestamp)\(\)")


class Killed(BaseException):
    """A process that was killed: nothing of it runs any more, no clean-up either."""


@dataclass(kw_only=True)
class ClockedProject:
    """What the ledger takes for a Supabase client, straight on the database. Rpc, and one row."""

    database: psycopg.Connection
    dead: bool = False
    _types: dict[str, tuple[dict[str, str], bool]] = field(default_factory=dict)

    @classmethod
    def create(cls, postgres: Postgres, name: str) -> Self:
        url = postgres.create_database(name)
        database = psycopg.connect(url, autocommit=True)
        database.execute("set synchronous_commit = off")  # a year of commits, and none to keep
        database.execute(_CLOCK.encode())
        clocked = [
            replace(migration, sql=_ASKED.sub("sim.now()", migration.sql))
            for migration in read_migrations(CHECKOUT / "supabase" / "migrations")
        ]
        migrate(url, clocked)
        return cls(database=database)

    def close(self) -> None:
        self.database.close()

    def set_clock(self, moment: datetime) -> None:
        self.database.execute("select set_config('sim.now', %s, false)", [moment.isoformat()])

    def rpc(self, function: str, arguments: dict[str, Any]) -> _Asked:
        types, many = self._signature(function)
        given = {name: _sent(value, types[name]) for name, value in arguments.items()}
        named = [
            sql.SQL("{} => {}::{}").format(
                sql.Identifier(name), sql.Placeholder(name), sql.SQL(types[name])
            )
            for name in given
        ]
        what = "(select coalesce(jsonb_agg(r), '[]') from kvitt.{}({}) r)"
        query = sql.SQL(f"select {what if many else 'to_jsonb(kvitt.{}({}))'}").format(
            sql.Identifier(function), sql.SQL(", ").join(named)
        )
        return _Asked(self, query, given)

    def table(self, name: str) -> _Rows:
        return _Rows(self, name)

    def _signature(self, function: str) -> tuple[dict[str, str], bool]:
        if function not in self._types:
            [(names, types, many)] = self.database.execute(
                "select proargnames, proargtypes::oid[]::regtype[]::text[], proretset from pg_proc"
                " where pronamespace = 'kvitt'::regnamespace and proname = %s",
                [function],
            ).fetchall()
            self._types[function] = (dict(zip(names, types, strict=False)), many)
        return self._types[function]


@dataclass(kw_only=True)
class _Answer:
    data: Any


class _Asked:
    def __init__(self, project: ClockedProject, query: sql.Composable, given: Any) -> None:
        self._project, self._query, self._given = project, query, given

    async def execute(self) -> _Answer:
        if self._project.dead:
            raise Killed
        [(answer,)] = self._project.database.execute(self._query, self._given).fetchall()
        return _Answer(data=answer)


class _Rows:
    """The few questions that the way of a period asks of a table: rows that equal something."""

    def __init__(self, project: ClockedProject, name: str) -> None:
        self._project, self._name = project, name
        self._wanted: dict[str, Any] = {}

    def select(self, _columns: str) -> Self:
        return self

    def eq(self, column: str, value: Any) -> Self:
        self._wanted[column] = value
        return self

    async def execute(self) -> _Answer:
        where = [
            sql.SQL("{} = {}").format(sql.Identifier(c), sql.Placeholder(c)) for c in self._wanted
        ]
        query = sql.SQL("select coalesce(jsonb_agg(r), '[]') from kvitt.{} r where {}").format(
            sql.Identifier(self._name), sql.SQL(" and ").join(where)
        )
        return await _Asked(self._project, query, self._wanted).execute()


def _sent(value: Any, kind: str) -> Any:
    """Send as PostgREST would: JSON to what wants JSON, everything else by its own text."""
    return json.dumps(value) if kind == "jsonb" and value is not None else value
