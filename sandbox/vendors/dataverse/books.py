"""What Dataverse keeps: definitions, rows, the index of each key; and an auditor's view."""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from pydantic import BaseModel, ConfigDict
from pydantic import Field as Limit

from sandbox.vendors import books, entra

Type = Literal["String", "Decimal", "Integer", "DateTime"]
Status = Literal["Pending", "In Progress", "Active", "Failed"]

OWN_SCHEMA = """
CREATE TABLE IF NOT EXISTS environments (id TEXT PRIMARY KEY, name TEXT);
CREATE TABLE IF NOT EXISTS accounts (
  environment TEXT, number TEXT, name TEXT, blocked INTEGER, PRIMARY KEY (environment, number));
CREATE TABLE IF NOT EXISTS definitions (
  id INTEGER PRIMARY KEY, environment TEXT, logical TEXT, entity_set TEXT,
  UNIQUE (environment, logical), UNIQUE (environment, entity_set));
CREATE TABLE IF NOT EXISTS columns (
  definition INTEGER, name TEXT, type TEXT, length INTEGER, decimals INTEGER,
  PRIMARY KEY (definition, name));
CREATE TABLE IF NOT EXISTS keys (
  id INTEGER PRIMARY KEY, definition INTEGER, name TEXT, columns TEXT, status TEXT,
  UNIQUE (definition, name));
-- content is JSON by column, decimals as strings.
CREATE TABLE IF NOT EXISTS rows (
  number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE, definition INTEGER, content TEXT,
  version INTEGER);
CREATE INDEX IF NOT EXISTS by_definition ON rows (definition, id);
-- The index of each key that is active: what Dataverse promises to be unique.
CREATE TABLE IF NOT EXISTS key_values (key INTEGER, value TEXT, row TEXT, PRIMARY KEY (key, value));
CREATE INDEX IF NOT EXISTS by_row ON key_values (row);
"""
USUAL = {
    *("kvitt_name", "kvitt_voucher", "kvitt_vouchernumber", "kvitt_line", "kvitt_record"),
    *("kvitt_postingdate", "kvitt_documentdate", "kvitt_account", "kvitt_party", "kvitt_amount"),
    *("kvitt_currency", "kvitt_originalamount", "kvitt_tax", "kvitt_text", "kvitt_source"),
}


class Settings(entra.Settings):
    """How this tenant behaves; the defaults are the page's, or the harsher reading of it."""

    # Limits, of one application user
    quota: int = 6000  # requests in the sliding window
    quota_seconds: float = 300
    execution_seconds: float = 1200  # of all requests in the window together
    concurrency: int = 52
    page_size: int = 5000
    batch_operations: int = 1000
    # What an error within a batch looks like
    batch_status: Literal["inner", "200"] = "inner"  # documented, and as older versions had it
    errors_name: Literal["content-id", "nobody"] = "content-id"
    excess_decimals: Literal["round", "refuse"] = "round"  # unconfirmed
    # Unconfirmed: that If-None-Match counts in a change set, too; that a request within a batch
    # needs its Content-Length; how names with hyphens sort: by each character, or without them.
    create_only_in_sets: bool = True
    wants_content_length: bool = True
    hyphens_sort: bool = True


