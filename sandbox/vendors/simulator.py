"""What whoever sets a scene with a simulator has to know of it: one description a vendor."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How the lines of /_sandbox/books are to be read, beside what all of them have.

    `named` is the field that begins with a voucher's name. `on_party`: a line that has a party is
    booked on that, as if it were the account. `record` is the field that holds the record's id.
    """

    named: str
    record: str
    on_party: bool = False


@dataclass(frozen=True, kw_only=True)
class Simulator:
    """A vendor's simulator.

    `seed` is the set-up of new books: the cast. `dimensions` are the vendor's names for the app's.
    `unlimited` are settings without limits and waiting, `writes` and `reads` operations, for
    faults: the first that brings vouchers, and one that reads them back. `company_of` names the
    company of a number; `found` is the set-up that opens one like the cast's first, `account` one
    that closes or opens an account in it, and `connect` returns what its client is told.
    `prompt` are settings with which nothing happens later than it could: codes are judged when they
    are sent, and a job posts in one go.
    """

    vendor: str
    seed: Mapping[str, Any]
    books: Reading
    dimensions: Mapping[str, str]
    unlimited: Mapping[str, Any]
    writes: str
    reads: str
    cast_company: str
    company_of: Callable[[int], str]
    found: Callable[[str], Mapping[str, Any]]
    account: Callable[[str, str, bool], Mapping[str, Any]]
    connect: Callable[[str, str], Mapping[str, Any]]
    original_currency: bool = False
    """Whether the vendor takes and shows amounts in other currencies than the books'."""
    stages: bool = False
    """Whether lines wait before they are final."""
    posting: Mapping[bool, Mapping[str, Any]] = field(default_factory=dict[bool, Mapping[str, Any]])
    """Settings with which the vendor's own job posts while others read, or not; {}: no such job."""
    prompt: Mapping[str, Any] = field(default_factory=dict[str, Any])
    takes_copies: bool = True
    """Whether the vendor books a voucher again that is sent again."""

    @property
    def module(self) -> str:
        """What is run to start it."""
        return f"sandbox.vendors.{self.vendor.replace('-', '_')}"
