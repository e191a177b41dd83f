"""The auditor: what the books hold, held against what was approved. No code of the exporter's.

It knows what a finance person knows who was given the records and the rule by which lines are
named: `<four characters for the integration><five base-36 digits: minutes since 2020>-<place of
the record in its period>`, and where a vendor keeps lines only, `-<line>` behind it. How a vendor's
books are to be read, its simulator says.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sandbox.vendors.simulators import SIMULATORS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sandbox.vendors.simulator import Simulator

Line = tuple[str, ...]
Voucher = Counter[Line]

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
_MINUTES_FROM = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass(kw_only=True)
class Findings:
    """How many lines are wrong, by kind; all 0 when the books are right.

    `unbalanced` counts vouchers; so does `split`: those of which the books hold a part.
    """

    duplicates: int = 0
    lost: int = 0
    altered: int = 0
    wrong_period: int = 0
    orphans: int = 0
    unbalanced: int = 0
    split: int = 0

    @property
    def wrong(self) -> dict[str, int]:
        """What is not 0."""
        return {kind: count for kind, count in asdict(self).items() if count}

    @property
    def contradict(self) -> bool:
        """Whether the books hold something that no sending of whole vouchers can mend."""
        return bool(set(self.wrong) - {"lost"})


def audit(
    batches: Mapping[datetime, Sequence[Mapping[str, Any] | None]],
    books: Mapping[str, Any],
    company: str,
    *,
    staged: bool = False,
) -> Findings:
    """Compare one company's books with records, in order, by the period that had to take them.

    None stands in the place of a record that was set aside: nothing of it may be in the books. Only
    what is posted counts as booked, unless lines that are still staged are to count as well.
    """
    vendor = SIMULATORS[books["vendor"]]
    booked = [line for line in books["posted"] if line["company"] == company]
    waiting = [line for line in books["staged"] if line["company"] == company]
    if staged:
        booked += waiting
    seen: defaultdict[tuple[str, int], Voucher] = defaultdict(Counter)
    for line in booked:
        seen[_place(_name(line, vendor))][_booked(line, vendor)] += 1
    findings = Findings(unbalanced=_unbalanced(booked, vendor))
    for due, records in batches.items():
        for place, record in enumerate(records, 1):
            expected = Counter(_approved(record, vendor) if record else ())
            _compare(expected, seen.pop((_minutes(due), place), Counter()), findings)
    for rest in seen.values():
        _name_the_strangers(rest, batches, vendor, findings)
    if not staged:
        findings.orphans += len(waiting)
    return findings


def reordered(books: Mapping[str, Any], company: str) -> int:
    """Count the lines of a company that stand behind one of a later period."""
    latest, count = "", 0
    for line in books["posted"]:
        if line["company"] == company:
            period, _ = _place(_name(line, SIMULATORS[books["vendor"]]))
            count += period < latest
            latest = max(latest, period)
    return count


def _compare(expected: Voucher, seen: Voucher, findings: Findings) -> None:
    """Add what is wrong with one voucher."""
    missing, surplus = expected - seen, seen - expected
    copies = surplus - (surplus - _times(expected, surplus.total()))
    strange = surplus - copies
    findings.duplicates += copies.total()
    if strange:
        findings.altered += strange.total()
        return
    findings.lost += missing.total()
    findings.split += bool(missing and seen)


def _times(voucher: Voucher, times: int) -> Voucher:
    return Counter({line: count * times for line, count in voucher.items()})


def _name_the_strangers(
    lines: Voucher,
    batches: Mapping[datetime, Sequence[Mapping[str, Any] | None]],
    vendor: Simulator,
    findings: Findings,
) -> None:
    """Lines of a name that no record has: of another period, or of nobody."""
    known = Counter(
        line
        for records in batches.values()
        for record in records
        if record
        for line in _approved(record, vendor)
    )
    ours = (lines & known).total()
    findings.wrong_period += ours
    findings.orphans += lines.total() - ours


def _name(line: Mapping[str, Any], vendor: Simulator) -> str:
    return str(line[vendor.books.named] or "")


def _place(name: str) -> tuple[str, int]:
    """Return the period's minutes, as they are written, and the place in it; ("", 0) if none."""
    period, _, rest = name.partition("-")
    place = rest.partition("-")[0]
    return (period[4:], int(place)) if place.isdecimal() else ("", 0)


def _minutes(due: datetime) -> str:
    number, digits = int((due - _MINUTES_FROM).total_seconds() // 60), ""
    while number:
        number, digit = divmod(number, 36)
        digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[digit] + digits
    return digits.rjust(5, "0")


def _approved(record: Mapping[str, Any], vendor: Simulator) -> Iterable[Line]:
    for line in record["lines"]:
        party = line.get("party") or ""
        on_party = bool(party) and vendor.books.on_party
        yield (
            record["voucher_date"],
            party if on_party else ACCOUNTS.get(line["account"], line["account"]),
            "" if on_party else party,
            _plain(line.get("book_amount") or line["amount"]),
            _dimensions({vendor.dimensions[k]: v for k, v in line.get("dimensions", {}).items()}),
            record["id"],
        )


def _booked(line: Mapping[str, Any], vendor: Simulator) -> Line:
    books = vendor.books
    return (
        line["date"],
        line["account"],
        "" if books.on_party else line["party"] or "",
        _plain(line["amount"]),
        _dimensions(line["dimensions"]),
        line[books.record] or "",
    )


def _unbalanced(booked: Iterable[Mapping[str, Any]], vendor: Simulator) -> int:
    """Count the vouchers, by name, that do not sum to 0."""
    sums: defaultdict[tuple[str, int], Decimal] = defaultdict(Decimal)
    for line in booked:
        sums[_place(_name(line, vendor))] += Decimal(line["amount"])
    return sum(bool(total) for total in sums.values())


def _plain(amount: str) -> str:
    return f"{Decimal(amount):.2f}"


def _dimensions(given: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={given[name]}" for name in sorted(given) if given[name])
