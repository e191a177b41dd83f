"""Microsoft Dynamics 365 Business Central: general journals over API v2.0.

A period is one journal, staged line by line and posted at the end. Its code is the period's
reference and a K: a posted batch whose code ends in a digit may be renamed to the next number, and
then the code would lead elsewhere. The journal is never deleted: its code, and the number of each
line within it, are the only things that Business Central keeps unique.

Staged lines are found through the journal. Posted ones show neither the journal nor the external
document number, so each voucher carries its name as document number, which also makes Business
Central check that each voucher balances by itself.

The facts are Microsoft's, collected and graded in docs/vendors/business-central.md.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from http import HTTPStatus
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlencode
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from kvitt.domain.errors import Refused, Uncertain, Unsent, VendorError
from kvitt.domain.mapping import codes_of, dimensions_of
from kvitt.domain.money import Amount, Totals
from kvitt.ports import Habits
from kvitt.vendors import exact_json, odata
from kvitt.vendors.entra import Entra, EntraSettings
from kvitt.vendors.http import (
    PATIENCE,
    Address,
    Call,
    Complaint,
    Declined,
    Http,
    Line,
    OverHttp,
    Patience,
    Purpose,
)
from kvitt.vendors.odata import Page
from kvitt.vendors.references import (
    LAST_SEQUENCE,
    Tally,
    record_in,
    reference_to,
    sequence_in,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence

    import httpx

    from kvitt.domain.integrations import Timeouts
    from kvitt.domain.mapping import Mapping as Declaration
    from kvitt.domain.mapping import Path
    from kvitt.domain.periods import Period
    from kvitt.domain.reconcile import FoundVoucher
    from kvitt.domain.vouchers import Voucher, VoucherLine
    from kvitt.ports import Budget, Guard

T = TypeVar("T")
R = TypeVar("R", bound="_Reply")
Json = dict[str, Any]

_BATCH_LIMIT = 100
_AT_ONCE = 5  # of one service principal; further ones would queue there, and are better off here
_LINES_PER_VOUCHER = 1_999
_CODE, _DESCRIPTION, _COMMENT, _EXTERNAL_NUMBER = 20, 100, 250, 35
_NAMES_IN_A_FILTER = 50  # an address has at most 8,000 characters
_WITHDRAWALS = 3
_BLANK_LINE = 10_000  # which posting leaves in a journal without a number series
_TAGS = {"$select": "id,documentNumber"}
_DIMENSIONS = "dimensionSetLines"
_BARE_AMOUNT = Decimal(1)
_MOST_ACCOUNTS = 3
_SAME_KEY = "Internal_EntityWithSameKeyExists"
# Errors about what lines hold, unless their words say that it is the company's set-up or a right;
# those of the service itself, "attempt the operation again"; and one of a question on the screen.
_CONTENT_CODES = ("Application_", "Internal_InvalidTableRelation")
_OUT_OF_ORDER = ("Internal_ServerError", "Internal_TenantUnavailable")
_ASKS_A_PERSON = "Application_CallbackNotAllowed"
_LOGIC = "Application_DialogException"
_CLOSED_DAY = "allowed posting date"
_SET_UP_WORDS = ("permission", "license", "tabledata", _CLOSED_DAY, "no. series")
_SERVER_ERROR = 500
# Of each operation by itself; what a message says is only ever a help, see "whose fault it is".
_JSON_IN_ENGLISH = {"Content-Type": "application/json", "Accept-Language": "en-US"}
# How to look at a company's set-up: "no date" as the API writes it, codeunit 250 and how far back
# its log is read, our own journal.
_NO_DATE = date(1, 1, 1)
_POSTING_JOB = 250
_LOG_OF = timedelta(days=7)
_TURN_JOB_QUEUE_OFF = "Turn it off: General Ledger Setup, Post with Job Queue"
_TRIAL, _TRIAL_NAME = "KVITTTRIAL", "kvitt: a trial, may be deleted"
_TRIALS = 3


class BusinessCentralSettings(EntraSettings):
    """One company, and the app registration that may write into it.

    The app has the permission API.ReadWrite.All in Entra, and is registered in Business Central
    as well.
    """

    environment: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    company_id: UUID
    api_url: Address = "https://api.businesscentral.dynamics.com"
    scope: str = "https://api.businesscentral.dynamics.com/.default"


# -- replies, as far as we read them ---------------------------------------------------------------


class _Reply(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel)


class _Journal(_Reply):
    id: UUID


class _NamedLine(_Reply):
    document_number: str


class _TaggedLine(_NamedLine):
    """A staged line, and which version of it that is."""

    id: UUID
    etag: str = Field(alias="@odata.etag")


class _StagedLine(_NamedLine):
    line_number: int
    amount: Amount


class _DatedLine(_NamedLine):
    posting_date: date


class _NumberedLine(_Reply):
    line_number: int
    account_number: str


class _Dimension(_Reply):
    id: UUID
    code: str
    value_code: str


class _BareLine(_NamedLine):
    """A staged line, with the dimensions that its account gave it."""

    id: UUID
    line_number: int
    dimension_set_lines: list[_Dimension]


class _LedgerEntry(_NamedLine):
    debit_amount: Amount


class _LedgerSetup(_Reply):
    local_currency_code: str
    allow_posting_from: date
    allow_posting_to: date

    def allows(self, day: date) -> bool:
        """Whether the company posts on a day; users may have dates of their own, not shown."""
        first, last = self.allow_posting_from, self.allow_posting_to
        return first <= day and (last == _NO_DATE or day <= last)


class _Logged(_Reply):
    start_date_time: datetime


class _TriedJournal(_Journal):
    display_name: str


class _TriedLine(_NamedLine):
    account_number: str
    amount: Amount
    balancing_account_number: str


class _Response(_Reply):
    id: str
    status: int
    body: Any = None


class _Batch(_Reply):
    responses: list[_Response]


class _Taken(Uncertain):
    """The number of a line, or the code of a journal, exists already: some of it was here."""


class BusinessCentral(OverHttp):
    """One company in Business Central. An async context manager; a `kvitt.ports.Vendor`.

    Habits: a call carries 100 lines, as many as one $batch can bring in all or none. The first
    call, a deep insert, could carry more, but then a slow company (extensions on each line) would
    outlast the 8 min that an operation has, and a lost reply would leave more to read back. The
    gateway gives up after 10 min, and its 504 is waited for. Each call settles within 18 min: 8 of
    queue before those 10. Five run at a time, further ones would queue. Nothing is final before it
    is posted.
    """

    habits: Habits = Habits(
        chunk_vouchers=_BATCH_LIMIT // 2,
        chunk_lines=_BATCH_LIMIT,
        settle=timedelta(minutes=18),
        at_once=_AT_ONCE,
        answer=timedelta(minutes=10, seconds=30),
        probe_requests=3,
        posts=True,
    )

    def __init__(
        self,
        settings: BusinessCentralSettings,
        timeouts: Timeouts,
        *,
        patience: Patience = PATIENCE,
        budget: Budget | None = None,
        line: Line | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._http = Http(
            "Business Central",
            timeouts,
            patience=patience,
            budget=budget,
            at_once=self.habits.at_once,
            answer=self.habits.answer,
            allowance=self.habits.allowance,
            line=line,
            principal=settings.client_id,
        )
        self._entra = Entra(settings, settings.scope, self._http, clock=clock)
        self._journals: dict[str, UUID] = {}  # by code, those that we know to exist
        self._defaulting: set[str] = set()  # the accounts that give lines dimensions
        self._founding = asyncio.Lock()  # held by who may have to create a journal
        self._root = f"{settings.api_url}/v2.0/{settings.tenant_id}/{settings.environment}/api/v2.0"
        self._company = f"companies({settings.company_id})"

    # -- writing -----------------------------------------------------------------------------------

    def objection(self, period: Period, voucher: Voucher) -> str | None:
        """Say why Business Central would not take a voucher; None where it would."""
        return objection(period, voucher)

    async def send(
        self, period: Period, vouchers: Sequence[Voucher], *, begins: bool, guard: Guard
    ) -> Mapping[str, Any]:
        """Stage vouchers in the period's journal; the first of all bring the journal with them.

        All or none: where it takes several calls and a later one is refused, what the earlier ones
        brought is taken back. A voucher that an interrupted call left in part is begun anew.
        """
        if begins or _code(period) in self._journals:
            return await self._send(period, vouchers, begins=begins, guard=guard)
        async with self._founding:  # of several calls at a time only one creates the journal
            return await self._send(period, vouchers, begins=begins, guard=guard)

    async def _send(
        self, period: Period, vouchers: Sequence[Voucher], *, begins: bool, guard: Guard
    ) -> Mapping[str, Any]:
        lines = [line for voucher in vouchers for line in rows(period, voucher)]
        journal = None if begins else await self._journal_if_any(period)
        hindrances: set[type[VendorError]] = set()
        while True:
            foreseen = frozenset(self._defaulting)
            try:
                journal = await self._stage(period, journal, lines, guard)
            except (_Taken, Declined) as hindrance:
                journal = self._journals.get(_code(period))
                if type(hindrance) in hindrances:
                    raise
                hindrances.add(type(hindrance))
                if isinstance(hindrance, Declined):
                    overcome = self._foresee(hindrance, lines, foreseen)
                else:
                    overcome = bool(journal) and await self._clear(period, journal, lines, guard)
                if not overcome:
                    raise
            else:
                return {"journal": str(journal), "code": _code(period)}

    async def post(self, period: Period, *, guard: Guard) -> None:
        """Post the period's journal. A refusal names the vouchers that it blames, where it can.

        It may come after the ledger was committed (the analysis views are a second commit), so the
        books have the last word.
        """
        journal = await self._journal(period)
        call = Call(
            what=f"post journal {_code(period)}",
            purpose=Purpose.EXPORT,
            method="POST",
            url=f"{self._root}/{self._company}/journals({journal})/Microsoft.NAV.post",
            guard=guard,
        )
        try:
            await self._ask(call, lambda _: None)
        except Refused as refusal:
            if await self._posted_all_the_same(period, refusal):
                return
            if not isinstance(refusal, Declined):
                raise
            culprits = await self._blamed_for_posting(period, journal, refusal.complaint)
            raise self._http.declined(call, refusal.complaint, culprits=culprits) from refusal

    async def withdraw(self, period: Period, sequences: Sequence[int], *, guard: Guard) -> None:
        """Delete the staged lines of vouchers, each as it was when it was read (If-Match).

        What happened is seen by reading again, so a reply that is lost does no harm, and to ask
        twice is to ask once. Raises Unsent, Uncertain or Refused where lines are still there.
        """
        journal = await self._journal_if_any(period)
        if journal is None:
            return
        hindrance: VendorError | None = None
        for _ in range(_WITHDRAWALS):
            tagged = self._lines_named(period, journal, sequences, _TAGS, _TaggedLine)
            lines = [line async for line in tagged]
            if not lines:
                return
            try:
                for part in _hundreds(lines):
                    await self._delete(period, journal, part, guard)
            except (Uncertain, Refused) as error:
                hindrance = error
        raise hindrance or Refused(
            f"lines of journal {_code(period)} were deleted, and are shown all the same. Look "
            "there, delete the lines of what is set aside, then start the period again"
        )

    async def _posted_all_the_same(self, period: Period, refusal: Refused) -> bool:
        try:
            return await self.posted(period)
        except Unsent as unread:
            raise Uncertain(
                f"{refusal}. Whether it was posted before that is not known: {unread}"
            ) from refusal

    def _foresee(
        self, hindrance: Declined, lines: Sequence[Json], foreseen: frozenset[str]
    ) -> bool:
        """Expect dimensions of the lines' accounts from now on; False where it would not help.

        `foreseen` is what was expected as the lines went: a call beside it may have learned since.
        """
        accounts = {_account(line) for line in lines if _DIMENSIONS in line}
        if accounts <= foreseen or not _may_clash(hindrance.complaint, lines):
            return False
        self._defaulting |= accounts
        return True

    async def _stage(
        self, period: Period, journal: UUID | None, lines: Sequence[Json], guard: Guard
    ) -> UUID:
        """Bring lines into the journal, in as many calls as it takes, all or none.

        A line whose account has default dimensions cannot bring the same ones: they are changed
        when it is there. Until then it is bare, of an amount that balances with nothing, and the
        rest of its voucher waits. So a voucher that is interrupted there is seen to be incomplete,
        by us and by Business Central, which would not post it.
        """
        bare = [
            line for line in lines if _DIMENSIONS in line and _account(line) in self._defaulting
        ]
        begun = _sequences(bare)
        waiting = [line for line in lines if _sequence(line) in begun and line not in bare]
        first = [_stripped(line) if line in bare else line for line in lines if line not in waiting]
        came = False
        try:
            if journal is None:
                journal = await self._insert(period, first, guard)
                came = True
            else:
                for part in _parts(first):
                    await self._append(period, journal, part, guard)
                    came = True
            if bare:
                await self._complete(period, journal, bare, waiting, guard)
        except (Unsent, Refused) as error:
            if came:
                await self._take_back(period, lines, error, guard)
            raise
        return journal

    async def _insert(self, period: Period, lines: Sequence[Json], guard: Guard) -> UUID:
        """Create the journal with its first lines: a deep insert, one operation however many."""
        code = _code(period)
        call = Call(
            what=f"create journal {code} with {_named(lines)}",
            purpose=Purpose.EXPORT,
            method="POST",
            url=f"{self._root}/{self._company}/journals",
            content=exact_json.dumps(
                {"code": code, "displayName": f"kvitt {period.key}"[:100], "journalLines": lines}
            ),
            guard=guard,
        )
        journal = await self._ask(call, odata.reader(_Journal), lines=lines)
        self._journals[code] = journal.id
        return journal.id

    async def _append(
        self, period: Period, journal: UUID, lines: Sequence[Json], guard: Guard
    ) -> None:
        """Add lines to a journal that exists, all or none: a $batch in one snapshot."""
        what = f"add {_named(lines)} to journal {_code(period)}"
        url = self._lines_at(journal)
        operations = [_insertion(url, line) for line in lines]
        await self._batch(what, operations, guard, lines=lines)

    async def _complete(
        self,
        period: Period,
        journal: UUID,
        bare: Sequence[Json],
        waiting: Sequence[Json],
        guard: Guard,
    ) -> None:
        """Give bare lines their dimensions, then their amounts, and bring the lines that wait."""
        wanted = {line["lineNumber"]: line for line in bare}
        dimensions: list[Json] = []
        amounts: list[Json] = []
        options = {"$select": "id,documentNumber,lineNumber", "$expand": _DIMENSIONS}
        sequences = sorted(_sequences(bare))
        async for there in self._lines_named(period, journal, sequences, options, _BareLine):
            line = wanted.get(there.line_number)
            if line is not None:
                url = f"{self._lines_at(journal)}({there.id})"
                dimensions += _changes(url, line, there)
                amounts.append(_change(f"{line['lineNumber']}", url, {"amount": line["amount"]}))
                if not any(
                    each.code in _dimension_codes(line) for each in there.dimension_set_lines
                ):
                    self._defaulting.discard(_account(line))
        added = [_insertion(self._lines_at(journal), line) for line in waiting]
        for operations in _hundreds([*dimensions, *amounts, *added]):
            what = f"complete {_named(bare)} in journal {_code(period)}"
            await self._batch(what, operations, guard, lines=[*bare, *waiting])

    async def _clear(
        self, period: Period, journal: UUID, lines: Sequence[Json], guard: Guard
    ) -> bool:
        """Take back what an interrupted call left of vouchers, and say whether there was any.

        Raises Refused where there is neither a part of what we wrote nor all of a voucher.
        """
        ours: defaultdict[int, dict[int, Decimal]] = defaultdict(dict)
        for line in lines:
            ours[_sequence(line)][line["lineNumber"]] = line["amount"]
        options = {"$select": "documentNumber,lineNumber,amount"}
        rows = self._lines_named(period, journal, sorted(ours), options, _StagedLine)
        staged = await _by_voucher(period, rows)
        parts = [sequence for sequence, them in staged.items() if _is_part(them, ours[sequence])]
        others = [them for sequence, them in staged.items() if sequence not in parts]
        if not staged or any(sum(line.amount for line in them) for them in others):
            raise Refused(
                f"journal {_code(period)} holds lines under the numbers of {_named(lines)} that "
                "kvitt did not write, or cannot see. Look there, delete them, then start the "
                "period again"
            )
        await self.withdraw(period, parts, guard=guard)
        return bool(parts)

    async def _take_back(
        self, period: Period, lines: Sequence[Json], error: VendorError, guard: Guard
    ) -> None:
        """Undo the earlier calls of several, the last of which failed. Raises Uncertain."""
        try:
            await self.withdraw(period, sorted(_sequences(lines)), guard=guard)
        except VendorError as hindrance:
            raise Uncertain(
                f"{error}. Lines before these are in the journal already, and could not be taken "
                f"back: {hindrance}"
            ) from error

    async def _delete(
        self, period: Period, journal: UUID, lines: Sequence[_TaggedLine], guard: Guard
    ) -> None:
        what = f"delete {len(lines)} lines of journal {_code(period)}"
        url = self._lines_at(journal)
        await self._batch(what, [_deletion(f"{url}({each.id})", each) for each in lines], guard)

    def _lines_at(self, journal: UUID) -> str:
        """Return the address of a journal's lines, within a $batch."""
        return f"{self._company}/journals({journal})/journalLines"

    async def _batch(
        self, what: str, operations: Sequence[Json], guard: Guard, *, lines: Sequence[Json] = ()
    ) -> None:
        """Run operations, all or none. `lines` are those that they bring, to be blamed."""
        call = Call(
            what=what,
            purpose=Purpose.EXPORT,
            method="POST",
            url=f"{self._root}/$batch",
            headers={"Isolation": "snapshot"},
            content=exact_json.dumps({"requests": operations}),
            guard=guard,
        )
        await self._ask(call, lambda reply: self._check_batch(call, reply, len(operations), lines))

    def _check_batch(
        self, call: Call, reply: httpx.Response, sent: int, lines: Sequence[Json]
    ) -> None:
        """Raise unless each operation succeeded, by its own status, and none is left out.

        After a failure all of them are rolled back, though those before it still say 201.
        """
        responses = odata.read(_Batch, reply).responses
        for response in responses:
            if not 200 <= response.status < 300:  # noqa: PLR2004 - 2xx
                # Each operation's id begins with the number of its line.
                number = response.id.partition("-")[0]
                blamed = [line for line in lines if str(line["lineNumber"]) == number]
                complaint = odata.complaint(response.status, response.body)
                raise self._verdict(call, complaint, blamed or lines)
        if len(responses) != sent:
            raise self._http.lost(call, f"{len(responses)} answers to {sent} operations")

    # -- reading back ------------------------------------------------------------------------------

    async def find(self, period: Period, vouchers: Sequence[Voucher]) -> Mapping[int, FoundVoucher]:
        """Read which vouchers are staged or posted; two of one name show as one of twice the lines.

        What an interrupted call left of a voucher in the journal is not shown: see `send`.

        Raises Refused for a journal that is there without lines and entries: a mere header, or
        posted under other numbers, and nobody but a person can tell which.
        """
        journal = await self._journal_if_any(period)
        first, last = vouchers[0].sequence, vouchers[-1].sequence
        tally = Tally(first, last)
        # Staged first: what is posted in between is seen twice, and stops for a person. The other
        # way round it would be seen nowhere, and sent again.
        if journal is not None:
            await self._count_staged(period, journal, tally, vouchers)
        await self._count_entries(period, tally, first, last)
        if journal is not None and not tally.lines and not await self._holds_anything(period):
            await self._stop_if_renumbered(period, journal)
            raise Refused(
                f"journal {_code(period)} exists in Business Central, but neither it nor the "
                "ledger holds a line of the period: it is a mere header, or it was posted under "
                "other document numbers, or somebody deleted its lines. Look there; if nothing of "
                "it was posted, delete the journal, then start the period again"
            )
        return tally.found()

    async def totals(self, period: Period) -> Totals:
        """Read what the ledger holds. Staged lines do not count, and currencies are not shown.

        Where it holds nothing, raises Refused if the journal was posted under other numbers, and
        Unsent if it waits in a job queue.
        """
        tally = Tally()
        await self._count_entries(period, tally, 0, LAST_SEQUENCE)
        if not tally.lines and (journal := await self._journal_if_any(period)) is not None:
            await self._stop_if_renumbered(period, journal)
            await self._wait_for_job_queue(period, journal)
        return tally.totals().model_copy(update={"original": None})

    async def posted(self, period: Period) -> bool:
        """Whether the ledger has the period and the journal is empty.

        Raises Refused where it was posted under other numbers, and where both hold lines: posting
        again would book the one of them twice. The ledger is read first, as posting empties the
        journal in the same transaction: read the other way round, a posting that commits between
        the two looks like that contradiction.
        """
        journal = await self._journal(period)
        if not await self._holds_entries(period):
            await self._stop_if_renumbered(period, journal)
            return False
        if await self._holds_staged(period, journal):
            raise Refused(
                f"the ledger holds entries of journal {_code(period)}, and lines still wait in it: "
                "posting it now may book them twice. Look there, delete what is posted already, "
                "then start the period again"
            )
        return True

    async def probe(self) -> None:
        """Ask for one company's id.

        The platform's list of environments would be lighter, but answers for a company that is
        shut as well.
        """
        call = Call(
            what="name a company",
            purpose=Purpose.PROBE,
            method="GET",
            url=f"{self._root}/companies?$top=1&$select=id",
        )
        await self._ask(call, odata.reader(Page[_Journal]))

    async def refused_lines(self, period: Period) -> Mapping[int, str]:
        """Return nothing: what Business Central takes, it keeps until it is told to post."""
        del period
        return {}

    async def misfits(
        self, *, book_currency: str, today: date, reads_only: bool = False
    ) -> list[str]:
        """Say what in the company's set-up would break posting or reading back, and the remedy.

        What the API does not show is tried: a journal with one blank line, deleted afterwards, gets
        the number series and the balancing account that a period's journal would get. A posting
        number series it does not show, and the job queue only while something waits there.

        The trial journal is no period's: theirs end in K. Its line has neither account nor amount,
        so that posting it would book nothing, and the next look deletes one that was left.
        """
        found: list[str] = []
        for look in (
            partial(self._misfits_of_setup, book_currency, today),
            self._misfits_of_queue,
            *(() if reads_only else (self._misfits_of_journals,)),
        ):
            try:
                found += await look()
            except Refused as refusal:
                found.append(f"A part of the set-up could not be looked at: {refusal}")
        return found

    async def _misfits_of_setup(self, book_currency: str, today: date) -> list[str]:
        found: list[str] = []
        async for setup in self._setups(Purpose.SET_UP):
            if setup.local_currency_code not in ("", book_currency):
                found.append(
                    f"The local currency in Business Central is {setup.local_currency_code}, and "
                    f"the integration's book currency {book_currency}: amounts would be taken for "
                    f"{setup.local_currency_code}. Correct the one that is wrong"
                )
            if not setup.allows(today):
                first, last = setup.allow_posting_from, setup.allow_posting_to
                found.append(
                    f"Business Central posts from {_day(first)} to {_day(last)} only, which leaves "
                    f"out {today}. Open the period: General Ledger Setup, Allow Posting From and To"
                )
        return found

    def _setups(self, purpose: Purpose) -> AsyncIterator[_LedgerSetup]:
        """Read the company's one row of general ledger setup."""
        what, path = "show its general ledger setup", "generalLedgerSetup"
        options = {"$select": "localCurrencyCode,allowPostingFrom,allowPostingTo"}
        return self._rows(what, path, options, _LedgerSetup, purpose)

    async def _misfits_of_queue(self) -> list[str]:
        words = "a job queue, so that kvitt is told that they are posted before they are"
        if await self._waits_in_job_queue(Purpose.SET_UP):
            return [f"Journals are posted by {words}. {_TURN_JOB_QUEUE_OFF}"]
        last = await self._last_posted_by_job_queue()
        if last is None:
            return []
        words = f"Journals were posted by {words}, the last one on {last:%Y-%m-%d}"
        return [f"{words}. {_TURN_JOB_QUEUE_OFF}. If it is off by now, accept the set-up as it is"]

    async def _last_posted_by_job_queue(self) -> datetime | None:
        """Return when a job last posted a journal; None also where a company shows no log."""
        since = f"{datetime.now(UTC) - _LOG_OF:%Y-%m-%dT%H:%M:%SZ}"
        options = {
            "$filter": f"objectIdToRun eq {_POSTING_JOB} and startDateTime ge {since}",
            "$orderby": "startDateTime desc",
            "$select": "startDateTime",
            "$top": "1",
        }
        what, path = "show the log of its job queue", "jobQueueLogEntries"
        try:
            async for logged in self._rows(what, path, options, _Logged, Purpose.SET_UP):
                return logged.start_date_time
        except Declined as refusal:
            if refusal.complaint.status != HTTPStatus.NOT_FOUND:
                raise
        return None

    async def _misfits_of_journals(self) -> list[str]:
        """Try a journal. A rival that tries at the same time deletes ours, so then once more."""
        for _ in range(_TRIALS):
            await self._delete_left_trial()
            journal = await self._create_trial()
            lines = None if journal is None else await self._tried_lines(journal)
            if journal is not None and lines is not None:
                await self._delete_trial(journal)
                return [misfit for line in lines for misfit in _misfits_of_trial(line)]
        raise Unsent(
            f"Business Central's journal {_TRIAL} is being tried by somebody else as well. The "
            "next run tries again"
        )

    async def _delete_left_trial(self) -> None:
        """Delete a trial journal that was left. Raises Refused for one that others write in."""
        options = {"$filter": f"code eq '{_TRIAL}'", "$select": "id,displayName"}
        what = "look for a trial journal"
        async for left in self._rows(what, "journals", options, _TriedJournal, Purpose.SET_UP):
            lines = await self._tried_lines(left.id)
            blank = not any(each.account_number or each.amount for each in lines or ())
            if left.display_name != _TRIAL_NAME or not blank:
                raise Refused(
                    f"journal {_TRIAL} in Business Central holds what kvitt did not write. Look "
                    "there, and delete it or give it another name"
                )
            await self._delete_trial(left.id)

    async def _create_trial(self) -> UUID | None:
        """Return a new journal with one blank line; None where there is one already."""
        line = {"lineNumber": 1, "accountType": "G/L Account", "description": "kvitt"}
        body = {"code": _TRIAL, "displayName": _TRIAL_NAME, "journalLines": [line]}
        try:
            reply = await self._try("create a trial journal", "POST", "journals", body)
        except _Taken:
            return None
        return odata.read(_Journal, reply).id

    async def _tried_lines(self, journal: UUID) -> list[_TriedLine] | None:
        """Return the lines of a trial journal; None where somebody has deleted it meanwhile."""
        what, path = "show a trial journal", f"journals({journal})/journalLines"
        options = {"$select": "documentNumber,accountNumber,amount,balancingAccountNumber"}
        rows = self._rows(what, path, options, _TriedLine, Purpose.SET_UP)
        try:
            return [line async for line in rows]
        except Declined as refusal:
            if refusal.complaint.status != HTTPStatus.NOT_FOUND:
                raise
            return None

    async def _delete_trial(self, journal: UUID) -> None:
        try:
            await self._try("delete the trial journal", "DELETE", f"journals({journal})")
        except Declined as refusal:
            if refusal.complaint.status != HTTPStatus.NOT_FOUND:
                raise

    async def _try(
        self, what: str, method: str, path: str, body: Json | None = None
    ) -> httpx.Response:
        """Write where nothing can come of it: without a guard, and again if the reply is lost."""
        call = Call(
            what=what,
            purpose=Purpose.SET_UP,
            method=method,
            url=f"{self._root}/{self._company}/{path}",
            headers={"If-Match": "*"} if method == "DELETE" else {},
            content=None if body is None else exact_json.dumps(body),
        )
        return await self._ask(call, lambda reply: reply)

    async def _blamed_for_posting(
        self, period: Period, journal: UUID, complaint: Complaint
    ) -> set[int]:
        """Return the staged vouchers that a refusal to post is about, as far as it says so.

        By the number of a line or of a document, else by the account, which is all that a blocked
        one names. A setting of the whole company is nobody's fault.
        """
        named = _sequences_named(period, complaint.message)
        if _CLOSED_DAY in complaint.message.lower():
            return await self._of_the_same_days(period, journal, named)
        if not _of_content(complaint):
            return set()
        if named:
            if await self._lie_on_closed_days(period, journal, named):
                return await self._of_the_same_days(period, journal, named)
            return {s for s in named if await self._holds_staged(period, journal, s, s)}
        blamed: set[int] = set()
        for account in _accounts_named(period, complaint.words or complaint.message):
            options = _between(period, 0, LAST_SEQUENCE, select="documentNumber")
            options["$filter"] += f" and accountNumber eq '{account}'"
            async for row in self._lines_of(period, journal, options, _NamedLine):
                if (sequence := sequence_in(period, row.document_number)) is not None:
                    blamed.add(sequence)
        return blamed

    async def _lie_on_closed_days(self, period: Period, journal: UUID, named: set[int]) -> bool:
        """Whether the company's set-up says, in no language, that named vouchers are on such days.

        Where it does not show its set-up, the words of the refusal have to do.
        """
        try:
            setups = [setup async for setup in self._setups(Purpose.READ_BACK)]
        except Refused:
            return False
        if all(setup.allow_posting_from == setup.allow_posting_to == _NO_DATE for setup in setups):
            return False
        days = await self._staged_days(period, journal)
        mine = {days[sequence] for sequence in named if sequence in days}
        return any(not setup.allows(day) for setup in setups for day in mine)

    async def _staged_days(self, period: Period, journal: UUID) -> dict[int, date]:
        """Return on which days the staged vouchers are."""
        days: dict[int, date] = {}
        options = _between(period, 0, LAST_SEQUENCE, select="documentNumber,postingDate")
        async for row in self._lines_of(period, journal, options, _DatedLine):
            if (sequence := sequence_in(period, row.document_number)) is not None:
                days[sequence] = row.posting_date
        return days

    async def _of_the_same_days(self, period: Period, journal: UUID, named: set[int]) -> set[int]:
        """Return the staged vouchers of the days on which the named ones are, as they are closed.

        If that is all of them, the company is closed for the whole period, and nobody is to blame.
        """
        days = await self._staged_days(period, journal)
        closed = {days[sequence] for sequence in named if sequence in days}
        blamed = {sequence for sequence, day in days.items() if day in closed}
        return blamed if len(blamed) < len(days) else set()

    async def _stop_if_renumbered(self, period: Period, journal: UUID) -> None:
        """Raise Refused where the journal was posted and the ledger shows none of its numbers.

        Posting leaves a blank line 10000, and nothing else does. The ledger is read once more after
        it, as a job queue may have posted since.
        """
        emptied = await self._was_emptied_by_posting(period, journal)
        if emptied and not await self._holds_entries(period):
            raise Refused(
                f"journal {_code(period)} was posted, and the ledger shows none of its document "
                f"numbers, {period.reference}-…: a posting number series gave them others. Nothing "
                "is sent again. Look for its entries by day and text; if they are right, skip the "
                "period and say under which numbers they are. And clear Posting No. Series on the "
                "template General and its batches, or the next period is not found either"
            )

    async def _was_emptied_by_posting(self, period: Period, journal: UUID) -> bool:
        options = {"$select": "lineNumber,accountNumber", "$top": "2"}
        rows = self._lines_of(period, journal, options, _NumberedLine)
        lines = [(line.line_number, line.account_number) async for line in rows]
        return lines == [(_BLANK_LINE, "")]

    async def _wait_for_job_queue(self, period: Period, journal: UUID) -> None:
        """Raise Unsent where the period's lines are there still, and a job is to post journals."""
        staged = await self._holds_staged(period, journal)
        if staged and await self._waits_in_job_queue(Purpose.READ_BACK):
            raise Unsent(
                f"journal {_code(period)} waits in Business Central's job queue, and is not posted "
                f"before that has run. {_TURN_JOB_QUEUE_OFF}"
            )

    async def _waits_in_job_queue(self, purpose: Purpose) -> bool:
        options = {"$filter": f"objectIdToRun eq {_POSTING_JOB}", "$top": "1"}
        what, path = "show its job queue", "jobQueueEntries"
        return await _any(self._rows(what, path, options, _Journal, purpose))

    async def _holds_anything(self, period: Period) -> bool:
        journal = await self._journal(period)
        return await self._holds_staged(period, journal) or await self._holds_entries(period)

    async def _holds_staged(
        self, period: Period, journal: UUID, first: int = 0, last: int = LAST_SEQUENCE
    ) -> bool:
        options = {**_between(period, first, last, select="documentNumber"), "$top": "1"}
        return await _any(self._lines_of(period, journal, options, _NamedLine))

    async def _holds_entries(self, period: Period) -> bool:
        options = {**_between(period, 0, LAST_SEQUENCE, select="documentNumber"), "$top": "1"}
        return await _any(self._entries_of(period, options, _NamedLine))

    async def _journal(self, period: Period) -> UUID:
        journal = await self._journal_if_any(period)
        if journal is None:
            raise Refused(
                f"journal {_code(period)} is gone from Business Central, and with it what was "
                "staged there: kvitt never deletes one. Look who did, and what was posted"
            )
        return journal

    async def _journal_if_any(self, period: Period) -> UUID | None:
        code = _code(period)
        if code not in self._journals:
            options = {"$filter": f"code eq '{code}'", "$select": "id,code"}
            async for journal in self._rows(
                f"look for journal {code}", "journals", options, _Journal
            ):
                self._journals[code] = journal.id
        return self._journals.get(code)

    async def _count_staged(
        self, period: Period, journal: UUID, tally: Tally, vouchers: Sequence[Voucher]
    ) -> None:
        """Count the staged lines of vouchers, but not what an interrupted call left of one.

        That is taken back before the call is made again.
        """
        first, last = vouchers[0].sequence, vouchers[-1].sequence
        options = _between(period, first, last, select="documentNumber,lineNumber,amount")
        rows = self._lines_of(period, journal, options, _StagedLine)
        staged = await _by_voucher(period, rows)
        ours = {voucher.sequence: _amounts(voucher) for voucher in vouchers}
        for sequence, lines in staged.items():
            if not _is_part(lines, ours.get(sequence, {})):
                for line in lines:
                    tally.add(sequence, line.amount)

    async def _count_entries(self, period: Period, tally: Tally, first: int, last: int) -> None:
        options = _between(period, first, last, select="documentNumber,debitAmount")
        async for row in self._entries_of(period, options, _LedgerEntry):
            # Somebody else's number may sort among ours.
            if (sequence := sequence_in(period, row.document_number)) is not None:
                tally.add(sequence, row.debit_amount)

    async def _lines_named(
        self,
        period: Period,
        journal: UUID,
        sequences: Sequence[int],
        options: Mapping[str, str],
        row: type[R],
    ) -> AsyncIterator[R]:
        """Read the staged lines of some vouchers, as many at a time as an address has room for."""
        for start in range(0, len(sequences), _NAMES_IN_A_FILTER):
            names = [
                f"documentNumber eq '{reference_to(period, sequence)}'"
                for sequence in sequences[start : start + _NAMES_IN_A_FILTER]
            ]
            chosen = {"$filter": " or ".join(names), **options}
            async for line in self._lines_of(period, journal, chosen, row):
                yield line

    def _lines_of(
        self, period: Period, journal: UUID, options: Mapping[str, str], row: type[R]
    ) -> AsyncIterator[R]:
        what, path = f"show journal {_code(period)}", f"journals({journal})/journalLines"
        return self._rows(what, path, options, row)

    def _entries_of(
        self, period: Period, options: Mapping[str, str], row: type[R]
    ) -> AsyncIterator[R]:
        what = f"show the ledger entries of {period.reference}"
        return self._rows(what, "generalLedgerEntries", options, row)

    async def _rows(
        self,
        what: str,
        path: str,
        options: Mapping[str, str],
        row: type[R],
        purpose: Purpose = Purpose.READ_BACK,
    ) -> AsyncIterator[R]:
        """Read all rows of an entity, one page at a time."""
        url = (
            f"{self._root}/{self._company}/{path}?{urlencode(options, safe='$,', quote_via=quote)}"
        )
        call = Call(what=what, purpose=purpose, method="GET", url=url)

        async def ask(page: Call) -> Page[R]:
            return await self._ask(page, odata.reader(Page[row]))

        async for each in odata.rows(self._http, ask, call, below=self._root):
            yield each

    # -- questions to a company, see kvitt/vendors/facts -------------------------------------------

    @property
    def company(self) -> str:
        """The company's path below the API's root."""
        return self._company

    async def exchange(
        self,
        method: str,
        path: str,
        *,
        body: Json | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Json]:
        """Return status and body of the reply to a request below the API's root.

        Only what says nothing about the request raises: a limit, a right, the server's troubles.
        """
        call = Call(
            what="answer a question",
            purpose=Purpose.PROBE,
            method=method,
            url=f"{self._root}/{quote(path, safe='/()$,?&=')}",
            headers=headers or {},
            content=None if body is None else exact_json.dumps(body),
            guard=None if method in {"GET", "HEAD"} else _nobodys_period,
        )

        def read(reply: httpx.Response) -> tuple[int, Json]:
            verdict = self._http.verdict(call, odata.complaint_of(reply))
            telling = isinstance(verdict, Declined) and reply.status_code != HTTPStatus.FORBIDDEN
            if not (reply.is_success or telling):
                raise verdict
            return reply.status_code, exact_json.loads(reply.content) if reply.content else {}

        return await self._ask(call, read, whatever=True)

    def without_secrets(self, text: str) -> str:
        """Return a text without the client's secret and its tokens."""
        return self._http.without_secrets(text)

    # -- asking ------------------------------------------------------------------------------------

    async def _ask(
        self,
        call: Call,
        read: Callable[[httpx.Response], T],
        *,
        lines: Sequence[Json] = (),
        whatever: bool = False,
    ) -> T:
        """Make a call, and return what `read` makes of its reply.

        `lines` are those that the call brings; a refusal of what they hold names their vouchers.
        `whatever`: a reply that is no success is for `read`, too.
        """

        def judge(reply: httpx.Response) -> T:
            if whatever or reply.is_success:
                return read(reply)
            raise self._verdict(call, odata.complaint_of(reply), lines)

        headers = {**_JSON_IN_ENGLISH, **call.headers}
        return await self._entra.ask(replace(call, headers=headers), judge)

    def _verdict(self, call: Call, complaint: Complaint, lines: Sequence[Json]) -> VendorError:
        """Return what a complaint means. A key that exists already says: this was here before.

        Who met a lock was rolled back, and comes again; should it have been executed all the same,
        the numbers of its lines say so. Posting has no such numbers.
        """
        if complaint.code == _SAME_KEY:
            why = f"{self._http.quote(complaint)}. Some of it is there"
            return _Taken(str(self._http.lost(call, why)))
        if complaint.code in _OUT_OF_ORDER:
            return self._http.lost(call, self._http.quote(complaint))
        if complaint.status < _SERVER_ERROR and _is_about_a_lock(complaint):
            again = self._http.unsent if lines else self._http.lost
            return again(call, self._http.quote(complaint))
        error = self._http.verdict(call, complaint)
        if not (isinstance(error, Declined) and lines and _of_content(complaint)):
            return error
        culprits = _sequences(_blamed(lines, complaint.message))
        return self._http.declined(call, complaint, culprits=culprits, of_content=True)


