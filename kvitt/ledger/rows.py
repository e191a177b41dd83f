"""What the ledger's rows and answers look like, where they are no period, record or chunk."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict

from kvitt.domain.integrations import Integration, Scheduler
from kvitt.domain.periods import PeriodState
from kvitt.domain.records import TakenRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class Integrations:
    """The table of integrations: one that cannot be read stops nobody else's work."""

    valid: list[Integration]
    broken: dict[str, str]


class Calendar(BaseModel):
    """How far the calendar of an integration is written, and since when its schedule holds."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    now: AwareDatetime
    planned_until: AwareDatetime | None
    schedule_since: AwareDatetime | None


class KeptRecord(TakenRecord):
    """A record with the due time of the period that took it, if one has."""

    period_due_at: AwareDatetime | None


class SetAside(BaseModel):
    """A voucher that the accounting system did not take, and that nobody has mended."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    integration_id: str
    due_at: AwareDatetime
    record_id: str
    reason: str


class Spending(BaseModel):
    """What one connection has spent in a month; `counted` is with what is reserved, or was lost.

    `allowance` is what counts now, None for any number; `now` is the ledger's clock.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    vendor: str
    connection: str
    month: date
    counted: int
    spent: dict[str, int]
    allowance: int | None
    paid: bool
    warned_at: AwareDatetime | None
    now: AwareDatetime


class Secret(BaseModel):
    """A secret that the second scheduler reads from Vault: its name, not its content."""

    name: str
    what: str
    required: bool
    there: bool


class Job(BaseModel):
    """The job of pg_cron, as `cron.job` has it."""

    schedule: str
    command: str
    active: bool
    username: str


class Scheduled(BaseModel):
    """An integration that pg_cron is to start, and its deployment where that is known."""

    id: str
    scheduler: Scheduler
    deployment: UUID | None


class Alarm(BaseModel):
    """An incident that goes on, as the database told it (or could not yet)."""

    raised_at: AwareDatetime
    words: str
    told: bool


class SecondScheduler(BaseModel):
    """What of the second scheduler is there, and when the two watchers were last at work."""

    now: AwareDatetime
    extensions: dict[str, bool]
    secrets: list[Secret]
    job: Job | None
    heartbeats: dict[str, AwareDatetime]
    integrations: list[Scheduled]
    alarms: list[Alarm]


class Heartbeat(BaseModel):
    """The last sign of life of a watcher."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    who: str
    beat_at: AwareDatetime
    detail: dict[str, Any]


class Progress(BaseModel):
    """How far a stretch of the calendar has come; the pace lets the next one begin at `next_at`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    periods: int
    settled: int
    failed: int
    vouchers: int
    next_at: AwareDatetime | None

    @property
    def finished(self) -> bool:
        """Nothing is left but what waits for a person."""
        return self.settled + self.failed == self.periods


class Work(BaseModel):
    """An integration with a period that is due and unfinished, and since when, by its own clock."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    integration_id: str
    due_at: AwareDatetime
    state: PeriodState
    fence: int
    late_seconds: float
    backfill: bool
