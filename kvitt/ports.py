"""What the way of a period needs from the world. `sync` is written against these."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict

from kvitt.domain.integrations import Integration
from kvitt.domain.periods import Period

if TYPE_CHECKING:
    from kvitt.domain.budget import Purpose
    from kvitt.domain.errors import TurnedAway
    from kvitt.domain.follow_ups import FollowUp
    from kvitt.domain.health import Connection, Heard, Mode
    from kvitt.domain.money import Totals
    from kvitt.domain.pages import PageSize
    from kvitt.domain.reconcile import FoundVoucher
    from kvitt.domain.records import TakenRecord
    from kvitt.domain.vouchers import Voucher
    from kvitt.domain.warmth import Habit


# -- the ledger ------------------------------------------------------------------------------------


class ClaimOutcome(StrEnum):
    """What came of asking for a period; only CLAIMED gives the lease."""

    CLAIMED = "claimed"
    SETTLED = "settled"
    FAILED = "failed"
    WAITING = "waiting"
    BUSY = "busy"
    EARLY = "early"
    IDLE = "idle"
    DISABLED = "disabled"


class Claim(BaseModel):
    """The answer to a claim. `period` and `integration` are None only for IDLE.

    `fitted` says that the vendor's set-up was looked at before, for where it leads to now.
    """

    model_config = ConfigDict(frozen=True)

    outcome: ClaimOutcome
    integration: Integration | None = None
    period: Period | None = None
    fitted: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Trigger:
    """Why an attempt is made, and by whom. `scheduled_at` is when the trigger was to fire (UTC).

    `picked_up_at` is when a worker took the run up, where that is known.
    """

    kind: str = "person"
    scheduled_at: datetime | None = None
    picked_up_at: datetime | None = None
    flow_run: str | None = None
    worker: str | None = None

    def catching_up(self) -> Trigger:
        """Return the trigger of the next period that the same run goes on to."""
        return replace(self, kind="catch-up", scheduled_at=None, picked_up_at=None)


class ChunkState(StrEnum):
    """See the ledger's schema for the transitions."""

    INTENDED = "intended"
    CONFIRMED = "confirmed"
    REFUSED = "refused"
    UNCERTAIN = "uncertain"
    UNSENT = "unsent"


class Chunk(BaseModel):
    """What goes to a vendor in one call, as the ledger has it.

    `reference` is the vendor's, of what is confirmed; of what is uncertain, see `refused`.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    number: int
    kind: str
    state: ChunkState
    first_sequence: int | None
    last_sequence: int | None
    sends: int
    absences: int = 0
    not_before: AwareDatetime | None = None
    reference: dict[str, Any] | None = None
    detail: str | None = None

    @property
    def refused(self) -> Mapping[int, str] | None:
        """Whom the vendor refused, in what words, in a call of which it may have taken the rest.

        Empty where it named nobody; None where the last call was not refused so.
        """
        named = (self.reference or {}).get("refused")
        return None if named is None else {int(s): words for s, words in named.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Intent:
    """A call that comes next, of vouchers `first` to `last`; `totals` is what it carries."""

    first: int
    last: int
    totals: Totals


class Grant(BaseModel):
    """What the ledger has reserved of a connection's budget for one client, in all.

    `seconds`: until the month ends. `counted` is what all clients have spent or reserved in it, of
    `allowance`, None for any number. `warned`: this client is the one that is to tell of it.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    reserved: int
    seconds: float
    month: date
    allowance: int | None
    counted: int
    warned: bool