# -- what a voucher becomes ------------------------------------------------------------------------


def _code(period: Period) -> str:
    """Return the code of a period's journal: ten characters, the last one no digit."""
    return f"{period.reference}K"


def rows(period: Period, voucher: Voucher) -> list[Json]:
    """Return a voucher as journal lines. Raises Refused for one that cannot be written down."""
    if why := objection(period, voucher):
        raise Refused(f"voucher {voucher.number} (record {voucher.record_id}) {why}")
    document = reference_to(period, voucher.sequence)
    return [
        {
            "lineNumber": line_number(voucher.sequence, line.number),
            "documentNumber": document,
            "externalDocumentNumber": record_in(voucher, _EXTERNAL_NUMBER),
            "postingDate": voucher.posting_date.isoformat(),
            "accountType": "Vendor" if line.party else "G/L Account",
            "accountNumber": line.party or line.account,
            "amount": line.booked,
            **_words_of(line),
        }
        for line in voucher.lines
    ]


def objection(period: Period, voucher: Voucher) -> str | None:
    """Say why Business Central would not take a voucher, in words that follow its name."""
    del period
    lines = max(line.number for line in voucher.lines)
    if lines > _LINES_PER_VOUCHER:
        return (
            f"has {lines:,} lines, and Business Central has line numbers for "
            f"{_LINES_PER_VOUCHER:,}: split the claim"
        )
    for line in voucher.lines:
        for what, code in _codes(line):
            if len(code) > _CODE:
                return (
                    f"has the {what} {code!r} of {len(code)} characters, and Business Central "
                    f"takes {_CODE}: map it to the code that it has there"
                )
    return None


