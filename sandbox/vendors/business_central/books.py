"""The tables of Business Central, its set-up, and the view of an auditor."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from pydantic import BaseModel, ConfigDict
from pydantic import Field as Limit

from sandbox.vendors import books, entra

OWN_SCHEMA = """
CREATE TABLE IF NOT EXISTS companies (id TEXT PRIMARY KEY, tenant TEXT, name TEXT, modified TEXT);
CREATE TABLE IF NOT EXISTS accounts (
  id TEXT PRIMARY KEY, company TEXT, kind TEXT, number TEXT, name TEXT, blocked INTEGER,
  ledger_account TEXT, vat_percent INTEGER, modified TEXT, UNIQUE (company, kind, number));
CREATE TABLE IF NOT EXISTS default_dimensions (
  account TEXT REFERENCES accounts, code TEXT, value TEXT, mandatory INTEGER,
  PRIMARY KEY (account, code));
CREATE TABLE IF NOT EXISTS dimensions (
  id TEXT PRIMARY KEY, company TEXT, code TEXT, name TEXT, modified TEXT, UNIQUE (company, code));
CREATE TABLE IF NOT EXISTS dimension_values (
  id TEXT PRIMARY KEY, dimension TEXT REFERENCES dimensions, code TEXT, name TEXT, modified TEXT,
  UNIQUE (dimension, code));
-- The two keys that BC promises to be unique.
CREATE TABLE IF NOT EXISTS journals (
  id TEXT PRIMARY KEY, company TEXT, template TEXT, code TEXT, display_name TEXT,
  balancing_account TEXT, version INTEGER, modified TEXT, UNIQUE (company, template, code));
CREATE TABLE IF NOT EXISTS lines (
  id TEXT PRIMARY KEY, company TEXT, journal TEXT REFERENCES journals, line_number INTEGER,
  account_type TEXT, account_number TEXT, posting_date TEXT, document_number TEXT,
  external_document_number TEXT, amount INTEGER, description TEXT, comment TEXT, tax_code TEXT,
  balance_account_type TEXT, balancing_account TEXT, version INTEGER, modified TEXT,
  UNIQUE (journal, line_number));
CREATE TABLE IF NOT EXISTS line_dimensions (
  id TEXT PRIMARY KEY, line TEXT REFERENCES lines ON DELETE CASCADE, code TEXT, value TEXT,
  version INTEGER, modified TEXT, UNIQUE (line, code));
-- The ledger. What a line said stays here for the auditor; the API shows only part of it.
CREATE TABLE IF NOT EXISTS entries (
  entry_number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT, company TEXT, journal_code TEXT,
  posting_date TEXT, document_number TEXT, account_type TEXT, account_number TEXT,
  ledger_account TEXT, amount INTEGER, description TEXT, external_document_number TEXT,
  tax_code TEXT, dimensions TEXT, modified TEXT);
CREATE INDEX IF NOT EXISTS by_document ON entries (company, document_number, posting_date);
CREATE TABLE IF NOT EXISTS posting_queue (journal TEXT PRIMARY KEY, due REAL);
CREATE TABLE IF NOT EXISTS posting_log (
  id TEXT PRIMARY KEY, company TEXT, started TEXT, status TEXT, error TEXT, modified TEXT);
-- A job of its own posts what is queued: codeunit 250 [C].
CREATE VIEW IF NOT EXISTS job_queue AS
  SELECT j.id, j.company, 250 AS object, 'Ready' AS status, j.modified
  FROM posting_queue q JOIN journals j ON j.id = q.journal;
CREATE VIEW IF NOT EXISTS job_queue_log AS SELECT *, 250 AS object FROM posting_log;
CREATE VIEW IF NOT EXISTS ledger_setup AS
  SELECT id, id AS company, modified,
    ifnull((SELECT json_extract(value, '$') FROM settings WHERE name = 'local_currency'),
      'NOK') AS currency,
    ifnull((SELECT json_extract(value, '$') FROM settings WHERE name = 'allow_posting_from'),
      '0001-01-01') AS allow_from,
    ifnull((SELECT json_extract(value, '$') FROM settings WHERE name = 'allow_posting_to'),
      '0001-01-01') AS allow_to
  FROM companies;
