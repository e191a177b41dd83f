"""What goes wrong at a point, by name. A trial is a point and a fault.

At a vendor's point the simulator makes the fault, with real sockets: the order is queued while the
child is held right before its request. At the ledger's, the Edge Function's and Prefect's points
the recorder makes it, below httpx. Outages, memory limits and boot errors are real ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Order = dict[str, Any]
GO: Order = {"do": "go"}
LATE = 0.35
"""Seconds after which a late commit comes: well within the settle time of the trials."""

_PAGE = "<html>not what was asked for</html>"
_STATUSES = (500, 502, 503, 504)


@dataclass(frozen=True, kw_only=True, order=True)
class Point:
    """The `nth` request of this name in a trial, and the side of it."""

    name: str
    nth: int
    side: str

    @property
    def party(self) -> str:
        """Who is asked: ledger, edge, prefect, vendor-read, vendor-write or vendor-token."""
        return self.name.partition(".")[0]

    @property
    def vendor(self) -> bool:
        return self.party.startswith("vendor")

    @property
    def writes(self) -> bool:
        """Whether it is a call that writes to the vendor."""
        return self.party == "vendor-write"

    def __str__(self) -> str:
        return f"{self.side} {self.name} #{self.nth}"


class Scene(Protocol):
    """What a fault can do to a run while its child is held at a point."""

    def kill(self, *, in_flight: bool = False) -> Order:
        """SIGKILL the child: now, or once its request has come to the vendor."""
        ...

    def pause(self, *, long: bool) -> Order:
        """SIGSTOP the child for longer than its lease, have others take over, then SIGCONT it.

        It goes on after the first of them has made an attempt; if `long`, after the period rests.
        """
        ...

    def vendor(self, fault: Mapping[str, Any]) -> Order:
        """Queue a fault for the very next request to the vendor."""
        ...

    def rivals(self, count: int) -> Order:
        """Start others for the same integration, and let all of them run."""
        ...

    def outage(self, part: str) -> Order:
        """Take away a part that all share; it comes back by itself."""
        ...

    def deploy(self) -> Order:
        """Change the integration's schedule and apply its deployment."""
        ...


@dataclass(frozen=True, kw_only=True)
class Fault:
    """`strikes` tells at which points it makes sense; `shared` ones are felt by all trials.

    One that `pauses` the run has to come before the check of its lease. Deployments are made only
    for those that need one: Prefect's server takes long to list many.
    """

    name: str
    act: Callable[[Scene, Point], Order]
    strikes: Callable[[Point], bool]
    shared: bool = False
    pauses: bool = False
    needs_deployment: bool = False


def _anywhere(point: Point) -> bool:
    del point
    return True


def _before(point: Point) -> bool:
    return point.side == "before"


def _before_a_write(point: Point) -> bool:
    return point.side == "before" and point.writes


def _before_a_call_of_ours(point: Point) -> bool:
    return point.side == "before" and point.party in {"ledger", "edge"}


def _where_the_lease_is_checked_after(point: Point) -> bool:
    """Tell the points after which the guard is still to come.

    Between the guard and the request there are some instructions, and no vendor knows fences: who
    is stopped right there does send. That is PAST_THE_CHECK, and counted apart.
    """
    return not _before_a_write(point)


def _drop(scene: Scene, point: Point) -> Order:
    return scene.vendor({"fault": "drop-before"}) if point.vendor else {"do": "drop"}


def _lose(scene: Scene, point: Point) -> Order:
    return scene.vendor({"fault": "reply-lost"}) if point.vendor else {"do": "lose"}


def _say(scene: Scene, point: Point, *, status: int, sent: bool) -> Order:
    if point.vendor:
        phase = "after" if sent else "before"
        return scene.vendor({"fault": "status", "status": status, "phase": phase})
    return {"do": "answer", "status": status, "body": _PAGE, "sent": sent}


def _too_many(scene: Scene, point: Point, *, retry_after: int | None) -> Order:
    if point.vendor:
        return scene.vendor({"fault": "rate-limit", "retry_after": retry_after})
    headers = {} if retry_after is None else {"retry-after": str(retry_after)}
    return {"do": "answer", "status": 429, "body": _PAGE, "sent": False, "headers": headers}


def _garble(scene: Scene, point: Point, *, how: str) -> Order:
    if point.vendor:
        return scene.vendor({"fault": how})
    body = _PAGE if how == "malformed" else '{"outcome": "cl'
    return {"do": "answer", "status": 200, "body": body, "sent": True, "type": "application/json"}


