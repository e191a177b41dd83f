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
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar
from zoneinfo import ZoneInfo

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from kvitt.domain.errors import Refused, VendorError
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
from kvitt.vendors.references import count_lines, reference_to, sequence_in, totals_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
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
    extensions: _Further | None = None

    @property
    def name(self) -> str:
        """Its code, which stands beside the message or among the extensions."""
        return self.code or (self.extensions and self.extensions.code) or ""


class _Answer(_Reply):
    """A GraphQL reply; after an error `data` is null."""

    data: Json | None = None
    errors: list[_Error] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Line:
    """A line of ours in the books: `name` is its extIdentifier."""

    sequence: int
    name: str
    row: _Row


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

    async def send(
        self, period: Period, vouchers: Sequence[Voucher], *, guard: Guard
    ) -> Mapping[str, Any]:
        """Stage vouchers, all or none, in one mutation of at most 500 lines (else Refused)."""
        inputs = [row for voucher in vouchers for row in rows(period, voucher)]
        if len(inputs) > _NODES:
            raise Refused(
                f"vouchers {vouchers[0].number} to {vouchers[-1].number} have {len(inputs)} lines, "
                f"and Xledger takes {_NODES} at once, vouchers whole. Nothing of them was sent: "
                "split the record"
            )
        what = f"stage {len(inputs)} lines, {inputs[0]['clientId']} to {inputs[-1]['clientId']}"
        call = self._call(what, Purpose.EXPORT, _ADD, {"inputs": inputs}, guard=guard)
        added = await self._ask(call, lambda data: self._added(call, inputs, data))
        return {"first": added[0], "last": added[-1], "rows": len(added)}

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
        lines = [line for line in await self._lines(period) if first <= line.sequence <= last]
        found = _vouchers(lines)
        if any(sequence not in found for sequence in range(first, last + 1)):
            await self._ask_for_problems(period)
        return found

    async def totals(self, period: Period) -> Totals:
        """Read what is staged or posted; original currencies where each line shows its own."""
        lines = await self._lines(period)
        return totals_of(_vouchers(lines), original=_originals(lines))

    async def posted(self, period: Period) -> bool:
        """Answer True without asking: there is nothing that we would have to tell Xledger."""
        del period
        return True

    async def probe(self) -> None:
        """Ask for the name of the query type. It costs a request, as everything does."""
        await self._ask(self._call("say that it is there", Purpose.PROBE, _ALIVE), dict)

    async def _lines(self, period: Period) -> list[_Line]:
        """Read the lines of a period, staged and posted, each as often as the books hold it.

        1. Staged ones first, posted ones then: what moves meanwhile is seen twice, not nowhere.
        2. Where a name is seen in both, staged ones again: what is no longer there has moved and is
           one line; what still is there is in the books beside the posted one.
        """
        staged = await self._window(period, _STAGED)
        posted = await self._window(period, _POSTED)
        moved = {line.name for line in posted} & {line.name for line in staged}
        if moved:
            still = {line.row.db_id for line in await self._window(period, _STAGED)}
            staged = [s for s in staged if s.name not in moved or s.row.db_id in still]
        return staged + posted

    async def _window(self, period: Period, document: str) -> list[_Line]:
        """Read what changed since the period was due, and keep what is the period's."""
        since = (period.due_at - _MARGIN).astimezone(_ITS_TIME).strftime("%Y-%m-%dT%H:%M:%S")
        rows = await self._rows(f"show lines since {since}", document % since, _Read[_Row])
        named = ((_name_in(period, row.ext_identifier), row) for row in rows)
        return [_Line(sequence=it[0], name=it[1], row=row) for it, row in named if it is not None]

    async def _ask_for_problems(self, period: Period) -> None:
        """Raise Refused if the posting job refused lines of the period."""
        try:
            problems = await self._rows("show refused lines", _PROBLEMS, _Read[_Problem])
        except Refused:
            # That these rows show extIdentifier is not confirmed. If they do not, refused lines
            # look absent, are sent again, and are refused again: a nuisance, not a duplicate.
            return
        ours = [p for p in problems if _name_in(period, p.ext_identifier) is not None]
        if ours:
            raise Refused(
                f"Xledger's posting job refused {len(ours)} lines of {period.reference}, the first "
                f"({ours[0].ext_identifier}) for this: {(ours[0].message or '')[:300]}. Mend it "
                "there, then start the period again"
            )

    async def _rows(self, what: str, document: str, model: type[_Read[N]]) -> list[N]:
        """Read all rows that a query shows, page by page."""
        rows: list[N] = []
        after: str | None = None
        while True:
            variables = {"first": _PAGE, "after": after}
            call = self._call(what, Purpose.READ_BACK, document, variables)
            page = (await self._ask(call, model.model_validate)).rows
            edges = page.edges or []
            rows += [edge.node for edge in edges]
            if not edges or not page.page_info.has_next_page:
                return rows
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

    async def _ask(self, call: Call, read: Callable[[Json], T]) -> T:
        """Make a call and return what `read` makes of its data."""

        def judge(reply: httpx.Response) -> T:
            answer = _answer_of(reply)
            if answer.errors:
                raise self._verdict(call, reply, answer)
            if not reply.is_success:
                raise self._http.verdict(call, _complaint(reply, reply.text))
            if answer.data is None:
                raise self._http.lost(call, "it answers with neither data nor errors")
            return read(answer.data)

        return await self._http.ask(call, judge)

    def _verdict(self, call: Call, reply: httpx.Response, answer: _Answer) -> VendorError:
        """Return what errors mean: a limit, a refusal, or, for any other of a write, nobody knows.

        A limit is checked before anything is executed. Data beside an error says that some was.
        """
        error = (answer.errors or [_Error()])[0]
        complaint = _complaint(reply, error.message, error.name)
        wait = self._wait(error)
        if wait is not None:
            return self._http.unsent(call, self._http.quote(complaint), retry_after=wait)
        if not reply.is_success:
            return self._http.verdict(call, complaint)
        if answer.data is None and _permanent(error):
            return self._http.refused(call, self._http.quote(complaint))
        return self._http.lost(call, self._http.quote(complaint))

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
    """Return a voucher as inputs of the mutation. Raises Refused for a dimension without a slot."""
    return [_input(period, voucher, line) for line in voucher.lines]