def mapping_objections(mapping: Declaration) -> list[tuple[Path, str]]:
    """Say what of a mapping can never work in Business Central, and where it stands."""
    found = [
        (place, f"{code!r} has {len(code)} characters, and Business Central takes {_CODE}")
        for place, code in (*codes_of(mapping), *dimensions_of(mapping))
        if len(code) > _CODE
    ]
    if mapping.source:
        found.append((("source",), "Business Central has no transaction source: leave it out"))
    if mapping.document_date == "period":
        words = "journal lines of Business Central have no document date: leave it out"
        found.append((("document_date",), words))
    return found


def _codes(line: VoucherLine) -> Iterator[tuple[str, str]]:
    """Yield the codes that a line is written with, each with a word for what it is."""
    yield ("party", line.party) if line.party else ("account", line.account)
    yield "tax code", line.tax or ""
    for code, value in line.dimensions.items():
        yield "dimension", code
        yield f"{code} code", value


def line_number(sequence: int, number: int) -> int:
    """Return the same number for a line each time, so that to insert it twice is an error.

    Never a multiple of 2,000: Business Central's own blank line after posting has number 10,000.
    The greatest, for voucher 999,999, is just below the field's 2^31.
    """
    return sequence * (_LINES_PER_VOUCHER + 1) + number


