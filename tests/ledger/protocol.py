"""The ledger's functions called straight in SQL: for speed, and where there is no PostgREST."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from psycopg import sql
from psycopg.types.json import Jsonb

from kvitt.domain.money import Totals, checksum_of
from tests.cast import HOUR, LEASE, claim_for_travel

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID

    import psycopg

    from kvitt.domain.integrations import Integration


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """One integration's ledger, as a person with psql would use it."""

    database: psycopg.Connection
    integration: str

    def call(self, function: str, **arguments: Any) -> Any:
        """Call a function by the names of its arguments, which begin with p_."""
        given = {
            name: Jsonb(value) if isinstance(value, dict | list) else value
            for name, value in arguments.items()
        }
        named = [
            sql.SQL("p_{} => {}").format(sql.SQL(name), sql.Placeholder(name)) for name in given
        ]
        query = sql.SQL("select kvitt.{}({})").format(
            sql.Identifier(function), sql.SQL(", ").join(named)
        )
        [row] = self.database.execute(query, given).fetchall()
        return row[0]

    def own(self, function: str, **arguments: Any) -> Any:
        """Call a function about the integration."""
        return self.call(function, integration=self.integration, **arguments)

    def save(self, integration: Integration) -> None:
        self.call("save_integration", integration=integration.model_dump(mode="json"))

    def plan(self, *due: datetime) -> int:
        question = "select kvitt.plan_periods(%s, %s, %s)"
        given = [self.integration, due[0] - HOUR, list(due)]
        [row] = self.database.execute(question, given).fetchall()
        return row[0]

    def approve(self, number: int, approved_at: datetime) -> Decimal:
        """Add a claim; returns what it debits."""
        record = claim_for_travel(self.integration, number, approved_at)
        self.call("add_records", records=[record.model_dump(mode="json", exclude_none=True)])
        return record.lines[0].amount

    def claim(
        self, *, attempt: UUID | None = None, lease: timedelta = LEASE, trigger: str = "person"
    ) -> dict[str, Any]:
        return self.own("claim_period", attempt=attempt or uuid4(), lease=lease, trigger=trigger)

    def intend(
        self, held: Held, first: int, last: int, debits: Mapping[int, Decimal]
    ) -> dict[str, Any]:
        """Write down that vouchers, by sequence, of two lines each are about to be sent."""
        totals = totals_of(debits).as_json()
        return self.own(
            "intend_chunk",
            **held.fenced,
            kind="lines",
            first=first,
            last=last,
            totals=totals,
            settle=SETTLE,
        )

    def settle_chunk(self, held: Held, number: int, outcome: str, **how: Any) -> dict[str, Any]:
        return self.own("settle_chunk", **held.fenced, number=number, outcome=outcome, **how)

    def settle(self, held: Held, debits: Mapping[int, Decimal]) -> dict[str, Any] | None:
        """Say what the books hold: vouchers, by sequence, of two lines each."""
        shown = totals_of(debits).model_copy(update={"original": None})
        return self.own(
            "settle_period", **held.fenced, read_back=shown.as_json(), requests={"export": 1}
        )


def totals_of(debits: Mapping[int, Decimal]) -> Totals:
    """Add up vouchers of two lines each, by sequence."""
    booked = sum(debits.values(), Decimal(0))
    return Totals(
        vouchers=len(debits),
        lines=2 * len(debits),
        booked=booked,
        original={"NOK": booked} if debits else {},
        checksum=sum(checksum_of(s, 2, debit) for s, debit in debits.items()) % 2**60,
    )


SETTLE = timedelta(minutes=10)


@dataclass(frozen=True, kw_only=True)
class Held:
    """A lease as its holder knows it."""

    due: datetime
    fence: int

    @property
    def fenced(self) -> dict[str, Any]:
        return {"due": self.due, "fence": self.fence}
