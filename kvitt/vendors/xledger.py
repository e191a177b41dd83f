"""Xledger: journal lines over its GraphQL API.

Lines are imported as staged rows, and a job of Xledger's own posts them. Xledger promises nothing
about duplicates: no key is unique, and several rows may share a reference. So each line carries its
name, `<period's reference>-<sequence>-<line>`, as extIdentifier, and is found by it among what
changed since the period was due, since whether one can filter by extIdentifier is not documented.

Its limits come as errors with HTTP 200, and its monthly allowance is small: each request counts.

The facts are collected and graded in docs/vendors/xledger.md.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar
from zoneinfo import ZoneInfo

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from kvitt.domain.errors import Refused, Unsent, VendorError
from kvitt.domain.money import Amount, Totals
from kvitt.domain.vouchers import debit
from kvitt.ports import Habits
from kvitt.vendors import exact_json
from kvitt.vendors.http import (
    PATIENCE,
    Address,
    Call,
    Complaint,
    Http,
    Patience,
    Purpose,
    Secret,
    retry_after,
)
from kvitt.vendors.references import (
    LAST_SEQUENCE,
    Tally,
    line_reference_to,
    reference_to,
    sequence_in_line,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    import httpx

    from kvitt.domain.integrations import Timeouts
    from kvitt.domain.periods import Period
    from kvitt.domain.reconcile import FoundVoucher
    from kvitt.domain.vouchers import Voucher, VoucherLine
    from kvitt.ports import Guard

T = TypeVar("T")
Json = dict[str, Any]

_NODES = 500
_PAGE = 500
_READINGS = 5
_TEXT = 60
_SLOTS = ("glObject1", "glObject2", "glObject3", "glObject4", "glObject5", "project")
_ITS_TIME = ZoneInfo("Europe/Oslo")
# How far its clock may be behind ours; covers the hour that comes twice in autumn, too.
_MARGIN = timedelta(hours=2)

# The limits, by the last part of their code, and how long the vendor's own sample waits.
_CREDITS = "INSUFFICIENT_CREDITS"
_LIMITS = {
    "BURST_RATE_LIMIT_REACHED": timedelta(seconds=5),
    "CONCURRENCY_LIMIT_REACHED": timedelta(seconds=1),
    _CREDITS: timedelta(minutes=20),
}
# Errors that say that nothing was executed and nothing ever will be.
_PERMANENT_CODES = ("INVALID_VALUE", "ARGUMENTS_OF_CORRECT_TYPE", "BAD_REQUEST")
_PERMANENT_WORDS = ("cannot query field", "syntax error", "token")
# Words of errors that are about the schema or a right, not about what a node holds.
_SET_UP_WORDS = ("not defined", "unknown field", "cannot query", "token", "permission", "access")
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
# %s: since when. As a literal, because the name of its type is not published.
_STAGED = """
query ($first: Int, $after: String) {
  rows: glImportItems(first: $first, after: $after, filter: {modifiedAt_gte: "%s"}) {
    edges { cursor node { dbId extIdentifier amount invoiceAmount currency { code } } }
    pageInfo { hasNextPage }
  }
}
"""
_POSTED = """
query ($first: Int, $after: String) {
  rows: journalEntries(first: $first, after: $after, filter: {modifiedAt_gte: "%s"}) {
    edges { cursor node { dbId extIdentifier amount invoiceAmount currency { code } } }
    pageInfo { hasNextPage }
  }
}
"""
_PROBLEMS = """
query ($first: Int, $after: String) {
  rows: glImportItemErrors(first: $first, after: $after) {
    edges { cursor node { dbId extIdentifier message } }
    pageInfo { hasNextPage }
  }
}
"""
_ALIVE = "query { __typename }"
# What kvitt reads back, by name, to be tried before anything is sent.
_LOOKED_AT = {
    "glImportItems": _STAGED % "2020-01-01T00:00:00",
    "journalEntries": _POSTED % "2020-01-01T00:00:00",
    "glImportItemErrors with extIdentifier": _PROBLEMS,
}


class XledgerSettings(BaseModel):
    """One entity: a token is bound to it and to those below it.

    The demo is at https://demo.xledger.net/graphql; when it is renewed from the live system, its
    tokens are overwritten.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    token: Secret
    api_url: Address = "https://www.xledger.net/graphql"


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