def _words_of(line: VoucherLine) -> Json:
    """Return what a line has only sometimes.

    A text that is too long goes on as a comment, unless the mapping puts something else there.
    """
    words: Json = {"description": line.text[:_DESCRIPTION]}
    if line.comment or len(line.text) > _DESCRIPTION:
        words["comment"] = (line.comment or line.text)[:_COMMENT]
    if line.tax:
        words["taxCode"] = line.tax
    if line.dimensions:
        words[_DIMENSIONS] = [
            {"code": code, "valueCode": value} for code, value in line.dimensions.items()
        ]
    return words


def _amounts(voucher: Voucher) -> dict[int, Decimal]:
    """Return the amounts of a voucher by the numbers of its lines."""
    return {line_number(voucher.sequence, line.number): line.booked for line in voucher.lines}


async def _by_voucher(
    period: Period, rows: AsyncIterator[_StagedLine]
) -> Mapping[int, Sequence[_StagedLine]]:
    staged: defaultdict[int, list[_StagedLine]] = defaultdict(list)
    async for row in rows:
        # Somebody else's number may sort among ours.
        if (sequence := sequence_in(period, row.document_number)) is not None:
            staged[sequence].append(row)
    return staged


def _is_part(staged: Sequence[_StagedLine], ours: Mapping[int, Decimal]) -> bool:
    """Whether staged lines are what an interrupted call left of a voucher, and not all of it.

    Each is as we wrote it, or bare still. A part may well balance: so it is told by its lines.
    """
    there = {line.line_number: line.amount for line in staged}
    return there != ours and all(
        number in ours and amount in (ours[number], _BARE_AMOUNT)
        for number, amount in there.items()
    )


