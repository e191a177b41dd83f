"""The cast of all tests: two organisations, three integrations, and a handful of claims.

Teater Nordvest keeps its books in Xledger, and tours abroad; its office in New York exports each
hour. Fjordby Idrettslag, a sports club, keeps its books in Business Central.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import count, islice
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from kvitt.domain.integrations import Integration
from kvitt.domain.mapping import Mapping
from kvitt.domain.periods import reference_of
from kvitt.domain.records import Line, Record
from kvitt.ports import Trigger

if TYPE_CHECKING:
    import psycopg

    from kvitt.domain.periods import Period
    from kvitt.ledger import SupabaseLedger
    from kvitt.ports import Claim

KARI, AMIR, PRINTER = "ANS-101", "ANS-102", "LEV-201"
LEASE = timedelta(seconds=120)
PERSON, WATCH = Trigger(kind="person"), Trigger(kind="watch")
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)

ACCOUNTS = {
    "travel": "7140",
    "meals": "7150",
    "advertising": "7320",
    "input-vat": "2710",
    "owed-to-staff": "2910",
    "owed-to-suppliers": "2400",
}
NORDVEST = Integration.model_validate(
    {
        "id": "nordvest-xledger",
        "organisation": "Teater Nordvest",
        "vendor": "xledger",
        "connection": "nordvest",
        "cron": "0 6 * * *",
        "time_zone": "Europe/Oslo",
        "first_period": "2026-11-24T06:00:00+01:00",
        "book_currency": "NOK",
        "mapping": {
            "accounts": ACCOUNTS,
            "dimensions": {"cost_centre": "glObject1", "project": "glObject2"},
            "source": "KV",
        },
    }
)
FJORDBY = NORDVEST.model_validate(
    {
        **NORDVEST.model_dump(),
        "id": "fjordby-business-central",
        "organisation": "Fjordby Idrettslag",
        "vendor": "business-central",
        "connection": "fjordby",
        "cron": "30 6 * * 1-5",
        "first_period": "2026-11-24T06:30:00+01:00",
        "mapping": {
            "accounts": ACCOUNTS,
            "dimensions": {"cost_centre": "AVDELING", "project": "PROSJEKT"},
        },
    }
)
TOUR = NORDVEST.model_validate(
    {
        **NORDVEST.model_dump(),
        "id": "nordvest-tour",
        "cron": "15 * * * *",
        "time_zone": "America/New_York",
        "mapping": {**NORDVEST.mapping.model_dump(), "source": "KT"},
    }
)
CAST = (NORDVEST, FJORDBY, TOUR)

_numbers = count(1)
_names: set[str] = set()


def another(who: Integration, **changes: object) -> Integration:
    """Return a member of the cast under an id that no other test has.

    Nor a name in the books that another test has: those hold only 20 bits of the id.
    """
    while True:
        own = f"{who.id}-{next(_numbers)}"
        name = reference_of(own, datetime(2026, 11, 24, tzinfo=UTC))
        if name not in _names:
            _names.add(name)
            told = {**who.model_dump(), "id": own, **changes}
            if told["vendor"] == "xledger" and not {"mapping", "connection"} <= changes.keys():
                # All of them write into the same books.
                mapping = Mapping.model_validate(told["mapping"])
                told["mapping"] = mapping.model_copy(update={"source": told["id"][-20:]})
            return Integration.model_validate(told)


def claim_for_travel(
    integration: str, number: int, approved_at: datetime, *, amount: str | None = None
) -> Record:
    """Return Kari's claim for a journey: the plainest voucher, each number of another amount."""
    amount = amount or f"{512 + number}.40"
    return _record(
        integration,
        number,
        approved_at,
        [
            {"account": "travel", "amount": amount, "dimensions": {"cost_centre": "20"}},
            {"account": "owed-to-staff", "amount": f"-{amount}", "party": KARI},
        ],
    )


def claim_from_abroad(integration: str, number: int, approved_at: datetime) -> Record:
    """Return Amir's claim in euro: two expenses, paid back at the rate of the day."""
    return _record(
        integration,
        number,
        approved_at,
        [
            {"account": "travel", "amount": "100.00", "book_amount": "1163.45"},
            {"account": "meals", "amount": "20.10", "book_amount": "233.85"},
            {
                "account": "owed-to-staff",
                "amount": "-120.10",
                "book_amount": "-1397.30",
                "party": AMIR,
            },
        ],
        currency="EUR",
    )


def invoice_for_posters(integration: str, number: int, approved_at: datetime) -> Record:
    """Return the printer's invoice, with value added tax on a line of its own."""
    return _record(
        integration,
        number,
        approved_at,
        [
            {"account": "advertising", "amount": "4000", "dimensions": {"project": "P-CUP"}},
            {"account": "input-vat", "amount": "1000"},
            {"account": "owed-to-suppliers", "amount": "-5000", "party": PRINTER},
        ],
        kind="payout",
    )


