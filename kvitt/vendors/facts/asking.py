"""Asking a tenant which uncertain facts about its vendor are true there, and recording it.

kvitt is built to hold whichever way they turn out; the record says which way it is, what kvitt
takes it for, and what follows. Questions are asked one after another, reading ones always, writing
ones only when told to. A question that cannot be answered is `unknown`, with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict

from kvitt.domain.errors import VendorError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from kvitt.domain.integrations import Timeouts
    from kvitt.ports import Budget


class Verdict(StrEnum):
    """Whether a fact is true in this tenant."""

    TRUE = "true"
    FALSE = "false"
    UNKNOWN = "unknown"


class Asked(Protocol):
    """A client that can be asked: it counts its requests, and knows what must not be said."""

    @property
    def requests(self) -> Mapping[str, int]:
        """Requests spent so far, by purpose."""
        ...

    def without_secrets(self, text: str) -> str:
        """Return a text without the secrets that the client was told."""
        ...

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None: ...


C = TypeVar("C", bound=Asked)
S = TypeVar("S", bound=BaseModel)


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What a question found."""

    verdict: Verdict
    words: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Question(Generic[C]):
    """One uncertain fact, by its id in the register of facts, and how to find out.

    `ask` adds to its second argument whatever it leaves in the tenant, before it may be there, and
    removes what it has deleted again. `assumes` is what kvitt takes the fact for; `follows`, what
    each answer means to a user.
    """

    fact: str
    asks: str
    ask: Callable[[C, list[str]], Awaitable[Seen]]
    assumes: str
    follows: Mapping[Verdict, str]
    writes: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Examination(Generic[S, C]):
    """What can be asked about one vendor. `harmless`: it is the vendor's demo, or this machine."""

    open: Callable[[S, Timeouts, Budget], C]
    questions: Sequence[Question[C]]
    address: Callable[[S], str]
    harmless: Callable[[S], bool]


class Answer(BaseModel):
    """What came of one question."""

    model_config = ConfigDict(frozen=True)

    fact: str
    asked: str
    verdict: Verdict
    seen: str
    assumed: str
    follows: str
    requests: int
    left: list[str]


class Record(BaseModel):
    """What came of all of them. It holds no secret."""

    model_config = ConfigDict(frozen=True)

    vendor: str
    address: str
    asked_at: AwareDatetime
    wrote: bool
    requests: dict[str, int]
    answers: list[Answer]


async def answers_to(
    questions: Sequence[Question[C]], client: C, *, write: bool
) -> AsyncGenerator[Answer]:
    """Ask one question after another; yields each answer as it comes."""
    for question in questions:
        if question.writes and not write:
            seen = Seen(verdict=Verdict.UNKNOWN, words="not asked, as it writes: see --write")
            yield _answer(client, question, seen, requests=0, left=[])
            continue
        before, left = _spent(client), list[str]()
        try:
            seen = await question.ask(client, left)
        except (VendorError, ValueError, LookupError, TypeError) as error:
            words = str(error) if isinstance(error, VendorError) else "the reply makes no sense"
            seen = Seen(verdict=Verdict.UNKNOWN, words=words)
        yield _answer(client, question, seen, requests=_spent(client) - before, left=left)


def _spent(client: Asked) -> int:
    return sum(client.requests.values())


def _answer(
    client: C, question: Question[C], seen: Seen, *, requests: int, left: list[str]
) -> Answer:
    return Answer(
        fact=question.fact,
        asked=question.asks,
        verdict=seen.verdict,
        seen=client.without_secrets(seen.words),
        assumed=question.assumes,
        follows=question.follows.get(seen.verdict, ""),
        requests=requests,
        left=left,
    )


def decided(true: object, words: str) -> Seen:
    """Return what a question found that has an answer."""
    return Seen(verdict=Verdict.TRUE if true else Verdict.FALSE, words=words)


def unknown(words: str) -> Seen:
    """Return what a question found that could not be answered."""
    return Seen(verdict=Verdict.UNKNOWN, words=words)


Json = dict[str, Any]