def _parts(lines: Sequence[Json]) -> Iterator[list[Json]]:
    """Cut lines into batches of whole vouchers; only one that is too long by itself is cut."""
    part: list[Json] = []
    for _, group in groupby(lines, key=lambda line: line["documentNumber"]):
        voucher = list(group)
        if part and len(part) + len(voucher) > _BATCH_LIMIT:
            yield part
            part = []
        part += voucher
        while len(part) > _BATCH_LIMIT:
            yield part[:_BATCH_LIMIT]
            part = part[_BATCH_LIMIT:]
    if part:
        yield part


def _hundreds(things: Sequence[T]) -> Iterator[Sequence[T]]:
    """Cut operations, or what they are made for, into batches."""
    for start in range(0, len(things), _BATCH_LIMIT):
        yield things[start : start + _BATCH_LIMIT]


def _insertion(url: str, line: Json) -> Json:
    return {
        "id": str(line["lineNumber"]),
        "method": "POST",
        "url": url,
        "headers": _JSON_IN_ENGLISH,
        "body": line,
    }


def _change(number: str, url: str, body: Json) -> Json:
    """Change what we have brought just now, and nobody else knows: its version does not matter."""
    headers = {**_JSON_IN_ENGLISH, "If-Match": "*"}
    return {"id": number, "method": "PATCH", "url": url, "headers": headers, "body": body}


