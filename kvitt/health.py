"""Health: probes what is due, and hears what exports meet. The ledger says what that means.

1. Connections that are new, or whose budget was changed, get the mode that follows from it.
2. The ledger hands out the probes that are due, at most one a connection and quarter of an hour,
   with the requests reserved that they may spend: one call, for any number of connections.
3. They are made side by side, each asked once. Nothing here is tried again: the next probe is.
4. What came of all of them is written down in one more call, which gives back what is left.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol
from uuid import uuid4

from kvitt.budget import Allotment
from kvitt.domain.errors import (
    BudgetSpent,
    KvittError,
    Refused,
    TurnedAway,
    Uncertain,
    Unsent,
    VendorError,
)
from kvitt.domain.health import (
    BETWEEN_PROBES,
    Heard,
    Mode,
    cool_down,
    wait_before_next_probe,
)
from kvitt.domain.integrations import Timeouts
from kvitt.ports import Probed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kvitt.domain.integrations import Integration
    from kvitt.ports import Due, Habits, Health, Vendor

AT_ONCE = 20
"""How many probes are under way at a time, and how many connections they need.

More are slower: what httpx does for each request grows with the square of it (measured).
"""

TIMEOUTS = Timeouts(connect=10, read=30)
"""Who takes longer to say that it is there is not well."""

_LONGEST_PROBE = 90.0
_BUDGET_AGAIN = timedelta(hours=1)


class Answers(Protocol):
    """The part of a vendor that a probe needs."""

    async def probe(self) -> None:
        """Ask for a sign of life."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Prober:
    """A client that asks once, and what it spends. Kept from run to run, it keeps its token."""

    vendor: Answers
    purse: Allotment = field(default_factory=Allotment)


class Open(Protocol):
    """Opens connections for their probes, by name; LookupError for one that cannot be opened."""

    async def __call__(self, due: Sequence[Due], /) -> Mapping[str, Prober | LookupError]:
        """Make no request yet."""
        ...


async def look(
    ledger: Health,
    open_probers: Open,
    habits: Mapping[str, Habits],
    *,
    chance: Callable[[], float] = random.random,
) -> list[Probed]:
    """Make all probes that are due at vendors with these habits; returns what came of each.

    Raises LedgerUnavailable and LedgerRefused. `chance`, from 0 to 1, spreads the next ones.
    """
    known = await ledger.read_connections(allowances(habits), None, None)
    ours = [each for each in known if each.vendor in habits]
    if changed := [new for each in ours if (new := each.changed_default)]:
        await ledger.enrol_connections(changed)
    claim = uuid4()
    due = await ledger.claim_probes(claim, habits, BETWEEN_PROBES)
    if not due:
        return []
    try:
        probers = await open_probers([each for each in due if each.grant.reserved])
    except Exception as error:  # what is reserved goes back
        why = f"the connections could not be opened ({type(error).__name__})"
        unasked = [_unasked(each, why, wait=BETWEEN_PROBES) for each in due]
        await ledger.record_probes(claim, unasked)
        raise
    places = asyncio.Semaphore(AT_ONCE)

    async def probe(each: Due) -> Probed:
        async with places:
            return await _probe(each, probers.get(each.name), chance())

    probed = await asyncio.gather(*(probe(each) for each in due))
    await ledger.record_probes(claim, probed)
    return probed


def allowances(habits: Mapping[str, Habits]) -> dict[str, int | None]:
    """Return what each vendor includes in a month."""
    return {name: each.allowance for name, each in habits.items()}


async def _probe(due: Due, prober: Prober | LookupError | None, chance: float) -> Probed:
    if prober is None:
        return _unasked(due, _words_of_spent(due))
    if isinstance(prober, LookupError):
        return _heard(due, {}, Heard.FAILED, str(prober), chance)
    prober.purse.refill(due.grant.reserved)
    error = await _ask(prober)
    spent, why = prober.purse.spent, str(error)
    match error:
        case None:
            return _heard(due, spent, Heard.ANSWERED, None, chance)
        case BudgetSpent():
            return _unasked(due, why, spent)
        case TurnedAway():
            return _heard(due, spent, Heard.TURNED_AWAY, why, chance, error)
        case _:
            return _heard(due, spent, Heard.FAILED, why, chance, error)


