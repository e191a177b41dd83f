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

import hashlib
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import quote, urlencode
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, SecretStr
from pydantic.alias_generators import to_camel

from kvitt.domain.errors import Refused, Uncertain, Unsent, VendorError
from kvitt.domain.money import Amount, Totals
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
    Unauthorised,
    retry_after,
)
from kvitt.vendors.references import (
    LAST_SEQUENCE,
    count_lines,
    reference_to,
    sequence_in,
    totals_of,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
    from decimal import Decimal
    from types import TracebackType
    from typing import Self

    import httpx

    from kvitt.domain.integrations import Timeouts
    from kvitt.domain.periods import Period
    from kvitt.domain.reconcile import FoundVoucher
    from kvitt.domain.vouchers import Voucher, VoucherLine
    from kvitt.ports import Guard

T = TypeVar("T")
R = TypeVar("R", bound="_Reply")
Json = dict[str, Any]

_BATCH_LIMIT = 100
_LINES_PER_VOUCHER = 1_999
_DESCRIPTION, _COMMENT, _EXTERNAL_NUMBER = 100, 250, 35
_DIGEST = 8
_SAME_KEY = "Internal_EntityWithSameKeyExists"
_TOKEN_MARGIN = 60.0


class BusinessCentralSettings(BaseModel):
    """One company, and the app registration that may write into it.

    The app has the permission API.ReadWrite.All in Entra, and is registered in Business Central
    as well.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    tenant_id: str = Field(pattern=r"^[A-Za-z0-9.-]+$")
    environment: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    company_id: UUID
    client_id: str
    client_secret: Secret
    api_url: Address = "https://api.businesscentral.dynamics.com"
    login_url: Address = "https://login.microsoftonline.com"
    scope: str = "https://api.businesscentral.dynamics.com/.default"


# -- replies, as far as we read them ---------------------------------------------------------------


class _Reply(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel)


class _Journal(_Reply):
    id: UUID


class _StagedLine(_Reply):
    document_number: str
    amount: Amount


class _LedgerEntry(_StagedLine):
    amount: Amount = Field(alias="debitAmount")


class _Page(_Reply, Generic[R]):
    value: list[R]
    next_link: str | None = Field(default=None, alias="@odata.nextLink")


class _Response(_Reply):
    id: str
    status: int
    body: Any = None


class _Batch(_Reply):
    responses: list[_Response]


class _NewToken(BaseModel):
    access_token: Secret
    expires_in: float


@dataclass(frozen=True, kw_only=True, slots=True)
class _Token:
    """An access token, and until when it is used by our monotonic clock."""

    secret: SecretStr
    until: float


class BusinessCentral:
    """One company in Business Central. An async context manager; a `kvitt.ports.Vendor`.

    Habits: a call carries 100 lines, as many as one $batch can bring in all or none. The first
    call, a deep insert, could carry more, but then a slow company (extensions on each line) would
    outlast our own time-out, and a lost reply would leave more to read back. Each call settles
    within 18 min: 8 of queue, 10 until the gateway gives up. Nothing is final before it is posted.
    """

    habits: Habits = Habits(
        chunk_vouchers=_BATCH_LIMIT // 2,
        chunk_lines=_BATCH_LIMIT,
        settle=timedelta(minutes=18),
        posts=True,
    )

    def __init__(
        self,
        settings: BusinessCentralSettings,
        timeouts: Timeouts,
        *,
        patience: Patience = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._http = Http("Business Central", timeouts, patience=patience)
        self._clock = clock
        self._token: _Token | None = None
        self._journals: dict[str, UUID] = {}  # by code, those that we know to exist
        self._root = f"{settings.api_url}/v2.0/{settings.tenant_id}/{settings.environment}/api/v2.0"
        self._company = f"companies({settings.company_id})"

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
        """Requests spent so far, by purpose."""
        return self._http.requests

    # -- writing -----------------------------------------------------------------------------------

    async def send(
        self, period: Period, vouchers: Sequence[Voucher], *, guard: Guard
    ) -> Mapping[str, Any]:
        """Stage vouchers in the period's journal; the first of all brings the journal with it.

        All or none, except for a voucher of more than 100 lines that is not the first: its lines
        take several calls, and from the second on whatever goes wrong is Uncertain.
        """
        lines = [line for voucher in vouchers for line in rows(period, voucher)]
        journal = self._journals.get(_code(period))
        if journal is None and vouchers[0].sequence > 1:
            journal = await self._journal(period)
        if journal is None:
            journal = await self._insert(period, lines, guard)
        else:
            await self._append(period, journal, lines, guard)
        return {"journal": str(journal), "code": _code(period)}

    async def post(self, period: Period, *, guard: Guard) -> None:
        """Post the period's journal.

        A refusal may come after the ledger was committed (the analysis views are a second commit),
        so the books have the last word.
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
            if not await self._posted_all_the_same(period, refusal):
                raise

    async def _posted_all_the_same(self, period: Period, refusal: Refused) -> bool:
        try:
            return await self.posted(period)
        except Unsent as unread:
            raise Uncertain(
                f"{refusal}. Whether it was posted before that is not known: {unread}"
            ) from refusal

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
        journal = await self._ask(call, _reader(_Journal))
        self._journals[code] = journal.id
        return journal.id

    async def _append(
        self, period: Period, journal: UUID, lines: Sequence[Json], guard: Guard
    ) -> None:
        began = False
        for part in _parts(lines):
            try:
                await self._append_part(period, journal, part, guard)
            except (Unsent, Refused) as error:
                if not began:
                    raise
                raise Uncertain(
                    f"lines before these are in the journal already; {error}"
                ) from error
            began = True

    async def _append_part(
        self, period: Period, journal: UUID, lines: Sequence[Json], guard: Guard
    ) -> None:
        """Add lines to a journal that exists, all or none: a $batch in one snapshot."""
        url = f"{self._company}/journals({journal})/journalLines"
        call = Call(
            what=f"add {_named(lines)} to journal {_code(period)}",
            purpose=Purpose.EXPORT,
            method="POST",
            url=f"{self._root}/$batch",
            headers={"Isolation": "snapshot"},
            content=exact_json.dumps({"requests": [_operation(url, line) for line in lines]}),
            guard=guard,
        )
        await self._ask(call, lambda reply: self._check_batch(call, reply, len(lines)))

    def _check_batch(self, call: Call, reply: httpx.Response, sent: int) -> None:
        """Raise unless each operation succeeded, by its own status, and none is left out.

        After a failure all of them are rolled back, though those before it still say 201.
        """
        responses = _read(_Batch, reply).responses
        for response in responses:
            if not 200 <= response.status < 300:  # noqa: PLR2004 - 2xx
                raise self._verdict(call, _complaint(response.status, response.body))
        if len(responses) != sent:
            raise self._http.lost(call, f"{len(responses)} answers to {sent} operations")

    # -- reading back ------------------------------------------------------------------------------

    async def find(self, period: Period, *, first: int, last: int) -> Mapping[int, FoundVoucher]:
        """Read which vouchers are staged or posted; two of one name show as one of twice the lines.

        Raises Refused for a journal that is there without lines and entries: a mere header, or
        posted under other numbers, and nobody but a person can tell which.
        """
        journal = await self._journal_if_any(period)
        # Staged first: what is posted in between is seen twice, and stops for a person. The other
        # way round it would be seen nowhere, and sent again.
        staged = [] if journal is None else await self._staged(period, journal, first, last)
        found = count_lines([*staged, *await self._entries(period, first, last)])
        if journal is not None and not found and not await self._holds_anything(period, journal):
            raise Refused(
                f"journal {_code(period)} exists in Business Central, but neither it nor the "
                "ledger holds a line of the period: it is a mere header, or it was posted under "
                "other document numbers. Look there; if nothing of it was posted, delete the "
                "journal, then start the period again"
            )
        return found

    async def totals(self, period: Period) -> Totals:
        """Read what the ledger holds. Staged lines do not count, and currencies are not shown."""
        entries = await self._entries(period, 0, LAST_SEQUENCE)
        return totals_of(count_lines(entries), original=None)

    async def posted(self, period: Period) -> bool:
        """Whether the ledger has the period and the journal is empty.

        Raises Refused where both hold lines: posting again would book the one of them twice.
        """
        journal = await self._journal(period)
        staged = await self._staged(period, journal, 0, LAST_SEQUENCE)
        entries = await self._entries(period, 0, LAST_SEQUENCE)
        if staged and entries:
            raise Refused(
                f"the ledger holds {len(entries)} entries of journal {_code(period)}, and "
                f"{len(staged)} lines still wait in it: posting it now may book them twice. Look "
                "there, delete what is posted already, then start the period again"
            )
        return bool(entries)

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
        await self._ask(call, _reader(_Page[_Journal]))

    async def _holds_anything(self, period: Period, journal: UUID) -> bool:
        staged = await self._staged(period, journal, 0, LAST_SEQUENCE)
        return bool(staged or await self._entries(period, 0, LAST_SEQUENCE))

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

    async def _staged(
        self, period: Period, journal: UUID, first: int, last: int
    ) -> list[tuple[int, Decimal]]:
        what, path = f"show journal {_code(period)}", f"journals({journal})/journalLines"
        options = _between(period, first, last, select="documentNumber,amount")
        return [
            (sequence, row.amount)
            async for row in self._rows(what, path, options, _StagedLine)
            if (sequence := sequence_in(period, row.document_number)) is not None
        ]

    async def _entries(self, period: Period, first: int, last: int) -> list[tuple[int, Decimal]]:
        what, path = f"show the ledger entries of {period.reference}", "generalLedgerEntries"
        options = _between(period, first, last, select="documentNumber,debitAmount")
        return [
            (sequence, row.amount)
            async for row in self._rows(what, path, options, _LedgerEntry)
            if (sequence := sequence_in(period, row.document_number)) is not None
        ]

    async def _rows(
        self, what: str, path: str, options: Mapping[str, str], row: type[R]
    ) -> AsyncIterator[R]:
        """Read all rows of an entity, page by page."""
        url = (
            f"{self._root}/{self._company}/{path}?{urlencode(options, safe='$,', quote_via=quote)}"
        )
        read = _reader(_Page[row])
        while url:
            call = Call(what=what, purpose=Purpose.READ_BACK, method="GET", url=url)
            page = await self._ask(call, read)
            for each in page.value:
                yield each
            url = self._next(call, page.next_link)

    def _next(self, call: Call, link: str | None) -> str | None:
        """Return where the next page is. Our token goes there: it must not lead elsewhere."""
        if link is not None and not link.startswith(f"{self._root}/"):
            raise self._http.refused(call, "its next page lies on another host")
        return link

    # -- asking ------------------------------------------------------------------------------------

    async def _ask(self, call: Call, read: Callable[[httpx.Response], T]) -> T:
        """Make a call with a token, and once more with a fresh one if it is no longer valid."""
        try:
            return await self._ask_once(call, read)
        except Unauthorised:
            self._token = None
            return await self._ask_once(call, read)

    async def _ask_once(self, call: Call, read: Callable[[httpx.Response], T]) -> T:
        headers = {
            "Authorization": f"Bearer {await self._access_token()}",
            "Content-Type": "application/json",
            **call.headers,
        }

        def judge(reply: httpx.Response) -> T:
            if reply.is_success:
                return read(reply)
            raise self._verdict(call, _complaint_of(reply))

        return await self._http.ask(replace(call, headers=headers), judge)

    def _verdict(self, call: Call, complaint: Complaint) -> VendorError:
        """Return what a complaint means. A key that exists already says: this was here before."""
        if complaint.code == _SAME_KEY:
            return self._http.lost(call, f"{self._http.quote(complaint)}. Some of it is there")
        return self._http.verdict(call, complaint)

    async def _access_token(self) -> str:
        if self._token is None or self._clock() >= self._token.until:
            self._token = await self._new_token()
        return self._http.conceal(self._token.secret)

    async def _new_token(self) -> _Token:
        settings, asked = self._settings, self._clock()
        form = {
            "grant_type": "client_credentials",
            "client_id": settings.client_id,
            "client_secret": self._http.conceal(settings.client_secret),
            "scope": settings.scope,
        }
        call = Call(
            what="give an access token",
            purpose=Purpose.TOKEN,
            method="POST",
            url=f"{settings.login_url}/{settings.tenant_id}/oauth2/v2.0/token",
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            content=urlencode(form),
        )

        def judge(reply: httpx.Response) -> _NewToken:
            if reply.is_success:
                return _NewToken.model_validate(exact_json.loads(reply.content))
            raise self._http.verdict(call, _complaint_of(reply))

        new = await self._http.ask(call, judge)
        return _Token(secret=new.access_token, until=asked + new.expires_in - _TOKEN_MARGIN)


# -- what a voucher becomes ------------------------------------------------------------------------


def _code(period: Period) -> str:
    """Return the code of a period's journal: ten characters, the last one no digit."""
    return f"{period.reference}K"


def rows(period: Period, voucher: Voucher) -> list[Json]:
    """Return a voucher as journal lines. Raises Refused for one that has too many."""
    document = reference_to(period, voucher.sequence)
    if max(line.number for line in voucher.lines) > _LINES_PER_VOUCHER:
        raise Refused(
            f"voucher {voucher.number} (record {voucher.record_id}) has more than "
            f"{_LINES_PER_VOUCHER:,} lines, for which there are no line numbers. Nothing of it was "
            "sent: split the record"
        )
    return [
        {
            "lineNumber": line_number(voucher.sequence, line.number),
            "documentNumber": document,
            "externalDocumentNumber": _external_number(voucher.record_id),
            "postingDate": voucher.posting_date.isoformat(),
            "accountType": "Vendor" if line.party else "G/L Account",
            "accountNumber": line.party or line.account,
            "amount": line.booked,
            **_words_of(line),
        }
        for line in voucher.lines
    ]


def line_number(sequence: int, number: int) -> int:
    """Return the same number for a line each time, so that to insert it twice is an error.

    Never a multiple of 2,000: Business Central's own blank line after posting has number 10,000.
    The greatest, for voucher 999,999, is just below the field's 2^31.
    """
    return sequence * (_LINES_PER_VOUCHER + 1) + number


def _words_of(line: VoucherLine) -> Json:
    """Return what a line has only sometimes. A text that is too long goes on as a comment."""
    words: Json = {"description": line.text[:_DESCRIPTION]}
    if len(line.text) > _DESCRIPTION:
        words["comment"] = line.text[:_COMMENT]
    if line.tax:
        words["taxCode"] = line.tax
    if line.dimensions:
        words["dimensionSetLines"] = [
            {"code": code, "valueCode": value} for code, value in line.dimensions.items()
        ]
    return words


def _external_number(record_id: str) -> str:
    """Return a record's id, or where it is too long its beginning and a digest of all of it."""
    if len(record_id) <= _EXTERNAL_NUMBER:
        return record_id
    digest = hashlib.sha256(record_id.encode()).hexdigest()[:_DIGEST]
    return f"{record_id[: _EXTERNAL_NUMBER - _DIGEST - 1]}-{digest}"


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


def _operation(url: str, line: Json) -> Json:
    return {
        "id": str(line["lineNumber"]),
        "method": "POST",
        "url": url,
        "headers": {"Content-Type": "application/json"},
        "body": line,
    }


def _named(lines: Sequence[Json]) -> str:
    """Say which lines these are, for a message."""
    first, last = lines[0]["documentNumber"], lines[-1]["documentNumber"]
    return f"{len(lines)} lines, {first} to {last}"


def _between(period: Period, first: int, last: int, *, select: str) -> dict[str, str]:
    """Ask for the lines of some vouchers of a period, by document number."""
    low, high = reference_to(period, first), reference_to(period, last)
    condition = f"documentNumber ge '{low}' and documentNumber le '{high}'"
    return {"$filter": condition, "$select": select}


# -- replies ---------------------------------------------------------------------------------------


def _read(model: type[R], reply: httpx.Response) -> R:
    """Return a reply's content. Raises ValueError where it is not what the model says."""
    return model.model_validate(exact_json.loads(reply.content))


def _reader(model: type[R]) -> Callable[[httpx.Response], R]:
    return lambda reply: _read(model, reply)


def _complaint_of(reply: httpx.Response) -> Complaint:
    try:
        said = exact_json.loads(reply.content)
    except ValueError:
        said = reply.text  # a gateway's page, not Business Central's own words
    return replace(_complaint(reply.status_code, said), retry_after=retry_after(reply))


def _complaint(status: int, said: Any) -> Complaint:
    """Read an error: Business Central's is an object, Entra's a word with a description beside."""
    match said:
        case {"error": {"code": str(code), "message": str(message)}}:
            return Complaint(status=status, code=code, message=message)
        case {"error": str(code), **further}:
            return Complaint(
                status=status, code=code, message=str(further.get("error_description", ""))
            )
        case _:
            return Complaint(status=status, message=str(said or ""))
