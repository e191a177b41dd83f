"""What is uncertain about Business Central, as questions to a company.

Reading costs a request. Writing makes a journal of its own, never posts it, and deletes it again;
one that could not be deleted is named. Its lines have no amount, so that posting it by hand would
book nothing.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from kvitt.domain.errors import Refused, VendorError
from kvitt.vendors.business_central import BusinessCentral, BusinessCentralSettings
from kvitt.vendors.facts.asking import (
    Examination,
    Json,
    Question,
    Seen,
    Verdict,
    decided,
    unknown,
)
from kvitt.vendors.http import is_loopback

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

# Ten characters at most, and no period's: theirs end in K.
_CODE, _NAME = "KVITTFACTS", "kvitt: a question, may be deleted"
_SMALL_CODE = "kvittfac "
_NO_ACCOUNT = "KVITT-NONE"
_OK, _CREATED, _BAD_REQUEST, _CONFLICT = 200, 201, 400, 409
_SAME_KEY = "Internal_EntityWithSameKeyExists"


async def _head_is_answered(client: BusinessCentral, left: list[str]) -> Seen:
    del left
    status, _ = await client.exchange("HEAD", "companies?$top=1&$select=id")
    return decided(status == _OK, f"HEAD is answered with HTTP {status}")


async def _codes_are_folded(client: BusinessCentral, left: list[str]) -> Seen:
    async with _journal(client, left, code=_SMALL_CODE) as journal:
        folded = _SMALL_CODE.strip().upper()
        words = f"the code {_SMALL_CODE!r} is kept as {journal['code']!r}"
        return decided(journal["code"] == folded, words)


async def _deep_insert_appends(client: BusinessCentral, left: list[str]) -> Seen:
    async with _journal(client, left, lines=[_line(10_001)]) as journal:
        body = {"code": _CODE, "displayName": _NAME, "journalLines": [_line(20_001)]}
        status, reply = await client.exchange("POST", f"{client.company}/journals", body=body)
        there = len(await _lines(client, journal))
        words = f"HTTP {status} {_complaint(reply)}".strip()
        return decided(there > 1, f"{words}; {there} lines are in the journal then")


async def _same_key_is_400(client: BusinessCentral, left: list[str]) -> Seen:
    async with _journal(client, left):
        body = {"code": _CODE, "displayName": _NAME}
        status, reply = await client.exchange("POST", f"{client.company}/journals", body=body)
        words = f"HTTP {status} {_complaint(reply)}"
        if _SAME_KEY not in words:
            return unknown(words)
        return decided(status == _BAD_REQUEST, words)


async def _stale_etag_is_409(client: BusinessCentral, left: list[str]) -> Seen:
    async with _journal(client, left) as journal:
        status, reply = await client.exchange(
            "PATCH",
            f"{client.company}/journals({journal['id']})",
            body={"displayName": _NAME},
            headers={"If-Match": 'W/"c3RhbGU="'},
        )
        words = f"HTTP {status} {_complaint(reply)}"
        if status < _BAD_REQUEST:
            return unknown(f"a version that never was is taken for the current one: {words}")
        return decided(status == _CONFLICT, words)


async def _vendor_lines_are_shown(client: BusinessCentral, left: list[str]) -> Seen:
    path = f"{client.company}/vendors?$top=1&$select=number&$filter=blocked eq ' '"
    _, reply = await client.exchange("GET", path)
    vendors: list[Json] = reply.get("value") or []
    if not vendors:
        return unknown(f"the company shows no vendor to try it with. {_complaint(reply)}".strip())
    line = {**_line(10_001), "accountType": "Vendor", "accountNumber": vendors[0]["number"]}
    async with _journal(client, left, lines=[line]) as journal:
        there = await _lines(client, journal)
        return decided(there, f"of one staged line on a vendor, {len(there)} are shown")


async def _rolled_back_shows_201(client: BusinessCentral, left: list[str]) -> Seen:
    async with _journal(client, left) as journal:
        url = f"{client.company}/journals({journal['id']})/journalLines"
        wrong = {**_line(20_001), "accountNumber": _NO_ACCOUNT}
        operations = [
            {
                "id": str(each["lineNumber"]),
                "method": "POST",
                "url": url,
                "headers": {"Content-Type": "application/json"},
                "body": each,
            }
            for each in (_line(10_001), wrong)
        ]
        _, reply = await client.exchange(
            "POST", "$batch", body={"requests": operations}, headers={"Isolation": "snapshot"}
        )
        statuses = [each["status"] for each in reply["responses"]]
        there = len(await _lines(client, journal))
        words = f"the statuses are {statuses}, and {there} lines are there then"
        if len(statuses) > 1 and statuses[-1] < _BAD_REQUEST:
            return unknown(f"{words}: nothing failed")
        return decided(statuses[0] == _CREATED and not there, words)


@asynccontextmanager
async def _journal(
    client: BusinessCentral, left: list[str], *, code: str = _CODE, lines: list[Json] | None = None
) -> AsyncGenerator[Json]:
    """Make a journal, and delete it afterwards; whatever may be left of it is named."""
    await _delete_left(client, code)
    name = f"journal {code.strip().upper()}"
    left.append(name)
    body = {"code": code, "displayName": _NAME, **({"journalLines": lines} if lines else {})}
    status, reply = await client.exchange("POST", f"{client.company}/journals", body=body)
    if status != _CREATED:
        left.remove(name)
        raise Refused(f"no journal can be made: HTTP {status} {_complaint(reply)}")
    try:
        yield reply
    finally:
        if await _delete(client, reply["id"]):
            left.remove(name)


async def _delete_left(client: BusinessCentral, code: str) -> None:
    """Delete what an earlier run left. Raises Refused for a journal that is somebody else's."""
    wanted = code.strip().upper()
    path = f"{client.company}/journals?$filter=code eq '{wanted}'&$select=id,displayName"
    _, reply = await client.exchange("GET", path)
    journals: list[Json] = reply.get("value") or []
    for there in journals:
        if there["displayName"] != _NAME or not await _delete(client, there["id"]):
            raise Refused(f"journal {wanted} is there, and is not kvitt's to delete")


