"""Integrations: one organisation's connection to one accounting company, as it is configured."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Annotated, Self
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, AwareDatetime, Field, Strict, model_validator

from kvitt.domain.calendar import check_cron
from kvitt.domain.fields import Currency, Identifier, NonEmpty
from kvitt.domain.mapping import Mapping, Part
from kvitt.domain.pages import HOSTED_MEMORY_MB

if TYPE_CHECKING:
    from kvitt.domain.periods import Period


def _check_zone(name: str) -> str:
    """Return the name of a zone that is the same everywhere; else ValueError.

    Names without an area are old ones, or say what this machine happens to have: `localtime`.
    """
    if name != "UTC" and ("/" not in name or name not in _zones()):
        raise ValueError(
            f"{name!r} is no time zone of the IANA list with an area, like Europe/Oslo"
        )
    return name


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


# Strict: YAML's `yes` and `true` are no 1.
Count = Annotated[int, Strict()]
Number = Annotated[float, Strict()]


class BudgetLimits(Part):
    """How many requests a month the connection may spend. None: the vendor's, or kvitt's, default.

    `paid`: go on when they are spent. `probe_share`: how much of them at most goes to probes.
    `warn_from`: which part of them is spent when a warning comes. `backfill_share`: which part of
    them is spent when past periods are filled in no more, so that the schedule has the rest.
    Integrations that share a connection share its budget; of what they state, the strictest counts.
    """

    requests: Count | None = Field(default=None, ge=1)
    paid: bool | None = None
    probe_share: Number | None = Field(default=None, ge=0, le=1)
    warn_from: Number | None = Field(default=None, gt=0, le=1)
    backfill_share: Number | None = Field(default=None, ge=0, le=1)


class Limits(Part):
    """How much at once, and how long. Seconds, unless the name says otherwise.

    A period waits `first_wait` for a vendor or an Edge Function that is away, then twice as long
    each time, up to `longest_wait`. `function_memory`: what a worker of the Edge Function may use,
    in MB, where it runs elsewhere than at Supabase.
    """

    page_records: Count = Field(default=500, ge=1, le=20_000)
    function_memory: Count = Field(default=HOSTED_MEMORY_MB, ge=16, le=65_536)
    chunk_lines: Count | None = Field(default=None, ge=2)
    at_once: Count | None = Field(default=None, ge=1)
    settle: Number | None = Field(default=None, ge=0)
    absence_gap: Number | None = Field(default=None, ge=0)
    warm_up: Number = Field(default=60, ge=0, le=600)
    set_aside: Count = Field(default=25, ge=0)
    first_wait: Number = Field(default=300, gt=0, le=86_400)
    longest_wait: Number = Field(default=3600, gt=0, le=86_400)
    budget: BudgetLimits = Field(default_factory=BudgetLimits)
    late: Number = Field(default=300, ge=60, le=86_400)


class Timeouts(Part):
    """How long we wait for an answer, in seconds. `read` None: as the vendor's habits say."""

    connect: Number = Field(default=10, gt=0)
    read: Number | None = Field(default=None, gt=0)
    pool: Number = Field(default=60, gt=0)
    ping: Number = Field(default=30, ge=1)
    function: Number = Field(default=150, gt=0)


class Scheduler(StrEnum):
    """Who asks for an integration's runs when a period is due."""

    PREFECT = "prefect"
    PG_CRON = "pg_cron"
    BOTH = "both"


class Integration(Part):
    """One integration. `connection` names the Prefect block that opens it, of the vendor's type.

    `ping` names a Prefect block of type Secret: the address of a watcher outside, which is one.
    `first_voucher_number` can change until a record was taken.
    """

    id: Identifier
    organisation: NonEmpty
    vendor: Identifier
    connection: NonEmpty
    cron: Annotated[str, AfterValidator(check_cron)]
    time_zone: Annotated[str, AfterValidator(_check_zone)]
    first_period: AwareDatetime
    book_currency: Currency
    mapping: Mapping = Field(default_factory=Mapping)
    limits: Limits = Field(default_factory=Limits)
    timeouts: Timeouts = Field(default_factory=Timeouts)
    enabled: bool = True
    scheduler: Scheduler = Scheduler.PREFECT
    ping: NonEmpty | None = None
    first_voucher_number: Count = Field(default=1, ge=1, le=2_000_000_000)

    @model_validator(mode="after")
    def _not_before_time(self) -> Self:
        if not 2020 <= self.first_period.astimezone(UTC).year < 2100:  # noqa: PLR2004 - see there
            raise ValueError(
                "first_period lies outside of 2020 to 2099, for which periods have names"
            )
        return self

    @property
    def zone(self) -> ZoneInfo:
        """The zone in which its schedule is meant."""
        return ZoneInfo(self.time_zone)

    def local(self, moment: datetime) -> datetime:
        """Return a moment as people of this organisation see it on their clocks."""
        return moment.astimezone(self.zone)

    def as_of(self, period: Period) -> Self:
        """Return it with the mapping and the time zone that a period keeps, if it keeps any."""
        kept = {"mapping": period.mapping, "time_zone": period.time_zone}
        changes = {name: value for name, value in kept.items() if value is not None}
        return self.model_validate({**self.model_dump(), **changes}) if changes else self

    def settle_time(self, default: timedelta) -> timedelta:
        """How long after a call the vendor may still commit it."""
        return default if self.limits.settle is None else timedelta(seconds=self.limits.settle)

    def absence_gap(self, default: timedelta) -> timedelta:
        """How far apart two readings must be that say that something is not there."""
        gap = self.limits.absence_gap
        return default if gap is None else timedelta(seconds=gap)
