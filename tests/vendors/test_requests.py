"""Each request that a client can make is one that the vendor's definitions know, to the field."""

import json
import re
from collections.abc import Iterator
from datetime import date
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import respx
from graphql import GraphQLError, build_schema, get_variable_values, parse, validate
from graphql.language import OperationDefinitionNode

from kvitt.domain.errors import VendorError
from kvitt.domain.periods import Period
from kvitt.vendors import Client, exact_json
from kvitt.vendors import xledger as client_module
from sandbox.vendors.business_central.entities import ENTITIES, accept
from sandbox.vendors.business_central.errors import ApiError
from sandbox.vendors.business_central.odata import read_options
from sandbox.vendors.xledger.schema import SDL, schema_for
from tests.vendors.cast import Simulator, a_claim, a_period, claims, line, voucher

SEGMENT = re.compile(r"(\w+)\([^)]*\)")
EVERYTHING = voucher(
    7,
    line("7140", "1173.21", amount="100.00", tax="1", text="X" * 300),
    line("6800", "0.00", dimensions={"glObject1": "10", "glObject5": "20", "project": "P-CUP"}),
    line("2910", "-1173.21", amount="-100.00", party="ANS-102"),
    currency="EUR",
    source="KV",
)


def allow() -> None:
    """Guard nothing."""


# -- Xledger ---------------------------------------------------------------------------------------


BY_TIME = 'modifiedAt_gte: "2026-11-24T05:00:00"'
BY_REFERENCE = 'extIdentifier_gte: "KVITT", extIdentifier_lt: "KVITU"'


def documents(condition: str = BY_TIME) -> dict[str, str]:
    """Return every GraphQL document of the client: each text of its module that is one."""
    found = {
        name: text.replace("%s", condition)
        for name, text in vars(client_module).items()
        if isinstance(text, str) and re.match(r"\s*(query|mutation)\b", text)
    }
    assert {"_ADD", "_STAGED", "_POSTED", "_PROBLEMS", "_ALIVE"} <= set(found)
    return found


@pytest.mark.parametrize("name", documents())
def test_each_document_is_valid_by_the_schema(name: str) -> None:
    assert validate(build_schema(SDL), parse(documents()[name])) == []


@pytest.mark.parametrize("filterable", [True, False])
@pytest.mark.parametrize("name", documents())
def test_each_document_is_valid_whether_one_can_filter_by_reference_or_not(
    name: str, *, filterable: bool
) -> None:
    schema = schema_for(filterable=filterable, errors_carry_reference=True)
    assert validate(schema, parse(documents()[name])) == []


@pytest.mark.parametrize("name", documents())
def test_each_document_may_filter_by_reference_where_the_schema_can(name: str) -> None:
    schema = schema_for(filterable=True, errors_carry_reference=True)
    assert validate(schema, parse(documents(BY_REFERENCE)[name])) == []


@pytest.mark.parametrize(
    "each", [a_claim(1), EVERYTHING, *claims(2, 3)], ids=lambda each: str(each.sequence)
)
def test_a_vouchers_rows_are_valid_variables_of_the_mutation(each: Any) -> None:
    rows = client_module.rows(a_period(), each)
    assert errors_of(documents()["_ADD"], {"inputs": rows}) == []


def test_a_field_that_the_schema_does_not_have_is_refused() -> None:
    document = documents()["_STAGED"].replace("invoiceAmount", "invoiceTotal")
    [error] = validate(build_schema(SDL), parse(document))
    assert "invoiceTotal" in error.message
    [row, *_] = client_module.rows(a_period(), a_claim(1))
    row["node"]["journal"] = "X"
    assert "journal" in errors_of(documents()["_ADD"], {"inputs": [row]})[0].message


async def test_nothing_else_is_sent_than_these_documents(xl: Client, period: Period) -> None:
    with respx.mock(assert_all_called=False) as router:
        router.route(host="127.0.0.1").pass_through()
        await xl.send(period, [a_claim(1), EVERYTHING], begins=True, guard=allow)
        await xl.find(period, claims(1, 9))
        await xl.totals(period)
        await xl.refused_lines(period)
        await xl.misfits(book_currency="NOK", today=date(2026, 11, 24))
        await xl.probe()
        asked = [json.loads(call.request.content) for call in router.calls]
    known = {squeezed(text) for text in documents().values()}
    for each in asked:
        assert squeezed(re.sub(r'_gte: "[^"]*"', '_gte: "2026-11-24T05:00:00"', each["query"])) in (
            known
        )
        assert errors_of(each["query"], each["variables"]) == []


def squeezed(document: str) -> str:
    return " ".join(document.split())


def errors_of(document: str, variables: dict[str, Any]) -> list[GraphQLError]:
    """Return what is wrong with a request by the schema: its document, then its variables."""
    schema = schema_for(filterable=False, errors_carry_reference=True)
    parsed = parse(document)
    if wrong := validate(schema, parsed):
        return wrong
    [operation] = [d for d in parsed.definitions if isinstance(d, OperationDefinitionNode)]
    values = get_variable_values(schema, operation.variable_definitions or (), variables)
    return list(values) if isinstance(values, list) else []


# -- Business Central ------------------------------------------------------------------------------


