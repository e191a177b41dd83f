"""Looking at items: each after those that it needs, and not at all where one of them has failed."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any

from kvitt.checkpoint.items import Awaits, Broken, NotApplicable, Report, Result, Verdict
from kvitt.domain.errors import BudgetSpent, KvittError, LedgerRefused

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from kvitt.checkpoint.items import Group, Item
    from kvitt.checkpoint.site import Site
    from kvitt.domain.integrations import Integration

# A vendor that is away is tried for a minute by its own client.
_SECONDS = 90
# So many integrations at a time: each may ask its vendor one thing after another.
_AT_ONCE = 8
# Whoever comes upon these in the ledger has met what another item looks for.
_WHOSE = {
    "PGRST202": "functions",
    "PGRST204": "tables",
    "PGRST205": "tables",
    "42501": "grants",
    "42703": "tables",
    "42883": "functions",
    "42P01": "tables",
}


async def look(items: Sequence[Item], site: Site, *, groups: Collection[Group] = ()) -> Report:
    """Look at all items, or at those of some groups and whatever these need.

    The results come in the order of the items; of those that are looked at for each integration,
    integration by integration. Without any integration to be read, each of them comes once.
    """
    began, looked_at = time.monotonic(), datetime.now(UTC)
    items = _with_needs(items, groups)
    found = await _look_at([item for item in items if not item.each], site, None, {})
    if site.integrations is None:
        found |= {item.id: _unread(item, found) for item in items if item.each}
    else:
        turns = asyncio.Semaphore(_AT_ONCE)

        async def of(who: Integration) -> dict[str, Result]:
            own = [item for item in items if item.each]
            async with turns:
                if await _retired(site, who):
                    return {item.name_for(who.id): _of_the_past(item, who) for item in own}
                return await _look_at(own, site, who, found)

        for own in await asyncio.gather(*(of(who) for who in site.integrations)):
            found |= own
    results = [_with_a_cause(found[name], found) for name in _in_order(items, site)]
    return Report(
        looked_at=looked_at,
        seconds=round(time.monotonic() - began, 2),
        results=results,
        requests=site.requests,
    )


async def _retired(site: Site, who: Integration) -> bool:
    """Whether it is switched off, and was at work before: its block may be gone by right.

    One that was never on is looked at, since somebody is about to switch it on.
    """
    if who.enabled:
        return False
    try:
        return bool(await site.ledger.read_periods(who.id, limit=1))
    except KvittError:
        return False


def _of_the_past(item: Item, who: Integration) -> Result:
    words = "it is switched off, after periods of its own"
    return _result(item, who, Verdict.NOT_APPLICABLE, words)


def _with_needs(items: Sequence[Item], groups: Collection[Group]) -> list[Item]:
    """Return the items of some groups, and those that they need; of no group: all."""
    by_id = {item.id: item for item in items}
    wanted: set[str] = set()
    coming = [item.id for item in items if not groups or item.group in groups]
    while coming:
        name = coming.pop()
        if name not in wanted:
            wanted.add(name)
            coming += by_id[name].needs
            if by_id[name].each:
                coming.append("integrations")
    return [item for item in items if item.id in wanted]


def _in_order(items: Sequence[Item], site: Site) -> list[str]:
    names = [item.id for item in items if not item.each or site.integrations is None]
    return names + [
        item.name_for(who.id) for who in site.integrations or () for item in items if item.each
    ]


async def _look_at(
    items: Sequence[Item], site: Site, who: Integration | None, known: Mapping[str, Result]
) -> dict[str, Result]:
    """Look at items that belong together, each after those that it needs; those may be known."""
    by_id = {item.id: item for item in items}
    sorter = TopologicalSorter({i.id: [n for n in i.needs if n in by_id] for i in items})
    sorter.prepare()
    found: dict[str, Result] = {}
    while sorter.is_active():
        ready = sorter.get_ready()
        coming = (_look_at_one(by_id[name], site, who, {**known, **found}) for name in ready)
        for name, result in zip(ready, await asyncio.gather(*coming), strict=True):
            found[name] = result
            sorter.done(name)
    return {result.item: result for result in found.values()}


async def _look_at_one(
    item: Item, site: Site, who: Integration | None, found: Mapping[str, Result]
) -> Result:
    for need in item.needs:
        result = found[need]
        if result.verdict in (Verdict.FAILED, Verdict.NOT_LOOKED_AT):
            return _not_yet(item, who, f"it needs {need}", result.because_of or result.item)
    about = () if who is None else (who,)
    try:
        async with asyncio.timeout(_SECONDS):
            return _result(item, who, Verdict.PASSED, await item.look(site, *about))
    except (Broken, NotApplicable, Awaits, KvittError, LookupError, TimeoutError) as error:
        return _what_it_means(item, who, error)
    except Exception as error:  # noqa: BLE001 - told by its name: its words may hold a secret
        return _failed(item, who, f"it could not be looked at: {type(error).__name__}")


def _what_it_means(item: Item, who: Integration | None, error: Exception) -> Result:
    match error:
        case Broken():
            return _failed(item, who, str(error), remedy=error.remedy)
        case NotApplicable() | BudgetSpent():
            return _result(item, who, Verdict.NOT_APPLICABLE, str(error))
        case Awaits():
            return _not_yet(item, who, str(error), error.item)
        case LedgerRefused() if error.code in _WHOSE:
            return _not_yet(item, who, str(error), _WHOSE[error.code])
        case TimeoutError():
            return _failed(item, who, f"there was no answer within {_SECONDS} s")
        case _:
            return _failed(item, who, str(error))


def _with_a_cause(result: Result, found: Mapping[str, Result]) -> Result:
    """Let an item fail by itself whose cause turned out to be none."""
    if result.because_of is None:
        return result
    cause = found.get(result.because_of)
    if cause is not None and cause.verdict is Verdict.NOT_LOOKED_AT and cause.because_of:
        return result.model_copy(update={"because_of": cause.because_of, "remedy": None})
    if cause is not None and cause.verdict is Verdict.FAILED:
        return result.model_copy(update={"remedy": None})
    return result.model_copy(update={"verdict": Verdict.FAILED, "because_of": None})


def _unread(item: Item, found: Mapping[str, Result]) -> Result:
    """Return the result of an item of which it is not known for whom it is."""
    reading = found["integrations"]
    if reading.verdict is Verdict.NOT_APPLICABLE:
        return _result(item, None, Verdict.NOT_APPLICABLE, reading.seen)
    return _not_yet(item, None, "it needs integrations", reading.because_of or reading.item)


def _not_yet(item: Item, who: Integration | None, seen: str, cause: str) -> Result:
    """Return a result with the remedy that holds if the cause turns out to be none."""
    return _result(item, who, Verdict.NOT_LOOKED_AT, seen, because_of=cause, remedy=item.remedy)


def _failed(item: Item, who: Integration | None, seen: str, *, remedy: str | None = None) -> Result:
    return _result(item, who, Verdict.FAILED, seen, remedy=remedy or item.remedy)


def _result(
    item: Item, who: Integration | None, verdict: Verdict, seen: str, **more: Any
) -> Result:
    return Result(
        item=item.name_for(None if who is None else who.id),
        group=item.group,
        integration=None if who is None else who.id,
        verdict=verdict,
        checks=item.checks,
        seen=seen.rstrip(". "),
        why=item.why,
        **more,
    )
