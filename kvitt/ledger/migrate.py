"""Applying the migrations: a small runner that keeps the Supabase CLI's own history.

The Supabase CLI writes what it applied into `supabase_migrations.schema_migrations` (version,
name, statements). So do we, so that `supabase db push` and `kvitt migrate` may take turns.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString, cast

import psycopg

MIGRATIONS = Path("supabase/migrations")

# Made of the digits of "kvitt" on a telephone: any number will do, if nobody else takes it.
_LOCK = 58488

_HISTORY = """
create schema if not exists supabase_migrations;
create table if not exists supabase_migrations.schema_migrations (
  version text primary key, statements text[], name text
);
"""


class MigrationError(RuntimeError):
    """A migration could not be applied; the message names it and what Postgres said."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Migration:
    """One file: `<version>_<name>.sql`."""

    version: str
    name: str
    sql: str


def read_migrations(folder: Path = MIGRATIONS) -> list[Migration]:
    """Return the migrations of a folder in order; MigrationError where there are none."""
    found = [_read(path) for path in sorted(folder.glob("*.sql"))]
    if not found:
        raise MigrationError(f"there are no migrations in {folder}: start from the checkout")
    return found


def _read(path: Path) -> Migration:
    version, _, name = path.stem.partition("_")
    if not (version.isdigit() and name):
        raise MigrationError(f"{path.name}: a migration is named <timestamp>_<name>.sql")
    return Migration(version=version, name=name, sql=path.read_text())


def migrate(database_url: str, migrations: list[Migration]) -> list[Migration]:
    """Apply what is missing, each in a transaction of its own; returns what was applied.

    Two at once take turns. Raises MigrationError; what was applied before it stays.
    """
    with _connect(database_url) as connection:
        connection.execute("select pg_advisory_lock(%s)", [_LOCK])
        connection.execute(_HISTORY)
        rows = connection.execute("select version from supabase_migrations.schema_migrations")
        done = {version for (version,) in rows}
        missing = [m for m in migrations if m.version not in done]
        for migration in missing:
            _apply(connection, migration)
        # PostgREST learns of new functions by this, on Supabase and in the sandbox.
        connection.execute("notify pgrst, 'reload schema'")
    return missing


def _connect(database_url: str) -> psycopg.Connection:
    try:
        return psycopg.connect(database_url, autocommit=True)
    except psycopg.ProgrammingError:
        # Not in its own words: they quote the string, and with it a password.
        raise MigrationError(
            "that is no connection string; give one like postgresql://user:password@host:5432/name"
        ) from None
    except psycopg.OperationalError as error:
        raise MigrationError(f"the database cannot be opened: {error}") from error


def _apply(connection: psycopg.Connection, migration: Migration) -> None:
    try:
        with connection.transaction():
            # The files are ours, and may hold many statements: hence no parameters.
            connection.execute(cast("LiteralString", migration.sql))
            connection.execute(
                "insert into supabase_migrations.schema_migrations (version, name, statements)"
                " values (%s, %s, %s)",
                [migration.version, migration.name, [migration.sql]],
            )
    except psycopg.Error as error:
        raise MigrationError(
            f"migration {migration.version}_{migration.name} could not be applied, and nothing of "
            f"it was: {error}"
        ) from error