class Xledger:
    """One entity in Xledger. An async context manager; a `kvitt.ports.Vendor`.

    Habits: a mutation takes 500 nodes, and one bad node fails all of them. What was sent may show
    up until 10 min later. Rows are in neither table while the posting job moves them: only two
    readings 3 min apart say that they are not there. Posting is Xledger's own business.
    """

    habits: Habits = Habits(
        chunk_vouchers=_NODES // 2,
        chunk_lines=_NODES,
        settle=timedelta(minutes=10),
        absences=2,
        gap=timedelta(minutes=3),
    )

    def __init__(
        self,
        settings: XledgerSettings,
        timeouts: Timeouts,
        *,
        patience: Patience = PATIENCE,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._http = Http("Xledger", timeouts, patience=patience)
        self._now = now

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.close()

    @property
    def requests(self) -> Mapping[str, int]:
        """Requests spent so far, by purpose. Those that a limit turned away are among them."""
        return self._http.requests

    # -- writing -----------------------------------------------------------------------------------

    def objection(self, period: Period, voucher: Voucher) -> str | None:
        """Say why Xledger would not take a voucher; None where it would."""
        return objection(period, voucher)

    async def send(
        self, period: Period, vouchers: Sequence[Voucher], *, begins: bool, guard: Guard
    ) -> Mapping[str, Any]:
        """Stage vouchers, all or none, in one mutation of at most 500 lines."""
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

    async def find(self, period: Period, *, first: int, last: int) -> Mapping[int, FoundVoucher]:
        """Read which vouchers are staged or posted; two of one name show as one of twice the lines.

        Raises Refused where some are not, and the posting job says that it refused them.
        """
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
        refused: dict[int, str] = {}
        rows = self._rows("show refused lines", _PROBLEMS, _Read[_Problem])
        async for problem in rows:
            sequence = sequence_in_line(period, problem.ext_identifier)
            if sequence is not None:
                refused.setdefault(sequence, problem.message or "no reason is given")
        return refused

    async def misfits(self, *, book_currency: str, today: date) -> list[str]:
        """Say what in the tenant would break sending or reading back, and the remedy."""
        del book_currency, today  # neither is shown by a query that is known
        found: list[str] = []
        for name, document in _LOOKED_AT.items():
            call = self._call(f"show {name}", Purpose.PROBE, document, {"first": 1, "after": None})
            try:
                await self._ask(call, lambda _: None)
            except Refused as refusal:
                found.append(
                    f"Xledger does not show {name} as kvitt needs it: {refusal}. Give the token "
                    "the right to read it; if it says that a field is unknown, the tenant's schema "
                    "differs from the one that kvitt was built for"
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
        """Add up what changed since the period was due, as far as it is one of its vouchers."""
        since = (period.due_at - _MARGIN).astimezone(_ITS_TIME).strftime("%Y-%m-%dT%H:%M:%S")
        table = _Table(Tally(first, last))
        async for row in self._rows(f"show lines since {since}", document % since, _Read[_Row]):
            sequence = sequence_in_line(period, row.ext_identifier)
            if sequence is not None and first <= sequence <= last:
                table.add(sequence, row)
        return table

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
        after: str | None = None
        while True:
            variables = {"first": _PAGE, "after": after}
            call = self._call(what, Purpose.READ_BACK, document, variables)
            page = (await self._ask(call, model.model_validate)).rows
            edges = page.edges or []
            for edge in edges:
                yield edge.node
            if not edges or not page.page_info.has_next_page:
                return
            after = edges[-1].cursor

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

        A limit is checked before anything is executed. Data beside an error says that some was.
        """
        errors = answer.errors or [_Error()]
        complaint = _complaint(reply, errors[0].message, errors[0].name)
        wait = self._wait(errors[0])
        if wait is not None:
            return self._http.unsent(call, self._http.quote(complaint), retry_after=wait)
        if not reply.is_success:
            return self._http.verdict(call, complaint)
        if answer.data is not None or not _permanent(errors[0]):
            return self._http.lost(call, self._http.quote(complaint))
        culprits = {
            sequence
            for error in errors
            for each in _blamed(inputs, error)
            if period and (sequence := sequence_in_line(period, each["clientId"])) is not None
        }
        of_content = bool(inputs) and _of_content(errors[0])
        return self._http.declined(call, complaint, culprits=culprits, of_content=of_content)

    def _wait(self, error: _Error) -> timedelta | None:
        """Return how long a limit asks us to wait; None if the error is no limit."""
        limit = error.name.rpartition(".")[2]
        reset = error.extensions and error.extensions.reset_at
        if limit == _CREDITS and reset:
            return self._until(reset) or _LIMITS[limit]
        return _LIMITS.get(limit)

    def _until(self, reset: str) -> timedelta | None:
        """Return how long it is until a time that Xledger wrote, which has no zone."""
        try:
            moment = datetime.fromisoformat(reset)
        except ValueError:
            return None
        local = moment if moment.tzinfo else moment.replace(tzinfo=_ITS_TIME)
        return max(local - self._now(), timedelta(0))


# -- what a voucher becomes ------------------------------------------------------------------------


def rows(period: Period, voucher: Voucher) -> list[Json]:
    """Return a voucher as inputs of the mutation. Raises Refused for one that cannot be one."""
    if why := objection(period, voucher):
        raise Refused(f"voucher {voucher.number} (record {voucher.record_id}) {why}")
    return [_input(period, voucher, line) for line in voucher.lines]


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
    booked, amount = voucher.totals.booked, debit(line.amount for line in voucher.lines)
    if booked != amount and (not amount or Decimal(_rate(voucher) or 0) == 0):
        return (
            f"has {amount:f} {voucher.currency} booked as {booked:f}, from which no exchange rate "
            "follows: correct the amounts of the claim"
        )
    return None


def _input(period: Period, voucher: Voucher, line: VoucherLine) -> Json:
    """Return a line as the mutation takes it; amounts are decimal strings."""
    name = line_reference_to(period, voucher.sequence, line.number)
    node: Json = {
        "extIdentifier": name,
        "trRegNumber": voucher.number,
        "postedDate": voucher.posting_date.isoformat(),
        "invoiceDate": voucher.document_date.isoformat(),
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
    if rate := _rate(voucher):
        node["exchangeRate"] = rate
    return {"clientId": name, "node": node}


def _rate(voucher: Voucher) -> str | None:
    """Return the book currency's price of the voucher's, or None where the amounts are the same.

    Of the whole voucher: a small line's own rate is mostly rounding.
    """
    booked, amount = voucher.totals.booked, debit(line.amount for line in voucher.lines)
    return None if booked == amount else format(booked / amount, ".8f")


# -- errors ----------------------------------------------------------------------------------------


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


def _permanent(error: _Error) -> bool:
    words = error.message.lower()
    return error.name.startswith(_PERMANENT_CODES) or any(w in words for w in _PERMANENT_WORDS)


def _of_content(error: _Error) -> bool:
    """Whether an error is about the values of nodes, and not about the schema, a right or a size.

    INVALID_VALUE is; wrong arguments may as well be a field that the schema does not have.
    """
    words = error.message.lower()
    return error.name.startswith("INVALID_VALUE") and not any(w in words for w in _SET_UP_WORDS)


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