async def _ask(prober: Prober) -> VendorError | None:
    """Make a probe; returns how it failed, if it did."""
    try:
        async with asyncio.timeout(_LONGEST_PROBE):
            await prober.vendor.probe()
    except TimeoutError:
        return Unsent(f"it gave no answer within {_LONGEST_PROBE:.0f} s")
    except VendorError as error:
        return error
    except Exception as error:  # noqa: BLE001 - one that cannot be asked keeps none of the others
        # By its name: its words may hold an address, or a secret.
        return Unsent(f"it could not be asked ({type(error).__name__}): look at its block")
    return None


def _heard(
    due: Due,
    spent: Mapping[str, int],
    heard: Heard,
    why: str | None,
    chance: float,
    error: VendorError | None = None,
) -> Probed:
    wish = error.retry_after if isinstance(error, Unsent) else None
    if heard is Heard.ANSWERED:
        wait = BETWEEN_PROBES
    elif due.trial or heard is Heard.TURNED_AWAY:
        # Of an active one the mode is set after this, and with it how long it lasts.
        wait = cool_down(due.cool_downs if due.trial else 0, wish=wish, chance=chance)
    else:
        wait = wait_before_next_probe(due.failures + 1, wish=wish, chance=chance)
    limit = error if isinstance(error, TurnedAway) else None
    return Probed(due=due, heard=heard, why=why, wait=wait, spent=spent, limit=limit)


def _unasked(
    due: Due,
    why: str,
    spent: Mapping[str, int] | None = None,
    *,
    wait: timedelta = _BUDGET_AGAIN,
) -> Probed:
    return Probed(due=due, heard=Heard.UNASKED, why=why, wait=wait, spent=spent or {})


def _words_of_spent(due: Due) -> str:
    grant = due.grant
    return (
        f"the budget for {grant.month:%Y-%m} has nothing left for probes, beside what exports need "
        f"({grant.counted:,} of {grant.allowance or 0:,} requests are spent). Exports go on"
    )


# -- real traffic ----------------------------------------------------------------------------------


async def note_traffic(
    ledger: Health, integration: Integration, vendor: Vendor, error: BaseException | None
) -> None:
    """Tell the ledger what work with a vendor says of its connection, where it says something.

    `error` is how it ended. Never raises a KvittError: no export depends on it.
    """
    heard = _what_it_says(error, asked=sum(vendor.requests.values()) > 0)
    if heard is None:
        return
    failed = _cause(error)
    wish = failed.retry_after if isinstance(failed, Unsent) else None
    limited = heard is Heard.TURNED_AWAY
    try:
        await ledger.note_traffic(
            integration.vendor,
            integration.connection,
            heard,
            None if failed is None else str(failed),
            every=BETWEEN_PROBES,
            wait=cool_down(0, wish=wish, chance=0) if limited else BETWEEN_PROBES,
        )
    except KvittError:
        return


def _what_it_says(error: BaseException | None, *, asked: bool) -> Heard | None:
    """Say what an attempt says of the connection: nothing, where it was not about the vendor.

    A vendor that refuses what a voucher holds has answered.
    """
    if error is None:
        return Heard.ANSWERED if asked else None
    match _cause(error):
        case TurnedAway():
            return Heard.TURNED_AWAY
        case BudgetSpent() | None:
            return None
        case Refused(of_content=True) | Uncertain(refusal=Refused()):
            return Heard.ANSWERED
        case _:
            return Heard.FAILED


def _cause(error: BaseException | None) -> VendorError | None:
    """Return the vendor's error that an error is, or comes from."""
    while error is not None and not isinstance(error, VendorError):
        error = error.__cause__ or error.__context__
    return error


# -- modes -----------------------------------------------------------------------------------------


async def passive_after_limit(
    ledger: Health,
    vendor: str,
    connection: str | None,
    *,
    reason: str,
    by: str,
    retry_after: timedelta,
    chance: Callable[[], float] = random.random,
) -> int:
    """Let a connection rest from probes, since a limit turned us away: for a cool-down.

    Returns how many connections changed; one that rests already does not.
    """
    found = await ledger.read_connections({}, vendor, connection)
    before = max((each.cool_downs_in_a_row for each in found), default=0)
    return await ledger.set_mode(
        vendor,
        connection,
        Mode.PASSIVE,
        reason=reason,
        by=by,
        cool_down=cool_down(before, wish=retry_after, chance=chance()),
        cool_downs=before + 1,
    )