def check(method: str, url: str, body: Any) -> str:
    """Hold a request against the entity definitions; returns its shape. Raises ApiError.

    A $batch is as many requests. A shape is the method, the path without ids, and what is named.
    """
    path, _, query = url.partition("?")
    segments = [SEGMENT.sub(r"\1", part) for part in path.split("/")]
    entity = ENTITIES.get(segments[-1]) or ENTITIES.get(segments[-2])
    assert entity is not None, url
    if segments[-1] == "Microsoft.NAV.post":
        assert (method, body) == ("POST", None)
        return "POST journals/Microsoft.NAV.post"
    options = parse_qsl(query, strict_parsing=bool(query))
    read_options(entity, options)
    named = sorted(name for name, _ in options)
    if body is not None:
        nested = {name: each for name, each in body.items() if isinstance(each, list)}
        accept(entity, {name: each for name, each in body.items() if name not in nested})
        for name, rows in nested.items():
            assert name in entity.expands, f"{name} is not below {entity.name}"
            for row in rows:
                check("POST", f"{path}(x)/{name}", row)
        named = sorted(nested)
    return f"{method} {segments[-1]} {' '.join(named)}".strip()


def operations(calls: Any, root: str) -> Iterator[tuple[str, str, Any]]:
    """Yield method, path below the API's root, and body; those of a $batch one by one."""
    for call in calls:
        request = call.request
        if request.url.path.endswith("/token") or "/_sandbox/" in request.url.path:
            continue
        parts = urlsplit(str(request.url))
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        path = path.removeprefix(root)
        body = exact_json.loads(request.content) if request.content else None
        if path == "$batch":
            for each in body["requests"]:
                yield each["method"], each["url"], each.get("body")
        else:
            yield request.method, path, body


async def test_each_request_that_is_made_is_known_to_the_entity_definitions(
    bc: Any, business_central: Simulator
) -> None:
    """Everything that the client does, once; the simulator executes it as well."""
    dimensions = {"AVDELING": "10"}
    business_central.give_default("6860", "AVDELING", "20")
    with_default = voucher(
        3,
        line("6860", "5.00", dimensions={**dimensions, "PROSJEKT": "P-CUP"}),
        line("2910", "-5.00"),
    )
    long = voucher(
        2, line("7140", "1.00", text="X" * 200, dimensions=dimensions), line("2910", "-1")
    )
    period, other = a_period(), a_period()
    with respx.mock(assert_all_called=False) as router:
        router.route(host="127.0.0.1").pass_through()
        await bc.send(period, [a_claim(1), long], begins=True, guard=allow)
        await bc.send(period, [with_default], begins=False, guard=allow)
        await bc.send(period, claims(4, 6), begins=False, guard=allow)
        with pytest.raises(VendorError):
            await bc.send(period, claims(4, 6), begins=False, guard=allow)
        await bc.find(period, claims(1, 6))
        await bc.withdraw(period, [1, 2], guard=allow)
        await bc.post(period, guard=allow)
        assert await bc.posted(period)
        await bc.totals(period)
        async with business_central.open() as another:
            await another.find(period, claims(1, 6))
            await another.refused_lines(period)
        await bc.send(other, [a_claim(1)], begins=True, guard=allow)
        business_central.block("7140")
        with pytest.raises(VendorError):
            await bc.post(other, guard=allow)
        await bc.misfits(book_currency="NOK", today=date(2026, 11, 24))
        await bc.probe()
        calls = list(router.calls)
    root = urlsplit(bc._root).path + "/"
    shapes = {check(*operation) for operation in operations(calls, root)}
    assert shapes == {
        "POST journals journalLines",
        "POST journalLines",
        "POST journalLines dimensionSetLines",
        "POST dimensionSetLines",
        "POST journals/Microsoft.NAV.post",
        "PATCH journalLines",
        "PATCH dimensionSetLines",
        "DELETE journals",
        "DELETE journalLines",
        "GET companies $select $top",
        "GET generalLedgerEntries $filter $select",
        "GET generalLedgerEntries $filter $select $top",
        "GET generalLedgerSetup $select",
        "GET jobQueueEntries $filter $top",
        "GET jobQueueLogEntries $filter $orderby $select $top",
        "GET journalLines $filter $select",
        "GET journalLines $filter $select $top",
        "GET journalLines $expand $filter $select",
        "GET journalLines $select",
        "GET journalLines $select $top",
        "GET journals $filter $select",
    }


@pytest.mark.parametrize(
    ("method", "url", "body"),
    [
        ("POST", "companies(x)/journals(x)/journalLines", {"currencyCode": "NOK"}),
        ("POST", "companies(x)/journals(x)/journalLines", {"journalId": "x"}),
        (
            "POST",
            "companies(x)/journals",
            {"code": "A", "journalLines": [{"dueDate": "2026-01-01"}]},
        ),
        ("GET", "companies(x)/generalLedgerEntries?$select=externalDocumentNumber", None),
        ("GET", "companies(x)/journals?$filter=name eq 'A'", None),
    ],
)
def test_a_field_that_the_definitions_do_not_have_is_refused(
    method: str, url: str, body: Any
) -> None:
    with pytest.raises(ApiError):
        check(method, url, body)