def _changes(url: str, line: Json, there: _BareLine) -> Iterator[Json]:
    """Yield what gives a line its dimensions, in place of those that its account gave it."""
    given = {each.code: each for each in there.dimension_set_lines}
    for place, wanted in enumerate(line[_DIMENSIONS]):
        operation, default = f"{line['lineNumber']}-{place}", given.get(wanted["code"].upper())
        if default is None:
            yield {**_insertion(f"{url}/{_DIMENSIONS}", line), "id": operation, "body": wanted}
        elif default.value_code != wanted["valueCode"].upper():
            body = {"valueCode": wanted["valueCode"]}
            yield _change(operation, f"{url}/{_DIMENSIONS}({default.id})", body)


def _stripped(line: Json) -> Json:
    """Return a line without its dimensions, of an amount that keeps its voucher incomplete."""
    return {name: each for name, each in line.items() if name != _DIMENSIONS} | {
        "amount": _BARE_AMOUNT
    }


def _account(line: Json) -> str:
    return f"{line['accountType']} {line['accountNumber']}"


def _dimension_codes(line: Json) -> set[str]:
    return {each["code"].upper() for each in line[_DIMENSIONS]}


def _deletion(url: str, line: _TaggedLine) -> Json:
    headers = {**_JSON_IN_ENGLISH, "If-Match": line.etag}
    return {"id": str(line.id), "method": "DELETE", "url": url, "headers": headers}


