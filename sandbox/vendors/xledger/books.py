"""The tables of Xledger, its set-up, and the view of an auditor."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict
from pydantic import Field as Limit

from sandbox.vendors import books

# Columns are named as in the schema, so that rows need no translation.
ROW = """
  entity INTEGER, createdAt TEXT, modifiedAt TEXT, transactionSource TEXT, trRegNumber INTEGER,
  postedDate TEXT, invoiceDate TEXT, dueDate TEXT, account TEXT, amount TEXT, invoiceAmount TEXT,
  currency TEXT, exchangeRate TEXT, taxRule TEXT, text TEXT, invoiceNumber TEXT,
  extIdentifier TEXT, glObject1 TEXT, glObject2 TEXT, glObject3 TEXT, glObject4 TEXT,
  glObject5 TEXT, project TEXT, subledger TEXT
"""
SCHEMA = f"""
CREATE TABLE IF NOT EXISTS ids (last INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS entities (
  id INTEGER PRIMARY KEY, name TEXT, token TEXT UNIQUE, parent INTEGER);
CREATE TABLE IF NOT EXISTS accounts (
  dbId INTEGER PRIMARY KEY, entity INTEGER, code TEXT, name TEXT, blocked INTEGER,
  UNIQUE (entity, code));
CREATE TABLE IF NOT EXISTS subledgers (
  dbId INTEGER PRIMARY KEY, entity INTEGER, code TEXT, name TEXT, UNIQUE (entity, code));
CREATE TABLE IF NOT EXISTS objects (
  dbId INTEGER PRIMARY KEY, entity INTEGER, slot INTEGER, code TEXT, name TEXT,
  UNIQUE (entity, slot, code));
-- Nothing but the id is unique: Xledger promises nothing about duplicates.
-- state: staged → moving (in neither table, while the job runs) → gone, as a row of entries.
CREATE TABLE IF NOT EXISTS items (dbId INTEGER PRIMARY KEY, state TEXT, {ROW});
CREATE TABLE IF NOT EXISTS entries (dbId INTEGER PRIMARY KEY, state TEXT, {ROW});
CREATE TABLE IF NOT EXISTS errors (
  dbId INTEGER PRIMARY KEY, entity INTEGER, item INTEGER, extIdentifier TEXT, message TEXT);
-- What a token has spent of its allowance, by month in local time.
CREATE TABLE IF NOT EXISTS spent (token TEXT, month TEXT, requests INTEGER,
  PRIMARY KEY (token, month));
"""
FIRST_ID = 2**53 + 1  # the first whole number that a JavaScript or float reader gets wrong
CENTRAL_EUROPE = ZoneInfo("Europe/Oslo")


class Settings(books.Settings):
    """How this installation behaves; the defaults are the page's, or the harsher reading of it."""

    # Limits; the numbers of a burst are hearsay, those of concurrency our own.
    burst_requests: int = 20
    burst_seconds: float = 5
    concurrency: int = 5
    monthly_allowance: int = 5000
    nodes_per_mutation: int = 500
    default_page: int = 100
    largest_page: int = 1000
    token_error_status: Literal[200, 401] = 200  # unconfirmed
    # The schema
    filter_by_ext_identifier: bool = False  # unconfirmed
    errors_carry_ext_identifier: bool = True  # stated, yet confirmed for the other two only
    ids_as: Literal["string", "number"] = "string"  # either comes
    empty_edges: Literal["alternate", "null", "list"] = "alternate"
    reference_length: int = 25  # unpublished
    text_length: int = 60  # unpublished
    # Import and posting
    # unconfirmed: which rows of an entity are one voucher
    vouchers_by: Literal["source-and-number", "number"] = "source-and-number"
    balance: Literal["import", "posting", "never"] = "posting"  # unconfirmed
    unknown_codes: Literal["import", "posting"] = "posting"
    # unconfirmed; what is left out is told beside the data of the rest, or in its place
    one_bad_node: Literal["refuses-all", "is-left-out", "is-left-out-without-data"] = "refuses-all"
    # How a refused import says which node is to blame: all of it unconfirmed.
    refusals_name: Literal["value", "client-id", "place", "path", "nobody"] = "value"
    posting_interval_seconds: float = 0  # 0: only on POST /_sandbox/jobs
    transit_seconds: float = 0.2


class _Wish(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Account(_Wish):
    code: str
    name: str | None = None
    blocked: bool | None = None


class _Subledger(_Wish):
    code: str
    name: str | None = None


class _Object(_Wish):
    slot: int = Limit(ge=1, le=5)
    code: str
    name: str | None = None


class _Entity(_Wish):
    id: int
    name: str | None = None
    token: str | None = None
    parent: int | None = None  # the entity above it, whose token sees it too
    accounts: list[_Account] = []
    subledgers: list[_Subledger] = []
    objects: list[_Object] = []


class _Handled(_Wish):
    """What happens to a staged row by another hand than the importer's.

    `delete`: a person deletes it on the screen. `copy`: a late commit brings it once more. `move`:
    the posting job has taken it, and not put it down yet.
    """

    id: int
    by: Literal["delete", "copy", "move"]


class Setup(_Wish):
    """What POST /_sandbox/setup takes; what is left out stays as it is."""

    entities: list[_Entity] = []
    items: list[_Handled] = []
    settings: dict[str, Any] = Limit(default_factory=dict)


class Books(books.Books[Settings]):
    """Xledger's books."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, SCHEMA, Settings)

    def local(self, seconds_ahead: float = 0) -> datetime:
        """Return the vendor's Central European time."""
        return datetime.fromtimestamp(self.now() + seconds_ahead, UTC).astimezone(CENTRAL_EUROPE)

    def moment(self, seconds_ahead: float = 0) -> str:
        """Return the vendor's time as Xledger writes it: local, without a zone [C]."""
        return self.local(seconds_ahead).strftime("%Y-%m-%dT%H:%M:%S")

    def voucher_of(self, row: Mapping[str, Any]) -> tuple[str, int]:
        """Return which voucher of its entity a row belongs to; the number comes last."""
        by_number = self.settings.vouchers_by == "number"
        source = "" if by_number else row.get("transactionSource") or ""
        return source, row.get("trRegNumber") or 0

    def new_id(self) -> int:
        """Return the next of the ids, which all kinds of rows share."""
        if self.row("SELECT last FROM ids") is None:
            self.insert("ids", {"last": FIRST_ID})
        changed = self.row("UPDATE ids SET last = last + 1 RETURNING last")
        return changed["last"] if changed else FIRST_ID

    def set_up(self, wish: Setup) -> None:
        """Add to the set-up, or change it."""
        with self.transaction():
            self.change_settings(wish.settings)
            for entity in wish.entities:
                own = entity.model_dump(include={"id", "name", "token", "parent"})
                self._put("entities", own)
                for table in ("accounts", "subledgers", "objects"):
                    self._put_all(table, entity.id, getattr(entity, table))
            for item in wish.items:
                self._handle(item)

    def audit(self) -> dict[str, Any]:
        """Return every line, posted and staged; the shape is in the package's docstring."""
        errors = self.rows("SELECT * FROM errors ORDER BY dbId")
        return {
            "vendor": "xledger",
            "posted": [_neutral(row) for row in self.rows("SELECT * FROM entries ORDER BY dbId")],
            "staged": [_neutral(row) for row in self.rows("SELECT * FROM items ORDER BY dbId")],
            "refused": [{"id": str(row["item"]), "message": row["message"]} for row in errors],
        }

    def _handle(self, item: _Handled) -> None:
        match item.by:
            case "delete":
                self.write("DELETE FROM items WHERE dbId = ?", item.id)
            case "move":
                self.write("UPDATE items SET state = 'moving' WHERE dbId = ?", item.id)
            case "copy":
                [row] = self.rows("SELECT * FROM items WHERE dbId = ?", item.id)
                self.insert("items", {**row, "dbId": self.new_id()})

    def _put_all(self, table: str, entity: int, wishes: list[_Wish]) -> None:
        for wish in wishes:
            self._put(table, {"dbId": self.new_id(), "entity": entity, **wish.model_dump()})

    def _put(self, table: str, row: dict[str, Any]) -> None:
        """Insert a row, or change what it gives of an existing one."""
        columns, marks = ", ".join(row), ", ".join("?" * len(row))
        changes = ", ".join(
            f"{name} = coalesce(excluded.{name}, {table}.{name})" for name in row if name != "dbId"
        )
        sql = (
            f"INSERT INTO {table} ({columns}) VALUES ({marks}) ON CONFLICT DO UPDATE SET {changes}"  # noqa: S608 - names come from our own code
        )
        self.write(sql, *row.values())


def _neutral(row: dict[str, Any]) -> dict[str, Any]:
    slots = {f"glObject{slot}": row[f"glObject{slot}"] for slot in range(1, 6)}
    return {
        "company": str(row["entity"]),
        "id": str(row["dbId"]),
        "state": row["state"],
        "date": row["postedDate"],
        "document": str(row["trRegNumber"]),
        "account": row["account"],
        "party": row["subledger"],
        "amount": row["amount"],
        "text": row["text"],
        "currency": row["currency"],
        "original": row["invoiceAmount"],
        "reference": row["extIdentifier"],
        "invoice": row["invoiceNumber"],
        "tax": row["taxRule"],
        "dimensions": {slot: code for slot, code in slots.items() if code},
        "project": row["project"],
    }
