"""Xledger: journal lines over its GraphQL API.

Lines are imported as staged rows, and a job of Xledger's own posts them. Xledger promises nothing
about duplicates: no key is unique, and several rows may share a reference. So each line carries its
name, `<period's reference>-<sequence>-<line>`, as extIdentifier, and is found by it among what
changed since the period was due, or was filled in. Whether one can filter by extIdentifier is not
documented; a setting of the connection says so where a tenant can. The record's id goes along as
invoiceNumber.

Its limits come as errors with HTTP 200, and its monthly allowance is small: each request counts.

The facts are collected and graded in docs/vendors/xledger.md.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar
from zoneinfo import ZoneInfo

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from kvitt.domain.errors import Refused, Unsent, VendorError
from kvitt.domain.mapping import dimensions_of
from kvitt.domain.money import Amount, Totals
from kvitt.domain.vouchers import debit
from kvitt.ports import Habits, Place, Standing, Whereabouts
from kvitt.vendors import exact_json
from kvitt.vendors.http import (
    PATIENCE,
    Address,
    Call,
    Complaint,
    Http,
    Line,
    OverHttp,
    Patience,
    Purpose,
    Secret,
    retry_after,
)
from kvitt.vendors.references import (
    LAST_SEQUENCE,
    Tally,
    line_reference_to,
    record_in,
    reference_to,
    sequence_in_line,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    import httpx

    from kvitt.domain.integrations import Timeouts
    from kvitt.domain.mapping import Mapping as Declaration
    from kvitt.domain.mapping import Path
    from kvitt.domain.periods import Period
    from kvitt.domain.reconcile import FoundVoucher
    from kvitt.domain.vouchers import Voucher, VoucherLine
    from kvitt.ports import Budget, Guard, Look

T = TypeVar("T")
Json = dict[str, Any]

_NODES = 500
_PAGE = 500
_READINGS = 5
# Requests a month that the terms for the United Kingdom include; other countries are not known.
_ALLOWANCE = 5_000
# That there is a limit is documented, how high it is is not; what it turns away costs a request.
_AT_ONCE = 1
_TEXT, _INVOICE_NUMBER = 60, 25
_SLOTS = ("glObject1", "glObject2", "glObject3", "glObject4", "glObject5", "project")
_ITS_TIME = ZoneInfo("Europe/Oslo")
# How far its clock may be behind ours, and an hour more: its times have no zone, so in autumn a row
# of the second hour looks an hour older than it is.
_MARGIN = timedelta(hours=2)
_MOST_MISSING = 100
_LONGEST_REASON = 300

# The limits, by the last part of their code, and how long the vendor's own sample waits.
_LIMITS = {
    "BURST_RATE_LIMIT_REACHED": timedelta(seconds=5),
    "CONCURRENCY_LIMIT_REACHED": timedelta(seconds=1),
    "INSUFFICIENT_CREDITS": timedelta(minutes=20),
}
# Errors that say that the call will never be executed as it is. Only these: any other may have come
# after something was executed.
_INVALID_VALUE = "INVALID_VALUE"
_PERMANENT_CODES = (_INVALID_VALUE, "ARGUMENTS_OF_CORRECT_TYPE")
_PERMANENT_WORDS = re.compile(
    r"^cannot query field|^syntax error"
    r"|\btoken (is (invalid|not valid|unknown|expired|revoked)|has expired|was revoked)\b"
    r"|\bunauthori[sz]ed\b|\bnot authori[sz]ed\b",
    re.IGNORECASE,
)
# Words of errors that are about the schema or a right, not about what a node holds.
_SET_UP_WORDS = ("not defined", "unknown field", "cannot query", "token", "permission", "access")
_RIGHTS = ("token is", "permission", "access", "not allowed")
# What a message may call the fields that hold a code, and say before the code itself.
_BETWEEN = r"(?:[^\w.;]|with|the|code|number|no\b)*"
_WORDS = {
    "account": "account",
    "subledger": "subledger",
    "taxRule": "tax ?rule",
    "project": "project",
    **{f"glObject{slot}": f"(?:gl)?object(?: ?{slot})?" for slot in range(1, 6)},
}

_ADD = """
mutation ($inputs: [AddGLImportItemsInput!]!) {
  addGLImportItems(inputs: $inputs) { edges { clientId node { dbId } } }
}
"""
# %s: a filter, as a literal, because the names of its types are not published.
_LINES = """{
    edges { cursor node { dbId extIdentifier amount invoiceAmount currency { code } } }
    pageInfo { hasNextPage }
  }"""
_STAGED = f"""
query ($first: Int, $after: String) {{
  rows: glImportItems(first: $first, after: $after, filter: {{%s}}) {_LINES}
}}
"""
_POSTED = f"""
query ($first: Int, $after: String) {{
  rows: journalEntries(first: $first, after: $after, filter: {{%s}}) {_LINES}
}}
"""
_MESSAGES = """{
    edges { cursor node { dbId extIdentifier message } }
    pageInfo { hasNextPage }
  }"""
_PROBLEMS = f"""
query ($first: Int, $after: String) {{
  rows: glImportItemErrors(first: $first, after: $after) {_MESSAGES}
}}
"""
# Both in one request: each costs the same, whatever it shows.
_STAGED_AND_PROBLEMS = f"""
query ($first: Int) {{
  rows: glImportItems(first: $first, filter: {{%s}}) {_LINES}
  problems: glImportItemErrors(first: $first) {_MESSAGES}
}}
"""
_ALIVE = "query { __typename }"
# What kvitt reads back, by name, to be tried before anything is sent.
_LOOKED_AT = {
    "glImportItems": _STAGED,
    "journalEntries": _POSTED,
    "glImportItemErrors with extIdentifier": _PROBLEMS,
}
_TRIED_BY_TIME = 'modifiedAt_gte: "2020-01-01T00:00:00"'
_TRIED_BY_REFERENCE = 'extIdentifier_gte: "KVITT", extIdentifier_lt: "KVITU"'


class XledgerSettings(BaseModel):
    """One entity: a token is bound to it and to those below it.

    The demo is at https://demo.xledger.net/graphql; when it is renewed from the live system, its
    tokens are overwritten. `filter_by_reference`: rows are read back by a range of extIdentifier,
    which is cheaper than by time, where the tenant's schema has extIdentifier_gte and _lt.
    `all_or_nothing`: the tenant was seen to stage nothing of a call in which it refuses a node.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    token: Secret
    api_url: Address = "https://www.xledger.net/graphql"
    filter_by_reference: bool = False
    all_or_nothing: bool = False