async def _delete(client: BusinessCentral, journal: str) -> bool:
    try:
        path = f"{client.company}/journals({journal})"
        status, _ = await client.exchange("DELETE", path, headers={"If-Match": "*"})
    except VendorError:
        return False
    return status < _BAD_REQUEST


async def _lines(client: BusinessCentral, journal: Json) -> list[Json]:
    path = f"{client.company}/journals({journal['id']})/journalLines?$select=lineNumber"
    _, reply = await client.exchange("GET", path)
    return reply["value"]


def _line(number: int) -> Json:
    return {"lineNumber": number, "accountType": "G/L Account", "description": "kvitt"}


def _complaint(reply: Json) -> str:
    match reply:
        case {"error": {"code": code, "message": message}}:
            return f"{code}: {str(message).partition('CorrelationId')[0].strip()}"
        case _:
            return ""


_QUESTIONS = (
    Question(
        fact="bc-head-answered",
        asks="Is HEAD answered, so that a probe could do without a body?",
        ask=_head_is_answered,
        assumes="no: a probe is a GET of one company's id",
        follows={Verdict.TRUE: "Nothing: a GET of one id is as light, and documented"},
    ),
    Question(
        fact="bc-codes-folded",
        asks="Are codes upper-cased and trimmed when they are written?",
        ask=_codes_are_folded,
        assumes="either: what kvitt names is in upper case, and so is what it compares",
        follows={
            Verdict.FALSE: "Dimensions and accounts in the mapping must be written as Business "
            "Central has them, to the letter"
        },
        writes=True,
    ),
    Question(
        fact="bc-deep-insert-onto-existing",
        asks="Does a deep insert onto a code that exists append its lines?",
        ask=_deep_insert_appends,
        assumes="either: line numbers are fixed, so that a line twice is an error",
        follows={},
        writes=True,
    ),
    Question(
        fact="bc-same-key-status",
        asks="Does a code that exists already come with HTTP 400?",
        ask=_same_key_is_400,
        assumes="either: kvitt goes by the code of the error",
        follows={},
        writes=True,
    ),
    Question(
        fact="bc-stale-etag-status",
        asks="Does a version that is no longer current come with HTTP 409?",
        ask=_stale_etag_is_409,
        assumes="either, also 412: it is read again",
        follows={},
        writes=True,
    ),
    Question(
        fact="bc-vendor-lines-shown",
        asks="Are staged lines on vendors shown?",
        ask=_vendor_lines_are_shown,
        assumes="yes",
        follows={
            Verdict.TRUE: "As assumed: a call whose reply was lost is read back and goes on",
            Verdict.FALSE: "A call whose reply was lost stops for a person, as its vouchers seem "
            "incomplete while they are staged. Nothing is booked twice",
        },
        writes=True,
    ),
    Question(
        fact="bc-rolled-back-shows-201",
        asks="Do operations of a failed snapshot batch show 201 although they were rolled back?",
        ask=_rolled_back_shows_201,
        assumes="yes: kvitt believes a batch only if each of its operations succeeded",
        follows={},
        writes=True,
    ),
)

BUSINESS_CENTRAL: Examination[BusinessCentralSettings, BusinessCentral] = Examination(
    open=lambda settings, timeouts, budget: BusinessCentral(settings, timeouts, budget=budget),
    questions=_QUESTIONS,
    address=lambda settings: f"{settings.api_url} ({settings.environment})",
    # One address serves production and sandboxes alike, and a name proves nothing.
    harmless=lambda settings: is_loopback(settings.api_url),
)
