"""`python -m tests.checkpoint`: writes anew what is made from the code and from the migrations.

That is the expectation of the schema, and the list of items in docs/checkpoint.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from deployments.checkpoint import ITEMS
from kvitt.checkpoint import Group
from kvitt.checkpoint.schema import EXPECTATION, expectation_of
from kvitt.ledger.migrate import migrate, read_migrations
from sandbox.postgres import Postgres
from sandbox.processes import CHECKOUT, Home

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DOCUMENT = CHECKOUT / "docs" / "checkpoint.md"
_FROM, _TO = "<!-- items -->\n", "<!-- end of items -->\n"


def expectation(url: str) -> str:
    """Return the expectation that an empty database becomes by the migrations."""
    migrate(url, read_migrations(CHECKOUT / "supabase" / "migrations"))
    with psycopg.connect(url) as database:
        [[described]] = database.execute("select kvitt.describe_schema()").fetchall()
    return expectation_of(described)


def documented(text: str) -> str:
    """Return the document with the list of items as they are now."""
    before, _, rest = text.partition(_FROM)
    _, _, after = rest.partition(_TO)
    return "".join((before, _FROM, *_tables(), _TO, after))


def _tables() -> Iterator[str]:
    for group in Group:
        yield f"\n### {group.value.capitalize()}\n\n"
        yield "| item | looks whether | why it matters | what to do | needs |\n"
        yield "|---|---|---|---|---|\n"
        for item in ITEMS:
            if item.group is group:
                name = f"`{item.id}`" + (", of each integration" if item.each else "")
                needs = ", ".join(f"`{need}`" for need in item.needs)
                yield f"| {name} | {item.checks} | {item.why} | {item.remedy} | {needs} |\n"
    yield "\n"


def main() -> None:
    with Home.open("expectation") as home:
        _write(EXPECTATION, expectation(Postgres.start(home).url()))
    _write(DOCUMENT, documented(DOCUMENT.read_text()))


def _write(file: Path, text: str) -> None:
    changed = not file.exists() or file.read_text() != text
    file.write_text(text)
    print(f"{file.relative_to(CHECKOUT)} is {'written anew' if changed else 'as it was'}")


if __name__ == "__main__":
    main()
