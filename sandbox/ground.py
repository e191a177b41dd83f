"""What the benchmarks of the export stand on: a local Supabase, and simulators of the vendors.

An integration here has one period that is due, and takes what was approved.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
from psycopg.types.json import Jsonb

from kvitt.ledger.migrate import migrate, read_migrations
from kvitt.vendors import VENDORS
from sandbox import claims
from sandbox.processes import CHECKOUT, Home
from sandbox.supabase import Supabase
from sandbox.vendors.simulators import SIMULATORS

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence

    from kvitt.domain.integrations import Timeouts
    from kvitt.vendors import Client

ACCOUNTS = {
    "travel": "7140",
    "meals": "7150",
    "course": "6860",
    "office": "6800",
    "advertising": "7320",
    "input-vat": "2710",
    "owed-to-staff": "2910",
    "owed-to-suppliers": "2400",
}
_AT_ONCE = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Ground:
    """The parts, running."""

    home: Home
    supabase: Supabase

    def books(self, vendor: str, name: str, **settings: Any) -> Books:
        """Start a vendor's simulator with empty books of that name, and these settings."""
        kind = SIMULATORS[vendor]
        file = self.home.path / f"{name}.db"
        command = [sys.executable, "-m", kind.module, "--books", str(file)]
        url = self.home.serve(name, command).url
        # Limits are not what is measured.
        told = {**kind.seed, "settings": {**kind.unlimited, **settings}}
        httpx.post(f"{url}/_sandbox/setup", json=told, trust_env=False).raise_for_status()
        return Books(vendor=vendor, url=url)

    def enrol(self, integration: str, vendor: str, **limits: float) -> datetime:
        """Save an integration with one period that is due; returns when it was."""
        due = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=1)
        self.save(integration, vendor, **limits)
        self.plan(integration, due - timedelta(hours=1), [due])
        return due

    def save(self, integration: str, vendor: str, **limits: float) -> None:
        """Save an integration."""
        told = {
            "id": integration,
            "organisation": "Teater Nordvest",
            "vendor": vendor,
            "connection": integration,
            "cron": "0 6 * * *",
            "time_zone": "Europe/Oslo",
            "first_period": datetime.now(UTC).isoformat(),
            "book_currency": "NOK",
            "mapping": {"accounts": ACCOUNTS, "dimensions": {**SIMULATORS[vendor].dimensions}},
            "limits": {"page_records": 5000, **limits},
        }
        self._do("select kvitt.save_integration(%s)", Jsonb(told))

    def accept_set_up(self, integration: str) -> None:
        """Spare the look at the vendor's set-up before the first export."""
        self._do("update kvitt.integrations set fitted_at = now() where id = %s", integration)

    def plan(self, integration: str, opens_at: datetime, due: Sequence[datetime]) -> None:
        """Write periods."""
        self._do("select kvitt.plan_periods(%s, %s, %s)", integration, opens_at, list(due))

    def add(self, records: Iterable[Mapping[str, Any]]) -> int:
        """Add approved records; returns how many lines they have."""
        lines, given = 0, iter(records)
        while part := list(islice(given, _AT_ONCE)):
            self._do("select kvitt.add_records(%s)", Jsonb(part))
            lines += sum(len(record["lines"]) for record in part)
        return lines

    def _do(self, sql: str, *values: Any) -> None:
        with psycopg.connect(self.supabase.database_url, autocommit=True) as database:
            database.execute(sql.encode(), values)

    def approve(self, integration: str, vouchers: int, *, due: datetime, foreign: bool) -> int:
        """Approve so many vouchers for a period; returns how many lines they have."""
        who = claims.Organisation(integration=integration, foreign=foreign)
        return self.add(_numbered(claims.approved(who, vouchers, before=due), due))


@contextmanager
def running(name: str) -> Generator[Ground]:
    """Start Supabase with our schema; it ends with us."""
    with Home.open(name) as home:
        supabase = Supabase.start(home)
        migrate(supabase.database_url, read_migrations(CHECKOUT / "supabase" / "migrations"))
        supabase.reload_schema()
        yield Ground(home=home, supabase=supabase)


@dataclass(frozen=True, kw_only=True, slots=True)
class Books:
    """A vendor that runs, with one company in it that is ours: the cast's first."""

    vendor: str
    url: str

    def open(self, timeouts: Timeouts) -> Client:
        """Return a client of the company."""
        kind, told = VENDORS[self.vendor], SIMULATORS[self.vendor].connect(self.url, self.company)
        return kind.client(kind.settings.model_validate(told), timeouts)

    @property
    def company(self) -> str:
        """Its name in the vendor's books."""
        return SIMULATORS[self.vendor].cast_company


def _numbered(records: Iterator[dict[str, Any]], due: datetime) -> Iterator[dict[str, Any]]:
    """Give each an id of its own, and a time within the last years: there are many of them."""
    for number, record in enumerate(records):
        day = (due - timedelta(days=number % 300)).date().isoformat()
        approved_at = (due - timedelta(minutes=1)).isoformat()
        own = {"id": f"C{number:07d}", "approved_at": approved_at, "voucher_date": day}
        yield {**record, **own}
