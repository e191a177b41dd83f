"""The protocol as a whole: workers that die, replies that get lost, a vendor that commits late.

Hypothesis plays the workers, the vendor and the clock. The vendor keeps its one promise: what it
was sent, it commits within its settle time or never. Whatever happens, no voucher is booked twice,
and what the ledger calls verified is in the books.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import psycopg
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tests.cast import HOUR, LEASE, NORDVEST, Stage, another
from tests.ledger.protocol import SETTLE, Held, Protocol

if TYPE_CHECKING:
    from decimal import Decimal

    from sandbox.supabase import Supabase

BATCHES = (4, 2)
PERIODS = len(BATCHES)
SECONDS = [70, 130, 130, 301, 601, 601]

# What became of a call: did the books change, and did the worker hear of it?
(
    CONFIRMED,
    REPLY_LOST,
    HALF,
    LATE,
    NEVER,
    TURNED_AWAY,
    UNBEGUN,
    SPURNED,
    SPURNED_UNNAMED,
    REFUSED,
) = range(10)

FATES = st.sampled_from(
    [
        CONFIRMED,
        LATE,
        REPLY_LOST,
        HALF,
        LATE,
        SPURNED,
        SPURNED_UNNAMED,
        NEVER,
        TURNED_AWAY,
        UNBEGUN,
        REFUSED,
    ]
)
MORTAL = st.sampled_from([False, False, True])

OUTCOMES = {
    CONFIRMED: "confirmed",
    TURNED_AWAY: "unsent",
    UNBEGUN: "unbegun",
    REFUSED: "refused",
    SPURNED: "refused",
    SPURNED_UNNAMED: "refused",
}

Sequences = frozenset[int]


@dataclass(kw_only=True)
class Worker:
    """Somebody who holds a lease, or believes so.

    `pending` is the call that it will make next, `heard` the outcome that it has not told yet,
    `spurned` the voucher that the vendor blamed for it, `unnamed` those of a call that it refused
    for one of them without saying which.
    """

    attempt: UUID
    held: Held
    lease_ends: float
    pending: tuple[int, Sequences] | None = None
    heard: tuple[int, str] | None = None
    spurned: int | None = None
    unnamed: Sequences | None = None


@dataclass(kw_only=True)
class UnderWay:
    """A call that the vendor may still commit."""

    due: datetime
    sequences: Sequences
    until: float


@dataclass(kw_only=True)
class Vendor:
    """The books: how often each voucher of each period is in them."""

    booked: Counter[tuple[datetime, int]] = field(default_factory=Counter[tuple[datetime, int]])
    under_way: list[UnderWay] = field(default_factory=list[UnderWay])

    def commit(self, due: datetime, sequences: Sequences) -> None:
        self.booked.update((due, sequence) for sequence in sequences)

    def has(self, due: datetime, sequence: int) -> bool:
        return (due, sequence) in self.booked


class LedgerMachine(RuleBasedStateMachine):
    database: psycopg.Connection

    @initialize()
    def begin(self) -> None:
        self.now = 0.0
        self.vendor = Vendor()
        self.workers: list[Worker] = []
        self.fences: dict[datetime, int] = {}
        self.confirmed: set[tuple[datetime, int]] = set()
        self.approved = 0
        who = another(NORDVEST)
        self.ledger = Protocol(database=self.database, integration=who.id)
        self.stage = Stage(integration=who, ledger=None, database=self.database)  # pyright: ignore[reportArgumentType] - in SQL only
        this_minute = datetime.now(UTC).replace(second=0, microsecond=0)
        self.due = [this_minute - back * HOUR for back in range(PERIODS, 0, -1)]
        self.ledger.save(who)
        self.ledger.plan(*self.due)
        for period, number in enumerate(BATCHES):
            self._approve(period, number)
        self._claim()
        self._try(self.workers[0], "collect_page", limit=BATCHES[0] + 1)

    # -- what may happen ---------------------------------------------------------------------------

    # Each ends with work, so that runs come far whichever of them Hypothesis prefers.

    @rule(data=st.data())
    def somebody_works(self, data: st.DataObject) -> None:
        self._work(data)

    @rule(data=st.data(), seconds=st.sampled_from(SECONDS))
    def time_passes(self, data: st.DataObject, seconds: int) -> None:
        while self.vendor.under_way and data.draw(st.booleans()):
            self._vendor_commits_late(data)
        self.now += seconds
        self.stage.time_passes(timedelta(seconds=seconds))
        self.vendor.under_way = [it for it in self.vendor.under_way if it.until > self.now]
        self._work(data)

    @rule(data=st.data())
    def something_comes_in_between(self, data: st.DataObject) -> None:
        events = [self._another_claims, self._another_record]
        if self.vendor.under_way:
            events.append(self._vendor_commits_late)
        if self.workers:
            events += [self._worker_is_killed, self._worker_gives_up, self._worker_renews]
        data.draw(st.sampled_from(events))(data)
        self._work(data)

    def _work(self, data: st.DataObject) -> None:
        """Take some steps of the way; where nobody is at it, somebody claims it first."""
        for _ in range(data.draw(st.integers(2, 9))):
            if not self.workers:
                self._claim()
            if not self.workers:
                return  # until some time has passed
            worker = data.draw(st.sampled_from(self.workers))
            if worker.heard:
                self._tell(worker, *worker.heard)
            elif worker.pending:
                self._send(worker, data.draw(FATES), dies=data.draw(MORTAL))
            else:
                self._go_on(worker, data.draw(st.integers(2, 4)))

    def _another_claims(self, data: st.DataObject) -> None:
        self._claim(times=data.draw(st.integers(1, 2)))

    def _another_record(self, data: st.DataObject) -> None:
        self._approve(data.draw(st.integers(0, PERIODS - 1)), 1)

    def _vendor_commits_late(self, data: st.DataObject) -> None:
        call = self.vendor.under_way.pop(data.draw(st.integers(0, len(self.vendor.under_way) - 1)))
        self.vendor.commit(call.due, call.sequences)

    def _worker_is_killed(self, data: st.DataObject) -> None:
        self.workers.remove(data.draw(st.sampled_from(self.workers)))

    def _worker_gives_up(self, data: st.DataObject) -> None:
        self._end(data.draw(st.sampled_from(self.workers)), "interrupted")

    def _worker_renews(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(self.workers))
        if self._try(worker, "renew_lease", lease=LEASE):
            worker.lease_ends = self.now + LEASE.total_seconds()

    # -- as kvitt.sync does it ---------------------------------------------------------------------

    def _approve(self, period: int, number: int) -> None:
        for _ in range(number):
            self.approved += 1
            self.ledger.approve(self.approved, self.due[period] - HOUR / 2)

    def _claim(self, times: int = 1) -> None:
        attempt = uuid4()
        answers = [self.ledger.claim(attempt=attempt) for _ in range(times)]
        assert answers == answers[:1] * times
        if answers[0]["outcome"] == "failed":
            due = datetime.fromisoformat(answers[0]["period"]["due_at"])
            self.ledger.own("mend_period", due=due, who="Hypothesis", reason="mended")
            return
        if answers[0]["outcome"] != "claimed":
            return
        period = answers[0]["period"]
        due = datetime.fromisoformat(period["due_at"])
        assert period["fence"] > self.fences.get(due, 0)
        self.fences[due] = period["fence"]
        held = Held(due=due, fence=period["fence"])
        ends = self.now + LEASE.total_seconds()
        self.workers.append(Worker(attempt=attempt, held=held, lease_ends=ends))

    def _go_on(self, worker: Worker, size: int) -> None:
        """Do what comes next in `kvitt.sync`."""
        due = worker.held.due
        frozen, count = self._batch(due)
        chunks, aside = self._chunks(due), self._set_aside(due)
        unfinished = [
            chunk for chunk in chunks if chunk["state"] != "confirmed" and not aside >= _span(chunk)
        ]
        sent = max((chunk["last"] for chunk in chunks), default=0)
        while sent + 1 in aside:
            sent += 1
        if not frozen:
            self._try(worker, "collect_page", limit=size)
        elif unfinished:
            self._finish(worker, unfinished[0])
        elif sent < count:
            self._intend(worker, sent + 1, min(sent + size, count))
        else:
            self._verify(worker)

    def _send(self, worker: Worker, fate: int, *, dies: bool) -> None:
        """Make the call, if the lease surely holds, and hear what came of it, if alive."""
        assert worker.pending
        number, sequences = worker.pending
        if worker.lease_ends <= self.now:
            self.workers.remove(worker)
            return
        due = worker.held.due
        if fate in {CONFIRMED, REPLY_LOST}:
            self.vendor.commit(due, sequences)
        if fate == HALF:
            self.vendor.commit(due, frozenset(sorted(sequences)[: len(sequences) // 2]))
        if fate == LATE:
            until = self.now + SETTLE.total_seconds()
            self.vendor.under_way.append(UnderWay(due=due, sequences=sequences, until=until))
        worker.pending = None
        if dies and fate != CONFIRMED:
            self.workers.remove(worker)
            return
        worker.heard = (number, OUTCOMES.get(fate, "uncertain"))
        worker.spurned = min(sequences) if fate == SPURNED else None
        worker.unnamed = sequences if fate == SPURNED_UNNAMED else None

    def _tell(self, worker: Worker, number: int, outcome: str) -> None:
        worker.heard = None
        told = self._try(worker, "settle_chunk", number=number, outcome=outcome)
        if told and worker.spurned:
            vouchers = [{"sequence": worker.spurned, "reason": "it is spurned"}]
            self._try(worker, "set_aside", vouchers=vouchers, most=100)
            worker.spurned = None
        elif told and worker.unnamed:
            self._halve(worker, told, sorted(worker.unnamed))
            worker.unnamed = None
        elif told and outcome == "refused":
            self._try(worker, "fail_period", reason="refused")
            self._end(worker, "failed")

    def _halve(self, worker: Worker, chunk: dict[str, Any], sent: list[int]) -> None:
        """Look for the one to blame: it is set aside if it went alone, else the first half goes.

        Of what is in the books in part, no half goes alone: that is for a person.
        """
        first, last = chunk["first_sequence"], chunk["last_sequence"]
        whole = set(range(first, last + 1)) - self._set_aside(worker.held.due)
        if len(sent) == 1:
            vouchers = [{"sequence": sent[0], "reason": "it went alone"}]
            self._try(worker, "set_aside", vouchers=vouchers, most=100)
        elif whole == set(sent):
            half = sent[: len(sent) // 2]
            self._intend(worker, first, half[-1], frozenset(half))
        else:
            self._try(worker, "fail_period", reason="refused")
            self._end(worker, "failed")

    def _finish(self, worker: Worker, chunk: dict[str, Any]) -> None:
        due = worker.held.due
        vouchers = _span(chunk) - self._set_aside(due)
        missing = frozenset(s for s in vouchers if not self.vendor.has(due, s))
        if chunk["state"] != "uncertain":
            again = chunk["sends"] > 1 or chunk["absences"]
            self._intend(worker, chunk["first"], chunk["last"], missing if again else vouchers)
            return
        outcome = "absent" if missing else "confirmed"
        told = self._try(worker, "settle_chunk", number=chunk["number"], outcome=outcome)
        if not told or not missing:
            return
        if told["state"] == "uncertain":
            self._try(worker, "suspend_period", reason="not there yet")
            self._end(worker, "uncertain")
        else:
            self._intend(worker, chunk["first"], chunk["last"], missing)

    def _intend(
        self, worker: Worker, first: int, last: int, missing: Sequences | None = None
    ) -> None:
        debits = self._debits(worker.held.due, first, last)
        if not debits:
            return
        first, last = (first, last) if missing is not None else (min(debits), max(debits))
        try:
            chunk = self.ledger.intend(worker.held, first, last, debits)
        except psycopg.Error as error:
            self._lost(worker, error)
            return
        if chunk["state"] == "intended":
            sent = frozenset(debits) if missing is None else missing
            worker.pending = (chunk["number"], sent) if sent else None
            worker.heard = None if sent else (chunk["number"], "confirmed")

    def _verify(self, worker: Worker) -> None:
        if not self._try(worker, "finish_export", alright=True):
            return
        due = worker.held.due
        debits = self._debits(due, 1, 100)
        there = {s: debits[s] for when, s in self.vendor.booked if when == due}
        try:
            receipt = self.ledger.settle(worker.held, there)
        except psycopg.Error as error:
            self._lost(worker, error)
            return
        self._end(worker, "settled" if receipt else "failed")

    def _try(self, worker: Worker, function: str, *, alright: bool = False, **how: Any) -> Any:
        """Call a function under a worker's fence; who lost the lease leaves, and gets None."""
        try:
            answer = self.ledger.own(function, **worker.held.fenced, **how)
        except psycopg.Error as error:
            self._lost(worker, error)
            return None
        return True if alright or function in {"renew_lease", "fail_period"} else answer

    def _lost(self, worker: Worker, error: psycopg.Error) -> None:
        assert error.sqlstate == "KV001", error
        assert worker.lease_ends <= self.now or self.fences[worker.held.due] > worker.held.fence
        self.workers.remove(worker)

    def _end(self, worker: Worker, outcome: str) -> None:
        self.ledger.call(
            "close_attempt", attempt=worker.attempt, outcome=outcome, detail=None, requests={}
        )
        if worker in self.workers:
            self.workers.remove(worker)

    # -- what must hold ----------------------------------------------------------------------------

    @invariant()
    def nothing_is_booked_twice(self) -> None:
        assert [it for it, times in self.vendor.booked.items() if times > 1] == []

    @invariant()
    def each_record_has_one_place_in_one_period(self) -> None:
        places = self.stage.ask(
            "select period_due_at, sequence, voucher_number from kvitt.records"
            " where integration_id = %(id)s and period_due_at is not null order by voucher_number"
        )
        assert [number for _, _, number in places] == list(range(1, len(places) + 1))
        for due in self.due:
            sequences = sorted(sequence for when, sequence, _ in places if when == due)
            assert sequences == list(range(1, len(sequences) + 1))

    @invariant()
    def chunks_lie_side_by_side_and_what_is_confirmed_stays_so(self) -> None:
        confirmed: set[tuple[datetime, int]] = set()
        for due in self.due:
            end, aside = 0, self._set_aside(due)
            for chunk in self._chunks(due):
                assert set(range(end + 1, chunk["first"])) <= aside
                end = chunk["last"]
                if chunk["state"] == "confirmed":
                    confirmed |= {(due, s) for s in _span(chunk) - aside}
        assert confirmed >= self.confirmed
        assert confirmed <= set(self.vendor.booked)
        self.confirmed = confirmed

    @invariant()
    def what_is_verified_is_in_the_books(self) -> None:
        verified = self.stage.ask(
            "select due_at, record_count, receipt from kvitt.periods"
            " where integration_id = %(id)s and state = 'verified'"
        )
        for due, count, receipt in verified:
            aside = self._set_aside(due)
            assert receipt["taken"]["vouchers"] == receipt["sent"]["vouchers"] + len(aside)
            assert len(receipt["set_aside"]) == len(aside)
            booked = {s for when, s in self.vendor.booked if when == due}
            assert booked == set(range(1, count + 1)) - aside

    # -- looking -----------------------------------------------------------------------------------

    def _batch(self, due: datetime) -> tuple[bool, int]:
        [row] = self.stage.ask(
            "select frozen_at is not null, record_count from kvitt.periods"
            " where integration_id = %(id)s and due_at = %(due)s",
            due=due,
        )
        return row

    def _chunks(self, due: datetime) -> list[dict[str, Any]]:
        rows = self.stage.ask(
            "select number, first_sequence, last_sequence, state, sends, absences from kvitt.chunks"
            " where integration_id = %(id)s and due_at = %(due)s order by first_sequence",
            due=due,
        )
        names = ("number", "first", "last", "state", "sends", "absences")
        return [dict(zip(names, row, strict=True)) for row in rows]

    def _set_aside(self, due: datetime) -> Sequences:
        rows = self.stage.ask(
            "select sequence from kvitt.set_aside"
            " where integration_id = %(id)s and due_at = %(due)s",
            due=due,
        )
        return frozenset(sequence for (sequence,) in rows)

    def _debits(self, due: datetime, first: int, last: int) -> dict[int, Decimal]:
        """Return what some vouchers of a batch debit, without those that were set aside."""
        rows = self.stage.ask(
            """
            select r.sequence, sum(l.book_amount) filter (where l.book_amount > 0)
              from kvitt.records r join kvitt.record_lines l
                on (l.integration_id, l.record_id) = (r.integration_id, r.id)
             where r.integration_id = %(id)s and r.period_due_at = %(due)s
               and r.sequence between %(first)s and %(last)s
             group by r.sequence
            """,
            due=due,
            first=first,
            last=last,
        )
        aside = self._set_aside(due)
        return {sequence: debit for sequence, debit in rows if sequence not in aside}


def _span(chunk: dict[str, Any]) -> Sequences:
    return frozenset(range(chunk["first"], chunk["last"] + 1))


def test_nothing_is_booked_twice_whoever_dies_and_whatever_is_lost(supabase: Supabase) -> None:
    with psycopg.connect(supabase.database_url, autocommit=True) as database:
        machine = type("Machine", (LedgerMachine,), {"database": database})
        run_state_machine_as_test(
            machine, settings=settings(max_examples=60, stateful_step_count=50, deadline=None)
        )
