"""Writing journals, their lines and the dimensions of a line. A bad part undoes the whole call."""

import re
import sqlite3
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from sandbox.vendors.business_central.books import Books
from sandbox.vendors.business_central.entities import (
    DIMENSION_LINES,
    JOURNALS,
    LINES,
    Entity,
    accept,
)
from sandbox.vendors.business_central.errors import (
    ApiError,
    bad_request,
    line_named,
    misfilled,
    no_such_value,
    not_found,
    refused,
)
from sandbox.vendors.business_central.reading import DEFAULT_TEMPLATE, etag

LINE_STEP = 10_000
BLANK_LINE = {
    "account_type": "G/L Account",
    "account_number": "",
    "document_number": "",
    "external_document_number": "",
    "amount": 0,
    "description": "",
    "comment": "",
    "tax_code": "",
    "balance_account_type": "G/L Account",
    "balancing_account": "",
}


class Writer:
    """Writes below one company. Use it inside a transaction."""

    def __init__(self, books: Books, company: str) -> None:
        self._books = books
        self._company = company

    def create(self, entity: Entity, owner: str, body: Mapping[str, Any], *, half: bool) -> str:
        """Insert a row and what lies below it, and return its id. Raises ApiError."""
        if entity is JOURNALS:
            return self._create_journal(body, half=half)
        if entity is LINES:
            return self._create_line(owner, body)
        return self._create_dimension(owner, body)

    def change(
        self, entity: Entity, owner: str, key: str, body: Mapping[str, Any], if_match: str | None
    ) -> None:
        """Change some fields of a row. Raises ApiError."""
        row = self._current(entity, owner, key, if_match)
        values = self._accept(entity, body)
        columns = self._line_columns(row, values) if entity is LINES else _columns(entity, values)
        if entity is DIMENSION_LINES:
            if columns.get("code", row["code"]) != row["code"]:
                raise refused('The "id" and "code" fields cannot be modified.')
            self._demand_dimension(row["code"], columns.get("value", row["value"]))
        changes = {**columns, "version": row["version"] + 1, "modified": self._books.moment()}
        assignments = ", ".join(f"{column} = ?" for column in changes)
        sql = f"UPDATE {entity.table} SET {assignments} WHERE id = ?"  # noqa: S608 - our own names
        try:
            self._books.write(sql, *changes.values(), key)
        except sqlite3.IntegrityError as error:
            raise self._same_key(entity, str(values)) from error

    def remove(self, entity: Entity, owner: str, key: str, if_match: str | None) -> None:
        """Delete a row and what lies below it. Raises ApiError."""
        self._current(entity, owner, key, if_match)
        if entity is JOURNALS:
            self._books.write("DELETE FROM lines WHERE journal = ?", key)
        self._books.write(f"DELETE FROM {entity.table} WHERE id = ?", key)  # noqa: S608 - our own names

    def add_blank_line(self, journal: str) -> None:
        """Leave the line that BC leaves in a posted batch without a number series [C]."""
        dated = {"posting_date": self._books.moment()[:10], "line_number": LINE_STEP}
        row = {**BLANK_LINE, **dated, "journal": journal, "company": self._company}
        self._insert(LINES, row)

    def _accept(self, entity: Entity, body: Mapping[str, Any]) -> dict[str, Any]:
        return accept(entity, body, folds_codes=self._books.settings.folds_codes)

    def _create_journal(self, body: Mapping[str, Any], *, half: bool) -> str:
        lines = body.get("journalLines")
        own = {name: value for name, value in body.items() if name != "journalLines"}
        row = _columns(JOURNALS, self._accept(JOURNALS, own))
        if not row.get("code"):
            raise bad_request("The property 'code' is required.")
        journal = self._journal_for(row, deep=lines is not None)
        wanted = _objects("journalLines", lines)
        for line in wanted[: len(wanted) // 2] if half else wanted:
            self._create_line(journal, line)
        return journal

    def _journal_for(self, row: dict[str, Any], *, deep: bool) -> str:
        """Insert the journal; a deep insert on an existing code may append to it instead [U]."""
        existing = self._books.row(
            "SELECT id FROM journals WHERE company = ? AND template = ? AND code = ?",
            self._company,
            DEFAULT_TEMPLATE,
            row["code"],
        )
        if existing and deep and self._books.settings.deep_insert_on_existing == "append":
            return existing["id"]
        balancing = self._books.settings.template_balancing_account
        usual = {"display_name": "", "balancing_account": balancing, "template": DEFAULT_TEMPLATE}
        return self._insert(JOURNALS, {**usual, **row, "company": self._company})

    def _create_line(self, journal: str, body: Mapping[str, Any]) -> str:
        try:
            return self._create_good_line(journal, body)
        except ApiError as error:
            batch = self._books.row("SELECT code FROM journals WHERE id = ?", journal)
            named = line_named(batch["code"] if batch else "", body.get("lineNumber", 0))
            raise error.about(named, naming=self._books.settings.refusals_name) from error

    def _create_good_line(self, journal: str, body: Mapping[str, Any]) -> str:
        dimensions = _objects("dimensionSetLines", body.get("dimensionSetLines"))
        own = {name: value for name, value in body.items() if name != "dimensionSetLines"}
        usual = {
            **BLANK_LINE,
            "line_number": self._next_line_number(journal),
            "posting_date": self._books.moment()[:10],
            "balancing_account": self._balancing_account(journal),
            # A line that brings no number gets the next of the batch's series.
            "document_number": incremented(self._books.settings.number_series or ""),
        }
        columns = self._line_columns(usual, self._accept(LINES, own))
        row = {**usual, **columns, "journal": journal, "company": self._company}
        line = self._insert(LINES, row)
        self._apply_default_dimensions(line, row)
        for dimension in dimensions:
            self._create_dimension(line, dimension)
        return line

    def _line_columns(self, before: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the columns that these properties set, after BC's checks of the account."""
        columns = _columns(LINES, values)
        kind = columns.get("account_type", before["account_type"])
        if "accountId" in values:
            columns["account_number"] = self._number_of(kind, values["accountId"])
        number = columns.get("account_number", before["account_number"])
        if number and {"account_number", "account_type"} & columns.keys():
            account = self._usable_account(kind, number)
            columns.setdefault("description", account["name"] or "")
        if balancing := columns.get("balancing_account"):
            self._usable_account(
                columns.get("balance_account_type", before["balance_account_type"]), balancing
            )
        return columns

    def _number_of(self, kind: str, account_id: str) -> str:
        """Resolve accountId, which works for G/L and bank accounts only [C]."""
        found = self._books.row(
            """SELECT number FROM accounts WHERE company = ? AND id = ? AND kind = ?
               AND kind IN ('G/L Account', 'Bank Account')""",
            self._company,
            account_id,
            kind,
        )
        if found is None:
            raise no_such_value("Account Id", LINES.type_name, account_id, kind)
        return found["number"]

    def _usable_account(self, kind: str, number: str) -> dict[str, Any]:
        account = self._books.row(
            "SELECT * FROM accounts WHERE company = ? AND kind = ? AND number = ?",
            self._company,
            kind,
            number,
        )
        if account is None:
            raise no_such_value("Account No.", LINES.type_name, number, kind)
        if account["blocked"] and self._books.settings.blocked_at == "insert":
            raise blocked(kind, number)
        return account

    def _create_dimension(self, line: str, body: Mapping[str, Any]) -> str:
        row = _columns(DIMENSION_LINES, self._accept(DIMENSION_LINES, body))
        code = row.get("code", "")
        self._demand_dimension(code, row.get("value", ""))
        if self._books.row("SELECT 1 FROM line_dimensions WHERE line = ? AND code = ?", line, code):
            raise refused(
                "The dimension set line already exists. Check existing dimension set lines and the "
                "default dimension set lines on the parent."
            )
        return self._insert(DIMENSION_LINES, {**row, "line": line})

    def _demand_dimension(self, code: str, value: str) -> None:
        known = self._books.row(
            """SELECT 1 FROM dimension_values v JOIN dimensions d ON d.id = v.dimension
               WHERE d.company = ? AND d.code = ? AND v.code = ?""",
            self._company,
            code,
            value,
        )
        if known is None:
            # In these words, which do not say which value [C, source of the API].
            raise refused('The "valueCode" does not match to a Dimension Value.')

    def _apply_default_dimensions(self, line: str, row: dict[str, Any]) -> None:
        for default in self._books.rows(
            """SELECT d.code, d.value FROM default_dimensions d JOIN accounts a ON a.id = d.account
               WHERE a.company = ? AND a.kind = ? AND a.number = ? AND d.value != ''""",
            self._company,
            row["account_type"],
            row["account_number"],
        ):
            self._insert(DIMENSION_LINES, {**default, "line": line})

    def _next_line_number(self, journal: str) -> int:
        last = self._books.row(
            "SELECT ifnull(max(line_number), 0) AS n FROM lines WHERE journal = ?", journal
        )
        return (last["n"] if last else 0) + LINE_STEP

    def _balancing_account(self, journal: str) -> str:
        """Return what BC copies from the journal to each new line [C]."""
        row = self._books.row("SELECT balancing_account FROM journals WHERE id = ?", journal)
        return row["balancing_account"] if row else ""

    def _current(
        self, entity: Entity, owner: str, key: str, if_match: str | None
    ) -> dict[str, Any]:
        """Return the row that is to be changed. Raises ApiError if it has changed meanwhile."""
        row = self._books.row(
            f"SELECT * FROM {entity.table} WHERE id = ? AND {entity.owner} = ?",  # noqa: S608 - our own names
            key,
            owner,
        )
        if row is None:
            raise not_found(entity.type_name)
        if if_match is None:
            raise bad_request("The If-Match header must be specified for this request.")
        if if_match not in {"*", etag(row)}:
            raise ApiError(
                self._books.settings.stale_etag_status,
                "Request_EntityChanged",
                "Another user has already changed the record.",
            )
        return row

    def _insert(self, entity: Entity, row: dict[str, Any]) -> str:
        key = str(uuid4())
        stamp = {"id": key, "version": 1, "modified": self._books.moment()}
        try:
            self._books.insert(entity.table, {**stamp, **row})
        except sqlite3.IntegrityError as error:
            named = str(row.get("code") or row.get("line_number"))
            raise self._same_key(entity, named) from error
        return key

    def _same_key(self, entity: Entity, named: str) -> ApiError:
        return ApiError(
            self._books.settings.same_key_status,
            "Internal_EntityWithSameKeyExists",
            f"The record in table {entity.type_name} already exists. Identification fields and "
            f"values: '{named}'",
        )


def incremented(code: str) -> str:
    """Return the code with its trailing number one up (EXP202511 → EXP202512), else unchanged."""
    digits = re.search(r"\d+$", code)
    if digits is None:
        return code
    return code[: digits.start()] + str(int(digits[0]) + 1).zfill(len(digits[0]))


def blocked(kind: str, number: str) -> ApiError:
    """Return the error for an account that takes no postings."""
    return misfilled(
        f"Blocked must be equal to 'No'  in {kind}: No.={number}. Current value is 'Yes'."
    )


def _columns(entity: Entity, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by column; accountId has none, it is resolved."""
    return {
        entity.fields[name].column: value for name, value in values.items() if name != "accountId"
    }


def _objects(name: str, value: Any) -> list[dict[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):  # pyright: ignore[reportUnknownVariableType]
        raise bad_request(f"'{name}' is not a list of objects.")
    return value  # pyright: ignore[reportUnknownVariableType]
