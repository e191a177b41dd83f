"""Rows: what a column takes, which row a key means, and what a write does to it."""

import json
from collections.abc import Mapping
from datetime import date
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from sandbox.vendors.dataverse.books import Books, Column, Key, Table, key_value, new_id
from sandbox.vendors.dataverse.errors import (
    aborted,
    bad_payload,
    changed,
    exists,
    invalid,
    key_violated,
    no_such_row,
)
from sandbox.vendors.dataverse.odata import Options

LARGEST = Decimal(10) ** 11  # of a decimal column, either way [C]
WHOLE = range(-(2**31), 2**31)
GUARDED = "kvitt_account"


class Records:
    """The rows of one table."""

    def __init__(self, books: Books, table: Table) -> None:
        self._books = books
        self._table = table

    # -- reading -----------------------------------------------------------------------------------

    def page(self, options: Options, size: int) -> tuple[list[dict[str, Any]], str]:
        """Return rows as JSON, and the id of the last one if more follow. In the order of ids."""
        wanted = size if options.top is None else min(options.top, size)
        sql = (
            f"SELECT id, content, version FROM rows WHERE definition = ? AND id > ? AND "  # noqa: S608 - made of our own names; values are bound
            f"{options.where.sql} ORDER BY {options.order or 'id'} LIMIT ?"
        )
        values = options.where.values
        found = self._books.rows(sql, self._table.id, options.after, *values, wanted + 1)
        more = len(found) > wanted and options.top is None
        rows = [self._shown(row, options.select) for row in found[:wanted]]
        return rows, found[wanted - 1]["id"] if more else ""

    def one(self, key: str | Mapping[str, Any], options: Options) -> dict[str, Any]:
        """Return one row as JSON. Raises ApiError 404."""
        return self._shown(self._demand(key), options.select)

    def _shown(self, row: Mapping[str, Any], select: tuple[str, ...]) -> dict[str, Any]:
        content, columns = json.loads(row["content"]), self._table.columns
        names = [name for name in select or columns if name in columns]
        own = {name: _typed(columns[name], content.get(name)) for name in names}
        return {"@odata.etag": etag(row), **own, self._table.primary: row["id"]}

    # -- writing -----------------------------------------------------------------------------------

    def create(self, body: Mapping[str, Any]) -> str:
        """Create a row; returns its id. Raises ApiError, 412 where a key is taken."""
        return self._insert(new_id(), self._content(body))

    def upsert(
        self,
        key: str | Mapping[str, Any],
        body: Mapping[str, Any],
        *,
        if_match: str | None,
        if_none_match: str | None,
    ) -> str:
        """Change the row, or create it; the two headers forbid one of them. Returns its id.

        Where a row is created, a key column in the body counts more than the address [C].
        """
        row = self._find(key)
        if row is not None and if_none_match == "*":
            raise exists()
        if row is None and if_match is not None:
            raise no_such_row(self._table.logical, _said(key))
        if row is None:
            named: Mapping[str, Any] = {} if isinstance(key, str) else key
            new = key if isinstance(key, str) else new_id()
            return self._insert(new, self._content({**named, **body}))
        _demand_version(row, if_match)
        kept = set(() if isinstance(key, str) else key)
        changes = {name: value for name, value in body.items() if name not in kept}
        content = {**json.loads(row["content"]), **self._content(changes)}
        self._enter(row["id"], content)
        self._books.write(
            "UPDATE rows SET content = ?, version = version + 1 WHERE id = ?",
            json.dumps(content),
            row["id"],
        )
        return row["id"]

    def delete(self, key: str | Mapping[str, Any], *, if_match: str | None) -> None:
        """Delete a row. Raises ApiError 404 or 412."""
        row = self._demand(key)
        _demand_version(row, if_match)
        self._books.write("DELETE FROM key_values WHERE row = ?", row["id"])
        self._books.write("DELETE FROM rows WHERE id = ?", row["id"])

    def _insert(self, new: str, content: dict[str, Any]) -> str:
        self._ask_plug_in(content)
        self._enter(new, content)
        known = {"id": new, "definition": self._table.id, "version": 1}
        self._books.insert("rows", {**known, "content": json.dumps(content)})
        return new

    def _enter(self, row: str, content: Mapping[str, Any]) -> None:
        try:
            self._books.index(self._table, row, content)
        except KeyError as violated:
            key: Key = violated.args[0]
            raise key_violated(key.name, ", ".join(key.columns)) from violated

    def _ask_plug_in(self, content: Mapping[str, Any]) -> None:
        """Let the organisation's own logic look at a new row."""
        known = self._books.rows(
            "SELECT number, blocked FROM accounts WHERE environment = ?", self._table.environment
        )
        accounts = {each["number"]: each["blocked"] for each in known}
        number = content.get(GUARDED)
        if not accounts or GUARDED not in self._table.columns:
            return
        if number not in accounts:
            raise aborted(f"Account {number} is not in the chart of accounts.")
        if accounts[number]:
            raise aborted(f"Account {number} is closed.")

    def _find(self, key: str | Mapping[str, Any]) -> dict[str, Any] | None:
        if isinstance(key, str):
            sql = "SELECT * FROM rows WHERE definition = ? AND id = ?"
            return self._books.row(sql, self._table.id, key)
        index = next(each for each in self._table.keys if set(each.columns) == set(key))
        sql = """SELECT rows.* FROM key_values JOIN rows ON rows.id = key_values.row
                 WHERE key = ? AND value = ?"""
        return self._books.row(sql, index.id, key_value(key[column] for column in index.columns))

    def _demand(self, key: str | Mapping[str, Any]) -> dict[str, Any]:
        row = self._find(key)
        if row is None:
            raise no_such_row(self._table.logical, _said(key))
        return row

    def _content(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return a body as it is kept. Raises ApiError for what the table does not take."""
        for name in body:
            if name not in self._table.columns:
                raise bad_payload(
                    f"Microsoft.OData.ODataException: The property '{name}' does not exist on type "
                    f"'Microsoft.Dynamics.CRM.{self._table.logical}'. Make sure to only use "
                    "property names that are defined by the type."
                )
        return {
            name: None if value is None else self._kept(self._table.columns[name], value)
            for name, value in body.items()
        }

    def _kept(self, column: Column, value: Any) -> Any:
        match column.type, value:
            case "String", str():
                return self._text(column, value)
            case "Decimal", bool():
                pass
            case "Decimal", int() | Decimal():
                return self._decimal(column, Decimal(value))
            case "Integer", int() if not isinstance(value, bool):
                if value not in WHOLE:
                    raise bad_payload(f"'{value}' is no Edm.Int32.")
                return value
            case "DateTime", str() if _is_date(value):
                return value
            case _:
                pass
        raise bad_payload(f"Cannot convert the literal '{value}' to the type of '{column.name}'.")

    def _text(self, column: Column, value: str) -> str:
        if len(value) > column.length:
            raise invalid(
                "0x80044331",
                f"The length of the '{column.name}' attribute of the '{self._table.logical}' "
                f"entity exceeded the maximum allowed length of '{column.length}'.",
            )
        return value

    def _decimal(self, column: Column, value: Decimal) -> str:
        if abs(value) > LARGEST:
            raise invalid(
                "0x80044330",
                f"The value {value:f} of '{column.name}' on record of type "
                f"'{self._table.logical}' is outside the valid range.",
            )
        kept = value.quantize(Decimal(1).scaleb(-column.decimals), ROUND_HALF_EVEN)
        if kept != value and self._books.settings.excess_decimals == "refuse":
            raise invalid("0x80044330", f"'{column.name}' has {column.decimals} decimals.")
        return f"{kept:f}"


def etag(row: Mapping[str, Any]) -> str:
    """Return the version of a row, as If-Match wants it."""
    return f'W/"{row["version"]}"'


def _typed(column: Column, value: Any) -> Any:
    return Decimal(value) if column.type == "Decimal" and value is not None else value


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _demand_version(row: Mapping[str, Any], if_match: str | None) -> None:
    if if_match not in (None, "*", etag(row)):
        raise changed()


def _said(key: str | Mapping[str, Any]) -> str:
    return key if isinstance(key, str) else ",".join(f"{k}={v}" for k, v in key.items())