def _record(
    integration: str, number: int, approved_at: datetime, lines: list[dict[str, Any]], **other: str
) -> Record:
    return Record(
        integration=integration,
        id=f"2026-{number:04d}",
        approved_at=approved_at,
        voucher_date=date(2026, 11, 20),
        text=f"Claim {number}",
        lines=tuple(Line.model_validate({"text": f"Line of {number}", **line}) for line in lines),
        **{"kind": "expense-claim", "currency": "NOK", **other},
    )


def debit_of(*records: Record) -> Decimal:
    """Sum the debit side in the books."""
    lines = [line for record in records for line in record.lines]
    booked = [line.amount if line.book_amount is None else line.book_amount for line in lines]
    return sum((amount for amount in booked if amount > 0), Decimal(0))


@dataclass(kw_only=True)
class Stage:
    """One integration in the ledger: its periods, its records, and the time that passes for it."""

    integration: Integration
    ledger: SupabaseLedger
    database: psycopg.Connection
    due: list[datetime] = field(default_factory=list[datetime])
    _record_numbers: count[int] = field(default_factory=lambda: count(1))

    @property
    def id(self) -> str:
        return self.integration.id

    async def plan(self, periods: int) -> None:
        """Write periods that came due an hour apart, the last one an hour ago; one is to come."""
        this_minute = datetime.now(UTC).replace(second=0, microsecond=0)
        self.due = [this_minute - back * HOUR for back in range(periods, 0, -1)]
        opens_at = self.due[0] - HOUR if self.due else this_minute
        future = this_minute + HOUR
        await self.ledger.plan_periods(self.id, opens_at=opens_at, due=[*self.due, future])

    async def approve(self, number_of_claims: int, *, period: int = 0) -> list[Record]:
        """Add Kari's claims, approved one after another in a period."""
        began = self.due[period] - HOUR
        records = [
            claim_for_travel(self.id, number, began + number * timedelta(seconds=1))
            for number in islice(self._record_numbers, number_of_claims)
        ]
        await self.ledger.add_records(records)
        return records

    async def claim(
        self,
        *,
        trigger: Trigger = PERSON,
        lease: timedelta = LEASE,
        due_at: datetime | None = None,
    ) -> Claim:
        """Ask for a period, as a new attempt."""
        return await self.ledger.claim(self.id, uuid4(), trigger, lease=lease, due_at=due_at)

    async def claimed(self, **how: Any) -> Period:
        """Claim a period, which must succeed."""
        answer = await self.claim(**how)
        assert answer.outcome == "claimed", answer
        assert answer.period is not None
        return answer.period

    def fit(self) -> None:
        """Have the vendor's set-up count as looked at, as it has been after a first period."""
        self.ask("update kvitt.integrations set fitted_at = now() where id = %(id)s returning id")

    async def mend(self, *, period: int = 0) -> None:
        """Say that what made a period fail was mended."""
        due_at = self.due[period]
        await self.ledger.mend(self.id, due_at, who="Inger", reason="account 7140 is open again")

    def time_passes(self, time: timedelta) -> None:
        """Move what the ledger knows of the integration into the past, as if time had gone by."""
        for table, columns in _TIMES.items():
            moved = ", ".join(f"{column} = {column} - %(time)s" for column in columns)
            where = "integration_id = %(id)s"
            self.database.execute(
                f"update kvitt.{table} set {moved} where {where}".encode(),  # noqa: S608 - our own names
                {"time": time, "id": self.id},
            )

    def ask(self, question: str, **values: Any) -> list[tuple[Any, ...]]:
        """Look into the database; `%(id)s` is the integration."""
        return self.database.execute(question.encode(), {"id": self.id, **values}).fetchall()

    def state(self, period: int = 0) -> str:
        """Return where a period stands."""
        return self.period("state", period)[0]

    def period(self, columns: str, period: int = 0) -> tuple[Any, ...]:
        """Return some columns of a period."""
        where = "integration_id = %(id)s and due_at = %(due)s"
        query = f"select {columns} from kvitt.periods where {where}"  # noqa: S608 - our own words
        return self.ask(query, due=self.due[period])[0]

    def chunks(self, columns: str = "state") -> list[Any]:
        """Return some columns of each chunk, in order."""
        where = "integration_id = %(id)s order by due_at, number"
        rows = self.ask(f"select {columns} from kvitt.chunks where {where}")  # noqa: S608 - our own words
        return [row[0] if len(row) == 1 else row for row in rows]


# Due times stay: they name periods.
_TIMES = {
    "periods": ("leased_until", "not_before", "short_since"),
    "chunks": ("intended_at", "decided_at", "not_before"),
    "attempts": ("ended_at",),
    "follow_ups": ("since", "next_look_at", "looked_at", "odd_at", "leased_until"),
    "refusals": ("absent_at",),
    "incidents": ("seen_at",),
}