# -- replies, as far as we read them ---------------------------------------------------------------


class _Reply(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel)


# 64-bit, sent as strings or as numbers.
_Id = Annotated[str, BeforeValidator(str)]


class _Code(_Reply):
    code: str | None


class _Row(_Reply):
    """A staged or posted line, ours or anybody's."""

    db_id: _Id
    ext_identifier: str | None
    amount: Amount | None
    invoice_amount: Amount | None
    currency: _Code | None


class _Problem(_Reply):
    """What the posting job says of a row that it refused."""

    ext_identifier: str | None
    message: str | None


class _Added(_Reply):
    db_id: _Id


N = TypeVar("N", _Row, _Problem, _Added)


class _Edge(_Reply, Generic[N]):
    cursor: str | None = None
    client_id: str | None = None
    node: N


class _PageInfo(_Reply):
    has_next_page: bool


class _Rows(_Reply, Generic[N]):
    """No hits are `edges: null` or `edges: []`."""

    edges: list[_Edge[N]] | None
    page_info: _PageInfo


class _Read(_Reply, Generic[N]):
    rows: _Rows[N]


class _ReadBoth(_Read[_Row]):
    problems: _Rows[_Problem]


class _Result(_Reply):
    edges: list[_Edge[_Added]]


class _Addition(_Reply):
    add_gl_import_items: _Result = Field(alias="addGLImportItems")


class _Further(_Reply):
    code: str | None = None
    reset_at: str | None = None


class _Error(_Reply):
    message: str = ""
    code: str | None = None
    path: list[str | int] | None = None
    extensions: _Further | None = None

    @property
    def name(self) -> str:
        """Its code, which stands beside the message or among the extensions."""
        return self.code or (self.extensions and self.extensions.code) or ""


class _Answer(_Reply):
    """A GraphQL reply; after an error `data` is null."""

    data: Json | None = None
    errors: list[_Error] | None = None


@dataclass(slots=True)
class _Table:
    """What of a period is staged, or posted. `originals`: the debit side per original currency.

    It is None unless each line shows its own.
    """

    tally: Tally
    originals: defaultdict[str, Decimal] | None = field(
        default_factory=lambda: defaultdict[str, Decimal](Decimal)
    )

    def add(self, sequence: int, row: _Row) -> None:
        """Count a line of ours."""
        self.tally.add(sequence, row.amount or Decimal(0))
        currency = row.currency and row.currency.code
        if currency is None or row.invoice_amount is None:
            self.originals = None
        elif self.originals is not None:
            self.originals[currency] += max(row.invoice_amount, Decimal(0))