def _at_the_vendor(scene: Scene, _: Point, **fault: Any) -> Order:
    return scene.vendor(fault)


def _killed_in_flight(scene: Scene, _: Point, **fault: Any) -> Order:
    scene.vendor({**fault, "delay": 5})
    return scene.kill(in_flight=True)


def _holds_items(point: Point) -> bool:
    """Tell whether a half of it can be executed: posting a journal has no halves."""
    return _before_a_write(point) and not point.name.endswith("NAV.post")


def _renewable(point: Point) -> bool:
    return _before(point) and point.party in {"vendor-write", "vendor-read"}


def _at_the_function(point: Point) -> bool:
    return _before(point) and point.party == "edge"


def _at_prefect(point: Point) -> bool:
    return point.party == "prefect"


_own = [
    Fault(name="kill -9", act=lambda s, _: s.kill(), strikes=_anywhere),
    Fault(
        name="kill -9 in flight",
        act=partial(_killed_in_flight, fault="slow"),
        strikes=_before_a_write,
    ),
    Fault(
        name="kill -9 in flight, late commit",
        act=partial(_killed_in_flight, fault="late-commit", commit_after=LATE),
        strikes=_before_a_write,
    ),
    Fault(name="connection dropped", act=_drop, strikes=_before),
    Fault(name="reply lost", act=_lose, strikes=_before),
    Fault(
        name="late commit, seen by the first look",
        act=partial(_at_the_vendor, fault="late-commit", commit_after=0.05, delay=0.2),
        strikes=_before_a_write,
    ),
    Fault(
        name="late commit, after the first look",
        act=partial(_at_the_vendor, fault="late-commit", commit_after=LATE),
        strikes=_before_a_write,
    ),
    Fault(
        name="504, late commit",
        act=partial(_at_the_vendor, fault="status", status=504, phase="later", commit_after=LATE),
        strikes=_before_a_write,
    ),
    Fault(
        name="429",
        act=partial(_too_many, retry_after=None),
        strikes=_before,
    ),
    Fault(name="429 with Retry-After", act=partial(_too_many, retry_after=1), strikes=_before),
    *(
        Fault(
            name=f"{status}{', committed' if sent else ''}",
            act=partial(_say, status=status, sent=sent),
            strikes=_before,
        )
        for status in _STATUSES
        for sent in (False, True)
    ),
    Fault(
        name="half a batch",
        act=partial(_at_the_vendor, fault="half-batch"),
        strikes=_holds_items,
    ),
    Fault(name="malformed reply", act=partial(_garble, how="malformed"), strikes=_before),
    Fault(name="truncated reply", act=partial(_garble, how="truncated"), strikes=_before),
    Fault(
        name="token expired",
        act=partial(_at_the_vendor, fault="token-expired"),
        strikes=_renewable,
    ),
    *(
        Fault(
            name=name,
            act=lambda s, _, long=long: s.pause(long=long),
            strikes=_where_the_lease_is_checked_after,
            pauses=True,
        )
        for name, long in (
            ("paused longer than its lease", False),
            ("paused until others have finished", True),
        )
    ),
    Fault(name="two workers", act=lambda s, _: s.rivals(1), strikes=_anywhere),
    Fault(name="several triggers at once", act=lambda s, _: s.rivals(3), strikes=_before),
    Fault(
        name="deployed in the middle",
        act=lambda s, _: s.deploy(),
        strikes=_at_prefect,
        needs_deployment=True,
    ),
]
_shared = [
    *(
        Fault(
            name=f"{part} away",
            act=lambda s, _, part=part: s.outage(part),
            strikes=_anywhere,
            shared=True,
        )
        for part in ("postgres", "postgrest", "gateway")
    ),
    Fault(
        name="prefect away",
        act=lambda s, _: s.outage("prefect"),
        strikes=_at_prefect,
        shared=True,
    ),
    *(
        Fault(
            name=f"function: {what}",
            act=lambda s, _, what=what: s.outage(what),
            strikes=_at_the_function,
            shared=True,
        )
        for what in ("boot error", "memory limit")
    ),
]
FAULTS = {fault.name: fault for fault in [*_own, *_shared]}

PAST_THE_CHECK = Fault(
    name="paused between the check and the request",
    act=lambda s, _: s.pause(long=True),
    strikes=_before_a_write,
)
KNOWN = {**FAULTS, PAST_THE_CHECK.name: PAST_THE_CHECK}
