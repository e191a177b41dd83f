"""The follow-up: what became of lines that a vendor posts by itself, after the receipt was written.

1. The ledger hands out the looks that are due, those of one connection at a time, under a lease.
2. The connection is opened once, and the vendor asked how its posting stands with all of them.
3. What was seen is written down; the ledger says what it means, and when to look again.

A look that cannot be made is put off, with the reason. Nothing here writes to a vendor.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

from kvitt.domain.errors import LeaseLost, LedgerRefused, Refused, VendorError
from kvitt.ports import PostsByItself

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager
    from uuid import UUID

    from kvitt.domain.follow_ups import FollowUp
    from kvitt.domain.integrations import Integration
    from kvitt.ports import FollowUps, Looks, Vendor

    Open = Callable[[Integration], AbstractAsyncContextManager[Vendor]]

# Longer than a reading takes, also of many pages; a looker that is gone holds it so long at most.
LEASE = timedelta(minutes=10)
_UNREADABLE = "KV003"


@dataclass(frozen=True, slots=True)
class PutOff:
    """The looks at a connection could not be made now, and are made later; `why` names them."""

    why: str


async def follow_up(ledger: FollowUps, open_vendor: Open) -> AsyncGenerator[FollowUp | PutOff]:
    """Make all looks that are due, and yield what each one saw, or why some were put off.

    Raises LedgerUnavailable and LedgerRefused. What it cannot finish is looked at again by the next
    one, when the lease has run out.
    """
    while True:
        looker = uuid4()
        try:
            due = await ledger.claim_looks(looker, LEASE)
        except LedgerRefused as error:  # one that cannot be read stops nobody else's
            if error.code != _UNREADABLE:
                raise
            await ledger.put_off_looks(looker, str(error), timedelta(0))
            yield PutOff(str(error))
            continue
        if due is None:
            return
        try:
            async for seen in _look(ledger, open_vendor, looker, due):
                yield seen
        except LeaseLost:
            continue  # it took too long, and somebody else looks
        except (VendorError, LookupError) as error:
            wait = getattr(error, "retry_after", None) or timedelta(0)
            await ledger.put_off_looks(looker, str(error), wait)
            keys = ", ".join(look.period.key for look in due.looks)
            yield PutOff(f"{keys}: {error}")


async def _look(
    ledger: FollowUps, open_vendor: Open, looker: UUID, due: Looks
) -> AsyncGenerator[FollowUp | PutOff]:
    """Look at the periods of one connection, and write down what was seen of each.

    What the ledger does not take of one is put off, and stops none of the others.
    """
    async with open_vendor(due.integration) as vendor:
        if not isinstance(vendor, PostsByItself):
            raise Refused(
                f"{due.integration.vendor} showed lines that were not final when the period was "
                "settled, and kvitt does not know how to follow them up there: look there"
            )
        standings = await vendor.standings(due.looks)
        requests = dict(vendor.requests)
        refused: list[str] = []
        for look, standing in zip(due.looks, standings, strict=True):
            try:
                seen = await ledger.record_look(
                    looker, look, standing, gap=vendor.habits.gap, requests=requests
                )
            except LedgerRefused as error:
                refused.append(f"{look.period.key}: {error}")
            else:
                requests = {}  # spent once, for all of them
                yield seen
        if refused:  # all that this looker still holds
            await ledger.put_off_looks(looker, "; ".join(refused), timedelta(0))
            for why in refused:
                yield PutOff(why)
