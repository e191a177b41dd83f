"""Microsoft Dataverse: journal lines as rows of an organisation's own table, over its Web API.

One table, a row a line, final as soon as it is there. Each row carries its name,
`<period's reference>-<sequence>-<line>`, in a column that is an alternate key, and is written by a
PATCH to that key with `If-None-Match: *`: created, or refused with 412 because it is there. So
Dataverse itself keeps each line from being booked twice, whoever sends it again, and however late a
lost call commits; where the key is missing, the address leads nowhere and nothing is written.

The rows of a call are one change set of a $batch: all of them, or none. So a voucher is never there
in part, and one table is enough: with vouchers in a second one there would be a second key, and
headers without lines to reckon with.

The facts are Microsoft's, collected and graded in docs/vendors/dataverse.md.
"""

from __future__ import annotations

import email
import re
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeVar, cast
from urllib.parse import quote, urlencode

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    StringConstraints,
    model_validator,
)

from kvitt.domain.errors import Refused, Uncertain, Unsent, VendorError
from kvitt.domain.mapping import codes_of, dimensions_of
from kvitt.domain.money import Amount, Totals, minor_units
from kvitt.domain.reconcile import compare
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
    retry_after,
)
from kvitt.vendors.odata import Page
from kvitt.vendors.references import (
    LAST_SEQUENCE,
    Tally,
    line_reference_to,
    record_in,
    reference_to,
    sequence_in_line,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
    from datetime import date
    from email.message import Message

    import httpx

    from kvitt.domain.integrations import Timeouts
    from kvitt.domain.mapping import Mapping as Declaration
    from kvitt.domain.mapping import Path
    from kvitt.domain.periods import Period
    from kvitt.domain.reconcile import FoundVoucher
    from kvitt.domain.vouchers import Voucher, VoucherLine
    from kvitt.ports import Budget, Guard

T = TypeVar("T")
R = TypeVar("R", bound=BaseModel)
Json = dict[str, Any]

_API = "api/data/v9.2"
_OPERATIONS = 1_000  # in one $batch
_PAGE = 5_000
_LARGEST = Decimal(10) ** 11  # of a decimal column, either way
_CODE, _TEXT, _RECORD = 100, 200, 100
# Of an app's 52. Even without a pause, three calls side by side spend 15 of the 20 minutes of
# execution time that five minutes allow; the rest is for reading, and for the app's other runs.
_AT_ONCE = 3
_LOGICAL_NAME = r"^[a-z][a-z0-9_]{0,127}$"
# Errors about what a row holds: too long, out of range, no such choice, refused by a plug-in.
_CONTENT_CODES = ("0x80044331", "0x80044330", "0x8004432f", "0x8004431a", "0x80040265")
# What a 429 comes with; for people who look for the reason, says Microsoft, and not to steer by.
_ALLOWANCES = {
    "x-ms-ratelimit-burst-remaining-xrm-requests": "requests left",
    "x-ms-ratelimit-time-remaining-xrm-requests": "execution time left",
}
_METADATA = "Microsoft.Dynamics.CRM"

LogicalName = Annotated[str, StringConstraints(pattern=_LOGICAL_NAME)]


class DataverseColumns(BaseModel):
    """The columns of the table, by their logical names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: LogicalName = "kvitt_name"
    voucher: LogicalName = "kvitt_voucher"
    voucher_number: LogicalName = "kvitt_vouchernumber"
    line: LogicalName = "kvitt_line"
    record: LogicalName = "kvitt_record"
    posting_date: LogicalName = "kvitt_postingdate"
    document_date: LogicalName = "kvitt_documentdate"
    account: LogicalName = "kvitt_account"
    party: LogicalName = "kvitt_party"
    amount: LogicalName = "kvitt_amount"
    currency: LogicalName = "kvitt_currency"
    original_amount: LogicalName = "kvitt_originalamount"
    tax: LogicalName = "kvitt_tax"
    text: LogicalName = "kvitt_text"
    source: LogicalName = "kvitt_source"

    @model_validator(mode="after")
    def _are_different(self) -> Self:
        names = list(self.model_dump().values())
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"{', '.join(sorted(twice))} is named for two things")
        return self


_USUAL = DataverseColumns()
# What is sent into each column, to be held against the table: texts by their length, or a type.
_LENGTHS = {
    "name": 21,
    "voucher": 16,
    "record": _RECORD,
    "account": 20,
    "party": 20,
    "currency": 3,
    "tax": 20,
    "text": _TEXT,
    "source": 20,
}
_AMOUNTS = ("amount", "original_amount")
_OTHERS = {
    "voucher_number": "Integer",
    "line": "Integer",
    "posting_date": "DateTime",
    "document_date": "DateTime",
}


class DataverseSettings(EntraSettings):
    """One environment, the app that is an application user there, and the table of journal lines.

    `api_url` is the environment's address, like https://contoso.crm4.dynamics.com. Dataverse calls
    a table by two names: `table` is its logical name, `entity_set` the one in addresses.
    """

    api_url: Address
    scope: str | None = None
    table: LogicalName = "kvitt_journalline"
    entity_set: str = Field(default="kvitt_journallines", pattern=r"^[A-Za-z][A-Za-z0-9_]*$")
    columns: DataverseColumns = _USUAL


# -- replies, as far as we read them ---------------------------------------------------------------


class _Reply(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Raw(RootModel[dict[str, Any]]):
    """A row, by the table's own columns."""


class _Row(_Reply):
    """A line of anybody's: people may add rows of their own."""

    name: str | None
    amount: Amount | None
    currency: str | None
    original_amount: Amount | None


class _Key(_Reply):
    columns: list[str] = Field(alias="KeyAttributes")
    status: str = Field(alias="EntityKeyIndexStatus")


class _Column(_Reply):
    name: str = Field(alias="LogicalName")
    type: str = Field(alias="AttributeType")


class _Table(_Reply):
    entity_set: str = Field(alias="EntitySetName")
    keys: list[_Key] = Field(alias="Keys")
    columns: list[_Column] = Field(alias="Attributes")


class _TextColumn(_Reply):
    name: str = Field(alias="LogicalName")
    length: int = Field(alias="MaxLength")


class _AmountColumn(_Reply):
    name: str = Field(alias="LogicalName")
    decimals: int = Field(alias="Precision")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Answer:
    """What one operation of a $batch came to; `number` is the Content-ID that we gave it."""

    number: int | None
    status: int
    content: str


class _AlreadyThere(Uncertain):
    """A row of that name exists; nothing of the call was executed."""


class Dataverse(OverHttp):
    """One table in one environment. An async context manager; a `kvitt.ports.Vendor`.

    Habits: a call carries 100 lines. A $batch takes 1,000, but its change set is one transaction,
    for which a slow environment (plug-ins on each row) needs long: up to the two minutes that the
    platform gives it, which are waited for, and some more. Three run at a time. The settle
    time is courtesy: a call that still works is not crossed, and a service that is down not
    hammered. Nothing rests on it, as what comes later finds the names taken. No allowance: requests
    are limited by the day and the licence, and nobody says how many a month are included.
    """

    habits: Habits = Habits(
        chunk_vouchers=50,
        chunk_lines=100,
        settle=timedelta(minutes=2),
        answer=timedelta(seconds=150),
        at_once=_AT_ONCE,
        probe_requests=3,
        allowance=None,
    )

    def __init__(
        self,
        settings: DataverseSettings,
        timeouts: Timeouts,
        *,
        patience: Patience = PATIENCE,
        budget: Budget | None = None,
        line: Line | None = None,
    ) -> None:
        self._settings = settings
        self._columns = settings.columns
        self._http = Http(
            "Dataverse",
            timeouts,
            patience=patience,
            budget=budget,
            at_once=self.habits.at_once,
            answer=self.habits.answer,
            allowance=self.habits.allowance,
            line=line,
            principal=settings.client_id,
        )
        scope = settings.scope or f"{settings.api_url}/.default"
        self._entra = Entra(settings, scope, self._http)
        self._root = f"{settings.api_url}/{_API}"
        self._rows_at = f"{self._root}/{settings.entity_set}"

    # -- writing -----------------------------------------------------------------------------------

    def objection(self, period: Period, voucher: Voucher) -> str | None:
        """Say why Dataverse would not take a voucher; None where it would."""
        return objection(period, voucher)

    async def send(
        self, period: Period, vouchers: Sequence[Voucher], *, begins: bool, guard: Guard
    ) -> Mapping[str, Any]:
        """Create the rows of vouchers, all or none. Those that are there already are left alone.

        Dataverse says which call came first, so what it finds there is read, compared, and only
        what is missing is sent. Raises Refused where the rows there hold something else.
        """
        del begins  # Dataverse knows by itself
        missing = vouchers
        while missing:
            try:
                await self._create(period, missing, guard)
                break
            except _AlreadyThere as there:
                left = await self._missing(period, vouchers, there)
                if len(left) == len(missing):
                    raise Refused(
                        f"Dataverse says that rows of {_named(period, missing)} exist, and shows "
                        "kvitt none: its application user may not read them, or they were changed. "
                        "Look there, then start the period again"
                    ) from there
                missing = left
        first, last = vouchers[0].sequence, vouchers[-1].sequence
        return {"first": reference_to(period, first), "last": reference_to(period, last)}

    async def post(self, period: Period, *, guard: Guard) -> None:
        """Do nothing: a row is final as soon as it is there."""

    async def withdraw(self, period: Period, sequences: Sequence[int], *, guard: Guard) -> None:
        """Raise Refused: rows are final, and what people did with them since is not for kvitt."""
        del period, sequences, guard
        raise Refused(
            "rows in Dataverse are final as soon as they are there, so kvitt does not take them "
            "back. Delete them there"
        )

    async def _create(self, period: Period, vouchers: Sequence[Voucher], guard: Guard) -> None:
        """Create rows in one change set. Raises _AlreadyThere if one of them exists."""
        lines = [line for voucher in vouchers for line in rows(period, voucher)]
        boundary = lines[0][_USUAL.name]
        call = Call(
            what=f"create {len(lines)} rows, {_named(period, vouchers)}",
            purpose=Purpose.EXPORT,
            method="POST",
            url=f"{self._root}/$batch",
            headers={"Content-Type": f"multipart/mixed; boundary=batch_{boundary}"},
            content=_change_set(boundary, [self._creation(line) for line in lines]),
            guard=guard,
        )
        owners = [voucher.sequence for voucher in vouchers for _ in voucher.lines]
        await self._entra.ask(
            replace(call, headers={**_HEADERS, **call.headers}),
            lambda reply: self._check_batch(call, reply, owners),
        )

    def _creation(self, line: Json) -> str:
        """Return the request that creates a row, and does not change one.

        Its name is in the address alone: one in the body would be taken instead [C].
        """
        theirs = self._renamed(line)
        name, content = theirs.pop(self._columns.name), exact_json.dumps(theirs)
        return "\r\n".join(
            (
                f"PATCH {self._rows_at}({self._columns.name}='{name}') HTTP/1.1",
                "Content-Type: application/json",
                f"Content-Length: {len(content)}",
                "If-None-Match: *",
                "",
                content,
            )
        )

    def _renamed(self, line: Json) -> Json:
        """Return a line by this table's columns. Dimensions name theirs themselves."""
        theirs = {
            usual: getattr(self._columns, name) for name, usual in _USUAL.model_dump().items()
        }
        renamed = {theirs.get(column, column): value for column, value in line.items()}
        if len(renamed) < len(line):
            raise Refused(
                "a dimension is mapped to a column that holds something else: "
                f"{', '.join(sorted(set(line) & set(theirs.values())))}. Correct the integration's "
                "mapping, or the block's columns"
            )
        return renamed

    def _check_batch(self, call: Call, reply: httpx.Response, owners: Sequence[int]) -> None:
        """Raise unless each operation succeeded. `owners` are the vouchers, one an operation.

        Of a change set that fails, only the operation that failed is answered, by its Content-ID;
        the status around it is the same one, or 200 [C, reports].
        """
        if not reply.headers.get("Content-Type", "").startswith("multipart/mixed"):
            if reply.is_success:
                raise ValueError("a $batch is answered in parts")
            raise self._verdict(call, _complaint_of(reply), ())
        answers = list(_answers(reply))
        for answer in answers:
            if not 200 <= answer.status < 300:  # noqa: PLR2004 - 2xx
                complaint = replace(
                    odata.complaint(answer.status, _json_if_any(answer.content)),
                    retry_after=retry_after(reply),
                )
                blamed = owners
                if answer.number is not None and 0 < answer.number <= len(owners):
                    blamed = owners[answer.number - 1 : answer.number]
                raise self._verdict(call, complaint, blamed)
        if len(answers) != len(owners):
            raise self._http.lost(call, f"{len(answers)} answers to {len(owners)} operations")

    def _verdict(self, call: Call, complaint: Complaint, blamed: Sequence[int]) -> VendorError:
        """Return what a complaint means. `blamed` are the vouchers that it may be about."""
        if complaint.status == HTTPStatus.PRECONDITION_FAILED and call.guard is not None:
            why = f"{self._http.quote(complaint)}. Some of it is there"
            return _AlreadyThere(str(self._http.lost(call, why)))
        error = self._http.verdict(call, complaint)
        if not isinstance(error, Declined) or not complaint.code.startswith(_CONTENT_CODES):
            return error
        culprits = set(blamed)
        return self._http.declined(
            call,
            complaint,
            culprits=culprits if len(culprits) == 1 else (),
            of_content=bool(culprits),
        )

    async def _missing(
        self, period: Period, vouchers: Sequence[Voucher], there: _AlreadyThere
    ) -> Sequence[Voucher]:
        """Return which vouchers are not there. Raises Refused where one is there, but different."""
        try:
            found = await self.find(period, vouchers)
        except Unsent as unread:
            raise Uncertain(f"{there}. It could not be read back: {unread}") from there
        seen = compare(vouchers, found)
        if different := (*seen.contradictions, *seen.short):  # what was there came as a whole
            raise Refused(
                "Dataverse holds something else under the names of these vouchers: "
                f"{'; '.join(different[:5])}. Look there, delete what is wrong, then "
                "start the period again"
            ) from there
        return seen.missing

    # -- reading back ------------------------------------------------------------------------------

    async def find(self, period: Period, vouchers: Sequence[Voucher]) -> Mapping[int, FoundVoucher]:
        """Read which vouchers are there."""
        first, last = vouchers[0].sequence, vouchers[-1].sequence
        tally = Tally(first, last)
        async for sequence, row in self._lines_of(period, first, last):
            tally.add(sequence, row.amount or Decimal(0))
        return tally.found()

    async def totals(self, period: Period) -> Totals:
        """Read what is there; original currencies where each row shows its own."""
        tally = Tally()
        originals: defaultdict[str, Decimal] | None = defaultdict(Decimal)
        async for sequence, row in self._lines_of(period, 0, LAST_SEQUENCE):
            tally.add(sequence, row.amount or Decimal(0))
            if row.currency is None or row.original_amount is None:
                originals = None
            elif originals is not None:
                originals[row.currency] += max(row.original_amount, Decimal(0))
        return tally.totals().model_copy(update={"original": originals})

    async def posted(self, period: Period) -> bool:
        """Answer True without asking: there is nothing that we would have to tell Dataverse."""
        del period
        return True

    async def refused_lines(self, period: Period) -> Mapping[int, str]:
        """Return nothing: what Dataverse takes, it keeps."""
        del period
        return {}

    async def probe(self) -> None:
        """Ask for one row's name: the table is there, and the app may read it."""
        url = f"{self._rows_at}?$select={self._columns.name}&$top=1"
        await self._get("name a row", url, Page[_Raw], Purpose.PROBE)

    async def _lines_of(
        self, period: Period, first: int, last: int
    ) -> AsyncIterator[tuple[int, _Row]]:
        """Read the lines of some vouchers, each with its voucher's place in the batch.

        By a range of names, which the key's index serves. Somebody else's may sort among ours, in
        whatever order the environment's language has, and are left out.
        """
        columns = self._columns
        low, high = reference_to(period, first), line_reference_to(period, last, 9_999)
        options = {
            "$select": ",".join(getattr(columns, field) for field in _Row.model_fields),
            "$filter": f"{columns.name} ge '{low}' and {columns.name} le '{high}'",
        }
        call = self._reading(
            f"show the rows of {period.reference}",
            f"{self._rows_at}?{urlencode(options, safe='$,', quote_via=quote)}",
            Purpose.READ_BACK,
        )

        async def ask(page: Call) -> Page[_Row]:
            return await self._ask(page, self._read_rows)

        async for row in odata.rows(self._http, ask, call, below=self._root):
            if (sequence := sequence_in_line(period, row.name)) is not None:
                yield sequence, row

    def _read_rows(self, reply: httpx.Response) -> Page[_Row]:
        page = odata.read(Page[_Raw], reply)
        rows = [
            _Row.model_validate(
                {ours: raw.root[getattr(self._columns, ours)] for ours in _Row.model_fields}
            )
            for raw in page.value
        ]
        return Page[_Row].model_validate({"value": rows, "@odata.nextLink": page.next_link})

    # -- the table ---------------------------------------------------------------------------------

    async def misfits(
        self, *, book_currency: str, today: date, reads_only: bool = False
    ) -> list[str]:
        """Say what of the table would break sending or reading back, and the remedy."""
        del today, reads_only
        at = f"{self._root}/EntityDefinitions(LogicalName='{self._settings.table}')"
        options = (
            "$select=EntitySetName&$expand=Keys($select=KeyAttributes,EntityKeyIndexStatus),"
            "Attributes($select=LogicalName,AttributeType)"
        )
        try:
            table = await self._get("show its table", f"{at}?{options}", _Table, Purpose.SET_UP)
            texts = await self._columns_of(at, "String", "MaxLength", _TextColumn)
            amounts = await self._columns_of(at, "Decimal", "Precision", _AmountColumn)
        except Refused as refusal:
            words = f"The table {self._settings.table} could not be looked at: {refusal}"
            remedy = (
                "Create it, or correct its name in the block; give the app the right to read it"
            )
            return [f"{words}. {remedy}"]
        return [
            *self._misfits_of_names(table),
            *self._misfits_of_columns({each.name: each.type for each in table.columns}),
            *self._misfits_of_texts({each.name: each.length for each in texts}),
            *self._misfits_of_amounts(
                {each.name: each.decimals for each in amounts}, book_currency
            ),
        ]

    async def _columns_of(self, at: str, kind: str, what: str, model: type[R]) -> list[R]:
        url = f"{at}/Attributes/{_METADATA}.{kind}AttributeMetadata?$select=LogicalName,{what}"
        return (await self._get("show its columns", url, Page[model], Purpose.SET_UP)).value

    def _misfits_of_names(self, table: _Table) -> Iterator[str]:
        settings, name = self._settings, self._columns.name
        if table.entity_set != settings.entity_set:
            yield (
                f"The table {settings.table} has the set name {table.entity_set}, and the block "
                f"says {settings.entity_set}: correct the block"
            )
        keys = [key for key in table.keys if key.columns == [name]]
        if not keys:
            yield (
                f"The table {settings.table} has no alternate key of the column {name} alone. It "
                "is what keeps a line from being booked twice, and kvitt writes nothing without "
                "it. Create it: Tables, Keys, New key"
            )
        elif not any(key.status == "Active" for key in keys):
            yield (
                f"The alternate key of {name} is {keys[0].status}, and not yet Active. Wait until "
                "its index is built; if it has failed, see its system job"
            )

    def _misfits_of_columns(self, types: Mapping[str, str]) -> Iterator[str]:
        wanted = {
            **dict.fromkeys(_LENGTHS, "String"),
            **dict.fromkeys(_AMOUNTS, "Decimal"),
            **_OTHERS,
        }
        for field, kind in wanted.items():
            column = getattr(self._columns, field)
            if column not in types:
                yield f"The column {column} is missing: create it, as {_IN_WORDS[kind]}"
            elif types[column] != kind:
                yield (
                    f"The column {column} is of the type {types[column]}, and kvitt writes "
                    f"{_IN_WORDS[kind]} into it: create another one, and name it in the block"
                )

    def _misfits_of_texts(self, lengths: Mapping[str, int]) -> Iterator[str]:
        for field, wanted in _LENGTHS.items():
            column = getattr(self._columns, field)
            if lengths.get(column, wanted) < wanted:
                yield (
                    f"The column {column} takes {lengths[column]} characters, and kvitt may write "
                    f"{wanted}: lengthen it"
                )

    def _misfits_of_amounts(self, decimals: Mapping[str, int], currency: str) -> Iterator[str]:
        for field in _AMOUNTS:
            column, wanted = getattr(self._columns, field), minor_units(currency)
            if decimals.get(column, wanted) < wanted:
                yield (
                    f"The column {column} has {decimals[column]} decimals, and {currency} has "
                    f"{wanted}: amounts would be rounded. Give it more"
                )

    # -- asking ------------------------------------------------------------------------------------

    async def _get(self, what: str, url: str, model: type[R], purpose: Purpose) -> R:
        return await self._ask(self._reading(what, url, purpose), odata.reader(model))

    def _reading(self, what: str, url: str, purpose: Purpose) -> Call:
        """Return the call that reads. The size of a page is asked for with each of them [C].

        Not of what describes the table, which comes whole, nor of a probe, which wants one row.
        """
        paged = purpose in {Purpose.EXPORT, Purpose.READ_BACK}
        paging = {"Prefer": f"odata.maxpagesize={_PAGE}"} if paged else {}
        return Call(
            what=what, purpose=purpose, method="GET", url=url, headers={**_HEADERS, **paging}
        )

    async def _ask(self, call: Call, read: Callable[[httpx.Response], T]) -> T:
        def judge(reply: httpx.Response) -> T:
            if reply.is_success:
                return read(reply)
            raise self._verdict(call, _complaint_of(reply), ())

        return await self._entra.ask(call, judge)


_HEADERS = {"Accept": "application/json", "OData-MaxVersion": "4.0", "OData-Version": "4.0"}
_IN_WORDS = {
    "String": "Single line of text",
    "Decimal": "Decimal number",
    "Integer": "Whole number",
    "DateTime": "Date only",
}


# -- what a voucher becomes ------------------------------------------------------------------------


def rows(period: Period, voucher: Voucher) -> list[Json]:
    """Return a voucher as rows, by the usual columns. Raises Refused for one that cannot be one."""
    if why := objection(period, voucher):
        raise Refused(f"voucher {voucher.number} (record {voucher.record_id}) {why}")
    return [_row(period, voucher, line) for line in voucher.lines]


def objection(period: Period, voucher: Voucher) -> str | None:
    """Say why Dataverse would not take a voucher, in words that follow its name."""
    del period
    if max(line.number for line in voucher.lines) > _OPERATIONS:
        return (
            f"has {len(voucher.lines):,} lines, and Dataverse takes {_OPERATIONS:,} at once, "
            "vouchers whole: split the claim"
        )
    for line in voucher.lines:
        for what, code in _codes(line):
            if len(code) > _CODE:
                return (
                    f"has the {what} {code!r} of {len(code)} characters, and a column takes "
                    f"{_CODE}: map it to a shorter one"
                )
        for name in line.dimensions:
            if not _is_a_column_of_its_own(name):
                return (
                    f"has the dimension {name!r}, which cannot be a column of its own: map it to "
                    "the logical name of one in the integration's mapping, like kvitt_costcentre"
                )
        if max(abs(line.amount), abs(line.booked)) >= _LARGEST:
            return (
                f"has an amount of {max(line.amount, line.booked, key=abs):,f}, and Dataverse "
                "takes less than 100 billion: split the claim"
            )
    return None


def mapping_objections(mapping: Declaration) -> list[tuple[Path, str]]:
    """Say what of a mapping can never work in Dataverse, and where it stands."""
    found = [
        (place, f"{code!r} has {len(code)} characters, and a column takes {_CODE}")
        for place, code in codes_of(mapping)
        if len(code) > _CODE
    ]
    found += [
        (place, f"{name!r} cannot be a column of its own; name one like kvitt_costcentre")
        for place, name in dimensions_of(mapping)
        if not _is_a_column_of_its_own(name)
    ]
    if mapping.comment:
        found.append((("comment",), "the table in Dataverse has one text a line: put it into text"))
    return found


def _is_a_column_of_its_own(name: str) -> bool:
    return bool(re.fullmatch(_LOGICAL_NAME, name)) and name not in _USUAL.model_dump().values()


def _codes(line: VoucherLine) -> Iterator[tuple[str, str]]:
    """Yield the codes that a line is written with, each with a word for what it is."""
    yield "account", line.account
    yield "party", line.party or ""
    yield "tax code", line.tax or ""
    for name, value in line.dimensions.items():
        yield f"{name} code", value


def _row(period: Period, voucher: Voucher, line: VoucherLine) -> Json:
    sometimes = {
        _USUAL.party: line.party,
        _USUAL.tax: line.tax,
        _USUAL.source: voucher.source,
    }
    return {
        _USUAL.name: line_reference_to(period, voucher.sequence, line.number),
        _USUAL.voucher: reference_to(period, voucher.sequence),
        _USUAL.voucher_number: voucher.number,
        _USUAL.line: line.number,
        _USUAL.record: record_in(voucher, _RECORD),
        _USUAL.posting_date: voucher.posting_date.isoformat(),
        _USUAL.document_date: voucher.document_date.isoformat(),
        _USUAL.account: line.account,
        _USUAL.amount: line.booked,
        _USUAL.currency: voucher.currency,
        _USUAL.original_amount: line.amount,
        _USUAL.text: line.text[:_TEXT],
        **{column: value for column, value in sometimes.items() if value},
        **line.dimensions,
    }


def _named(period: Period, vouchers: Sequence[Voucher]) -> str:
    """Say which vouchers these are, for a message."""
    first, last = vouchers[0].sequence, vouchers[-1].sequence
    return f"{reference_to(period, first)} to {reference_to(period, last)}"


# -- $batch: multipart, as Dataverse has it --------------------------------------------------------


def _change_set(boundary: str, requests: Sequence[str]) -> str:
    """Return a batch of one change set. Each request has a Content-ID: its place, from 1."""
    lines = [
        f"--batch_{boundary}",
        f"Content-Type: multipart/mixed; boundary=changeset_{boundary}",
        "",
    ]
    for number, request in enumerate(requests, start=1):
        lines += [
            f"--changeset_{boundary}",
            "Content-Type: application/http",
            "Content-Transfer-Encoding: binary",
            f"Content-ID: {number}",
            "",
            request,
        ]
    return "\r\n".join([*lines, f"--changeset_{boundary}--", f"--batch_{boundary}--", ""])


def _answers(reply: httpx.Response) -> Iterator[_Answer]:
    """Read the parts of a batch's reply, those within change sets too. Raises ValueError."""
    head = f"Content-Type: {reply.headers['Content-Type']}\r\n\r\n"
    yield from _answers_in(email.message_from_bytes(head.encode() + reply.content))


def _answers_in(part: Message) -> Iterator[_Answer]:
    if part.defects:
        raise ValueError("a part is broken off")
    if part.is_multipart():
        for each in cast("list[Message]", part.get_payload()):
            yield from _answers_in(each)
        return
    text = cast("bytes", part.get_payload(decode=True)).decode().replace("\r\n", "\n")
    head, _, content = text.partition("\n\n")
    status = re.match(r"HTTP/1\.1 (\d{3})\b", head)
    if status is None:
        raise ValueError("a part is no HTTP reply")
    number = part.get("Content-ID", "")
    yield _Answer(
        number=int(number) if number.isdecimal() else None,
        status=int(status[1]),
        content=content.strip(),
    )


def _json_if_any(text: str) -> Any:
    try:
        return exact_json.loads(text)
    except ValueError:
        return text


def _complaint_of(reply: httpx.Response) -> Complaint:
    """Read a reply that is no success; of one that a limit turned away, what was left."""
    complaint = odata.complaint_of(reply)
    left = [
        f"{reply.headers[name]} {what}"
        for name, what in _ALLOWANCES.items()
        if name in reply.headers
    ]
    if complaint.status != HTTPStatus.TOO_MANY_REQUESTS or not left:
        return complaint
    return replace(complaint, message=f"{complaint.message} ({', '.join(left)})")
