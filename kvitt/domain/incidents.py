"""Incidents: what a person must know, told once when it begins and once when it is over."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict

from kvitt.domain.periods import key_of


class IncidentKind(StrEnum):
    """What is wrong; the ledger's schema says when."""

    LATE = "late"
    MISSED = "missed"
    UNCERTAIN = "uncertain"
    FAILED = "failed"
    STUCK = "stuck"
    SET_ASIDE = "set-aside"
    SILENT = "silent"
    UNREADABLE = "unreadable"
    UNALIGNED = "unaligned"
    UNHEALTHY = "unhealthy"
    COLD_STARTS = "cold-starts"


_ABOUT = {
    IncidentKind.SILENT: "watcher",
    IncidentKind.UNREADABLE: "integration",
    IncidentKind.UNALIGNED: "deployments",
    IncidentKind.UNHEALTHY: "connection",
    IncidentKind.COLD_STARTS: "function",
}


class Incident(BaseModel):
    """One incident as the ledger has it: open, then over. `what` is for a person.

    `flow_run`: id of the latest run that worked on its period; `deployment`: id of that of its
    integration. Both are known of incidents that are to be told, where there are any.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: int
    kind: IncidentKind
    subject: str
    integration_id: str | None
    due_at: AwareDatetime | None
    periods: int
    since: AwareDatetime
    what: str
    opened_at: AwareDatetime
    told_at: AwareDatetime | None
    ended_at: AwareDatetime | None
    flow_run: str | None = None
    deployment: str | None = None

    @property
    def event(self) -> str:
        """The event that tells it: `kvitt.period.late`, or `kvitt.incident.over` for its end."""
        if self.told_at is not None:
            return "kvitt.incident.over"
        return f"kvitt.{_ABOUT.get(self.kind, 'period')}.{self.kind}"

    @property
    def words(self) -> str:
        """What a person reads."""
        if self.told_at is not None:
            return f"over: {self.kind} of {self.subject}, since {self.since:%Y-%m-%d %H:%M} UTC"
        return self.what if self.ended_at is None else f"{self.what}. (It is over by now.)"

    @property
    def _period(self) -> str | None:
        if self.integration_id is None or self.due_at is None:
            return None
        return key_of(self.integration_id, self.due_at)

    def payload(self) -> dict[str, Any]:
        """Return what goes with the event; `text` is for a person."""
        return {
            "incident": self.id,
            "kind": self.kind,
            "subject": self.subject,
            "period": self._period,
            "integration": self.integration_id,
            "due_at": None if self.due_at is None else self.due_at.isoformat(),
            "periods": self.periods,
            "since": self.since.isoformat(),
            "flow_run": self.flow_run,
            "deployment": self.deployment,
            "text": self.words,
        }
