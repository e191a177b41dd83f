"""Health: how each connection is, who is probed, and how long to wait before the next probe.

Two things that the ledger decides, from what it hears:

- the **state**: an answer makes a connection healthy, a failure degraded; three in a row, or in
  passive mode one, unhealthy. A limit degrades, and never makes unhealthy: who turns us away is
  there. Only an answer ends *unhealthy*.
- the **mode**: active connections are probed, passive ones judged by what exports meet. After a
  limit a connection is passive for a cool-down; then one trial probe decides. If it is answered,
  the connection is active again, otherwise the next cool-down is twice as long.

What is here is how long: the ledger is told, and adds it to its own clock.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict

from kvitt.domain.patience import LONGEST_WISH

INTERVAL = timedelta(minutes=15)
# Runs do not start to the second: without this, one that starts a second early skips its probe.
_LEEWAY = timedelta(minutes=1)
BETWEEN_PROBES = INTERVAL - _LEEWAY
"""How far apart two probes of a connection are at least."""

PROBES_A_MONTH = 31 * (timedelta(days=1) // INTERVAL)

LONGEST_BACK_OFF = timedelta(hours=4)
FIRST_COOL_DOWN, LONGEST_COOL_DOWN = timedelta(hours=1), timedelta(days=1)
# Who meets the next limit so soon after the last one goes on with longer cool-downs.
_CALM = timedelta(days=1)
# Two more probes at the usual pace tell a lost packet from an outage, within half an hour.
_AT_USUAL_PACE = 2
_JITTER = 0.5
# Beyond 2^20 steps of any length that makes sense, all are the longest; and no overflow.
_MOST_DOUBLINGS = 20


class Mode(StrEnum):
    """Whether a connection is probed."""

    ACTIVE = "active"
    PASSIVE = "passive"


class State(StrEnum):
    """How a connection is; the ledger's schema says when."""

    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


class Heard(StrEnum):
    """What a probe, or real traffic, says of a connection."""

    ANSWERED = "answered"
    TURNED_AWAY = "turned-away"
    FAILED = "failed"
    UNASKED = "unasked"


def wait_before_next_probe(
    failures: int, *, wish: timedelta | None = None, chance: float
) -> timedelta:
    """Return how long to wait after so many failures in a row, the latest one included.

    At the usual pace at first, then twice as long each time, up to four hours; less than half of
    that is taken off by `chance`, from 0 to 1, which spreads those that failed together. `wish` is
    how long the vendor asked to be left alone: it is never asked earlier.
    """
    doublings = min(max(failures - _AT_USUAL_PACE, 0), _MOST_DOUBLINGS)
    step = min(INTERVAL * 2**doublings, LONGEST_BACK_OFF) - _LEEWAY
    wait = max(step * (1 - _JITTER * chance), BETWEEN_PROBES)
    return wait if wish is None else max(wait, min(wish, LONGEST_WISH))


def cool_down(before: int, *, wish: timedelta | None = None, chance: float) -> timedelta:
    """Return how long the passive mode lasts after a limit, with so many cool-downs before it.

    An hour, then twice as long each time, up to a day; `chance`, from 0 to 1, makes it up to half
    as long again. Never shorter than `wish`, how long the vendor asked to be left alone.
    """
    step = min(FIRST_COOL_DOWN * 2 ** min(before, _MOST_DOUBLINGS), LONGEST_COOL_DOWN)
    return max(step, min(wish or step, LONGEST_WISH)) + step * _JITTER * chance


def default_mode(requests: int | None, probe_share: float) -> tuple[Mode, str]:
    """Return the mode of a connection of which nobody has said it, and the reason.

    `requests` is what it may spend in a month, None for any number; `probe_share`, from 0 to 1,
    what part of that may go to probes.
    """
    if requests is None:
        return Mode.ACTIVE, "by default: no number of requests a month is set for it"
    cost = f"a probe each 15 minutes is {PROBES_A_MONTH:,} requests a month"
    share = f"{probe_share:.0%} of the {requests:,} that it may spend"
    if requests * probe_share < PROBES_A_MONTH:
        return Mode.PASSIVE, f"by default: {cost}, more than {share}"
    return Mode.ACTIVE, f"by default: {cost}, within {share}"


