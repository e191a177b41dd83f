"""What is uncertain about Xledger, as questions to a tenant.

Reading costs five requests or so. Writing stages rows on an account that does not exist, so that
the posting job refuses them if the import does not: nothing is ever posted. Xledger shows no way to
delete a staged row, so those that were taken are named, for a person to delete.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from secrets import token_hex
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from kvitt.domain.errors import Refused, Unsent
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
from kvitt.vendors.xledger import Xledger, XledgerSettings

_DEMO = "demo.xledger.net"
_NO_ACCOUNT = "KVITT-NONE"
_VOUCHER = 999_999_999
_TEXT, _REFERENCE = 60, 25
_PAGES = 4
_MARGIN = timedelta(hours=2)
_ITS_TIME = ZoneInfo("Europe/Oslo")

_ADD = """
mutation ($inputs: [AddGLImportItemsInput!]!) {
  addGLImportItems(inputs: $inputs) { edges { clientId node { dbId } } }
}
"""
_RECENT = """
query ($first: Int, $after: String) {
  rows: %s(first: $first, after: $after, filter: {modifiedAt_gte: "%s"}) {
    edges { cursor node { extIdentifier text } }
    pageInfo { hasNextPage }
  }
}
"""
_BY_REFERENCE = """
query {
  staged: glImportItems(first: 5, filter: {extIdentifier: %s}) { edges { node { extIdentifier } } }
  posted: journalEntries(first: 5, filter: {extIdentifier: %s}) { edges { node { extIdentifier } } }
}
"""
_PROBLEMS = "query { rows: glImportItemErrors(first: 1) { edges { node { extIdentifier } } } }"
_FIELDS = """
query { __type(name: "GLImportItemInput") { inputFields { name description } } }
"""
DOCUMENTS = (
    _ADD,
    _RECENT % ("glImportItems", "2020-01-01T00:00:00"),
    _RECENT % ("journalEntries", "2020-01-01T00:00:00"),
    _BY_REFERENCE % ('"X"', '"X"'),
    _PROBLEMS,
    _FIELDS,
)


# -- reading ---------------------------------------------------------------------------------------


async def _filters_by_reference(client: Xledger, left: list[str]) -> Seen:
    del left
    known = await _any_reference(client)
    wanted = json.dumps(known or "KVITT-NOBODYS")
    reply = await client.exchange(_BY_REFERENCE % (wanted, wanted))
    if complaint := _complaint(reply):
        return decided(False, complaint)  # noqa: FBT003 - the fact is false
    nodes = [node for table in ("staged", "posted") for node in _nodes(reply, table)]
    found = [node["extIdentifier"] for node in nodes]
    if known is None:
        words = f"it is accepted, and finds {len(found)} for a reference that nobody has"
        return decided(not found, f"{words}; the tenant has no recent row to try it on")
    right = bool(found) and all(each == known for each in found)
    return decided(right, f"for a reference that is there it finds {len(found)} rows")


async def _any_reference(client: Xledger) -> str | None:
    """Return the reference of some row that changed in the last hours."""
    for table in ("journalEntries", "glImportItems"):
        reply = await client.exchange(_RECENT % (table, _since()), {"first": 50, "after": None})
        for node in _nodes(reply):
            if node["extIdentifier"]:
                return node["extIdentifier"]
    return None


async def _errors_carry_reference(client: Xledger, left: list[str]) -> Seen:
    del left
    complaint = _complaint(await client.exchange(_PROBLEMS))
    return decided(not complaint, complaint or "the field can be asked for")


async def _wrong_token_has_status_200(client: Xledger, left: list[str]) -> Seen:
    del left
    status = await client.status_of_a_wrong_token()
    if status not in {200, 401, 403}:
        return unknown(f"a wrong token is answered with HTTP {status}")
    return decided(status == 200, f"a wrong token is answered with HTTP {status}")  # noqa: PLR2004 - the status itself


async def _schema_says_lengths(client: Xledger, left: list[str]) -> Seen:
    del left
    reply = await client.exchange(_FIELDS)
    if complaint := _complaint(reply):
        return unknown(f"the schema cannot be looked at: {complaint}")
    kind: Json = reply["data"]["__type"] or {}
    fields: list[dict[str, str]] = kind.get("inputFields") or []
    said = {
        field["name"]: field["description"]
        for field in fields
        if field["name"] in {"text", "extIdentifier"} and field["description"]
    }
    words = "; ".join(f"{name}: {description}" for name, description in said.items())
    telling = any(letter.isdigit() for letter in words)
    return decided(telling, words or "it describes neither text nor extIdentifier")


# -- writing: rows that can never be posted --------------------------------------------------------


async def _codes_are_checked_at_import(client: Xledger, left: list[str]) -> Seen:
    refusal = await _add(client, left, _balanced())
    return decided(refusal, refusal or "a row on an account that does not exist is staged")


async def _balance_is_checked_at_import(client: Xledger, left: list[str]) -> Seen:
    if refusal := await _add(client, left, _balanced()):
        return unknown(f"not even a voucher that balances can be staged for a trial: {refusal}")
    refusal = await _add(client, left, [_row("1.00")])
    return decided(refusal, refusal or "a voucher that does not balance is staged")


async def _one_bad_node_refuses_all(client: Xledger, left: list[str]) -> Seen:
    if refusal := await _add(client, left, _balanced()):
        return unknown(f"there is no row that could be good: {refusal}")
    rows = [_row("0.00"), _row("0.00", account=None)]
    refusal = _complaint(await _send(client, left, rows))
    if not refusal:
        return unknown("a row without an account is staged, so none is bad enough for a trial")
    there = await _staged(client, rows[0]["clientId"])
    if there is None:
        left.remove(rows[0]["clientId"])
    left.remove(rows[1]["clientId"])
    words = "the good one beside it is not staged" if there is None else "the good one is staged"
    return decided(there is None, f"{words}; the refusal: {refusal}")


async def _a_refusal_names_its_node(client: Xledger, left: list[str]) -> Seen:
    rows = [_row("0.00"), _row("0.00", account=None)]
    reply = await _send(client, left, rows)
    complaint = _complaint(reply)
    if not complaint:
        return unknown("a row without an account is staged, so nothing was refused")
    await _forget_absent(client, left, rows)
    error = reply["errors"][0]
    named = (
        rows[1]["clientId"] in complaint or "inputs[1]" in complaint or 1 in error.get("path", ())
    )
    return decided(named, f"{complaint} (path: {error.get('path')})")


async def _long_texts_are_refused(client: Xledger, left: list[str]) -> Seen:
    return await _long(client, left, text="X" * (_TEXT + 1))


async def _long_references_are_refused(client: Xledger, left: list[str]) -> Seen:
    return await _long(client, left, extIdentifier=f"KVITT-{token_hex(10)}")


async def _long(client: Xledger, left: list[str], **field: str) -> Seen:
    """Stage a row with a value one longer than kvitt writes; say what became of it."""
    if refusal := await _add(client, left, _balanced()):
        return unknown(f"not even short values can be staged for a trial: {refusal}")
    row = _row("0.00", **field)
    if refusal := await _add(client, left, [row]):
        return decided(True, refusal)  # noqa: FBT003 - the fact is true
    [(name, value)] = field.items()
    there = await _staged(client, row["node"]["extIdentifier"])
    length = len(str((there or {}).get(name) or ""))
    if length < len(value):
        return decided(True, f"it is taken, and shown with {length} characters")  # noqa: FBT003 - cut is not kept
    return decided(False, f"{length} characters are taken and kept")  # noqa: FBT003 - the fact is false


def _balanced() -> list[Json]:
    return [_row("1.00"), _row("-1.00")]


def _row(amount: str, *, account: str | None = _NO_ACCOUNT, **further: Any) -> Json:
    name = f"KVITT-{token_hex(6)}"
    node = {
        "extIdentifier": name,
        "trRegNumber": _VOUCHER,
        "postedDate": datetime.now(_ITS_TIME).date().isoformat(),
        "amount": amount,
        "text": "kvitt: a trial, may be deleted",
        **({} if account is None else {"account": {"code": account}}),
        **further,
    }
    return {"clientId": name, "node": node}


async def _add(client: Xledger, left: list[str], rows: list[Json]) -> str:
    """Stage rows; returns the refusal, or nothing. Those that are there after one stay named."""
    reply = await _send(client, left, rows)
    complaint = _complaint(reply)
    if complaint and not reply.get("data"):
        await _forget_absent(client, left, rows)
    return complaint


async def _forget_absent(client: Xledger, left: list[str], rows: list[Json]) -> None:
    """Take rows that are not there from what was left. The first stands for all of them."""
    if await _staged(client, rows[0]["node"]["extIdentifier"]) is None:
        for row in rows:
            left.remove(row["node"]["extIdentifier"])


async def _send(client: Xledger, left: list[str], rows: list[Json]) -> Json:
    before = len(left)
    left += [row["node"]["extIdentifier"] for row in rows]
    try:
        return await client.exchange(_ADD, {"inputs": rows}, writes=True)
    except (Refused, Unsent):  # not so Uncertain: they may be there
        del left[before:]
        raise


async def _staged(client: Xledger, reference: str) -> Json | None:
    """Return a staged row by the beginning of its reference; None where it is not among recent."""
    variables: Json = {"first": 500, "after": None}
    for _ in range(_PAGES):
        reply = await client.exchange(_RECENT % ("glImportItems", _since()), variables)
        nodes = _nodes(reply)
        for node in nodes:
            if node["extIdentifier"] and reference.startswith(node["extIdentifier"]):
                return node
        page: Json = reply["data"]["rows"]
        if not nodes or not page["pageInfo"]["hasNextPage"]:
            return None
        variables["after"] = page["edges"][-1]["cursor"]
    raise LookupError(f"{reference} is not among the last {_PAGES * 500} rows")


def _since() -> str:
    local = (datetime.now(UTC) - _MARGIN).astimezone(_ITS_TIME)
    return local.strftime("%Y-%m-%dT%H:%M:%S")


def _complaint(reply: Json) -> str:
    """Return what a reply complains of, with its code; nothing where it does not."""
    errors: list[Json] = reply.get("errors") or []
    if not errors:
        return ""
    further: Json = errors[0].get("extensions") or {}
    code = str(errors[0].get("code") or further.get("code") or "")
    return f"{code} {errors[0].get('message', '')}".strip()


def _nodes(reply: Json, table: str = "rows") -> list[Json]:
    """Return what a reply lists; `edges` may be null or []."""
    data: Json = reply.get("data") or {}
    rows: Json = data.get(table) or {}
    edges: list[Json] = rows.get("edges") or []
    return [edge["node"] for edge in edges]


_QUESTIONS = (
    Question(
        fact="xl-filter-by-ext-identifier",
        asks="Can staged and posted lines be filtered by extIdentifier?",
        ask=_filters_by_reference,
        assumes="no: kvitt reads what changed since the period was due, and picks its own",
        follows={
            Verdict.TRUE: "A read-back could ask for its own lines only. kvitt does not yet: "
            "nothing is to be set; tell us, if your entity is so busy that read-backs are dear",
            Verdict.FALSE: "As assumed. A read-back costs one request for each 500 rows of "
            "anybody's that changed since the period was due",
        },
    ),
    Question(
        fact="xl-errors-carry-ext-identifier",
        asks="Do refusals of the posting job (glImportItemErrors) show extIdentifier?",
        ask=_errors_carry_reference,
        assumes="yes; the set-up is reported as a misfit where they do not",
        follows={
            Verdict.TRUE: "As assumed: a refused line is traced to its voucher",
            Verdict.FALSE: "Refused lines are not traced to their vouchers. Look at the import "
            "errors in Xledger, then: kvitt mend … --accept-set-up",
        },
    ),
    Question(
        fact="xl-token-error-status",
        asks="Is a wrong token answered with HTTP 200?",
        ask=_wrong_token_has_status_200,
        assumes="either: kvitt goes by the words and by the status",
        follows={},
    ),
    Question(
        fact="xl-schema-says-lengths",
        asks="Does the schema say how long text and extIdentifier may be?",
        ask=_schema_says_lengths,
        assumes="no: kvitt writes at most 60 and 21 characters",
        follows={Verdict.TRUE: "Compare the lengths with 60 for text and 21 for extIdentifier"},
    ),
    Question(
        fact="xl-codes-checked-at-import",
        asks="Is a row on an account that does not exist refused at the import?",
        ask=_codes_are_checked_at_import,
        assumes="either: refused at once it is set aside, refused later it is followed up",
        follows={
            Verdict.TRUE: "A wrong account is known at once, and its voucher is set aside",
            Verdict.FALSE: "A wrong account is known only when Xledger's posting job has run",
        },
        writes=True,
    ),
    Question(
        fact="xl-balance-checked-at-import",
        asks="Is a voucher that does not sum to 0 refused at the import?",
        ask=_balance_is_checked_at_import,
        assumes="either: kvitt's vouchers always sum to 0",
        follows={},
        writes=True,
    ),
    Question(
        fact="xl-one-bad-node-refuses-all",
        asks="Does one bad node refuse the whole mutation?",
        ask=_one_bad_node_refuses_all,
        assumes="not known: unless the connection says all_or_nothing, such a call is read back",
        follows={
            Verdict.TRUE: "Turn the connection's all_or_nothing on: what is refused is then set "
            "aside at once, and the rest is sent without waiting",
            Verdict.FALSE: "Leave the connection's all_or_nothing off. A refused voucher makes its "
            "call uncertain: the period waits for the settle time before it goes on, and a voucher "
            "of which one line was bad stops for a person, as the rest of it is staged",
        },
        writes=True,
    ),
    Question(
        fact="xl-refusal-names-its-node",
        asks="Does a refusal name the node that is to blame?",
        ask=_a_refusal_names_its_node,
        assumes="either: where it names none, the voucher is found by halving",
        follows={
            Verdict.TRUE: "A refused voucher costs one further request",
            Verdict.FALSE: "A refused voucher among 250 costs nine further requests",
        },
        writes=True,
    ),
    Question(
        fact="xl-text-length",
        asks="Are texts of more than 60 characters refused or cut?",
        ask=_long_texts_are_refused,
        assumes="yes: kvitt cuts at 60",
        follows={Verdict.FALSE: "Longer texts would fit; kvitt cuts at 60 all the same"},
        writes=True,
    ),
    Question(
        fact="xl-reference-length",
        asks="Are extIdentifiers of more than 25 characters refused or cut?",
        ask=_long_references_are_refused,
        assumes="yes: kvitt's have 21",
        follows={Verdict.FALSE: "Nothing: kvitt's have 21 characters"},
        writes=True,
    ),
)


def _is_harmless(settings: XledgerSettings) -> bool:
    host = urlsplit(settings.api_url).hostname
    return host == _DEMO or is_loopback(settings.api_url)


XLEDGER = Examination(
    open=lambda settings, timeouts, budget: Xledger(settings, timeouts, budget=budget),
    questions=_QUESTIONS,
    address=lambda settings: settings.api_url,
    harmless=_is_harmless,
)