def _named(lines: Sequence[Json]) -> str:
    """Say which lines these are, for a message."""
    first, last = lines[0]["documentNumber"], lines[-1]["documentNumber"]
    return f"{len(lines)} lines, {first} to {last}"


def _between(period: Period, first: int, last: int, *, select: str) -> dict[str, str]:
    """Ask for the lines of some vouchers of a period, by document number."""
    low, high = reference_to(period, first), reference_to(period, last)
    condition = f"documentNumber ge '{low}' and documentNumber le '{high}'"
    return {"$filter": condition, "$select": select}


def _nobodys_period() -> None:
    """Guard a write that belongs to no period."""


def _misfits_of_trial(line: _TriedLine) -> Iterator[str]:
    """Yield what a journal gives its lines that kvitt cannot have."""
    if line.document_number:
        yield (
            "New journals have a number series, which gives or demands document numbers of its own "
            f"(the trial line got {line.document_number}), so kvitt would not find its vouchers. "
            "Clear No. Series and Posting No. Series on the template General"
        )
    if line.balancing_account_number:
        yield (
            f"New journals have the balancing account {line.balancing_account_number}, so each "
            "line would balance by itself and then once more. Clear Bal. Account No. on the "
            "template General"
        )


def _day(day: date) -> str:
    return "any day" if day == _NO_DATE else str(day)