PRAGMA foreign_keys = on;
"""


class Settings(entra.Settings):
    """How this tenant behaves; the defaults are the page's, or the harsher reading of it."""

    environment: str = "production"
    # Limits
    quota: int = 6000  # requests in a sliding window, per service principal
    quota_seconds: float = 300
    concurrency: int = 5
    queue: int = 95
    queue_seconds: float = 480  # how long a request may queue before 503
    operation_seconds: float = 480  # how long one may run before 408
    gateway_seconds: float = 600  # when the gateway gives up with 504, whatever goes on behind it
    url_characters: int = 8000
    body_bytes: int = 350_000_000
    page_size: int = 20_000
    replica_lag_seconds: float = 60  # what Data-Access-Intent: ReadOnly does not see yet
    environments_cost_quota: bool = True  # unconfirmed that it's free
    answers_head: bool = False  # undocumented
    language: Literal["nb-NO", "en-US"] = "nb-NO"  # of messages, where none is asked for
    honours_accept_language: bool = True
    folds_codes: bool = True  # unconfirmed: upper-cases and trims what is written into a code
    # Duplicates
    same_key_status: Literal[400, 409] = 400  # clients record 400, one source says 409
    stale_etag_status: Literal[409, 412] = 409  # either is reported
    deep_insert_on_existing: Literal["append", "refuse"] = "append"  # unconfirmed
    # Microsoft's reference for GET journalLines says G/L and Bank only; our page has all four.
    readable_account_types: tuple[str, ...] = ("G/L Account", "Customer", "Vendor", "Bank Account")
    # What a refusal of a line says: the account, as BC does [C]; also the line, as some do [C]; or
    # neither, as a client must reckon with.
    refusals_name: Literal["account", "line", "nobody"] = "account"
    blocked_at: Literal["insert", "posting"] = "insert"  # when a blocked account is noticed
    # General ledger set-up: what generalLedgerSetup shows, the same for each company here
    local_currency: str = "NOK"
    allow_posting_from: str = "0001-01-01"  # as the API writes "no date"
    allow_posting_to: str = "0001-01-01"
    template_balancing_account: str = ""  # which each new journal gets
    # Posting
    force_document_balance: bool = True
    number_series: str | None = None  # the last number used; on every batch
    posting_number_series: str | None = None  # likewise; replaces the document numbers
    increment_batch_name: bool = False
    copies_vat_setup: bool = (
        True  # from accounts to journal lines: VAT is then split off [C, source]
    )
    post_with_job_queue: bool = False
    job_queue_seconds: float = 5
    has_job_queue_log: bool = True  # older versions have no page for it
    analysis_view_fails: bool = False  # an error after the ledger is committed


