"""Faults on order: what goes wrong, with which call, and whether the books changed by then.

A fault is a phase (did the call reach the books?) and an effect (what does the client see?); its
name stands for the usual pair. Queue one with POST /_sandbox/faults, one object or a list:

    {"on": "journals.create", "nth": 1, "times": 1, "fault": "reply-lost"}

`phase` asks for another phase than the usual one. So a gateway that gives up before the vendor
does, and a client that hangs and hears nothing, are

    {"on": "post", "fault": "status", "status": 504, "phase": "later", "commit_after": 3}
    {"on": "post", "fault": "late-commit", "commit_after": 3, "delay": 60}

`on` is an operation's name or a pattern ("journals.*", "*"). The fault strikes the calls number
`nth` to `nth + times - 1` that match, counted from when it was queued. Of several faults that
match one call, the one queued first strikes; the others count the call too.
"""

from enum import StrEnum
from fnmatch import fnmatchcase
from http import HTTPStatus
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Phase(StrEnum):
    """How far a call has come when its client learns something."""

    BEFORE = "before"  # nothing has happened, and nothing will
    HALF = "half"  # the first half of the call's items is in the books, the rest never will be
    AFTER = "after"  # the books have changed
    LATER = "later"  # nothing yet; the books change `commit_after` seconds after the call came


class Effect(StrEnum):
    """What the client sees."""

    REPLY = "reply"  # the true reply
    CLOSE = "close"  # the connection closes without a byte
    TRUNCATED = "truncated"  # the connection closes in the middle of the true reply
    MALFORMED = "malformed"  # status 200, complete, and not JSON
    STATUS = "status"  # an error with `status`, in the vendor's words
    RATE_LIMIT = "rate-limit"  # the vendor's "too many requests"
    TOKEN_EXPIRED = (
        "token-expired"  # the vendor's "who are you?"; a token that can be renewed is void
    )


class Name(StrEnum):
    """The faults that a test asks for."""

    DROP_BEFORE = "drop-before"
    REPLY_LOST = "reply-lost"
    LATE_COMMIT = "late-commit"
    HALF_BATCH = "half-batch"
    STATUS = "status"
    MALFORMED = "malformed"
    TRUNCATED = "truncated"
    SLOW = "slow"
    TOKEN_EXPIRED = "token-expired"
    RATE_LIMIT = "rate-limit"


USUAL = {
    Name.DROP_BEFORE: (Phase.BEFORE, Effect.CLOSE),
    Name.REPLY_LOST: (Phase.AFTER, Effect.CLOSE),
    Name.LATE_COMMIT: (Phase.LATER, Effect.CLOSE),
    Name.HALF_BATCH: (Phase.HALF, Effect.CLOSE),
    Name.STATUS: (Phase.BEFORE, Effect.STATUS),
    Name.MALFORMED: (Phase.AFTER, Effect.MALFORMED),
    Name.TRUNCATED: (Phase.AFTER, Effect.TRUNCATED),
    Name.SLOW: (Phase.AFTER, Effect.REPLY),
    Name.TOKEN_EXPIRED: (Phase.BEFORE, Effect.TOKEN_EXPIRED),
    Name.RATE_LIMIT: (Phase.BEFORE, Effect.RATE_LIMIT),
}
NEEDS_THE_REPLY = {Effect.REPLY, Effect.TRUNCATED}
BEFORE_EXECUTION = {Effect.RATE_LIMIT, Effect.TOKEN_EXPIRED}


class Fault(BaseModel):
    """One order. Seconds are real ones: the settable clock does not move them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    on: str = "*"
    fault: Name
    nth: int = Field(default=1, ge=1)
    times: int = Field(default=1, ge=1)
    phase: Phase | None = None  # instead of the usual one
    delay: float = Field(default=0, ge=0)  # seconds for which the client waits for the effect
    commit_after: float = Field(default=1, ge=0)  # seconds, for Phase.LATER
    status: int = Field(default=500, ge=400, le=599)
    code: str | None = None  # the vendor's error code, instead of the usual one
    retry_after: int | None = None  # seconds, sent as Retry-After

    @property
    def when(self) -> Phase:
        """The phase: the asked one, or the usual one."""
        return self.phase or USUAL[self.fault][0]

    @property
    def effect(self) -> Effect:
        """What the client sees."""
        return USUAL[self.fault][1]

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        """Refuse what no vendor does: a refusal that executes, a true reply from the future."""
        refusal = self.effect in BEFORE_EXECUTION or (
            self.effect is Effect.STATUS and self.status == HTTPStatus.TOO_MANY_REQUESTS
        )
        if refusal and self.when is not Phase.BEFORE:
            raise ValueError("a 429 and an expired token are always refused before execution")
        if self.effect in NEEDS_THE_REPLY and self.when in {Phase.BEFORE, Phase.LATER}:
            raise ValueError(f"{self.fault} shows the true reply, so the call has to run first")
        return self


class Faults:
    """The queued faults, each with the number of calls that it has matched."""

    def __init__(self) -> None:
        self._queue: list[Fault] = []
        self._seen: list[int] = []

    def queue(self, faults: list[Fault]) -> None:
        """Let these strike, after those that wait already."""
        self._queue += faults
        self._seen += [0] * len(faults)

    def clear(self) -> None:
        """Let nothing go wrong any more (commits that are under way still come)."""
        self._queue.clear()
        self._seen.clear()

    def waiting(self) -> list[Fault]:
        """Return the faults that have strikes left, in order."""
        pairs = zip(self._queue, self._seen, strict=True)
        return [fault for fault, seen in pairs if seen < fault.nth + fault.times - 1]

    def take(self, operation: str) -> Fault | None:
        """Count a call of this operation, and return the fault that strikes it, if one does."""
        striking: list[Fault] = []
        for index, fault in enumerate(self._queue):
            if not fnmatchcase(operation, fault.on):
                continue
            self._seen[index] += 1
            if fault.nth <= self._seen[index] < fault.nth + fault.times:
                striking.append(fault)
        return striking[0] if striking else None
