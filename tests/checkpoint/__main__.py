"""`python -m tests.checkpoint`: writes the expectation of the schema anew, from the migrations."""

from __future__ import annotations

import psycopg

from kvitt.checkpoint.schema import EXPECTATION, expectation_of
from kvitt.ledger.migrate import migrate, read_migrations
from sandbox.postgres import Postgres
from sandbox.processes import CHECKOUT, Home


def expectation(url: str) -> str:
    """Return the expectation that an empty database becomes by the migrations."""
    migrate(url, read_migrations(CHECKOUT / "supabase" / "migrations"))
    with psycopg.connect(url) as database:
        [[described]] = database.execute("select kvitt.describe_schema()").fetchall()
    return expectation_of(described)


def main() -> None:
    with Home.open("expectation") as home:
        text = expectation(Postgres.start(home).url())
    changed = not EXPECTATION.exists() or EXPECTATION.read_text() != text
    EXPECTATION.write_text(text)
    print(f"{EXPECTATION} is {'written anew' if changed else 'as it was'}")


if __name__ == "__main__":
    main()