class Ledger(Protocol):
    """The ledger. Each call is safe to repeat; all raise LedgerUnavailable and LedgerRefused.

    Those that take a `Period` act under its fence and raise LeaseLost when it no longer holds.
    """

    async def claim(
        self,
        integration: str,
        attempt: UUID,
        trigger: Trigger,
        *,
        lease: timedelta,
        due_at: datetime | None,
    ) -> Claim: ...
    async def renew(self, period: Period, lease: timedelta) -> None: ...
    async def record_cold_start(
        self, period: Period, attempt: UUID, function: str, seen: ColdStart
    ) -> None: ...
    async def record_warm_up(self, attempt: UUID, length: timedelta) -> None: ...
    async def function_habit(self, function: str) -> Habit: ...
    async def learned_page(
        self, integration: str, function: str, *, memory_mb: int
    ) -> PageSize | None: ...
    async def remember_page(
        self, period: Period, function: str, page: PageSize, *, memory_mb: int
    ) -> None: ...
    async def read_batch(
        self, period: Period, *, after: int, records: int, lines: int
    ) -> list[TakenRecord]: ...
    async def preview_batch(
        self, period: Period, *, after: int, limit: int
    ) -> list[TakenRecord]: ...
    async def read_chunks(self, period: Period, *, after: int, limit: int) -> list[Chunk]: ...
    async def intend(
        self,
        period: Period,
        kind: str,
        first: int | None,
        last: int | None,
        totals: Totals,
        settle: timedelta,
    ) -> Chunk | None: ...
    async def write_chunks(
        self,
        period: Period,
        confirmed: Mapping[int, Mapping[str, Any]],
        intended: Sequence[Intent],
        settle: timedelta,
    ) -> list[Chunk]: ...
    async def settle_chunk(
        self,
        period: Period,
        number: int,
        outcome: str,
        *,
        reference: Mapping[str, Any] | None = None,
        detail: str | None = None,
        absences: int = 1,
        gap: timedelta | None = None,
    ) -> Chunk: ...
    async def set_aside(
        self, period: Period, reasons: Mapping[int, str], *, most: int, withdraws: bool = False
    ) -> int: ...
    async def to_withdraw(self, period: Period) -> list[int]: ...
    async def withdrawn(self, period: Period, sequences: Sequence[int]) -> None: ...
    async def finish_export(self, period: Period) -> int: ...
    async def settle(
        self,
        period: Period,
        read_back: Totals,
        requests: Mapping[str, int],
        *,
        gap: timedelta | None = None,
    ) -> dict[str, Any] | None: ...
    async def suspend(self, period: Period, reason: str) -> datetime: ...
    async def fail(self, period: Period, reason: str) -> None: ...
    async def postpone(
        self, period: Period, waiting_for: str, wait: timedelta, *, postponed: int, reason: str
    ) -> datetime: ...
    async def mark_fitted(self, period: Period, integration: Integration) -> None: ...
    async def read_period(self, integration: str, due_at: datetime) -> Period: ...
    async def close(
        self, attempt: UUID, outcome: str, detail: str | None, requests: Mapping[str, int]
    ) -> None: ...
    async def reserve_requests(
        self,
        reservation: UUID,
        vendor: str,
        connection: str,
        *,
        probes: bool,
        wanted: int,
        spent: Mapping[str, int],
        allowance: int | None,
        backfill: bool = False,
    ) -> Grant: ...
    async def return_requests(self, reservation: UUID, spent: Mapping[str, int]) -> None: ...


# -- the Edge Function -----------------------------------------------------------------------------


class ColdStartKind(StrEnum):
    """How an Edge Function was cold."""

    BOOTED = "booted"
    BOOT_ERROR = "boot_error"
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"


class Consequence(StrEnum):
    """What a cold start meant for its period."""

    WARM_UP = "warm-up"
    SLOW_PAGE = "slow page"
    CALLED_AGAIN = "called again"
    PAGE_HALVED = "page halved"
    PERIOD_WAITS = "period waits"


@dataclass(frozen=True, kw_only=True, slots=True)
class ColdStart:
    """One cold start. Milliseconds; `boot_ms` is the function's own word, where it had one.

    `cost_ms`: how long it held the period up. `page`: how many records were asked for, if any were.
    """

    kind: ColdStartKind
    reply_ms: float
    consequence: Consequence
    cost_ms: float | None = None
    boot_ms: float | None = None
    page: int | None = None
    detail: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Pong:
    """The answer to a warm-up ping."""

    booted: bool
    boot_ms: float | None
    reply_ms: float


class Page(BaseModel):
    """What one invocation took: `taken` now, `total` so far, `done` when the batch is frozen.

    `booted`: the worker was started for it, which took `boot_ms` by its own word.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    key: str
    taken: int
    total: int
    done: bool
    booted: bool = False
    boot_ms: float | None = None


class Collector(Protocol):
    """The Edge Function that freezes a period's batch. Raises FunctionFailed."""

    name: str

    async def ping(self, *, within: float) -> Pong: ...
    async def collect(self, period: Period, *, page: int) -> Page: ...