def _input(period: Period, voucher: Voucher, line: VoucherLine) -> Json:
    """Return a line as the mutation takes it; amounts are decimal strings."""
    name = f"{reference_to(period, voucher.sequence)}-{line.number:04d}"
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
        **_slots(voucher, line),
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


def _slots(voucher: Voucher, line: VoucherLine) -> Json:
    """Return a line's dimensions. Raises Refused for one that names no slot of Xledger's."""
    for slot in line.dimensions:
        if slot not in _SLOTS:
            raise Refused(
                f"voucher {voucher.number} (record {voucher.record_id}) has the dimension "
                f"{slot!r}, and Xledger knows {', '.join(_SLOTS)}. Nothing of it was sent: map the "
                "dimension to one of them in the integration's mapping, then start the period again"
            )
    return {slot: {"code": value} for slot, value in line.dimensions.items()}


def _rate(voucher: Voucher) -> str | None:
    """Return the book currency's price of the voucher's, or None where the amounts are the same.

    Of the whole voucher: a small line's own rate is mostly rounding.
    """
    booked, amount = voucher.totals.booked, debit(line.amount for line in voucher.lines)
    return None if booked == amount else format(booked / amount, ".8f")


# -- what is read back -----------------------------------------------------------------------------


def _name_in(period: Period, name: str | None) -> tuple[int, str] | None:
    """Return the sequence and the name of a line, if it is one of the period's."""
    text = (name or "").strip().upper()
    sequence = sequence_in(period, text.rpartition("-")[0])
    return None if sequence is None else (sequence, text)


def _vouchers(lines: Sequence[_Line]) -> dict[int, FoundVoucher]:
    return count_lines((line.sequence, line.row.amount or Decimal(0)) for line in lines)


def _originals(lines: Sequence[_Line]) -> dict[str, Decimal] | None:
    """Sum the debit side per original currency; None unless each line shows its own."""
    sums: defaultdict[str, Decimal] = defaultdict(Decimal)
    for line in lines:
        currency = line.row.currency and line.row.currency.code
        if currency is None or line.row.invoice_amount is None:
            return None
        sums[currency] += max(line.row.invoice_amount, Decimal(0))
    return dict(sums)


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
