"""Attempts: claiming a period, holding its lease while it is worked on, and how it stops."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from kvitt.domain.errors import (
    BudgetSpent,
    FunctionFailed,
    KvittError,
    LeaseLost,
    LedgerUnavailable,
    PeriodFailed,
    PeriodPostponed,
    PeriodUncertain,
    Unsent,
)
from kvitt.domain.patience import wait_before_next_try
from kvitt.ports import Claim, ClaimOutcome, Trigger

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    from kvitt.domain.integrations import Integration
    from kvitt.domain.periods import Period
    from kvitt.ports import Ledger

LEASE = timedelta(seconds=120)


@dataclass(kw_only=True, slots=True)
class Attempt:
    """One try at a claimed period, and what it works with.

    `fitted`: the vendor's set-up was looked at before, and need not be again.
    `requests` counts what the vendor was asked, by purpose; whoever opens the vendor sets it.
    `check` raises LeaseLost unless the lease surely holds; it is asked right before each request
    that writes to a vendor. `postponed` is how often in a row the period has had to wait for
    somebody; whoever gets on sets it to 0.
    """

    id: UUID
    integration: Integration
    period: Period
    ledger: Ledger
    check: Callable[[], None]
    fitted: bool = False
    requests: Mapping[str, int] = field(default_factory=dict[str, int])
    postponed: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What came of asking for a period. The lease, if it was given, surely holds to `deadline`."""

    attempt: UUID
    claim: Claim
    lease: timedelta
    deadline: float


# A lease goes on while a machine sleeps, so it is held against a clock that does as well: on Linux
# the monotonic one stands still then, on macOS it does not.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now() -> float:
    """Return seconds on a clock that never jumps, and goes on while the machine sleeps."""
    return time.clock_gettime(_CLOCK)


async def claim(
    ledger: Ledger,
    integration: str,
    trigger: Trigger,
    *,
    due_at: datetime | None = None,
    lease: timedelta = LEASE,
) -> Answer:
    """Ask for a period: the one that is due at a time, or the oldest that is due and unfinished."""
    attempt = uuid4()
    # The ledger counts from a later moment than this one, so that ours ends first.
    asked = now()
    answer = await ledger.claim(integration, attempt, trigger, lease=lease, due_at=due_at)
    deadline = asked + lease.total_seconds()
    return Answer(attempt=attempt, claim=answer, lease=lease, deadline=deadline)


@asynccontextmanager
async def attempt(ledger: Ledger, answer: Answer) -> AsyncGenerator[Attempt]:
    """Hold the lease of a claimed period; on the way out, write down how the attempt ended.

    A vendor or an Edge Function that is away, or a budget that is spent, ends in PeriodPostponed.
    """
    claimed = answer.claim
    if claimed.outcome != ClaimOutcome.CLAIMED or not (claimed.period and claimed.integration):
        raise ValueError(f"only a claimed period can be worked on; it is {claimed.outcome}")
    lease = _Lease(ledger, claimed.period, answer.lease, answer.deadline)
    this = Attempt(
        id=answer.attempt,
        integration=claimed.integration,
        period=claimed.period,
        ledger=ledger,
        check=lease.check,
        postponed=claimed.period.postponed,
        fitted=claimed.fitted,
    )
    keeper = asyncio.create_task(lease.keep())
    try:
        try:
            yield this
        except (Unsent, FunctionFailed) as error:
            raise await _postponed(this, error) from error
    except BaseException as error:
        await _close(this, _outcome_of(error), str(error) or type(error).__name__)
        raise
    else:
        await ledger.close(this.id, "settled", None, this.requests)
    finally:
        keeper.cancel()


async def _close(this: Attempt, outcome: str, detail: str) -> None:
    """Say how it ended, if that can be said; the lease runs out by itself if not."""
    try:
        await this.ledger.close(this.id, outcome, detail, this.requests)
    except (KvittError, asyncio.CancelledError):
        return


def _outcome_of(error: BaseException) -> str:
    match error:
        case PeriodUncertain():
            return "uncertain"
        case PeriodFailed():
            return "failed"
        case PeriodPostponed():
            return "postponed"
        case _:
            return "interrupted"


class _Lease:
    """Keeps a lease, and knows without asking until when it surely holds."""

    def __init__(self, ledger: Ledger, period: Period, length: timedelta, deadline: float) -> None:
        self._ledger = ledger
        self._period = period
        self._length = length
        self._deadline = deadline
        self._lost: LeaseLost | None = None

    def check(self) -> None:
        """Raise LeaseLost unless the lease holds now, by our own monotonic clock.

        A process that was stopped and goes on much later learns it here, before it sends.
        """
        if self._lost is not None:
            raise self._lost
        if now() >= self._deadline:
            raise LeaseLost(
                f"period {self._period.key}: the lease of attempt {self._period.fence} ran out "
                "before it could be renewed; nothing more is sent, the next run goes on"
            )

    async def keep(self) -> None:
        """Renew four times as often as needed, until it is lost."""
        while True:
            await asyncio.sleep(self._length.total_seconds() / 4)
            asked = now()
            try:
                await self._ledger.renew(self._period, self._length)
            except LeaseLost as lost:
                self._lost = lost
                return
            except LedgerUnavailable:
                continue  # the deadline stands, and decides
            self._deadline = asked + self._length.total_seconds()


async def failed(this: Attempt, reason: str) -> PeriodFailed:
    """Write down that a person must mend something; returns what to raise."""
    await this.ledger.fail(this.period, reason)
    return PeriodFailed(failed_words(this.period, reason))


def failed_words(period: Period, reason: str) -> str:
    """Say that a period failed, and how it goes on."""
    return (
        f"period {period.key} failed: {reason}. When that is mended, say so: `kvitt mend "
        f"{period.integration_id} {period.due_at:%Y-%m-%dT%H:%MZ} --reason …`. What is in the "
        "books already is not sent again"
    )


async def suspended(this: Attempt, reason: str) -> PeriodUncertain:
    """Write down that the period waits for the vendor; returns what to raise."""
    not_before = await this.ledger.suspend(this.period, reason)
    return PeriodUncertain(
        f"period {this.period.key} is uncertain: {reason}. The vendor may still commit what was "
        f"sent, so it waits until {not_before:%Y-%m-%d %H:%M:%S} UTC, then goes on by itself",
        not_before=not_before,
    )


async def _postponed(this: Attempt, error: Unsent | FunctionFailed) -> PeriodPostponed:
    """Write down that the period waits for somebody who is away; returns what to raise."""
    limits, chance = this.integration.limits, random.random()  # noqa: S311 - spreads load
    first, longest = timedelta(seconds=limits.first_wait), timedelta(seconds=limits.longest_wait)
    wait = wait_before_next_try(
        this.postponed,
        first=first,
        longest=max(first, longest),
        wish=error.retry_after if isinstance(error, Unsent) else None,
        chance=chance,
    )
    waiting_for, postponed = "vendor", this.postponed + 1
    if isinstance(error, FunctionFailed):
        waiting_for = "function"
    elif isinstance(error, BudgetSpent):
        # The ledger knows until when; those that wait for it do not all come in the same second.
        waiting_for, wait, postponed = "budget", first * chance, 0
    not_before = await this.ledger.postpone(
        this.period, waiting_for, wait, postponed=postponed, reason=str(error)
    )
    return PeriodPostponed(
        f"period {this.period.key} waits until {not_before:%Y-%m-%d %H:%M:%S} UTC, then goes on by "
        f"itself: {error}",
        not_before=not_before,
    )
