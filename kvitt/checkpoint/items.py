"""What an item of the checkpoint is, and what came of looking at it.

An item is declared where it is looked at:

    @once("key", Group.FOUNDATION, checks="…", why="…", remedy="…", needs=("project",))
    async def key(site: Site) -> str:
        ...
        return "what was seen"

It returns what it saw, or raises Broken, NotApplicable or Awaits. With `each` it is looked at for
each integration, and is handed that as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator


class Group(StrEnum):
    """What an item is about, in the order in which a person mends them."""

    FOUNDATION = "foundation"
    SERVICES = "core services"
    ORCHESTRATION = "orchestration"
    DATA_FLOW = "data flow"


class Verdict(StrEnum):
    """What came of an item. `not looked at`: something that it needs has failed."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_APPLICABLE = "not applicable"
    NOT_LOOKED_AT = "not looked at"


class Broken(Exception):
    """An item is not as it should be: what was seen. `remedy` is in place of the item's own."""

    def __init__(self, seen: str, *, remedy: str | None = None) -> None:
        super().__init__(seen)
        self.remedy = remedy


class NotApplicable(Exception):
    """There is nothing to look at here; the message says why."""


class Awaits(Exception):
    """It cannot be looked at before another item has passed, which is named."""

    def __init__(self, item: str, seen: str) -> None:
        super().__init__(seen)
        self.item = item


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One thing to look at. `needs` are ids of items; `each`: once for each integration."""

    id: str
    group: Group
    checks: str
    why: str
    remedy: str
    needs: tuple[str, ...]
    each: bool
    look: Callable[..., Awaitable[str]]

    def name_for(self, integration: str | None) -> str:
        """Return the name of its result: with the integration's id, if it is of one."""
        return f"{self.id}/{integration}" if self.each and integration else self.id


def once(
    named: str,
    group: Group,
    *,
    checks: str,
    why: str,
    remedy: str,
    needs: tuple[str, ...] = (),
) -> Callable[[Callable[[Any], Awaitable[str]]], Item]:
    """Declare an item that is looked at once."""
    return lambda look: Item(
        id=named,
        group=group,
        checks=checks,
        why=why,
        remedy=remedy,
        needs=needs,
        each=False,
        look=look,
    )


def each(
    named: str,
    group: Group,
    *,
    checks: str,
    why: str,
    remedy: str,
    needs: tuple[str, ...] = (),
) -> Callable[[Callable[[Any, Any], Awaitable[str]]], Item]:
    """Declare an item that is looked at for each integration."""
    return lambda look: Item(
        id=named,
        group=group,
        checks=checks,
        why=why,
        remedy=remedy,
        needs=needs,
        each=True,
        look=look,
    )


class Result(BaseModel):
    """What came of one item: what was seen, and of a failed one how to mend it.

    `because_of` names the failed item for which one was not looked at.
    """

    model_config = ConfigDict(frozen=True)

    item: str
    group: Group
    integration: str | None
    verdict: Verdict
    checks: str
    seen: str
    why: str
    remedy: str | None = None
    because_of: str | None = None


class Report(BaseModel):
    """What came of all of them. It holds no secret.

    `requests`: what each connection was asked, by purpose; each counts in its budget.
    """

    model_config = ConfigDict(frozen=True)

    looked_at: AwareDatetime
    seconds: float
    results: list[Result]
    requests: dict[str, dict[str, int]]

    @property
    def failed(self) -> list[Result]:
        """Those that are to be mended."""
        return [result for result in self.results if result.verdict is Verdict.FAILED]

    @property
    def summary(self) -> str:
        """How many came out how, and what it cost."""
        counts = {v: sum(r.verdict is v for r in self.results) for v in Verdict}
        told = ", ".join(f"{n} {verdict}" for verdict, n in counts.items() if n)
        return f"{told or 'nothing to look at'}; {self.cost}"

    @property
    def cost(self) -> str:
        """What the vendors were asked for it."""
        told = [
            f"{connection} {', '.join(f'{n} {purpose}' for purpose, n in spent.items() if n)}"
            for connection, spent in sorted(self.requests.items())
            if any(spent.values())
        ]
        return f"requests spent: {'; '.join(told) or 'none'}"

    def as_text(self) -> str:
        """Say what failed and how to mend it, for a person who sees nothing else."""
        return "\n".join([self.summary, *self._failures()])

    def _failures(self) -> Iterator[str]:
        for result in self.failed:
            yield f"{result.item}: {result.seen}. {result.why} What to do: {result.remedy}"