async def _any(rows: AsyncIterator[object]) -> bool:
    async for _ in rows:
        return True
    return False


# -- whose fault it is -----------------------------------------------------------------------------


def _of_content(complaint: Complaint) -> bool:
    """Whether it is about what lines hold: Business Central's own logic, but no set-up or right."""
    words = complaint.message.lower()
    ours = complaint.code.startswith(_CONTENT_CODES) and complaint.code != _ASKS_A_PERSON
    return ours and not any(each in words for each in _SET_UP_WORDS)


def _is_about_a_lock(complaint: Complaint) -> bool:
    """Whether somebody else held what it wanted to change [U: no code is documented for it]."""
    words = complaint.message.lower()
    return any(each in words for each in ("locked by another user", "deadlock"))


def _may_clash(complaint: Complaint, lines: Sequence[Json]) -> bool:
    """Whether a line may bring a dimension that its account has given it already.

    In English it is said so [C, source]. In another language it is a refusal by the API's own logic
    that quotes nothing, not even a field, whose names are never translated.
    """
    if "dimension set line already exists" in complaint.message:
        return True
    quotes = '"' in complaint.message or _quoted(lines, complaint.message)
    return complaint.code == _LOGIC and not quotes


def _sequence(line: Json) -> int:
    return line["lineNumber"] // (_LINES_PER_VOUCHER + 1)


def _sequences(lines: Iterable[Json]) -> set[int]:
    return {_sequence(line) for line in lines}


def _blamed(lines: Sequence[Json], message: str) -> list[Json]:
    """Return those of the lines that a message is about; none where it does not say."""
    return list(lines) if len(_sequences(lines)) == 1 else _quoted(lines, message)


def _quoted(lines: Sequence[Json], message: str) -> list[Json]:
    """Return those of the lines that a message names, or else quotes a code of."""
    reference = str(lines[0]["documentNumber"]).partition("-")[0]
    numbers = _line_numbers(f"{reference}K", message)
    named = [
        line for line in lines if line["documentNumber"] in message or line["lineNumber"] in numbers
    ]
    return named or [line for line in lines if _has_a_code_of(line, message)]


def _has_a_code_of(line: Json, message: str) -> bool:
    """Whether a message quotes a code of the line, as in `a value (9999)`, `No.=9999`."""
    codes = [line["accountNumber"], line.get("taxCode", "")]
    if "dimens" in message.lower():
        codes = [each["valueCode"] for each in line.get(_DIMENSIONS, ())]
    return any(
        code and re.search(rf"[(=:'\"«“]\s*'?{re.escape(code)}(?![\w-])", message, re.IGNORECASE)
        for code in codes
    )


def _sequences_named(period: Period, message: str) -> set[int]:
    """Return the vouchers whose document, or one of whose lines, a message names."""
    documents = re.findall(rf"{period.reference}-(\d{{6}})(?!\d)", message, re.IGNORECASE)
    lines = _line_numbers(_code(period), message)
    return {int(each) for each in documents} | {
        number // (_LINES_PER_VOUCHER + 1) for number in lines
    }


def _line_numbers(code: str, message: str) -> set[int]:
    """Return the numbers of lines that a message names, in whatever language.

    A line's number follows the journal's code, as in `Journal Batch Name='QJMH25R56K',Line
    No.='2001'` and `Gen. Journal Line GENERAL, QJMH25R56K, 2001`.
    """
    return {int(each) for each in re.findall(_line_after(code), message, re.IGNORECASE)}


def _line_after(code: str) -> str:
    return rf"{code}\b\D{{0,40}}?(\d+)"


def _accounts_named(period: Period, words: str) -> list[str]:
    """Return what may be accounts in a message, like `G/L Account: No.=7140`, `Vendor ANS-101`.

    In another language than English, whatever is pointed at like that and has a digit.
    """
    words = re.sub(_line_after(_code(period)), "", words, flags=re.IGNORECASE)
    found = [
        *re.findall(
            r"(?:(?<!Line )(?<!Document )No\.\s*=?|Account|Vendor)\s*'?([\w-]*\d[\w-]*)", words
        ),
        *re.findall(r"[=(:]\s*'?([\w-]*\d[\w-]*)", words),
    ]
    return list(dict.fromkeys(each.upper() for each in found))[:_MOST_ACCOUNTS]