class Xledger(OverHttp):
    """One entity in Xledger. An async context manager; a `kvitt.ports.Vendor`.

    Habits: a mutation takes 500 nodes. Whether one bad node fails all of them is not known, so such
    a call is uncertain unless the tenant is known to. What was sent may show up until 10 min later.
    Rows are in neither table while the posting job moves them: only two readings 3 min apart say
    that they are not there. Posting is Xledger's own business.
    """

    habits: Habits = Habits(
        chunk_vouchers=_NODES // 2,
        chunk_lines=_NODES,
        settle=timedelta(minutes=10),
        absences=2,
        gap=timedelta(minutes=3),
        at_once=_AT_ONCE,
        allowance=_ALLOWANCE,
    )

    def __init__(
        self,
        settings: XledgerSettings,
        timeouts: Timeouts,
        *,
        patience: Patience = PATIENCE,
        budget: Budget | None = None,
        line: Line | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._http = Http(
            "Xledger",
            timeouts,
            patience=patience,
            budget=budget,
            at_once=self.habits.at_once,
            answer=self.habits.answer,
            allowance=self.habits.allowance,
            line=line,
        )
        self._now = now

    # -- writing -----------------------------------------------------------------------------------

    def objection(self, period: Period, voucher: Voucher) -> str | None:
        """Say why Xledger would not take a voucher; None where it would."""
        return objection(period, voucher)

    async def send(
        self, period: Period, vouchers: Sequence[Voucher], *, begins: bool, guard: Guard
    ) -> Mapping[str, Any]:
        """Stage vouchers in one mutation of at most 500 lines.

        One whose nodes are refused may have staged the others: Uncertain, unless it has a single
        voucher, or the tenant is known to stage all or none.
        """
        del begins  # rows lie beside each other, and belong to nothing that would come first
        inputs = [row for voucher in vouchers for row in rows(period, voucher)]
        what = f"stage {len(inputs)} lines, {inputs[0]['clientId']} to {inputs[-1]['clientId']}"
        call = self._call(what, Purpose.EXPORT, _ADD, {"inputs": inputs}, guard=guard)
        added = await self._ask(
            call, lambda data: self._added(call, inputs, data), inputs=inputs, period=period
        )
        return {"first": added[0], "last": added[-1], "rows": len(added)}

    async def withdraw(self, period: Period, sequences: Sequence[int], *, guard: Guard) -> None:
        """Raise Refused: rows are posted by Xledger itself, and may be while they are deleted."""
        del period, sequences, guard
        raise Refused(
            "Xledger posts imported rows by itself, so kvitt cannot take them back. Delete them "
            "there, among the import items, or reverse what is posted"
        )

    async def post(self, period: Period, *, guard: Guard) -> None:
        """Do nothing: a job of Xledger's posts, and cannot be told to."""

    def _added(self, call: Call, inputs: Sequence[Json], data: Json) -> list[str]:
        """Return the new rows' ids, in order; each line must have got one."""
        edges = _Addition.model_validate(data).add_gl_import_items.edges
        ids = {edge.client_id: edge.node.db_id for edge in edges}
        if len(edges) != len(inputs) or not all(each["clientId"] in ids for each in inputs):
            raise self._http.lost(call, f"it answers for {len(edges)} of {len(inputs)} lines")
        return [ids[each["clientId"]] for each in inputs]

    # -- reading back ------------------------------------------------------------------------------

    async def find(self, period: Period, vouchers: Sequence[Voucher]) -> Mapping[int, FoundVoucher]:
        """Read which vouchers are staged or posted; two of one name show as one of twice the lines.

        Raises Refused where some are not, and the posting job says that it refused them.
        """
        first, last = vouchers[0].sequence, vouchers[-1].sequence
        staged, posted = await self._read(period, first, last)
        found = (staged.tally + posted.tally).found()
        if any(sequence not in found for sequence in range(first, last + 1)):
            await self._stop_for_refused(period, first, last, found)
        return found

    async def totals(self, period: Period) -> Totals:
        """Read what is staged or posted; original currencies where each line shows its own."""
        staged, posted = await self._read(period, 0, LAST_SEQUENCE)
        originals = None
        if staged.originals is not None and posted.originals is not None:
            currencies = {**staged.originals, **posted.originals}
            originals = {c: staged.originals[c] + posted.originals[c] for c in currencies}
        both = (staged.tally + posted.tally).totals()
        return both.model_copy(update={"original": originals, "staged": staged.tally.lines})

    async def refused_lines(self, period: Period) -> Mapping[int, str]:
        """Return the vouchers that the posting job has refused, with its words.

        It refuses a voucher after it was imported: the lines stay among the import items until a
        person mends them there. Raises Refused where the tenant's schema does not say whose lines
        they are.
        """
        rows = self._rows("show refused lines", _PROBLEMS, _Read[_Problem])
        return (await _by_voucher([period], rows))[period.key]

    async def standings(self, looks: Sequence[Look]) -> Sequence[Standing]:
        """Read what of settled periods is posted, waits, or was refused: a request or two for all.

        Of periods that wait as a whole the journal is not read. What moves while it is read is seen
        in both tables or in neither, which the next look corrects.
        """
        periods = [look.period for look in looks]
        staged, refused, note = await self._staged_and_refused(periods)
        moved = [look.period for look in looks if staged[look.period.key].tally.lines < look.lines]
        posted = await self._tables(moved, _POSTED) if moved else {}
        return [
            _standing(
                look,
                staged[look.period.key].tally,
                posted[look.period.key].tally if look.period.key in posted else Tally(),
                refused[look.period.key],
                note,
            )
            for look in looks
        ]

    async def misfits(
        self, *, book_currency: str, today: date, reads_only: bool = False
    ) -> list[str]:
        """Say what in the tenant would break sending or reading back, and the remedy."""
        del book_currency, today, reads_only  # neither is shown by a query that is known
        found: list[str] = []
        by_reference = self._settings.filter_by_reference
        tried = _TRIED_BY_REFERENCE if by_reference else _TRIED_BY_TIME
        for name, document in _LOOKED_AT.items():
            filtered = document % tried if "%s" in document else document
            call = self._call(f"show {name}", Purpose.SET_UP, filtered, {"first": 1, "after": None})
            try:
                await self._ask(call, lambda _: None)
            except Refused as refusal:
                remedy = ", or turn the connection's filter_by_reference off" * by_reference
                found.append(
                    f"Xledger does not show {name} as kvitt needs it: {refusal}. Give the token "
                    "the right to read it; if it says that a field is unknown, the tenant's schema "
                    f"differs from the one that kvitt was built for{remedy}"
                )
        return found

    async def posted(self, period: Period) -> bool:
        """Answer True without asking: there is nothing that we would have to tell Xledger."""
        del period
        return True

    async def probe(self) -> None:
        """Ask for the name of the query type. It costs a request, as everything does."""
        await self._ask(self._call("say that it is there", Purpose.PROBE, _ALIVE), dict)

    async def _read(self, period: Period, first: int, last: int) -> tuple[_Table, _Table]:
        """Read both tables, staged and posted, so that no line is in both or in neither.

        1. Staged lines first, posted ones then: what moves meanwhile is seen twice, not nowhere.
        2. Where a voucher is seen in both, staged lines again: if they have not changed, it is
           indeed in both. Otherwise they are moving, and both are read anew.
        """
        staged = await self._table(period, _STAGED, first, last)
        for _ in range(_READINGS):
            posted = await self._table(period, _POSTED, first, last)
            in_both = [sequence for sequence in staged.tally if sequence in posted.tally]
            if not in_both:
                return staged, posted
            again = await self._table(period, _STAGED, first, last)
            if all(staged.tally[sequence] == again.tally[sequence] for sequence in in_both):
                return staged, posted
            staged = again
        raise Unsent(
            f"Xledger's posting job moves lines of {period.reference} faster than they can be "
            "read. The next run reads them again"
        )

    async def _table(self, period: Period, document: str, first: int, last: int) -> _Table:
        """Add up those lines of a table that belong to vouchers of the period."""
        if self._settings.filter_by_reference:
            what, condition = f"show lines of {period.reference}", _named(period, first, last)
        else:
            what, condition = "show changed lines", changed_since(period.sent_since)
        table = _Table(Tally(first, last))
        async for row in self._rows(what, document % condition, _Read[_Row]):
            sequence = sequence_in_line(period, row.ext_identifier)
            if sequence is not None and first <= sequence <= last:
                table.add(sequence, row)
        return table

    async def _tables(self, periods: Sequence[Period], document: str) -> dict[str, _Table]:
        """Add up the lines of several periods, by key, in one reading."""
        rows = self._rows("show changed lines", document % self._of(periods), _Read[_Row])
        return await _added_up(periods, rows)

    async def _staged_and_refused(
        self, periods: Sequence[Period]
    ) -> tuple[dict[str, _Table], dict[str, dict[int, str]], str | None]:
        """Read what is staged of several periods, and whom the posting job refused, by key.

        Where the tenant does not show whose lines were refused, says so beside what is staged.
        """
        document, what = _STAGED_AND_PROBLEMS % self._of(periods), "show staged and refused lines"
        call = self._call(what, Purpose.READ_BACK, document, {"first": _PAGE})
        try:
            both = await self._ask(call, _ReadBoth.model_validate)
        except Refused as refusal:
            staged = await self._tables(periods, _STAGED)
            note = f"whom the posting job refused is not shown, so look there: {refusal}"
            return staged, {period.key: {} for period in periods}, note
        rows = self._following(what, _STAGED % self._of(periods), _Read[_Row], both.rows)
        problems = self._following(what, _PROBLEMS, _Read[_Problem], both.problems)
        return await _added_up(periods, rows), await _by_voucher(periods, problems), None

    def _of(self, periods: Sequence[Period]) -> str:
        """Return the filter for the rows of some periods, and perhaps of others beside them."""
        if self._settings.filter_by_reference and len(periods) == 1:
            return _named(periods[0], 0, LAST_SEQUENCE)
        return changed_since(min(period.sent_since for period in periods))

    async def _stop_for_refused(
        self, period: Period, first: int, last: int, found: Mapping[int, FoundVoucher]
    ) -> None:
        """Raise Refused if the posting job refused vouchers that are not there."""
        try:
            refused = await self.refused_lines(period)
        except Refused:
            # That these rows show extIdentifier is not confirmed. If they do not, refused lines
            # look absent, are sent again, and are refused again: a nuisance, not a duplicate.
            return
        blamed = {s: why for s, why in refused.items() if first <= s <= last and s not in found}
        if blamed:
            sequence, why = next(iter(blamed.items()))
            raise Refused(
                f"Xledger's posting job refused {len(blamed)} vouchers of {period.reference}, the "
                f"first ({reference_to(period, sequence)}) for this: {why[:300]}. Mend it there, "
                "then start the period again",
                culprits=blamed,
            )

    async def _rows(self, what: str, document: str, model: type[_Read[N]]) -> AsyncIterator[N]:
        """Read all rows that a query shows, one page at a time."""
        page = await self._page(what, document, model, None)
        async for node in self._following(what, document, model, page):
            yield node

    async def _following(
        self, what: str, document: str, model: type[_Read[N]], page: _Rows[N]
    ) -> AsyncIterator[N]:
        """Yield the rows of a page, and of all that follow it."""
        while True:
            edges = page.edges or []
            for edge in edges:
                yield edge.node
            if not edges or not page.page_info.has_next_page:
                return
            page = await self._page(what, document, model, edges[-1].cursor)

    async def _page(
        self, what: str, document: str, model: type[_Read[N]], after: str | None
    ) -> _Rows[N]:
        variables = {"first": _PAGE, "after": after}
        call = self._call(what, Purpose.READ_BACK, document, variables)
        return (await self._ask(call, model.model_validate)).rows

    # -- questions to a tenant, see kvitt/vendors/facts --------------------------------------------

    async def exchange(
        self, document: str, variables: Json | None = None, *, writes: bool = False
    ) -> Json:
        """Return the whole reply to a document, errors and all.

        Only what says nothing about the document raises: a limit, a right, no reply.
        """
        guard = _nobodys_period if writes else None
        call = self._call("answer a question", Purpose.PROBE, document, variables, guard=guard)

        def judge(reply: httpx.Response) -> Json:
            errors = _answer_of(reply).errors
            wait = self._wait(errors[0]) if errors else None
            if errors and wait is not None:
                words = self._http.quote(_complaint(reply, errors[0].message, errors[0].name))
                raise self._http.turned_away(call, words, retry_after=wait)
            if errors and any(word in errors[0].message.lower() for word in _RIGHTS):
                raise self._http.declined(call, _complaint(reply, errors[0].message))
            if not errors and not reply.is_success:
                raise self._http.verdict(call, _complaint(reply, reply.text))
            return exact_json.loads(reply.content)

        return await self._http.ask(call, judge)

    async def status_of_a_wrong_token(self) -> int:
        """Return the HTTP status with which a token is refused that nobody has."""
        call = self._call("answer a wrong token", Purpose.PROBE, _ALIVE)
        headers = {**call.headers, "Authorization": "token of-nobody"}
        return await self._http.ask(replace(call, headers=headers), lambda reply: reply.status_code)

    def without_secrets(self, text: str) -> str:
        """Return a text without the token."""
        return self._http.without_secrets(text)

    # -- asking ------------------------------------------------------------------------------------

    def _call(
        self,
        what: str,
        purpose: Purpose,
        document: str,
        variables: Json | None = None,
        *,
        guard: Guard | None = None,
    ) -> Call:
        return Call(
            what=what,
            purpose=purpose,
            method="POST",
            url=self._settings.api_url,
            headers={
                "Authorization": f"token {self._http.conceal(self._settings.token)}",
                "Content-Type": "application/json",
            },
            content=json.dumps({"query": document, "variables": variables or {}}),
            guard=guard,
        )

    async def _ask(
        self,
        call: Call,
        read: Callable[[Json], T],
        *,
        inputs: Sequence[Json] = (),
        period: Period | None = None,
    ) -> T:
        """Make a call and return what `read` makes of its data.

        `inputs` are those that the call brings; a refusal of what they hold names their vouchers.
        """

        def judge(reply: httpx.Response) -> T:
            answer = _answer_of(reply)
            if answer.errors:
                raise self._verdict(call, reply, answer, inputs, period)
            if not reply.is_success:
                raise self._http.verdict(call, _complaint(reply, reply.text))
            if answer.data is None:
                raise self._http.lost(call, "it answers with neither data nor errors")
            return read(answer.data)

        return await self._http.ask(call, judge)

    def _verdict(
        self,
        call: Call,
        reply: httpx.Response,
        answer: _Answer,
        inputs: Sequence[Json],
        period: Period | None,
    ) -> VendorError:
        """Return what errors mean: a limit, a refusal, or, for any other of a write, nobody knows.

        Several mean what all of them say. A limit is checked before anything is executed. Data
        beside an error says that some was.
        """
        errors = answer.errors or [_Error()]
        complaint = _complaint(reply, errors[0].message, errors[0].name)
        words = self._http.quote(complaint)
        waits = [wait for error in errors if (wait := self._wait(error)) is not None]
        if len(waits) == len(errors):
            return self._http.turned_away(call, words, retry_after=max(waits))
        if not reply.is_success:
            return self._http.verdict(call, complaint)
        if not all(_permanent(error) for error in errors):
            return self._http.lost(call, words)
        culprits = {
            sequence
            for error in errors
            for each in _blamed(inputs, error)
            if period and (sequence := sequence_in_line(period, each["clientId"])) is not None
        }
        of_content = bool(inputs) and all(_of_content(error) for error in errors)
        refusal = self._http.declined(call, complaint, culprits=culprits, of_content=of_content)
        executed = answer.data is not None and not _says_that_none_was_added(answer.data)
        if executed or self._may_have_taken_others(errors, inputs):
            return self._http.lost(call, words, refusal=refusal)
        return refusal

    def _may_have_taken_others(self, errors: Sequence[_Error], inputs: Sequence[Json]) -> bool:
        """Whether vouchers beside a refused one may be staged, although `data` is null.

        Wrong arguments are seen before anything is executed, values only then.
        """
        several = len({each["node"]["trRegNumber"] for each in inputs}) > 1
        of_values = any(error.name == _INVALID_VALUE for error in errors)
        return several and of_values and not self._settings.all_or_nothing

    def _wait(self, error: _Error) -> timedelta | None:
        """Return how long a limit asks us to wait; None if the error is no limit."""
        usual = _LIMITS.get(error.name.rpartition(".")[2])
        reset = error.extensions and error.extensions.reset_at
        return (self._until(reset) or usual) if usual and reset else usual

    def _until(self, reset: str) -> timedelta | None:
        """Return how long it is until a time that Xledger wrote, which has no zone."""
        try:
            moment = datetime.fromisoformat(reset)
        except ValueError:
            return None
        if moment.tzinfo is not None:
            return max(moment - self._now(), timedelta(0))
        # In the hour that comes twice, the first of the two that is not over.
        first, second = (moment.replace(tzinfo=_ITS_TIME, fold=fold) for fold in (0, 1))
        first, second = first.astimezone(UTC), second.astimezone(UTC)
        return max((first if first >= self._now() else second) - self._now(), timedelta(0))


# -- what a voucher becomes ------------------------------------------------------------------------


def rows(period: Period, voucher: Voucher) -> list[Json]:
    """Return a voucher as inputs of the mutation. Raises Refused for one that cannot be one."""
    if why := objection(period, voucher):
        raise Refused(f"voucher {voucher.number} (record {voucher.record_id}) {why}")
    rate = _rate(voucher)
    return [_input(period, voucher, line, rate) for line in voucher.lines]


def objection(period: Period, voucher: Voucher) -> str | None:
    """Say why Xledger would not take a voucher, in words that follow its name."""
    del period
    if len(voucher.lines) > _NODES:
        return (
            f"has {len(voucher.lines)} lines, and Xledger takes {_NODES} at once, vouchers whole: "
            "split the claim"
        )
    for name in dict.fromkeys(name for line in voucher.lines for name in line.dimensions):
        if name not in _SLOTS:
            return (
                f"has the dimension {name!r}, and Xledger knows {', '.join(_SLOTS)}: map it to one "
                "of them in the integration's mapping"
            )
    booked, amount = _debits(voucher)
    if booked != amount and (not amount or Decimal(_rate(voucher) or 0) == 0):
        return (
            f"has {amount:f} {voucher.currency} booked as {booked:f}, from which no exchange rate "
            "follows: correct the amounts of the claim"
        )
    return None


def mapping_objections(mapping: Declaration) -> list[tuple[Path, str]]:
    """Say what of a mapping can never work in Xledger, and where it stands."""
    found = [
        (place, f"Xledger has no slot {name!r}; it has {', '.join(_SLOTS)}")
        for place, name in dimensions_of(mapping)
        if name not in _SLOTS
    ]
    if mapping.comment:
        found.append((("comment",), "Xledger has one text a line: put it into text"))
    return found


def _input(period: Period, voucher: Voucher, line: VoucherLine, rate: str | None) -> Json:
    """Return a line as the mutation takes it; amounts are decimal strings."""
    name = line_reference_to(period, voucher.sequence, line.number)
    node: Json = {
        "extIdentifier": name,
        "trRegNumber": voucher.number,
        "postedDate": voucher.posting_date.isoformat(),
        "invoiceDate": voucher.document_date.isoformat(),
        "invoiceNumber": record_in(voucher, _INVOICE_NUMBER),
        "account": {"code": line.account},
        "amount": format(line.booked, "f"),
        # Always, so that what is read back says by itself what its currency was.
        "invoiceAmount": format(line.amount, "f"),
        "currency": {"code": voucher.currency},
        "text": line.text[:_TEXT],
        **{slot: {"code": value} for slot, value in line.dimensions.items()},
    }
    if voucher.source:
        node["transactionSource"] = {"code": voucher.source}
    if line.tax:
        node["taxRule"] = {"code": line.tax}
    if line.party:
        node["subledger"] = {"code": line.party}
    if rate is not None:
        node["exchangeRate"] = rate
    return {"clientId": name, "node": node}


def _debits(voucher: Voucher) -> tuple[Decimal, Decimal]:
    """Return the debit side in book currency, and in the voucher's."""
    booked = debit(line.booked for line in voucher.lines)
    return booked, debit(line.amount for line in voucher.lines)


def _rate(voucher: Voucher) -> str | None:
    """Return the book currency's price of the voucher's, or None where the amounts are the same.

    Of the whole voucher: a small line's own rate is mostly rounding.
    """
    booked, amount = _debits(voucher)
    return None if booked == amount else format(booked / amount, ".8f")


# -- what is read back -----------------------------------------------------------------------------


def changed_since(sent_since: datetime) -> str:
    """Return a filter for all that was written since a period may have been sent, by anybody."""
    since = (sent_since - _MARGIN).astimezone(_ITS_TIME)
    return f'modifiedAt_gte: "{since:%Y-%m-%dT%H:%M:%S}"'


def _named(period: Period, first: int, last: int) -> str:
    """Return a filter for the lines of some vouchers of a period, by their names.

    A name without its line sorts before all of them, and one with a letter there after them.
    """
    low, high = reference_to(period, first), reference_to(period, last)
    return f'extIdentifier_gte: "{low}", extIdentifier_lt: "{high}-A"'


async def _added_up(periods: Sequence[Period], rows: AsyncIterator[_Row]) -> dict[str, _Table]:
    """Add up lines by the period, by key, whose they are."""
    tables = {period.key: _Table(Tally()) for period in periods}
    by_reference = {period.reference: period for period in periods}
    async for row in rows:
        if (owner := _owner_of(row.ext_identifier, by_reference)) is not None:
            period, sequence = owner
            tables[period.key].add(sequence, row)
    return tables


async def _by_voucher(
    periods: Sequence[Period], problems: AsyncIterator[_Problem]
) -> dict[str, dict[int, str]]:
    """Return what is said of vouchers, by the period's key and the place in its batch."""
    said: dict[str, dict[int, str]] = {period.key: {} for period in periods}
    by_reference = {period.reference: period for period in periods}
    async for problem in problems:
        if (owner := _owner_of(problem.ext_identifier, by_reference)) is not None:
            period, sequence = owner
            words = " ".join((problem.message or "no reason is given").split())
            said[period.key].setdefault(sequence, words[:_LONGEST_REASON])
    return said


def _owner_of(name: str | None, by_reference: Mapping[str, Period]) -> tuple[Period, int] | None:
    """Return which period and voucher a line's name belongs to; None for everybody else's."""
    period = by_reference.get((name or "").strip().upper().partition("-")[0])
    sequence = None if period is None else sequence_in_line(period, name)
    return None if period is None or sequence is None else (period, sequence)


def _standing(
    look: Look, staged: Tally, posted: Tally, refused: Mapping[int, str], note: str | None
) -> Standing:
    """Say where a period stands, and where those of its vouchers are that matter."""
    held = staged + posted
    expected = (n for n in range(1, look.period.record_count + 1) if n not in look.left_out)
    missing = islice((n for n in expected if n not in held), _MOST_MISSING)
    still_refused = {sequence for sequence in refused if sequence in staged}
    vouchers = {
        sequence: _whereabouts(sequence, staged, posted, refused)
        for sequence in sorted({*look.open, *still_refused, *missing})
    }
    return Standing(posted=posted.totals(), held=held.totals(), vouchers=vouchers, note=note)


def _whereabouts(
    sequence: int, staged: Tally, posted: Tally, refused: Mapping[int, str]
) -> Whereabouts:
    """Say where a voucher is; as long as a line of it is staged, it is not posted."""
    if sequence in staged:
        reason = refused.get(sequence)
        return Whereabouts(place=Place.REFUSED if reason else Place.STAGED, reason=reason)
    return Whereabouts(place=Place.POSTED if sequence in posted else Place.NEITHER)


# -- errors ----------------------------------------------------------------------------------------


def _nobodys_period() -> None:
    """Guard a write that belongs to no period."""


def _answer_of(reply: httpx.Response) -> _Answer:
    """Read a GraphQL reply; where it is no success it need not be one. Raises ValueError."""
    try:
        return _Answer.model_validate(exact_json.loads(reply.content))
    except ValueError:
        if reply.is_success:
            raise
        return _Answer()


def _complaint(reply: httpx.Response, message: str, code: str = "") -> Complaint:
    wait = retry_after(reply)
    return Complaint(status=reply.status_code, code=code, message=message, retry_after=wait)


def _says_that_none_was_added(data: Json) -> bool:
    """Whether an answer beside an error lists what was added, and lists nothing.

    So it may be where bad nodes are left out, one by one [U], and all of them were bad.
    """
    fields: list[Json | None] = list(data.values())
    return all(field is not None and not field.get("edges", True) for field in fields)


def _permanent(error: _Error) -> bool:
    return error.name in _PERMANENT_CODES or bool(_PERMANENT_WORDS.search(error.message))


def _of_content(error: _Error) -> bool:
    """Whether an error is about the values of nodes, and not about the schema, a right or a size.

    INVALID_VALUE is; wrong arguments may as well be a field that the schema does not have.
    """
    words = error.message.lower()
    return error.name == _INVALID_VALUE and not any(w in words for w in _SET_UP_WORDS)


def _blamed(inputs: Sequence[Json], error: _Error) -> list[Json]:
    """Return the inputs that an error is about, as far as it says so: by place, name or value."""
    if any(words in error.message.lower() for words in _SET_UP_WORDS):
        return []
    if _of_content(error) and len({each["node"]["trRegNumber"] for each in inputs}) == 1:
        return list(inputs)
    places = [int(place) for place in re.findall(r"\binputs[.\[](\d+)", error.message)]
    places += [place for place in error.path or [] if isinstance(place, int)][:1]
    named = [inputs[place] for place in places if place < len(inputs)]
    named += [each for each in inputs if each["clientId"].casefold() in error.message.casefold()]
    if named or not _of_content(error):
        return named
    return [each for each in inputs if _has_a_code_of(each["node"], error.message)]


def _has_a_code_of(node: Json, message: str) -> bool:
    """Whether a message names a code of a node after the word for it: `Account 9999 is closed`."""
    return any(
        re.search(
            rf"\b{word}\b{_BETWEEN}{re.escape(node[name]['code'])}(?![\w-])",
            message,
            re.IGNORECASE,
        )
        for name, word in _WORDS.items()
        if name in node
    )
