"""The cast: two organisations of the sandbox, their claims, and the simulators that keep books."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import count
from typing import Any

import httpx

from kvitt.domain.integrations import Timeouts
from kvitt.domain.periods import Period, PeriodState, key_of
from kvitt.domain.vouchers import Voucher, VoucherLine
from kvitt.vendors import VENDORS, Client
from sandbox.vendors import setup, simulator

KARI, AMIR, PRINTER = "ANS-101", "ANS-102", "LEV-201"
SECRETS = (setup.CLIENT_SECRET, setup.CLUB_TOKEN)
_numbers = count(1)


def a_period() -> Period:
    """Return a period of an integration that no other test has, due this minute."""
    due_at = datetime.now(UTC).replace(second=0, microsecond=0)
    integration = f"club-{next(_numbers)}"
    return Period(
        integration_id=integration,
        key=key_of(integration, due_at),
        opens_at=due_at.replace(year=due_at.year - 1),
        due_at=due_at,
        state=PeriodState.EXPORTING,
        fence=1,
    )


def line(account: str, booked: str, **other: Any) -> VoucherLine:
    """Return a line; `number` is given by the voucher."""
    known: dict[str, Any] = {
        "number": 1,
        "account": account,
        "amount": Decimal(other.pop("amount", booked)),
        "booked": Decimal(booked),
        "party": None,
        "tax": None,
        "dimensions": {},
        "text": "Travel",
    }
    return VoucherLine(**{**known, **other})


def voucher(sequence: int, *lines: VoucherLine, currency: str = "NOK", **other: Any) -> Voucher:
    """Return a voucher with its lines numbered from 1."""
    known: dict[str, Any] = {
        "number": 10_000 + sequence,
        "record_id": f"claim-{sequence}",
        "posting_date": date(2026, 11, 24),
        "document_date": date(2026, 11, 20),
        "source": None,
        "text": "Travel",
    }
    numbered = tuple(
        VoucherLine(
            number=number,
            account=each.account,
            party=each.party,
            amount=each.amount,
            booked=each.booked,
            tax=each.tax,
            dimensions=each.dimensions,
            text=each.text,
            comment=each.comment,
        )
        for number, each in enumerate(lines, start=1)
    )
    return Voucher(sequence=sequence, currency=currency, lines=numbered, **{**known, **other})


def a_claim(sequence: int, booked: str = "100.00") -> Voucher:
    """Return the plainest voucher: a cost, owed to Kari."""
    return voucher(
        sequence, line("7140", booked), line("2910", f"-{booked}", party=KARI, text="Kari")
    )


def claims(first: int, last: int) -> list[Voucher]:
    """Return plain vouchers, each of another amount."""
    return [a_claim(sequence, f"{sequence}.10") for sequence in range(first, last + 1)]


@dataclass(frozen=True, kw_only=True)
class Simulator:
    """A vendor's control surface; `usual` are the settings that each test begins with."""

    of: simulator.Simulator
    url: str
    usual: Mapping[str, Any]
    http: httpx.Client

    @property
    def vendor(self) -> str:
        return self.of.vendor

    @property
    def writes(self) -> str:
        return self.of.writes

    @property
    def reads(self) -> str:
        return self.of.reads

    def open(self, timeouts: Timeouts | None = None, **settings: Any) -> Client:
        """Return a client of the club."""
        told = self.settings(**settings)
        return VENDORS[self.vendor].client(told, timeouts or Timeouts(read=10))

    def settings(self, **changes: Any) -> Any:
        """Return what a client of the club is told."""
        told = {**self.of.connect(self.url, self.of.cast_company), **changes}
        return VENDORS[self.vendor].settings.model_validate(told)

    def fault(self, on: str, fault: str, **other: Any) -> None:
        self._post("faults", {"on": on, "fault": fault, **other})

    def change(self, **settings: Any) -> None:
        self._post("setup", {"settings": settings})

    def block(self, account: str, *, blocked: bool = True) -> None:
        """Close an account of the club for bookings, or open it again."""
        self._post("setup", self.of.account(self.of.cast_company, account, blocked))

    def give_default(self, account: str, code: str, value: str) -> None:
        """Have Business Central put a dimension on each line of an account of the club."""
        default = {"code": code, "value": value}
        giving = {"number": account, "default_dimensions": [default]}
        self._post("setup", {"companies": [{"id": setup.CLUB, "accounts": [giving]}]})

    def calculate_vat(self, account: str, percent: int) -> None:
        """Have Business Central split VAT off each line on an account of the club."""
        giving = {"number": account, "vat_percent": percent}
        self._post("setup", {"companies": [{"id": setup.CLUB, "accounts": [giving]}]})

    def demand_dimension(self, account: str, code: str) -> None:
        """Have Business Central post nothing on an account of the club without a dimension."""
        default = {"code": code, "mandatory": True}
        demanding = {"number": account, "default_dimensions": [default]}
        self._post("setup", {"companies": [{"id": setup.CLUB, "accounts": [demanding]}]})

    def run_jobs(self) -> None:
        self._post("jobs", None)

    def reset(self) -> None:
        """Forget faults."""
        self.http.delete(f"{self.url}/_sandbox/faults").raise_for_status()

    def restore(self) -> None:
        """Forget what another test has asked for."""
        self.reset()
        self.change(**self.usual)
        self.block("7140", blocked=False)

    def lines(self, period: Period, where: str | None = None) -> list[dict[str, Any]]:
        """Return what the books really hold of a period; where lines arrive unless told else."""
        where = where or ("staged" if self.of.stages else "posted")
        rows = self.http.get(f"{self.url}/_sandbox/books").json()[where]
        mark = self.of.books.named
        return [row for row in rows if (row[mark] or "").startswith(period.reference)]

    def operations(self) -> Mapping[str, int]:
        return self.http.get(f"{self.url}/_sandbox/requests").json()["operations"]

    def _post(self, what: str, content: Any) -> None:
        self.http.post(f"{self.url}/_sandbox/{what}", json=content).raise_for_status()
