"""One trial's own ground: a fresh integration, a company of its own at the vendor, its records.

It speaks with the database and with the simulator's control surface directly; nothing of the
exporter's is used to set up or to look.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from sandbox import claims
from sandbox.vendors.simulators import SIMULATORS
from tests.crash.auditor import ACCOUNTS, Findings, audit, reordered

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sandbox.vendors import simulator as vendors
    from tests.crash.exporter import Job

_PATIENCE = 60
_MINUTE, _HOUR = timedelta(minutes=1), timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class Ground:
    """Where everything is, as a lane is told. `settle`, `gap` and `lease` are seconds."""

    supabase_url: str
    supabase_key: str
    database_url: str
    vendor: str
    vendor_url: str
    settle: float
    gap: float
    lease: float


class Database:
    """The ledger's database, asked again while it is away: the trials take it away."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: psycopg.Connection[dict[str, Any]] | None = None

    def ask(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        """Run one statement that is safe to repeat, and return its rows."""
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                return self._connected().execute(sql.encode(), values).fetchall()
            except (psycopg.OperationalError, psycopg.InterfaceError):
                self._connection = None
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)

    def close(self) -> None:
        """Close the connection; the next question opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self) -> psycopg.Connection[dict[str, Any]]:
        if self._connection is None:
            self._connection = psycopg.connect(
                self._url, autocommit=True, row_factory=dict_row, connect_timeout=5
            )
        return self._connection


class Simulator:
    """The vendor simulator's control surface, over one connection: a new client costs 17 ms."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/_sandbox"
        self._client = self._open()

    def _open(self) -> httpx.Client:
        # The simulator closes what idles for 5 s; we are to be the first.
        limits = httpx.Limits(keepalive_expiry=2)
        return httpx.Client(base_url=self._url, trust_env=False, timeout=60, limits=limits)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Make one request, and return what the reply says."""
        return self._client.request(method, path, json=body).raise_for_status().json()

    def close(self) -> None:
        """Close the connection, and be ready for another."""
        self._client.close()
        self._client = self._open()


@dataclass(kw_only=True)
class Stage:
    """A trial's integration. `batches` is what each of its periods has to take, in order."""

    id: str
    ground: Ground
    database: Database
    simulator: Simulator
    company: str
    batches: dict[datetime, Sequence[dict[str, Any]]] = field(default_factory=dict)

    @property
    def _kind(self) -> vendors.Simulator:
        return SIMULATORS[self.ground.vendor]

    def set_up(self, *, vouchers: int, seed: int, chunk_lines: int, fitted: bool = True) -> None:
        """Save the integration with one period that is due, its records and its company."""
        due = datetime.now(UTC).replace(second=0, microsecond=0) - _MINUTE
        self.open_books()
        self.save_integration(chunk_lines=chunk_lines, fitted=fitted)
        self.plan(due - _HOUR, [due, due + 2 * _HOUR])
        self.add(due, self.records(vouchers, before=due, seed=seed))

    def open_books(self, **settings: Any) -> None:
        """Open the company at the vendor, and change settings of the vendor's."""
        wish = self._kind.found(self.company)
        self.simulator.ask("POST", "setup", {**wish, "settings": settings})

    def save_integration(
        self, *, chunk_lines: int, cron: str = "0 6 * * *", fitted: bool = True
    ) -> None:
        """Save the integration, with times that a trial can wait for.

        `fitted`: as if periods had been exported before, so that the vendor's set-up is known.
        """
        ground = self.ground
        limits = {
            "chunk_lines": chunk_lines,
            "page_records": 4,
            "settle": ground.settle,
            "absence_gap": ground.gap,
            "warm_up": 5,
            "first_wait": 0.2,
            "longest_wait": 1,
        }
        integration = {
            "id": self.id,
            "organisation": "Teater Nordvest",
            "vendor": ground.vendor,
            "connection": self.id,
            "cron": cron,
            "time_zone": "Europe/Oslo",
            "first_period": datetime.now(UTC).isoformat(),
            "book_currency": "NOK",
            "mapping": {"accounts": ACCOUNTS, "dimensions": {**self._kind.dimensions}},
            "limits": limits,
            "timeouts": {"read": 10, "connect": 5, "function": 15},
        }
        self.database.ask("select kvitt.save_integration(%s)", Jsonb(integration))
        if fitted:
            self.database.ask(
                "update kvitt.integrations set fitted_at = now() where id = %s returning id",
                self.id,
            )

    def plan(self, opens_at: datetime, due: Sequence[datetime]) -> None:
        """Write periods."""
        self.database.ask("select kvitt.plan_periods(%s, %s, %s)", self.id, opens_at, list(due))

    def records(self, count: int, *, before: datetime, seed: int) -> list[dict[str, Any]]:
        """Make records that were approved before a time, some of them in euro where it is usual.

        A seed gives the same ones to each integration of a vendor, so that points stay comparable.
        """
        vendor = self.ground.vendor
        who = claims.Organisation(integration=vendor, foreign=self._kind.original_currency)
        made = claims.approved(who, count, before=before, seed=seed)
        return [{**record, "integration": self.id} for record in made]

    def add(self, due: datetime, records: Sequence[dict[str, Any]]) -> None:
        """Add records that a period has to take."""
        self.add_records(records)
        self.batches[due] = records

    def add_records(self, records: Sequence[dict[str, Any]]) -> None:
        """Add records, for whichever period takes them."""
        self.database.ask("select kvitt.add_records(%s)", Jsonb(list(records)))

    def states(self) -> list[str]:
        """Return the states of all periods that are due."""
        rows = self.database.ask(
            "select state::text from kvitt.periods where integration_id = %s and due_at <= now()",
            self.id,
        )
        return [row["state"] for row in rows]

    def taken(self) -> dict[datetime, list[str]]:
        """Return which records each period took, by id, in order; those that none took are left."""
        rows = self.database.ask(
            """select period_due_at as due, id from kvitt.records
                where integration_id = %s and period_due_at is not null order by due, sequence""",
            self.id,
        )
        batches: defaultdict[datetime, list[str]] = defaultdict(list)
        for row in rows:
            batches[row["due"].astimezone(UTC)].append(row["id"])
        return batches

    def efforts(self) -> tuple[int, int, int]:
        """Return how many attempts were made at all periods, how many calls, for how many chunks.

        Counted from the ledger's rows.
        """
        row = self.database.ask(
            """select (select count(*) from kvitt.attempts where integration_id = %s) as attempts,
                      coalesce(sum(sends), 0)::int as sends, count(*) as chunks
                 from kvitt.chunks where integration_id = %s""",
            self.id,
            self.id,
        )[0]
        return row["attempts"], row["sends"], row["chunks"]

    def reordered(self) -> int:
        """Return how many lines of a period came into the books after one of a later period."""
        return reordered(self.simulator.ask("GET", "books"), self.company)

    def period(self) -> dict[str, Any]:
        """Return the first period as it stands."""
        return self.database.ask(
            """select state::text, reason, fence, receipt,
                      extract(epoch from leased_until - now())::float as leased,
                      extract(epoch from not_before - now())::float as waits
                 from kvitt.periods where integration_id = %s order by due_at limit 1""",
            self.id,
        )[0]

    def mend(self, reason: str) -> None:
        """Be the person who has mended what a failed period's reason says.

        The first run after that works on it; one that is being failed still has its lease.
        """
        period = self.period()
        time.sleep(max(0, period["leased"] or 0) + 0.01)
        self.database.ask(
            """select kvitt.mend_period(integration_id, due_at, 'the matrix', %s)
                 from kvitt.periods
                where integration_id = %s and fence = %s and state = 'failed'""",
            reason,
            self.id,
            period["fence"],
        )

    def settings(self) -> dict[str, Any]:
        """Return what the vendor's client is to be told."""
        return {**self._kind.connect(self.ground.vendor_url, self.company)}

    def fault(self, fault: Mapping[str, Any]) -> None:
        """Queue a fault at the vendor."""
        self.simulator.ask("POST", "faults", dict(fault))

    def calm(self) -> None:
        """Take back the faults that nothing met."""
        self.simulator.ask("DELETE", "faults")

    def writes(self) -> int:
        """Return how many writes the vendor has been asked for, by anybody."""
        return self.simulator.ask("GET", "requests")["counts"]["write"]

    def audit(self, *, staged: bool = False) -> Findings:
        """Look into the books, after the vendor's own jobs have run."""
        self.simulator.ask("POST", "jobs")
        books = self.simulator.ask("GET", "books")
        return audit(self.batches, books, self.company, staged=staged)


def job_of(stage: Stage, *, trigger: str = "schedule") -> Job:
    """Say what a child is to do for a stage."""
    from tests.crash.exporter import Job  # noqa: PLC0415 - the auditor's side does without it

    return Job(
        integration=stage.id,
        vendor=stage.ground.vendor,
        settings=stage.settings(),
        supabase_url=stage.ground.supabase_url,
        supabase_key=stage.ground.supabase_key,
        lease=stage.ground.lease,
        trigger=trigger,
    )
