"""The ledger over Supabase rpc.

Each SQL function is safe to call twice with the same arguments, so a call whose reply was lost is
simply made again, here and nowhere else: for half a minute, then LedgerUnavailable.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from pydantic import TypeAdapter, ValidationError

from kvitt.domain.errors import LedgerRefused, LedgerUnavailable
from kvitt.domain.follow_ups import FollowUp
from kvitt.domain.health import Connection, ModeChange
from kvitt.domain.incidents import Incident
from kvitt.domain.integrations import Integration
from kvitt.domain.pages import PageSize
from kvitt.domain.periods import Period
from kvitt.domain.records import TakenRecord
from kvitt.domain.warmth import Habit
from kvitt.ledger.asking import ask, read
from kvitt.ledger.rows import (
    Calendar,
    Heartbeat,
    Integrations,
    KeptRecord,
    Progress,
    SecondScheduler,
    SetAside,
    Spending,
    Work,
)
from kvitt.ports import Chunk, Claim, Due, Grant, Looks

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence
    from datetime import timedelta

    from supabase import AsyncClient

    from kvitt.domain.health import Heard, Mode
    from kvitt.domain.incidents import IncidentKind
    from kvitt.domain.money import Totals
    from kvitt.domain.records import Record
    from kvitt.ports import ColdStart, Habits, Intent, Look, Probed, Standing, Trigger

_PAGE = 500
_records = TypeAdapter(list[TakenRecord])


class SupabaseLedger:
    """The ledger of one Supabase project (`ports.Ledger`, and what the command line needs)."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    # -- the way of a period -----------------------------------------------------------------------

    async def claim(
        self,
        integration: str,
        attempt: UUID,
        trigger: Trigger,
        *,
        lease: timedelta,
        due_at: datetime | None,
    ) -> Claim:
        """Claim a period and open the attempt; see `kvitt.claim_period`."""
        answer = await self._call(
            "claim_period",
            p_integration=integration,
            p_attempt=str(attempt),
            p_lease=_interval(lease),
            p_trigger=trigger.kind,
            p_due=_iso(due_at),
            p_scheduled_at=_iso(trigger.scheduled_at),
            p_flow_run=trigger.flow_run,
            p_worker=trigger.worker,
            p_picked_up_at=_iso(trigger.picked_up_at),
        )
        return _claim_of(answer)

    async def renew(self, period: Period, lease: timedelta) -> None:
        """Hold the lease for another while, counted from now."""
        await self._call("renew_lease", **_fenced(period), p_lease=_interval(lease))

    async def record_cold_start(
        self, period: Period, attempt: UUID, function: str, seen: ColdStart
    ) -> None:
        """Write down a cold start, once per call of this method."""
        await self._call(
            "record_cold_start",
            **_named(period),
            p_id=str(uuid4()),
            p_attempt=str(attempt),
            p_function=function,
            p_kind=seen.kind,
            p_boot_ms=seen.boot_ms,
            p_reply_ms=seen.reply_ms,
            p_detail=seen.detail,
            p_consequence=seen.consequence,
            p_cost_ms=seen.cost_ms,
            p_page=seen.page,
        )

    async def record_warm_up(self, attempt: UUID, length: timedelta) -> None:
        """Write down how long an attempt warmed its function up."""
        await self._call("record_warm_up", p_attempt=str(attempt), p_length=_interval(length))

    async def function_habit(self, function: str) -> Habit:
        """Return what the last attempts saw of a function, of all integrations."""
        return read(Habit, await self._call("function_habit", p_function=function))

    async def learned_page(
        self, integration: str, function: str, *, memory_mb: int
    ) -> PageSize | None:
        """Return how many records it takes at once, if that was learned with so much memory."""
        answer = await self._call("page_of", p_integration=integration, p_function=function)
        if answer is None or answer["memory_mb"] != memory_mb:
            return None
        return read(PageSize, {name: answer[name] for name in ("records", "good", "too_much")})

    async def remember_page(
        self, period: Period, function: str, page: PageSize, *, memory_mb: int
    ) -> None:
        """Remember for the next period how many records it takes at once."""
        await self._call(
            "remember_page",
            **_fenced(period),
            p_function=function,
            p_records=page.records,
            p_good=page.good,
            p_too_much=page.too_much,
            p_memory_mb=memory_mb,
        )

    async def read_batch(
        self, period: Period, *, after: int, records: int, lines: int
    ) -> list[TakenRecord]:
        """Return the next records of the batch: as many as fit both limits, one at least."""
        answer = await self._call(
            "read_batch",
            **_named(period),
            p_after=after,
            p_max_records=records,
            p_max_lines=lines,
        )
        return _taken(period, answer)

    async def preview_batch(self, period: Period, *, after: int, limit: int) -> list[TakenRecord]:
        """Return the next records that the period has taken, or would take now; takes none."""
        answer = await self._call("preview_batch", **_named(period), p_after=after, p_limit=limit)
        return _taken(period, answer)

    async def read_chunks(self, period: Period, *, after: int, limit: int) -> list[Chunk]:
        """Return the next chunks of a period, by number."""
        answer = await self._call("read_chunks", **_named(period), p_after=after, p_limit=limit)
        return read(list[Chunk], answer)

    async def intend(
        self,
        period: Period,
        kind: str,
        first: int | None,
        last: int | None,
        totals: Totals,
        settle: timedelta,
    ) -> Chunk | None:
        """Write down a call before it is made; send it only if the chunk comes back INTENDED.

        None for a posting that has nothing to post.
        """
        answer = await self._call(
            "intend_chunk",
            **_fenced(period),
            p_kind=kind,
            p_first=first,
            p_last=last,
            p_totals=totals.as_json(),
            p_settle=_interval(settle),
        )
        return None if answer is None else read(Chunk, answer)

    async def write_chunks(
        self,
        period: Period,
        confirmed: Mapping[int, Mapping[str, Any]],
        intended: Sequence[Intent],
        settle: timedelta,
    ) -> list[Chunk]:
        """Write down what the vendor confirmed, by number with its reference, and what comes next.

        All of it or nothing. Returns the chunks, in the same order. See `intend`.
        """
        answer = await self._call(
            "write_chunks",
            **_fenced(period),
            p_confirmed=[{"number": n, "reference": dict(r)} for n, r in confirmed.items()],
            p_intended=[
                {"first": each.first, "last": each.last, "totals": each.totals.as_json()}
                for each in intended
            ],
            p_settle=_interval(settle),
        )
        return read(list[Chunk], answer)

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
    ) -> Chunk:
        """Write down what came of a call, or of a reading; see `kvitt.settle_chunk`."""
        answer = await self._call(
            "settle_chunk",
            **_fenced(period),
            p_number=number,
            p_outcome=outcome,
            p_reference=reference,
            p_detail=detail,
            p_absences=absences,
            p_gap="0" if gap is None else _interval(gap),
        )
        return read(Chunk, answer)

    async def set_aside(
        self, period: Period, reasons: Mapping[int, str], *, most: int, withdraws: bool = False
    ) -> int:
        """Set vouchers aside, by their place in the batch; returns how many were not before.

        `withdraws`: the vendor can take back what of them is there. KV006 for more than `most`.
        """
        vouchers = [{"sequence": s, "reason": words} for s, words in reasons.items()]
        answer = await self._call(
            "set_aside",
            **_fenced(period),
            p_vouchers=vouchers,
            p_most=most,
            p_withdraws=withdraws,
        )
        return read(int, answer)

    async def to_withdraw(self, period: Period) -> list[int]:
        """Return what was set aside after it had been sent, and is still in the books."""
        return await self._call("to_withdraw", **_named(period))

    async def withdrawn(self, period: Period, sequences: Sequence[int]) -> None:
        """Write down that vouchers were taken back from the books."""
        await self._call("withdrawn", **_fenced(period), p_sequences=list(sequences))

    async def finish_export(self, period: Period) -> int:
        """Mark the period as exported: each voucher is confirmed or set aside.

        Returns how many are in the books.
        """
        return await self._call("finish_export", **_fenced(period))

    async def settle(
        self,
        period: Period,
        read_back: Totals,
        requests: Mapping[str, int],
        *,
        gap: timedelta | None = None,
    ) -> dict[str, Any] | None:
        """Settle the period and return its receipt; None where the books show something else.

        Less than was sent is wrong only when two readings say so that are so far apart.
        """
        return await self._call(
            "settle_period",
            **_fenced(period),
            p_read_back=read_back.as_json(),
            p_requests=dict(requests),
            p_gap="0" if gap is None else _interval(gap),
        )

    async def suspend(self, period: Period, reason: str) -> datetime:
        """Let the period wait for a missing reply; returns until when (UTC)."""
        answer = await self._call("suspend_period", **_fenced(period), p_reason=reason)
        return read(datetime, answer)

    async def fail(self, period: Period, reason: str) -> None:
        """Stop the period for a person."""
        await self._call("fail_period", **_fenced(period), p_reason=reason)

    async def postpone(
        self, period: Period, waiting_for: str, wait: timedelta, *, postponed: int, reason: str
    ) -> datetime:
        """Let the period wait for a vendor, a function or its budget; returns until when (UTC)."""
        answer = await self._call(
            "postpone_period",
            **_fenced(period),
            p_waiting_for=waiting_for,
            p_wait=_interval(wait),
            p_postponed=postponed,
            p_reason=reason,
        )
        return read(datetime, answer)

    async def mark_fitted(self, period: Period, integration: Integration) -> None:
        """Write down that the vendor's set-up fits, for where the integration leads to now."""
        await self._call(
            "mark_fitted",
            **_fenced(period),
            p_vendor=integration.vendor,
            p_connection=integration.connection,
            p_book_currency=integration.book_currency,
        )

    async def close(
        self, attempt: UUID, outcome: str, detail: str | None, requests: Mapping[str, int]
    ) -> None:
        """End an attempt and give its lease back."""
        await self._call(
            "close_attempt",
            p_attempt=str(attempt),
            p_outcome=outcome,
            p_detail=detail,
            p_requests=dict(requests),
        )

    async def read_period(self, integration: str, due_at: datetime) -> Period:
        """Return one period as it stands."""
        query = self._client.table("periods").select("*").eq("integration_id", integration)
        rows = await ask(query.eq("due_at", due_at.isoformat()))
        if not rows:
            raise LedgerRefused(f"{integration} has no period due at {due_at}", code="KV004")
        return read(Period, rows[0])

    # -- the budget --------------------------------------------------------------------------------

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
    ) -> Grant:
        """Reserve requests of a connection, `wanted` in all; see `kvitt.reserve_requests`."""
        answer = await self._call(
            "reserve_requests",
            p_reservation=str(reservation),
            p_vendor=vendor,
            p_connection=connection,
            p_probes=probes,
            p_wanted=wanted,
            p_spent=dict(spent),
            p_allowance=allowance,
            p_backfill=backfill,
        )
        return read(Grant, answer)

    async def return_requests(self, reservation: UUID, spent: Mapping[str, int]) -> None:
        """Give back what is left of a reservation, having spent so much of it."""
        await self._call("return_requests", p_reservation=str(reservation), p_spent=dict(spent))

    async def read_budgets(self, connection: str | None = None) -> list[Spending]:
        """Return what each connection has spent, by month, the latest first."""
        answer = await self._call("read_budgets", p_connection=connection)
        return read(list[Spending], answer)

    # -- health ------------------------------------------------------------------------------------

    async def read_connections(
        self,
        allowances: Mapping[str, int | None],
        vendor: str | None = None,
        connection: str | None = None,
    ) -> list[Connection]:
        """Return how the connections of enabled integrations are, by vendor and name."""
        answer = await self._call(
            "read_connections",
            p_allowances=dict(allowances),
            p_vendor=vendor,
            p_connection=connection,
        )
        return read(list[Connection], answer)

    async def enrol_connections(self, modes: Sequence[Mapping[str, str]]) -> None:
        """Give connections the modes that they have by default; see `kvitt.enrol_connections`."""
        await self._call("enrol_connections", p_connections=[dict(each) for each in modes])

    async def claim_probes(
        self, claim: UUID, habits: Mapping[str, Habits], every: timedelta
    ) -> list[Due]:
        """Take the probes that are due, of these vendors, with what they may spend."""
        vendors = {
            name: {"allowance": each.allowance, "requests": each.probe_requests}
            for name, each in habits.items()
        }
        answer = await self._call(
            "claim_probes", p_claim=str(claim), p_vendors=vendors, p_every=_interval(every)
        )
        return read(list[Due], answer)

    async def record_probes(self, claim: UUID, probed: Sequence[Probed]) -> None:
        """Write down what came of claimed probes, all in one call, and give back what is left."""
        results = [
            {
                "vendor": each.due.vendor,
                "connection": each.due.connection,
                "reservation": str(each.due.reservation),
                "heard": each.heard,
                "why": each.why,
                "wait": _interval(each.wait),
                "spent": dict(each.spent),
            }
            for each in probed
        ]
        await self._call("record_probes", p_claim=str(claim), p_results=results)

    async def note_traffic(
        self,
        vendor: str,
        connection: str,
        heard: Heard,
        why: str | None,
        *,
        every: timedelta,
        wait: timedelta,
    ) -> None:
        """Write down what real traffic met at a connection, once per call of this method."""
        await self._call(
            "note_traffic",
            p_note=str(uuid4()),
            p_vendor=vendor,
            p_connection=connection,
            p_heard=heard,
            p_why=why,
            p_every=_interval(every),
            p_wait=_interval(wait),
        )

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
    ) -> int:
        """Set a mode; returns how many connections changed. See `kvitt.set_mode`."""
        return await self._call(
            "set_mode",
            p_vendor=vendor,
            p_connection=connection,
            p_mode=mode,
            p_reason=reason,
            p_by=by,
            p_cool_down=None if cool_down is None else _interval(cool_down),
            p_cool_downs=cool_downs,
        )

    async def untold_modes(self) -> list[ModeChange]:
        """Return the changes of modes of which Prefect has had no event yet."""
        return read(list[ModeChange], await self._call("untold_modes"))

    async def modes_told(self, changes: Sequence[ModeChange]) -> None:
        """Write down that Prefect had an event of each."""
        await self._call("modes_told", p_ids=[change.id for change in changes])

    # -- for the command line and the watchers -----------------------------------------------------

    async def save_integration(self, integration: Integration) -> str:
        """Create or change an integration; returns created, changed or unchanged."""
        return await self._call(
            "save_integration", p_integration=integration.model_dump(mode="json")
        )

    async def read_integrations(self) -> Integrations:
        """Return all integrations, by id, and those that cannot be read, with the reason."""
        valid: list[Integration] = []
        broken: dict[str, str] = {}
        async for row in self._rows("integrations", "id"):
            if row.get("rehearses") is not None:
                continue  # a stand-in, for the seconds of a rehearsal
            try:
                valid.append(integration_of(row))
            except LedgerRefused as error:
                broken[row["id"]] = str(error)
        return Integrations(valid=valid, broken=broken)

    async def _rows(self, table: str, key: str) -> AsyncGenerator[dict[str, Any]]:
        """Read a whole table in pages, since Supabase cuts an answer at 1,000 rows."""
        first = 0
        while True:
            query = self._client.table(table).select("*").order(key)
            page = await ask(query.range(first, first + _PAGE - 1))
            for row in page:
                yield row
            if len(page) < _PAGE:
                return
            first += _PAGE

    async def read_integration(self, integration: str) -> Integration:
        """Return one integration; LedgerRefused where there is none."""
        rows = await ask(self._client.table("integrations").select("*").eq("id", integration))
        if not rows:
            raise LedgerRefused(f"there is no integration {integration}", code="KV004")
        return integration_of(rows[0])

    async def read_calendar(self, integration: str) -> Calendar:
        """Return how far the calendar of an integration is written, and what time it is."""
        answer = await self._call("calendar", p_integration=integration)
        if answer is None:
            raise LedgerRefused(f"there is no integration {integration}", code="KV004")
        return read(Calendar, answer)

    async def plan_periods(
        self, integration: str, *, opens_at: datetime | None, due: Sequence[datetime]
    ) -> int:
        """Write the calendar on; returns how many periods are new."""
        return await self._call(
            "plan_periods",
            p_integration=integration,
            p_opens_at=_iso(opens_at),
            p_due=[moment.isoformat() for moment in due],
        )

    async def add_records(self, records: Sequence[Record]) -> tuple[int, int]:
        """Add records, all or none; returns how many are new and how many were there."""
        answer = await self._call(
            "add_records",
            p_records=[record.model_dump(mode="json", exclude_none=True) for record in records],
        )
        return answer["added"], answer["present"]

    async def read_periods(self, integration: str | None = None, *, limit: int) -> list[Period]:
        """Return the latest periods that have come due, newest first."""
        query = self._client.table("periods").select("*").lte("due_at", "now")
        if integration is not None:
            query = query.eq("integration_id", integration)
        rows = await ask(query.order("due_at", desc=True).limit(limit))
        return read(list[Period], rows)

    async def read_next_period(self, integration: str) -> Period:
        """Return the oldest period that is not finished, due or not; LedgerRefused for none."""
        query = self._client.table("periods").select("*").eq("integration_id", integration)
        open_ones = query.not_.in_("state", ["verified", "skipped"])
        rows = await ask(open_ones.order("due_at").limit(1))
        if not rows:
            raise LedgerRefused(f"{integration} has no period that is not finished", code="KV004")
        return read(Period, rows[0])

    async def skip(
        self, integration: str, due_at: datetime, *, who: str, reason: str
    ) -> tuple[int, int, int]:
        """Leave a period out for good.

        Returns how many vouchers it took, has in the books, and may have there besides.
        """
        answer = await self._call(
            "skip_period",
            p_integration=integration,
            p_due=due_at.isoformat(),
            p_who=who,
            p_reason=reason,
        )
        return answer["taken"], answer["booked"], answer["perhaps"]

    async def mend(self, integration: str, due_at: datetime, *, who: str, reason: str) -> str:
        """Let a failed period go on, since somebody has mended it; returns its key."""
        return await self._call(
            "mend_period",
            p_integration=integration,
            p_due=due_at.isoformat(),
            p_who=who,
            p_reason=reason,
        )

    async def accept_set_up(
        self, integration: str, due_at: datetime, *, who: str, reason: str
    ) -> str:
        """Take a vendor's set-up as it is, and let the period go on that failed for it.

        Returns the period's key.
        """
        return await self._call(
            "accept_set_up",
            p_integration=integration,
            p_due=due_at.isoformat(),
            p_who=who,
            p_reason=reason,
        )

    async def mend_record(self, integration: str, record: str, *, who: str, reason: str) -> str:
        """Let a record that was set aside go again with the next period; returns its new id."""
        return await self._call(
            "mend_record",
            p_integration=integration,
            p_record=record,
            p_who=who,
            p_reason=reason,
        )

    async def read_record(self, integration: str, record: str | None = None) -> KeptRecord:
        """Return one record: the named one, else one that is not taken yet, else the latest."""
        answer = await self._call("read_record", p_integration=integration, p_record=record)
        if answer is None:
            which = "no record yet" if record is None else f"no record {record}"
            raise LedgerRefused(f"{integration} has {which}", code="KV004")
        return read(KeptRecord, answer)

    async def read_set_aside(self, integration: str | None = None) -> list[SetAside]:
        """Return what was set aside and not mended, of one integration or of all."""
        query = self._client.table("set_aside").select("*").is_("mended_as", "null")
        if integration is not None:
            query = query.eq("integration_id", integration)
        rows = await ask(query.order("set_aside_at", desc=True).limit(_PAGE))
        return read(list[SetAside], rows)

    async def integrations_with_work(self) -> list[Work]:
        """Return the integrations for which a run would find something to do now."""
        return read(list[Work], await self._call("integrations_with_work"))

    # -- what a vendor posts by itself -------------------------------------------------------------

    async def claim_looks(self, looker: UUID, lease: timedelta) -> Looks | None:
        """Take the looks that are due at one connection; None where none is, or all are taken."""
        answer = await self._call("claim_looks", p_looker=str(looker), p_lease=_interval(lease))
        if answer is None:
            return None
        answer = read(dict[str, Any], answer)
        answer["integration"] = integration_of(answer["integration"])
        return read(Looks, answer)

    async def record_look(
        self,
        looker: UUID,
        look: Look,
        standing: Standing,
        *,
        gap: timedelta,
        requests: Mapping[str, int],
    ) -> FollowUp:
        """Write down what a look saw; returns what it means. Raises LeaseLost."""
        answer = await self._call(
            "record_look",
            **_named(look.period),
            p_looker=str(looker),
            p_posted=standing.posted.as_json(),
            p_held=standing.held.as_json(),
            p_vouchers=[
                {"sequence": sequence, "place": where.place, "reason": where.reason}
                for sequence, where in standing.vouchers.items()
            ],
            p_note=standing.note,
            p_gap=_interval(gap),
            p_requests=dict(requests),
        )
        return read(FollowUp, answer)

    async def put_off_looks(self, looker: UUID, reason: str, wait: timedelta) -> None:
        """Give back the looks that could not be made, with the reason."""
        await self._call(
            "put_off_looks", p_looker=str(looker), p_reason=reason, p_wait=_interval(wait)
        )

    async def look_told(self, seen: FollowUp) -> None:
        """Write down that an event was raised for what a look saw."""
        await self._call(
            "look_told",
            p_integration=seen.integration,
            p_due=seen.due_at.isoformat(),
            p_state=seen.state,
            p_sequences=[voucher.sequence for voucher in seen.news],
        )

    async def read_follow_ups(
        self, integration: str | None = None, due_at: datetime | None = None, *, limit: int = 100
    ) -> list[FollowUp]:
        """Return how the latest follow-ups stand, newest first, or that of one period."""
        answer = await self._call(
            "read_follow_ups", p_integration=integration, p_due=_iso(due_at), p_limit=limit
        )
        return read(list[FollowUp], answer)

    async def look_again(self, integration: str, due_at: datetime) -> str:
        """Have a period looked at with the next follow-up; returns its key."""
        return await self._call("look_again", p_integration=integration, p_due=due_at.isoformat())

    async def say_deleted(
        self, integration: str, record: str, *, goes_again: bool = True, who: str, reason: str
    ) -> str | None:
        """Keep that the rows of a voucher were deleted at the vendor, where it was not posted.

        Returns the id of the copy that goes, or None until two looks have seen that it is gone.
        """
        return await self._call(
            "say_deleted",
            p_integration=integration,
            p_record=record,
            p_goes_again=goes_again,
            p_who=who,
            p_reason=reason,
        )

    # -- the task cache ----------------------------------------------------------------------------
    async def beat(self, who: str, detail: Mapping[str, Any]) -> None:
        """Give a sign of life of a watcher."""
        await self._call("beat", p_who=who, p_detail=dict(detail))

    async def read_heartbeats(self) -> list[Heartbeat]:
        """Return the last sign of life of each watcher."""
        rows = await ask(self._client.table("heartbeats").select("*").order("who"))
        return read(list[Heartbeat], rows)

    async def forget_watcher(self, who: str) -> bool:
        """Expect no sign of life of a watcher any more; False where there is none of that name."""
        return await self._call("forget_watcher", p_who=who)

    async def note_incidents(self, integration: str | None = None) -> list[Incident]:
        """Compare what is wrong with the open incidents; returns those that nobody was told of."""
        await self._call("note_incidents", p_integration=integration)
        answer = await self._call("untold_incidents", p_integration=integration)
        return read(list[Incident], answer)

    async def note_findings(self, kind: IncidentKind, found: Mapping[str, str]) -> None:
        """Note what only a watcher can see, by subject; what else is open of that kind is over."""
        await self._call("note_findings", p_kind=kind, p_found=dict(found))

    async def incident_told(self, incident: Incident) -> None:
        """Somebody was told of it, and nobody will be again."""
        await self._call("incident_told", p_id=incident.id)

    async def read_incidents(self, *, limit: int, over: bool = False) -> list[Incident]:
        """Return the open incidents, newest first; or those that are over as well."""
        query = self._client.table("incidents").select("*")
        if not over:
            query = query.is_("ended_at", "null")
        rows = await ask(query.order("id", desc=True).limit(limit))
        return read(list[Incident], rows)

    async def runs_at_work(self, grace: timedelta) -> set[str]:
        """Return the ids of the Prefect runs that the ledger has heard of within a time."""
        return set(await self._call("runs_at_work", p_grace=_interval(grace)))

    async def first_period(self, integration: str) -> Period:
        """Return the period with which the calendar of an integration begins."""
        answer = await self._call("first_period_of", p_integration=integration)
        if answer is None:
            raise LedgerRefused(f"{integration} has no periods yet", code="KV004")
        return read(Period, answer)

    async def extend_back(
        self,
        integration: str,
        *,
        opens_at: datetime,
        due: Sequence[datetime],
        pace: timedelta,
        before: int,
    ) -> int:
        """Write the calendar on into the past; returns how many periods are new."""
        return await self._call(
            "extend_back",
            p_integration=integration,
            p_opens_at=_iso(opens_at),
            p_due=[moment.isoformat() for moment in due],
            p_pace=_interval(pace),
            p_before=before,
        )

    async def progress(self, integration: str, *, since: datetime, until: datetime) -> Progress:
        """Count the periods that came due in a stretch of time, by where they stand."""
        answer = await self._call(
            "progress", p_integration=integration, p_from=_iso(since), p_to=_iso(until)
        )
        return read(Progress, answer)

    async def read_planned(
        self, integration: str, *, after: datetime, until: datetime | None = None
    ) -> list[datetime]:
        """Return the due times after a time that are planned and that nobody has touched."""
        query = self._client.table("periods").select("due_at").eq("integration_id", integration)
        query = query.eq("state", "due").eq("fence", 0).gt("due_at", after.isoformat())
        if until is not None:
            query = query.lte("due_at", until.isoformat())
        rows = await ask(query.order("due_at").limit(_PAGE))
        return [datetime.fromisoformat(row["due_at"]) for row in rows]

    async def read_last_kept(self, integration: str, *, now: datetime) -> datetime | None:
        """Return the last due time that a changed schedule leaves as it is, or None."""
        query = self._client.table("periods").select("due_at").eq("integration_id", integration)
        query = query.or_(f"due_at.lte.{now.isoformat()},state.neq.due")
        rows = await ask(query.order("due_at", desc=True).limit(1))
        return datetime.fromisoformat(rows[0]["due_at"]) if rows else None

    async def read_task_result(self, key: str) -> str | None:
        """Return a task's kept result, or None."""
        return await self._call("read_task_result", p_key=key)

    async def write_task_result(self, key: str, content: str) -> None:
        """Keep a task's result; the first one under a key stays."""
        await self._call("write_task_result", p_key=key, p_content=content)

    # -- the second scheduler ----------------------------------------------------------------------

    async def name_deployments(self, ids: Mapping[str, str]) -> None:
        """Tell the ledger the id of each integration's deployment in Prefect."""
        await self._call("name_deployments", p_deployments=dict(ids))

    async def install_second_scheduler(self, silence: timedelta) -> None:
        """Put pg_cron's job there; `silence` is how long `watch` may give no sign of life."""
        await self._call("install_second_scheduler", p_silence=_interval(silence))

    async def uninstall_second_scheduler(self) -> None:
        """Take pg_cron's job away."""
        await self._call("uninstall_second_scheduler")

    async def read_second_scheduler(self) -> SecondScheduler:
        """Return what of the second scheduler is there."""
        return read(SecondScheduler, await self._call("second_scheduler"))

    # -- the checkpoint ----------------------------------------------------------------------------

    async def describe_schema(self) -> dict[str, Any]:
        """Return what is in the schema, as text by name; see `kvitt.describe_schema`."""
        return read(dict[str, Any], await self._call("describe_schema"))

    async def begin_rehearsal(self, integration: str, attempt: UUID, lease: timedelta) -> Claim:
        """Claim an empty period of a stand-in for an integration; see `kvitt.begin_rehearsal`."""
        answer = await self._call(
            "begin_rehearsal",
            p_integration=integration,
            p_attempt=str(attempt),
            p_lease=_interval(lease),
        )
        return _claim_of(answer)

    async def end_rehearsal(self, stand_in: str) -> None:
        """Remove a stand-in and all that came of it."""
        await self._call("end_rehearsal", p_rehearsal=stand_in)

    async def call_out(self) -> dict[str, int]:
        """Let the database send a harmless request to each address that the second scheduler has.

        Returns the requests' numbers; see `called_out`.
        """
        return read(dict[str, int], await self._call("call_out"))

    async def called_out(self, requests: Mapping[str, int]) -> dict[str, int]:
        """Return the status of each answer that has come; 0 where there will be none."""
        return read(dict[str, int], await self._call("called_out", p_requests=dict(requests)))

    # -- calls -------------------------------------------------------------------------------------

    async def _call(self, function: str, /, **arguments: Any) -> Any:
        return await ask(self._client.rpc(function, arguments), what=function)