# -- the vendor ------------------------------------------------------------------------------------


ANSWER = timedelta(seconds=120)
"""How long an answer is waited for, of a vendor that says nothing of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Habits:
    """How a vendor behaves, where it matters to the way of a period.

    `chunk_vouchers` and `chunk_lines` bound one call, `at_once` how many requests it takes at a
    time. `answer`: how long it may work on a write before it answers: who stops waiting sooner does
    not know what came of it. `settle`: how long after a call it may still commit it. `absences`
    readings without it, `gap` apart, mean that it did not arrive. `posts`: staged lines become
    final only when we say so. `allowance`: how many requests a month it documents as included, None
    for no limit. `probe_requests`: how many a probe takes at most, as where a token is renewed
    first.
    """

    chunk_vouchers: int
    chunk_lines: int
    settle: timedelta
    at_once: int = 1
    answer: timedelta = ANSWER
    absences: int = 1
    gap: timedelta = field(default_factory=timedelta)
    posts: bool = False
    allowance: int | None = None
    probe_requests: int = 1


Guard = Callable[[], None]
"""Called right before each request that writes; raises LeaseLost when it must not be sent."""


class Budget(Protocol):
    """What may still be asked of a vendor; its client asks before each request."""

    async def spend(self, purpose: Purpose, *, allowance: int | None) -> Callable[[], None]:
        """Take one request out; returns what puts it back, if it never leaves.

        `allowance` is what the vendor documents for a month. Raises BudgetSpent.
        """
        ...


class Uncounted:
    """The budget of those who have no ledger to ask: a person who tries a connection, a test."""

    async def spend(self, purpose: Purpose, *, allowance: int | None) -> Callable[[], None]:
        """Let it pass."""
        del purpose, allowance
        return lambda: None


class Vendor(Protocol):
    """An accounting system. Writes raise Unsent, Uncertain or Refused; reads Unsent or Refused."""

    habits: Habits

    def at_most(self, at_once: int) -> None:
        """Make at most so many requests at a time, from now on; nothing is under way yet."""
        ...

    def objection(self, period: Period, voucher: Voucher) -> str | None:
        """Say, without asking the vendor, why it would not take a voucher; None where it would.

        In the words of a finance person: too many lines, a dimension for which there is no slot.
        """
        ...

    @property
    def requests(self) -> Mapping[str, int]:
        """Requests spent so far, by purpose: export, read-back, probe, token."""
        ...

    @property
    def limit(self) -> TurnedAway | None:
        """How a limit turned us away the last time, if one did, even if it was tried again."""
        ...

    async def send(
        self, period: Period, vouchers: Sequence[Voucher], *, begins: bool, guard: Guard
    ) -> Mapping[str, Any]:
        """Bring vouchers into the books, all or none where the vendor can. Returns a reference.

        `begins` says that nothing of the period was ever sent, so that nothing need be looked up.
        """
        ...

    async def post(self, period: Period, *, guard: Guard) -> None:
        """Make the staged lines of a period final, where the vendor wants to be told."""
        ...

    async def withdraw(self, period: Period, sequences: Sequence[int], *, guard: Guard) -> None:
        """Take staged vouchers back before they are posted. Those that are not there are no error.

        Asked only of vendors that want to be told to post, after a posting was refused.
        """
        ...

    async def posted(self, period: Period) -> bool:
        """Whether nothing of the period waits for posting any more, and something was posted."""
        ...

    async def find(self, period: Period, vouchers: Sequence[Voucher]) -> Mapping[int, FoundVoucher]:
        """Read back which of a chunk's vouchers, by place in the batch, are staged or posted.

        What was left of a voucher is not shown where `send` takes it back and begins anew.
        """
        ...

    async def totals(self, period: Period) -> Totals:
        """Read back what the books hold of a period; `original` None where they do not show it.

        `staged` counts those of the lines that are there, but not final yet. Memory: a few bytes a
        voucher, whatever the size of the period.
        """
        ...

    async def misfits(
        self, *, book_currency: str, today: date, reads_only: bool = False
    ) -> list[str]:
        """Say what in the vendor's set-up would break sending or reading back, and the remedy.

        `today` is a day on which something is to be posted. Its requests are probes. Leaves the
        books as they were, also where it is interrupted; raises Unsent when it could not be asked.
        With `reads_only`, what only a trial would show is left out.
        """
        ...

    async def probe(self) -> None:
        """Ask for a sign of life, with the lightest request that the vendor has."""
        ...


# -- health ----------------------------------------------------------------------------------------


class Due(BaseModel):
    """A connection whose probe is due, as claimed by one prober. `trial`: to end the passive mode.

    `grant` is what was reserved for it, under `reservation`. `failures` and `cool_downs` are those
    in a row so far.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    vendor: str
    connection: str
    trial: bool
    failures: int
    cool_downs: int
    reservation: UUID
    grant: Grant

    @property
    def name(self) -> str:
        """Vendor and connection, as people and events name it."""
        return f"{self.vendor}/{self.connection}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Probed:
    """What came of a probe: what was heard, why, how long until the next one, requests by purpose.

    `limit` is the error of one that a limit turned away.
    """

    due: Due
    heard: Heard
    why: str | None
    wait: timedelta
    spent: Mapping[str, int]
    limit: TurnedAway | None = None