class _Wish(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _DefaultDimension(_Wish):
    code: str
    value: str = ""  # none: the account only demands one
    mandatory: bool = False


class _Account(_Wish):
    kind: str = "G/L Account"
    number: str
    name: str | None = None
    blocked: bool | None = None
    ledger_account: str | None = None
    vat_percent: int | None = None  # by its posting groups; the API does not show them
    default_dimensions: list[_DefaultDimension] = []


class _Value(_Wish):
    code: str
    name: str = ""


class _Dimension(_Wish):
    code: str
    name: str = ""
    values: list[_Value] = []


class _Journal(_Wish):
    code: str
    display_name: str = ""
    template: str = "GENERAL"
    balancing_account: str = ""


class _Company(_Wish):
    id: str
    name: str | None = None
    accounts: list[_Account] = []
    dimensions: list[_Dimension] = []
    journals: list[_Journal] = []


class Setup(_Wish):
    """What POST /_sandbox/setup takes; what is left out stays as it is."""

    tenant: str | None = None
    environment: str | None = None
    clients: list[entra.Client] = []
    companies: list[_Company] = []
    settings: dict[str, Any] = Limit(default_factory=dict)


class Books(books.Books[Settings]):
    """Business Central's books."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, entra.SCHEMA + OWN_SCHEMA, Settings)

    def moment(self, seconds_ago: float = 0) -> str:
        """Return the vendor's time as BC writes it: UTC with Z."""
        at = datetime.fromtimestamp(self.now() - seconds_ago, UTC)
        return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def set_up(self, wish: Setup) -> None:
        """Add to the set-up, or change it."""
        named = wish.model_dump(include={"tenant", "environment"}, exclude_none=True)
        with self.transaction():
            self.change_settings({**named, **wish.settings})
            for client in wish.clients:
                self._put("clients", client.model_dump())
            for company in wish.companies:
                self._set_up_company(company)

    def audit(self) -> dict[str, Any]:
        """Return every line, posted and staged; the shape is in the package's docstring."""
        posted = self.rows("SELECT * FROM entries ORDER BY entry_number")
        staged = self.rows(
            """SELECT lines.*, code AS journal_code, NULL AS ledger_account,
                 (SELECT json_group_object(d.code, d.value) FROM line_dimensions d
                  WHERE d.line = lines.id) AS dimensions
               FROM lines JOIN journals ON journals.id = lines.journal
               WHERE account_number != '' ORDER BY code, line_number"""
        )
        return {
            "vendor": "business-central",
            "posted": [_neutral(row, row["entry_number"]) for row in posted],
            "staged": [_neutral(row, row["line_number"]) for row in staged],
        }

    def _set_up_company(self, wish: _Company) -> None:
        company = {"id": wish.id, "name": wish.name, "tenant": self.settings.tenant}
        self._put("companies", {**company, "modified": self.moment()})
        for dimension in wish.dimensions:
            self._set_up_dimension(wish.id, dimension)
        for account in wish.accounts:
            self._set_up_account(wish.id, account)
        for journal in wish.journals:
            self.insert(
                "journals",
                {**self._stamp(), **journal.model_dump(), "company": wish.id, "version": 1},
            )

    def _set_up_dimension(self, company: str, wish: _Dimension) -> None:
        own = wish.model_dump(exclude={"values"})
        dimension = self._put("dimensions", {"company": company, **own, **self._stamp()})
        for value in wish.values:
            row = {"dimension": dimension, **value.model_dump(), **self._stamp()}
            self._put("dimension_values", row)

    def _set_up_account(self, company: str, wish: _Account) -> None:
        own = wish.model_dump(exclude={"default_dimensions"})
        account = self._put("accounts", {"company": company, **own, **self._stamp()})
        for dimension in wish.default_dimensions:
            self._put("default_dimensions", {"account": account, **dimension.model_dump()})

    def _put(self, table: str, row: dict[str, Any]) -> str:
        """Insert a row or change what it gives of an existing one; return its id, if it has one."""
        columns, marks = ", ".join(row), ", ".join("?" * len(row))
        changes = ", ".join(
            f"{name} = coalesce(excluded.{name}, {table}.{name})" for name in row if name != "id"
        )
        sql = f"INSERT INTO {table} ({columns}) VALUES ({marks}) ON CONFLICT DO UPDATE SET {changes} RETURNING *"  # noqa: S608, E501 - names come from our own code
        changed = self.row(sql, *row.values())
        return "" if changed is None else str(changed.get("id", ""))

    def _stamp(self) -> dict[str, str]:
        return {"id": str(uuid4()), "modified": self.moment()}


def _neutral(row: dict[str, Any], number: int) -> dict[str, Any]:
    return {
        "company": row["company"],
        "batch": row["journal_code"],
        "id": number,
        "date": row["posting_date"],
        "document": row["document_number"],
        "account_type": row["account_type"],
        "account": row["account_number"],
        "ledger_account": row["ledger_account"],
        "amount": str(Decimal(row["amount"]).scaleb(-2)),
        "text": row["description"],
        "reference": row["external_document_number"],
        "tax": row["tax_code"],
        "dimensions": json.loads(row["dimensions"]),
    }
