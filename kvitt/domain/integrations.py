"""Integrations: one organisation's connection to one accounting company, as it is configured."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from kvitt.domain.calendar import check_cron


def _check_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"{name!r} is no time zone of the IANA list, like Europe/Oslo") from error
    return name


Identifier = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", max_length=63)
]
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
# No control characters, which have no place in a name.
NonEmpty = Annotated[
    str,
    StringConstraints(min_length=1, strip_whitespace=True, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$"),
]


def _code(value: object) -> object:
    """Account numbers are codes, but YAML reads an unquoted 7140 as a number."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Code = Annotated[NonEmpty, BeforeValidator(_code)]


class _Part(BaseModel):
    """Frozen, and strict about names: a misspelt setting is an error, not a silence."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Mapping(_Part):
    """How the app's words become the accounting system's. A word that is not listed stays itself.

    `dimensions` names the vendor's dimension (Business Central: its code; Xledger: the slot, like
    glObject1, or project; Dataverse: the column) for each dimension of the app. `posting_date` is
    the voucher's own date, or the day on which the period is due in the integration's time zone.
    """

    accounts: dict[Code, Code] = {}
    parties: dict[Code, Code] = {}
    taxes: dict[Code, Code] = {}
    dimensions: dict[Code, Code] = {}
    posting_date: Literal["voucher", "period"] = "voucher"
    source: str | None = Field(default=None, max_length=20)


class Limits(_Part):
    """How much at once, and how long. Seconds, unless the name says otherwise."""

    page_records: int = Field(default=500, ge=1, le=20_000)
    chunk_lines: int | None = Field(default=None, ge=2)
    settle: float | None = Field(default=None, ge=0)
    absence_gap: float | None = Field(default=None, ge=0)
    warm_up: float = Field(default=60, ge=0, le=600)
    set_aside: int = Field(default=25, ge=0)


class Timeouts(_Part):
    """How long we wait for an answer, in seconds."""

    connect: float = Field(default=10, gt=0)
    read: float = Field(default=120, gt=0)
    pool: float = Field(default=60, gt=0)
    function: float = Field(default=150, gt=0)


class Integration(_Part):
    """One integration. `connection` names the Prefect block that opens it, of the vendor's type."""

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

    def settle_time(self, default: timedelta) -> timedelta:
        """How long after a call the vendor may still commit it."""
        return default if self.limits.settle is None else timedelta(seconds=self.limits.settle)

    def absence_gap(self, default: timedelta) -> timedelta:
        """How far apart two readings must be that say that something is not there."""
        gap = self.limits.absence_gap
        return default if gap is None else timedelta(seconds=gap)