class Health(Protocol):
    """The part of the ledger that knows how connections are. Each call is repeatable."""

    async def read_connections(
        self, allowances: Mapping[str, int | None], vendor: str | None, connection: str | None
    ) -> list[Connection]: ...
    async def enrol_connections(self, modes: Sequence[Mapping[str, str]]) -> None: ...
    async def claim_probes(
        self, claim: UUID, habits: Mapping[str, Habits], every: timedelta
    ) -> list[Due]: ...
    async def record_probes(self, claim: UUID, probed: Sequence[Probed]) -> None: ...
    async def note_traffic(
        self,
        vendor: str,
        connection: str,
        heard: Heard,
        why: str | None,
        *,
        every: timedelta,
        wait: timedelta,
    ) -> None: ...
    async def set_mode(
        self,
        vendor: str,
        connection: str | None,
        mode: Mode,
        *,
        reason: str,
        by: str,
        cool_down: timedelta | None = None,
        cool_downs: int = 0,
    ) -> int: ...


# -- what a vendor posts by itself -----------------------------------------------------------------


class Place(StrEnum):
    """Where a voucher is that was taken; REFUSED is staged, with a word why it is not posted."""

    REFUSED = "refused"
    STAGED = "staged"
    POSTED = "posted"
    NEITHER = "neither"


class Look(BaseModel):
    """What is to be looked at: a settled period of which `lines` were sent.

    `open` are vouchers, by place in the batch, to be told of wherever they are; `left_out` those
    that are not expected to be there.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    period: Period
    lines: int
    open: frozenset[int] = frozenset()
    left_out: frozenset[int] = frozenset()


class Looks(BaseModel):
    """The looks at one connection, which `integration` opens as well as any other of them."""

    model_config = ConfigDict(frozen=True)

    integration: Integration
    looks: tuple[Look, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Whereabouts:
    """Where a voucher is; `reason` in the vendor's own words, where it refused to post it."""

    place: Place
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """How a vendor's posting stands with a period: what is `posted`, and `held` at all.

    `vouchers` are those that were asked for, were refused, or are missing, though of the missing
    ones only the first hundred. `note` says what could not be seen.
    """

    posted: Totals
    held: Totals
    vouchers: Mapping[int, Whereabouts]
    note: str | None = None


@runtime_checkable
class PostsByItself(Protocol):
    """A vendor that posts what it took in its own time, and may refuse it then."""

    habits: Habits

    @property
    def requests(self) -> Mapping[str, int]:
        """Requests spent so far, by purpose."""
        ...

    async def standings(self, looks: Sequence[Look]) -> Sequence[Standing]:
        """Read how its posting stands with periods, in their order, in as few requests as it can.

        Raises Unsent or Refused.
        """
        ...


class FollowUps(Protocol):
    """The part of the ledger that remembers what is to be followed up. Each call is repeatable."""

    async def claim_looks(self, looker: UUID, lease: timedelta) -> Looks | None: ...
    async def record_look(
        self,
        looker: UUID,
        look: Look,
        standing: Standing,
        *,
        gap: timedelta,
        requests: Mapping[str, int],
    ) -> FollowUp: ...
    async def put_off_looks(self, looker: UUID, reason: str, wait: timedelta) -> None: ...
    async def look_told(self, seen: FollowUp) -> None: ...
