"""One run of the exporter in a child, and the keeper who strikes it.

A lane has imported everything once; each run is a fork of it, which costs some milliseconds. Only
a lane forks, so it has one thread.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.crash import points
from tests.crash.faults import GO, Point

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from tests.crash.faults import Fault, Order

    Work = Callable[[], Awaitable[str]]

_LONGEST_RUN = 90
_MOST_TAKEOVERS = 20
_LATER_THAN_ANY_LOOK = 3.0


@dataclass(kw_only=True)
class Child:
    """A forked process. `wire` leads to it, if it is watched."""

    pid: int
    wire: points.SocketWire | None

    @classmethod
    def fork(cls, work: Work, *, vendor: str | None = None) -> Child:
        """Let a child do some work; given the vendor's URL, each of its requests is watched."""
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            ours.close()
            _live(work, points.SocketWire(theirs), vendor)
        theirs.close()
        ours.settimeout(_LONGEST_RUN)
        return cls(pid=pid, wire=points.SocketWire(ours))

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def wait(self) -> str:
        """Wait until it has ended; returns its last words, or how it died."""
        words = ""
        while self.wire is not None and (heard := self.wire.hear()) is not None:
            words = heard.get("end", words)
            if "at" in heard:
                self.wire.tell(GO)
        return self.bury() or words

    def gone(self) -> bool:
        """Whether it has ended; then there is nothing left of it to wait for."""
        pid, _ = os.waitpid(self.pid, os.WNOHANG)
        if pid and self.wire is not None:
            self.wire.close()
            self.wire = None
        return bool(pid)

    def bury(self) -> str:
        """Take its exit status; returns the signal's name if one ended it."""
        if self.wire is not None:
            self.wire.close()
            self.wire = None
        _, status = os.waitpid(self.pid, 0)
        return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else ""


def _live(work: Work, wire: points.SocketWire, vendor: str | None) -> None:
    """Be the child: work, say how it ended, and leave without tidying up what is the lane's."""
    gc.disable()
    signal.alarm(_LONGEST_RUN)
    try:
        if vendor is not None:
            points.install(wire, vendor=vendor)
        wire.tell({"end": asyncio.run(work())})
    except BaseException as error:  # noqa: BLE001 - whatever it is, the keeper is to hear of it
        print(traceback.format_exc(), flush=True)
        wire.tell({"end": f"{type(error).__name__}: {error}"[:400]})
    finally:
        os._exit(0)


@dataclass(frozen=True, kw_only=True)
class Strike:
    """A fault at a point."""

    point: Point
    fault: Fault


@dataclass(kw_only=True)
class Hands:
    """What a keeper can do to the world; a lane provides it."""

    queue_at_vendor: Callable[[Mapping[str, Any]], None]
    writes_at_vendor: Callable[[], int]
    takeover: Callable[[], Child]
    rest: Callable[[], str | None]
    outage: Callable[[str], None]
    deploy: Callable[[], None]
    lease: float
    settle: float


@dataclass(kw_only=True)
class Keeper:
    """Watches the runs of one trial, counts their requests, and strikes where it is told to.

    It does not pause a run while a write of its is under way, whose check of the lease is past
    (faults.PAST_THE_CHECK).
    """

    strikes: Sequence[Strike]
    hands: Hands
    seen: list[Point] = field(default_factory=list[Point])
    struck: list[Strike] = field(default_factory=list[Strike])
    ends: list[str] = field(default_factory=list[str])
    quiet_at: float = 0
    _counts: Counter[str] = field(default_factory=Counter[str])
    _child: Child | None = None
    _others: list[Child] = field(default_factory=list[Child])
    _doomed: int | None = None
    _sending: int = 0

    @property
    def missed(self) -> list[Strike]:
        """The strikes whose points did not come."""
        return [strike for strike in self.strikes if strike not in self.struck]

    def watch(self, child: Child) -> None:
        """Let one run happen, to its end."""
        self._child, self._sending = child, 0
        while (heard := self._hear(child)) is not None:
            if "end" in heard:
                self.ends.append(heard["end"])
                break
            if "over" in heard:
                self._sending -= Point(name=heard["over"], nth=0, side="after").writes
                continue
            name, side = heard["name"], heard["at"]
            self._counts[name] += side == "before"
            point = Point(name=name, nth=self._counts[name], side=side)
            self._sending += point.writes and side == "before"
            self._answer(child, self._order(point))
        self._end(child)

    def _order(self, point: Point) -> Order:
        self.seen.append(point)
        order = GO
        for strike in self.strikes:
            if strike.point == point and not (strike.fault.pauses and self._sending):
                self.struck.append(strike)
                order = strike.fault.act(self, point)
        return order

    def _hear(self, child: Child) -> dict[str, Any] | None:
        """Hear the child; a doomed one is killed when the vendor has its request.

        Before that it may still have something to say: its lease is renewed on the side.
        """
        if child.wire is None:
            return None
        while self._doomed is not None and not child.wire.has_something():
            if self.hands.writes_at_vendor() >= self._doomed:
                child.signal(signal.SIGKILL)
                self._doomed = None
        return child.wire.hear()

    def _answer(self, child: Child, order: Order) -> None:
        if child.wire is not None:
            try:
                child.wire.tell(order)
            except (BrokenPipeError, ConnectionResetError):
                return  # killed, as it should be

    def _end(self, child: Child) -> None:
        died = child.bury()
        if died:
            self.ends.append(died)
        for other in self._others:
            self.ends.append(other.wait())
        self._others.clear()

    # -- what a fault can do (faults.Scene) --------------------------------------------------------

    def kill(self, *, in_flight: bool = False) -> Order:
        if in_flight:
            self._doomed = self.hands.writes_at_vendor() + 1
        elif self._child is not None:
            self._child.signal(signal.SIGKILL)
        return GO

    def pause(self, *, long: bool) -> Order:
        if self._child is None:
            return GO
        self._child.signal(signal.SIGSTOP)
        time.sleep(self.hands.lease + 0.1)
        self.ends.append(self.hands.takeover().wait())
        for _ in range(_MOST_TAKEOVERS if long else 0):
            if self.hands.rest() is not None:
                break
            self.ends.append(self.hands.takeover().wait())
        self._child.signal(signal.SIGCONT)
        return GO

    def vendor(self, fault: Mapping[str, Any]) -> Order:
        if "commit_after" in fault and not self.hands.settle:
            # Without a settle time nothing bounds it; on a busy machine the looks take a while.
            fault = {**fault, "commit_after": _LATER_THAN_ANY_LOOK}
        self.hands.queue_at_vendor(fault)
        commit_after = fault.get("commit_after", 0)
        if commit_after:
            self.quiet_at = time.monotonic() + commit_after + 0.3
        return GO

    def rivals(self, count: int) -> Order:
        self._others += [self.hands.takeover() for _ in range(count)]
        return GO

    def outage(self, part: str) -> Order:
        self.hands.outage(part)
        return GO

    def deploy(self) -> Order:
        self.hands.deploy()
        return GO