def _claim_of(answer: Any) -> Claim:
    answer = read(dict[str, Any], answer)
    if "integration" in answer:
        answer["fitted"] = answer["integration"]["fitted_at"] is not None
        answer["integration"] = integration_of(answer["integration"])
    return read(Claim, answer)


def integration_of(row: Mapping[str, Any]) -> Integration:
    """Read an integration from its row: what only the ledger counts is left out.

    Raises LedgerRefused for one that makes no sense: the app may have written it past kvitt.
    """
    try:
        return Integration.model_validate({k: row[k] for k in Integration.model_fields if k in row})
    except ValidationError as error:
        words = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise LedgerRefused(
            f"integration {row.get('id')} cannot be read: {words}", code="KV003"
        ) from error


def _taken(period: Period, answer: Any) -> list[TakenRecord]:
    if not isinstance(answer, list):
        # The library hands on as text what is no JSON: the reply is broken, not the records.
        raise LedgerUnavailable("the ledger's reply cannot be read (read_batch)")
    try:
        return _records.validate_python(answer)
    except ValidationError as error:
        raise LedgerRefused(
            f"records of {period.key} make no sense: {error.errors(include_url=False)[:3]}",
            code="KV003",
        ) from error


def _named(period: Period) -> dict[str, Any]:
    return {"p_integration": period.integration_id, "p_due": period.due_at.isoformat()}


def _fenced(period: Period) -> dict[str, Any]:
    return {**_named(period), "p_fence": period.fence}


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _interval(length: timedelta) -> str:
    return f"{length.total_seconds():f} seconds"  # Postgres reads no 2.1e-05
