"""The auditor: whether the vendors' books hold what was approved, once, line by line.

It shares no code with the exporter: it reads the files that were imported, applies the mapping of
examples/integrations.yaml by itself, and reads the books where an accountant would look.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import httpx

from sandbox.vendors.simulators import SIMULATORS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from sandbox.vendors.simulator import Reading

# What identifies a line in the books: voucher (as the record's id, through the books' own
# reference), date, account, party, amount, dimensions.
Line = tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """Differences between what was approved and what is booked; all empty when the books are right.

    `lost` are approved lines that are not booked, `foreign` booked ones that were not approved (a
    duplicate's second copy among them), `unbalanced` documents that do not sum to 0.
    """

    lines: int
    lost: list[Line]
    foreign: list[Line]
    unbalanced: list[str]

    @property
    def clean(self) -> bool:
        """Whether the books hold what was approved, and nothing else."""
        return not (self.lost or self.foreign or self.unbalanced)

    @property
    def summary(self) -> str:
        """The findings in a few words."""
        return (
            f"{len(self.lost)} lost, {len(self.foreign)} too many, "
            f"{len(self.unbalanced)} unbalanced vouchers"
        )


def audit(vendor_url: str, file: Path, mapping: Mapping[str, Any], company: str) -> Findings:
    """Compare the books of one company with the records of one file."""
    books = httpx.get(f"{vendor_url}/_sandbox/books", trust_env=False).raise_for_status().json()
    booked = [line for line in books["posted"] if str(line["company"]) == company]
    records = [json.loads(line) for line in file.read_text().splitlines()]
    reading = SIMULATORS[books["vendor"]].books
    expected = Counter(_approved(records, mapping, reading))
    seen = Counter(_booked(line, reading) for line in booked)
    return Findings(
        lines=len(booked),
        lost=sorted((expected - seen).elements()),
        foreign=sorted((seen - expected).elements()),
        unbalanced=_unbalanced(booked),
    )


def _approved(
    records: Iterable[Mapping[str, Any]], mapping: Mapping[str, Any], books: Reading
) -> Iterable[Line]:
    for record in records:
        for line in record["lines"]:
            party = line.get("party") or ""
            account = str(mapping["accounts"].get(line["account"], line["account"]))
            by_party = bool(party) and books.on_party
            yield (
                record["voucher_date"],
                party if by_party else account,
                "" if by_party else party,
                _plain(line.get("book_amount") or line["amount"]),
                line["text"],
                _dimensions(
                    {mapping["dimensions"][k]: v for k, v in line.get("dimensions", {}).items()}
                ),
                record["id"],
            )


def _booked(line: Mapping[str, Any], books: Reading) -> Line:
    return (
        line["date"],
        line["account"],
        "" if books.on_party else line["party"] or "",
        _plain(line["amount"]),
        line["text"],
        _dimensions(line["dimensions"]),
        line[books.record] or "",
    )


def _unbalanced(lines: Iterable[Mapping[str, Any]]) -> list[str]:
    sums: Counter[str] = Counter()
    for line in lines:
        sums[line["document"]] += Decimal(line["amount"])  # type: ignore[assignment]
    return sorted(document for document, total in sums.items() if total)


def _plain(amount: str) -> str:
    return f"{Decimal(amount):.2f}"


def _dimensions(given: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={given[name]}" for name in sorted(given) if given[name])
