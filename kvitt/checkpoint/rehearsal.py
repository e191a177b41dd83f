"""The rehearsal: an empty period of a stand-in for an integration, of which nothing stays.

The stand-in is a row beside the integration, with its settings and an id of its own. Nobody else
works on it, and the integration's own calendar, lease and records are not touched.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

from kvitt.attempts import Answer, now
from kvitt.checkpoint.items import Broken
from kvitt.ports import ClaimOutcome

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from kvitt.checkpoint.site import Site
    from kvitt.domain.budget import Purpose
    from kvitt.domain.integrations import Integration
    from kvitt.domain.periods import Period

_LEASE = timedelta(seconds=120)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rehearsal:
    """A claimed period of a stand-in."""

    answer: Answer
    stand_in: Integration
    period: Period


@asynccontextmanager
async def rehearsal(site: Site, who: Integration) -> AsyncGenerator[Rehearsal]:
    """Claim an empty period of a stand-in for an integration; whatever happens, it is removed."""
    attempt, asked = uuid4(), now()
    claim = await site.ledger.begin_rehearsal(who.id, attempt, _LEASE)
    if claim.outcome is not ClaimOutcome.CLAIMED or not (claim.period and claim.integration):
        raise Broken(f"a period that is due is not claimed: {claim.outcome}")
    answer = Answer(
        attempt=attempt, claim=claim, lease=_LEASE, deadline=asked + _LEASE.total_seconds()
    )
    try:
        yield Rehearsal(answer=answer, stand_in=claim.integration, period=claim.period)
    finally:
        await site.ledger.end_rehearsal(claim.integration.id)


class Nothing:
    """The budget of a rehearsal: an empty period asks the vendor nothing."""

    async def spend(self, purpose: Purpose, *, allowance: int | None) -> Callable[[], None]:
        """Refuse."""
        del allowance
        raise Broken(f"an empty period asked the accounting system something ({purpose})")
