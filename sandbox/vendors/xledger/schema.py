"""The GraphQL schema, its scalars, and what the fields of Query and Mutation return."""

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from graphql import (
    GraphQLInputObjectType,
    GraphQLObjectType,
    GraphQLScalarType,
    GraphQLSchema,
    build_schema,
)

from sandbox.vendors.xledger.books import Books
from sandbox.vendors.xledger.errors import XledgerError, invalid
from sandbox.vendors.xledger.importing import Importing, as_node

SDL = Path(__file__).with_name("schema.graphql").read_text()
# A token is bound to an entity and to those below it [C].
BELOW = """WITH RECURSIVE below (id) AS (
    SELECT ? UNION SELECT e.id FROM entities e JOIN below ON e.parent = below.id)
  SELECT id FROM below"""
COMPARISONS = {"": "=", "gte": ">=", "lt": "<", "in": "IN"}


@lru_cache(maxsize=8)
def schema_for(
    *, filterable: bool, errors_carry_reference: bool, ids_as: str = "string"
) -> GraphQLSchema:
    """Return the schema as this customer's installation has it.

    `filterable`: by extIdentifier; `errors_carry_reference`: glImportItemErrors show it.
    """
    schema = build_schema(SDL)
    for name, read in READERS.items():
        cast("GraphQLScalarType", schema.type_map[name]).coerce_input_value = read
    as_it_comes = str if ids_as == "string" else int
    cast("GraphQLScalarType", schema.type_map["Int64"]).coerce_output_value = as_it_comes
    if not filterable:
        for name in ("GLImportItemFilter", "JournalEntryFilter"):
            fields = cast("GraphQLInputObjectType", schema.type_map[name]).fields
            for field in [field for field in fields if field.startswith("extIdentifier")]:
                del fields[field]
    if not errors_carry_reference:
        del cast("GraphQLObjectType", schema.type_map["GLImportItemError"]).fields["extIdentifier"]
    return schema


def _amount(value: Any) -> str:
    """Read an amount, which is a string and never a number [C example]."""
    if not isinstance(value, str) or not re.fullmatch(r"-?\d{1,13}(\.\d{1,2})?", value):
        raise invalid(f"An amount is a decimal string, not {value!r}.")
    return f"{Decimal(value):.2f}"


def _id(value: Any) -> int:
    """Read an id, sent as a string or as a number [C]."""
    if isinstance(value, bool) or not re.fullmatch(r"\d{1,19}", str(value)):
        raise invalid(f"{value!r} is not an id.")
    return int(value)


def _day(value: Any) -> str:
    return _moment_like(value, r"\d{4}-\d\d-\d\d", "a date as yyyy-MM-dd")


def _moment(value: Any) -> str:
    pattern = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"
    return _moment_like(value, pattern, "a local time as yyyy-MM-ddTHH:mm:ss, without a zone")


def _moment_like(value: Any, pattern: str, what: str) -> str:
    if not isinstance(value, str) or not re.fullmatch(pattern, value):
        raise invalid(f"{value!r} is not {what}.")
    try:
        datetime.fromisoformat(value)
    except ValueError as error:
        raise invalid(f"{value!r} is not {what}.") from error
    return value


READERS = {"Amount": _amount, "Int64": _id, "Date": _day, "DateTime": _moment}


class Root:
    """The fields of Query and Mutation, for one entity. graphql-core calls them by name."""

    def __init__(self, books: Books, entity: int, turn: Iterator[int], *, half: bool) -> None:
        self._books = books
        self._entity = entity
        self._turn = turn  # of empty answers, which alternate between null and []
        self._half = half
        self.refusals: list[XledgerError] = []  # of nodes that were left out

    def fields(self) -> dict[str, Any]:
        """Return what resolves each root field."""
        return {
            "glImportItems": self._reader("items", "state = 'staged'"),
            "journalEntries": self._reader("entries"),
            "glImportItemErrors": self._reader("errors"),
            "accounts": self._accounts,
            "subledgers": self._reader("subledgers"),
            "objectValues": self._reader("objects"),
            "addGLImportItems": self._add,
        }

    def _add(self, _: Any, *, inputs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        added = Importing(self._books, self._entity).add(inputs, half=self._half)
        self.refusals = added["refusals"]
        return added

    def _accounts(self, _: Any, *, objectStatus: str, **asked: Any) -> dict[str, Any]:  # noqa: N803 - the schema's name
        shown = {"ALL": "1", "OPEN": "NOT ifnull(blocked, 0)", "CLOSED": "blocked"}[objectStatus]
        return self._page("accounts", shown, **asked)

    def _reader(self, table: str, shown: str = "1") -> Any:
        def read(_: Any, **asked: Any) -> dict[str, Any]:
            return self._page(table, shown, **asked)

        return read

    def _page(
        self,
        table: str,
        shown: str,
        *,
        first: int | None = None,
        after: str | None = None,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - the schema's name
        ownerSet: Any = None,  # noqa: N803 - the schema's name; its values are not published
    ) -> dict[str, Any]:
        del ownerSet
        settings = self._books.settings
        size = min(settings.default_page if first is None else first, settings.largest_page)
        if size < 1:
            raise invalid("'first' is at least 1.")
        conditions, values = _conditions(filter or {})
        where = " AND ".join([shown, f"entity IN ({BELOW})", "dbId > ?", *conditions])
        sql = f"SELECT * FROM {table} WHERE {where} ORDER BY dbId LIMIT ?"  # noqa: S608 - our own names
        rows = self._books.rows(sql, self._entity, _place(after), *values, size + 1)
        edges = [{"cursor": _cursor(row["dbId"]), "node": _node(row)} for row in rows[:size]]
        return {"edges": edges or self._empty(), "pageInfo": {"hasNextPage": len(rows) > size}}

    def _empty(self) -> list[Any] | None:
        """Return what stands for "no hits": either may come [C]."""
        wanted = self._books.settings.empty_edges
        as_null = wanted == "null" or (wanted == "alternate" and next(self._turn) % 2 == 0)
        return None if as_null else []


def _node(row: dict[str, Any]) -> dict[str, Any]:
    named = {"description": row.get("name"), "glImportItem": {"dbId": row.get("item")}}
    return {**as_node(row), **named}


def _conditions(wanted: Mapping[str, Any]) -> tuple[list[str], list[Any]]:
    """Return SQL for `field`, `field_gte`, `field_lt` and `field_in`, and its values."""
    conditions: list[str] = []
    values: list[Any] = []
    for name, value in wanted.items():
        column, _, comparison = name.partition("_")
        given = value if comparison == "in" else [value]
        marks = ", ".join("?" * len(given))
        conditions.append(f"{column} {COMPARISONS[comparison]} ({marks})")
        values += given
    return conditions, values


def _cursor(db_id: int) -> str:
    return b64encode(str(db_id).encode()).decode()


def _place(cursor: str | None) -> int:
    """Return the id after which a page begins. Raises XledgerError."""
    if cursor is None:
        return 0
    try:
        return int(b64decode(cursor, validate=True))
    except (Base64Error, ValueError) as error:
        raise invalid("'after' is not a cursor.") from error
