"""GET: from query options to SQL, and from rows to JSON."""

from dataclasses import replace
from typing import Any

from sandbox.vendors.business_central.books import Books
from sandbox.vendors.business_central.entities import ENTITIES, JOURNALS, LINES, Entity, shown
from sandbox.vendors.business_central.errors import not_found
from sandbox.vendors.business_central.odata import Clause, Options

DEFAULT_TEMPLATE = "GENERAL"
EVERYTHING = -1  # SQLite's LIMIT for "no limit"


class Reader:
    """Reads entities, up to date or as a lagging replica has them."""

    def __init__(self, books: Books, *, lagging: bool = False) -> None:
        self._books = books
        lag = books.settings.replica_lag_seconds
        self._seen = Clause("modified <= ?", (books.moment(lag),)) if lagging else Clause()

    def page(
        self, entity: Entity, owner: str, options: Options, size: int
    ) -> tuple[list[dict[str, Any]], bool]:
        """Return at most `size` rows as JSON, and whether more follow on a next page."""
        wanted = EVERYTHING if options.top is None else options.top
        limit = size + 1 if wanted == EVERYTHING else min(wanted, size + 1)
        rows = self._rows(entity, owner, options, limit)
        return [self._json(entity, row, options) for row in rows[:size]], len(rows) > size

    def one(self, entity: Entity, owner: str, key: str, options: Options) -> dict[str, Any]:
        """Return one row as JSON. Raises ApiError if it isn't there."""
        by_key = Clause("id = ?", (key,), frozenset({"templateDisplayName"}))
        rows = self._rows(entity, owner, replace(options, where=by_key), 1)
        if not rows:
            raise not_found(entity.type_name)
        return self._json(entity, rows[0], options)

    def _rows(
        self, entity: Entity, owner: str, options: Options, limit: int
    ) -> list[dict[str, Any]]:
        clauses = [
            Clause(f"{entity.owner} = ?", (owner,)),
            Clause(entity.shown),
            self._implied(entity, options),
            options.where,
            self._seen,
        ]
        columns = ", ".join(f"({each.column}) AS {each.name}" for each in entity.fields.values())
        columns += ", version" if entity.tagged else ""
        where = " AND ".join(clause.sql for clause in clauses)
        order = options.order or entity.order
        values = [value for clause in clauses for value in clause.values]
        sql = (
            f"SELECT {columns} FROM {entity.table} WHERE {where} ORDER BY {order} LIMIT ? OFFSET ?"  # noqa: S608 - made of our own names; values are bound
        )
        return self._books.rows(sql, *values, limit, options.skip)

    def _implied(self, entity: Entity, options: Options) -> Clause:
        """Return what BC filters unasked: the default template, the readable account types."""
        if entity is JOURNALS and "templateDisplayName" not in options.where.properties:
            return Clause("template = ?", (DEFAULT_TEMPLATE,))
        if entity is LINES:
            readable = self._books.settings.readable_account_types
            return Clause(f"account_type IN ({', '.join('?' * len(readable))})", readable)
        return Clause()

    def _json(self, entity: Entity, row: dict[str, Any], options: Options) -> dict[str, Any]:
        names = options.select or tuple(entity.fields)
        tag = {"@odata.etag": etag(row)} if entity.tagged else {}
        own = {name: shown(entity.fields[name], row[name]) for name in names}
        below = {
            name: self.page(ENTITIES[name], row["id"], inner, self._books.settings.page_size)[0]
            for name, inner in options.expand.items()
        }
        return {**tag, **own, **below}


def etag(row: dict[str, Any]) -> str:
    """Return the version of a row, as If-Match wants it."""
    return f'W/"{row["version"]}"'
