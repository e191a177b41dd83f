"""Periods: the half-open intervals between two scheduled times, and the names made from them."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

# The reference counts minutes from here: five base-36 digits last until 2135.
FIRST_NAMED = datetime(2020, 1, 1, tzinfo=UTC)
_MINUTE = timedelta(minutes=1)
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class PeriodState(StrEnum):
    """Where a period stands; the transitions are in the ledger's schema, which holds it to them."""

    DUE = "due"
    COLLECTING = "collecting"
    COLLECTED = "collected"
    EXPORTING = "exporting"
    EXPORTED = "exported"
    VERIFIED = "verified"
    UNCERTAIN = "uncertain"
    FAILED = "failed"
    SKIPPED = "skipped"

    @property
    def finished(self) -> bool:
        """Nothing more happens to it."""
        return self in (PeriodState.VERIFIED, PeriodState.SKIPPED)


class Period(BaseModel):
    """One period as the ledger has it. Times are aware, in UTC.

    `mapping` and `time_zone` are those that its vouchers go with, whatever its integration says
    now; None until it is claimed. `first_sent_at` is known of those that are filled in.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    integration_id: str
    key: str
    opens_at: AwareDatetime
    due_at: AwareDatetime
    state: PeriodState
    backfill: bool = False
    fence: int = Field(ge=0)
    not_before: AwareDatetime | None = None
    waiting_for: str | None = None
    postponed: int = 0
    leased_until: AwareDatetime | None = None
    reason: str | None = None
    record_count: int = 0
    mapping: dict[str, object] | None = None
    time_zone: str | None = None
    receipt: dict[str, object] | None = None
    first_sent_at: AwareDatetime | None = None

    @property
    def sent_since(self) -> datetime:
        """A time before which nothing of it was sent.

        For one that is filled in, much later than it was due. For the others, when they were due:
        a ledger that was restored to an earlier time does not know what it had sent.
        """
        return self.first_sent_at or self.due_at

    @property
    def reference(self) -> str:
        """The short name of the period that goes into a vendor's books; see `reference_of`."""
        return reference_of(self.integration_id, self.due_at)


def key_of(integration_id: str, due_at: datetime) -> str:
    """Name a period: the idempotency key, `integration@2026-11-24T05:00Z`."""
    return f"{integration_id}@{due_at.astimezone(UTC):%Y-%m-%dT%H:%MZ}"


@lru_cache(maxsize=64)  # a line's name begins with it, and a period has many lines
def reference_of(integration_id: str, due_at: datetime) -> str:
    """Name a period in nine characters, A-Z and 0-9, the same at each call.

    Vendors give references little room (ten characters for a journal code in Business Central, 25
    for an external identifier in Xledger). Four characters tell the integration (20 bits of a
    hash), five count the minutes, to which cron is exact. Two integrations that write into one
    company share a reference only if both their hash and their minute agree: about one pair in a
    million. A read-back would then show more than was sent, and stop the period.
    """
    digest = hashlib.sha256(integration_id.encode()).digest()
    who = base64.b32encode(digest)[:4].decode()
    return who + _base36((due_at - FIRST_NAMED) // _MINUTE).rjust(5, "0")


def _base36(number: int) -> str:
    quotient, digit = divmod(number, 36)
    return (_base36(quotient) if quotient else "") + _DIGITS[digit]