class Connection(BaseModel):
    """A connection as the ledger has it, by its clock (`now`). Mode and state None: not enrolled.

    `requests` and `probe_share` are as for `default_mode`. `trial_at`: when a trial probe may end
    the passive mode; None where only a person does.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    vendor: str
    connection: str
    now: AwareDatetime
    requests: int | None = None
    probe_share: float = 0
    mode: Mode | None = None
    mode_by: str = ""
    mode_reason: str = ""
    mode_since: AwareDatetime | None = None
    by_default: bool | None = None
    trial_at: AwareDatetime | None = None
    cool_downs: int | None = None
    state: State | None = None
    state_since: AwareDatetime | None = None
    why: str | None = None
    unasked: str | None = None
    failures: int | None = None
    next_probe_at: AwareDatetime | None = None
    last_probe_at: AwareDatetime | None = None
    last_traffic_at: AwareDatetime | None = None

    @property
    def name(self) -> str:
        """Vendor and connection, as people and events name it."""
        return f"{self.vendor}/{self.connection}"

    @property
    def changed_default(self) -> dict[str, str] | None:
        """The mode that it should have by default, where that is not what it has."""
        mode, reason = default_mode(self.requests, self.probe_share)
        if self.mode is not None and not self.by_default:
            return None
        if self.mode is mode and (mode is Mode.ACTIVE or self.mode_reason == reason):
            return None
        return {
            "vendor": self.vendor,
            "connection": self.connection,
            "mode": mode,
            "reason": reason,
        }

    @property
    def cool_downs_in_a_row(self) -> int:
        """How many came before the cool-down that a limit begins now, or finds under way.

        After a day of calm, none.
        """
        if self.mode is Mode.PASSIVE:
            return max((self.cool_downs or 0) - 1, 0)
        calm = self.mode_since and self.now - self.mode_since >= _CALM
        return 0 if calm else self.cool_downs or 0

    @property
    def next_probe(self) -> datetime | None:
        """When it may be probed next; None for never, unless somebody says so."""
        if self.mode is Mode.PASSIVE:
            return self.trial_at and max(self.trial_at, self.next_probe_at or self.trial_at)
        return self.next_probe_at


class ModeChange(BaseModel):
    """A change of a mode, of one connection or (None) of all that a vendor has."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: int
    vendor: str
    connection: str | None
    was: Mode | None
    became: Mode
    reason: str
    who: str
    changed_at: AwareDatetime

    @property
    def name(self) -> str:
        """What it is about, as people and events name it."""
        return self.vendor if self.connection is None else f"{self.vendor}/{self.connection}"

    def payload(self) -> dict[str, Any]:
        """Return what goes with its event; `text` is for a person."""
        which = "all connections of " * (self.connection is None) + self.name
        return {
            "vendor": self.vendor,
            "connection": self.connection,
            "was": self.was,
            "mode": self.became,
            "reason": self.reason,
            "by": self.who,
            "text": f"{which}: {self.became}, by {self.who}: {self.reason}",
        }


HEADINGS = ("connection", "mode", "state", "since", "why", "next probe")


def as_rows(connections: list[Connection]) -> list[tuple[str, ...]]:
    """Return a table for people, under HEADINGS: those that need one come first."""
    order = [State.UNHEALTHY, State.DEGRADED, State.UNKNOWN, None, State.HEALTHY]
    return [
        _row(each) for each in sorted(connections, key=lambda c: (order.index(c.state), c.name))
    ]


def _row(it: Connection) -> tuple[str, ...]:
    mode = f"{it.mode or 'not known yet'}"
    usual = it.mode is Mode.ACTIVE and it.by_default and not it.cool_downs
    if it.mode is not None and not usual:
        mode += f" since {_minute(it.mode_since)} by {it.mode_by}: {it.mode_reason}"
    why = "; ".join(filter(None, [it.why, it.unasked and f"not probed: {it.unasked}"]))
    next_probe = f"{_minute(it.next_probe)}{' (trial)' * (it.mode is Mode.PASSIVE)}"
    return (
        it.name,
        mode,
        it.state or State.UNKNOWN,
        _minute(it.state_since),
        why,
        next_probe if it.next_probe else "none",
    )


def as_markdown(connections: list[Connection]) -> str:
    """Return the same table for the UI; times are in UTC."""
    rows = [HEADINGS, ("---",) * len(HEADINGS), *as_rows(connections)]
    return "\n".join(f"| {' | '.join(_on_one_line(cell) for cell in row)} |" for row in rows)


def _on_one_line(cell: str) -> str:
    return " ".join(cell.replace("|", "/").split())


def _minute(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M}"
