"""The books: one SQLite file, which outlives the exporter and the simulator.

Settings are kept in the same file, so a restarted simulator behaves as before. Each simulator owns
its file alone; an auditor may open it for reading at any time (WAL).
"""

import json
import sqlite3
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

SETTINGS_TABLE = "CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL)"


class Settings(BaseModel):
    """What every simulator can be told; a vendor adds its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clock_offset: float = 0  # seconds that the vendor's clock is ahead of ours
    latency_ms: float = 0  # how long every call takes, while it holds its place in the limits


S = TypeVar("S", bound=Settings)


class Books(Generic[S]):
    """Rows, transactions that nest, settings and the vendor's clock."""

    def __init__(self, path: Path, schema: str, settings: type[S]) -> None:
        self._settings_type = settings
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode = wal")
        self._db.execute("PRAGMA synchronous = normal")  # survives a kill, which is what we test
        self._db.executescript(f"{SETTINGS_TABLE};{schema}")
        self.settings = self._stored_settings()

    def now(self) -> float:
        """Return the vendor's time, in seconds since 1970."""
        return time.time() + self.settings.clock_offset

    def change_settings(self, wishes: Mapping[str, Any]) -> None:
        """Set some settings; the others stay. Raises pydantic.ValidationError."""
        wished = {**self.settings.model_dump(), **wishes}
        self.settings = self._settings_type.model_validate(wished)
        for name in wishes:
            value = self.settings.model_dump(mode="json")[name]
            self.write("INSERT OR REPLACE INTO settings VALUES (?, ?)", name, json.dumps(value))

    @contextmanager
    def transaction(self) -> Generator[None]:
        """All or nothing. Inside another one, it can fail by itself."""
        self._db.execute("SAVEPOINT step")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK TO step")
            self.settings = self._stored_settings()
            raise
        finally:
            self._db.execute("RELEASE step")

    def write(self, sql: str, *values: Any) -> int:
        """Run one statement, and return the id of the row that it inserted, if it did."""
        return self._db.execute(sql, values).lastrowid or 0

    def insert(self, table: str, row: Mapping[str, Any]) -> int:
        """Insert one row, and return its number. Raises sqlite3.IntegrityError."""
        columns, marks = ", ".join(row), ", ".join("?" * len(row))
        return self.write(f"INSERT INTO {table} ({columns}) VALUES ({marks})", *row.values())  # noqa: S608 - names come from our own code

    def rows(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        """Return every row of a query."""
        return [dict(row) for row in self._db.execute(sql, values)]

    def row(self, sql: str, *values: Any) -> dict[str, Any] | None:
        """Return the first row of a query, or None."""
        found = self._db.execute(sql, values).fetchone()
        return None if found is None else dict(found)

    def _stored_settings(self) -> S:
        stored = {
            row["name"]: json.loads(row["value"]) for row in self.rows("SELECT * FROM settings")
        }
        return self._settings_type.model_validate(stored)