class _Wish(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Account(_Wish):
    number: str
    name: str | None = None
    blocked: bool | None = None


class _Column(_Wish):
    name: str
    type: Type = "String"
    length: int = 100
    decimals: int = 2


class _Key(_Wish):
    name: str
    columns: list[str]
    status: Status = "Active"


class _Table(_Wish):
    logical: str
    entity_set: str
    columns: list[_Column] = []
    keys: list[_Key] = []


class _Environment(_Wish):
    id: str
    name: str | None = None
    accounts: list[_Account] = []
    tables: list[_Table] = []


class Setup(_Wish):
    """What POST /_sandbox/setup takes; what is left out stays as it is."""

    tenant: str | None = None
    clients: list[entra.Client] = []
    environments: list[_Environment] = []
    settings: dict[str, Any] = Limit(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table."""

    name: str
    type: Type
    length: int
    decimals: int


@dataclass(frozen=True, kw_only=True)
class Key:
    """An alternate key of a table."""

    id: int
    name: str
    columns: tuple[str, ...]
    status: Status


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of an environment."""

    id: int
    environment: str
    logical: str
    entity_set: str
    columns: Mapping[str, Column]
    keys: tuple[Key, ...]

    @property
    def primary(self) -> str:
        """The name of the column that holds a row's id."""
        return f"{self.logical}id"


class Books(books.Books[Settings]):
    """Dataverse's books."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, entra.SCHEMA + OWN_SCHEMA, Settings)

    def set_up(self, wish: Setup) -> None:
        """Add to the set-up, or change it."""
        named = wish.model_dump(include={"tenant"}, exclude_none=True)
        with self.transaction():
            self.change_settings({**named, **wish.settings})
            for client in wish.clients:
                self._put("clients", client.model_dump())
            for environment in wish.environments:
                self._put("environments", environment.model_dump(include={"id", "name"}))
                for account in environment.accounts:
                    self._put("accounts", {"environment": environment.id, **account.model_dump()})
                for table in environment.tables:
                    self._define(environment.id, table)

    def table(self, environment: str, **named: str) -> Table | None:
        """Return the table with this `logical` name, or this `entity_set`."""
        ((what, name),) = named.items()
        row = self.row(
            f"SELECT * FROM definitions WHERE environment = ? AND {what} = ?",  # noqa: S608 - our own names
            environment,
            name,
        )
        if row is None:
            return None
        columns = self.rows(
            "SELECT name, type, length, decimals FROM columns WHERE definition = ?", row["id"]
        )
        keys = self.rows(
            "SELECT id, name, columns, status FROM keys WHERE definition = ?", row["id"]
        )
        return Table(
            **row,
            columns={each["name"]: Column(**each) for each in columns},
            keys=tuple(_key(each) for each in keys),
        )

    def index(self, table: Table, row: str, content: Mapping[str, Any]) -> None:
        """Enter a row into each active key. Raises KeyError with the key that is violated."""
        self.write("DELETE FROM key_values WHERE row = ?", row)
        for key in table.keys:
            value = key_value(content.get(column) for column in key.columns)
            if key.status != "Active" or value is None:
                continue
            try:
                self.insert("key_values", {"key": key.id, "value": value, "row": row})
            except sqlite3.IntegrityError as error:
                raise KeyError(key) from error

    def audit(self) -> dict[str, Any]:
        """Return every line; the shape is in the package's docstring."""
        found = self.rows(
            """SELECT environment, rows.id, content FROM rows
               JOIN definitions ON definitions.id = definition ORDER BY number"""
        )
        return {"vendor": "dataverse", "posted": [_neutral(row) for row in found], "staged": []}

    def _define(self, environment: str, wish: _Table) -> None:
        names = {"logical": wish.logical, "entity_set": wish.entity_set}
        self._put("definitions", {"environment": environment, **names})
        table = self.table(environment, logical=wish.logical)
        assert table is not None, "it was defined just now"  # noqa: S101
        for column in wish.columns:
            self._put("columns", {"definition": table.id, **column.model_dump()})
        for key in wish.keys:
            columns = {**key.model_dump(), "columns": json.dumps(key.columns)}
            self._put("keys", {"definition": table.id, **columns})
        if wish.keys:
            self._build_indexes(environment, wish.logical)

    def _build_indexes(self, environment: str, logical: str) -> None:
        """Build the index of each key; one that finds a value twice has failed."""
        table = self.table(environment, logical=logical)
        assert table is not None, "it was defined just now"  # noqa: S101
        try:
            with self.transaction():
                for row in self.rows("SELECT * FROM rows WHERE definition = ?", table.id):
                    self.index(table, row["id"], json.loads(row["content"]))
        except KeyError as violated:
            self.write("UPDATE keys SET status = 'Failed' WHERE id = ?", violated.args[0].id)

    def _put(self, table: str, row: dict[str, Any]) -> None:
        """Insert a row, or change what it gives of an existing one."""
        columns, marks = ", ".join(row), ", ".join("?" * len(row))
        changes = ", ".join(f"{name} = coalesce(excluded.{name}, {table}.{name})" for name in row)
        sql = (
            f"INSERT INTO {table} ({columns}) VALUES ({marks}) ON CONFLICT DO UPDATE SET {changes}"  # noqa: S608 - names come from our own code
        )
        self.write(sql, *row.values())


def _key(row: dict[str, Any]) -> Key:
    columns = tuple(json.loads(row["columns"]))
    return Key(id=row["id"], name=row["name"], columns=columns, status=row["status"])


def key_value(values: Iterable[Any]) -> str | None:
    """Return what an index compares: no case counts [C]; None where a column is empty."""
    parts = list(values)
    return None if None in parts else json.dumps([str(part).casefold() for part in parts])


def new_id() -> str:
    """Return an id for a row."""
    return str(uuid4())


def _neutral(row: dict[str, Any]) -> dict[str, Any]:
    content = json.loads(row["content"])
    return {
        "company": row["environment"],
        "id": row["id"],
        "date": content.get("kvitt_postingdate"),
        "document": content.get("kvitt_voucher"),
        "account": content.get("kvitt_account"),
        "party": content.get("kvitt_party"),
        "amount": _plain(content.get("kvitt_amount")),
        "text": content.get("kvitt_text"),
        "currency": content.get("kvitt_currency"),
        "original": _plain(content.get("kvitt_originalamount")),
        "reference": content.get("kvitt_name"),
        "record": content.get("kvitt_record"),
        "tax": content.get("kvitt_tax"),
        "dimensions": {
            name: value for name, value in content.items() if value and name not in USUAL
        },
    }


def _plain(amount: str | None) -> str | None:
    return None if amount is None else f"{Decimal(amount):.2f}"
