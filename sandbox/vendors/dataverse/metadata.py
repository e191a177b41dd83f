"""Definitions of tables, as far as an exporter looks at them, and who is asking."""

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from sandbox.vendors.dataverse.books import Books, Column, Table
from sandbox.vendors.dataverse.errors import ApiError, bad_request

if TYPE_CHECKING:
    from sandbox.vendors.dataverse.api import Request

PLACE = re.compile(
    r"EntityDefinitions\(LogicalName='(\w+)'\)"
    r"(?:/Attributes/Microsoft\.Dynamics\.CRM\.(String|Decimal|Integer|DateTime)AttributeMetadata)?"
)
WITHIN = re.compile(r"(Keys|Attributes)\(\$select=([\w,]+)\)")
DECIMAL_BOUND = 100_000_000_000


def answer(books: Books, request: "Request") -> dict[str, Any]:
    """Return what is asked for. Raises ApiError."""
    if request.path == "WhoAmI":
        return {"UserId": "9e1c3c9e-0000-4000-8000-00000000000a", "OrganizationId": _ID}
    place = PLACE.fullmatch(unquote(request.path))
    if place is None:
        raise bad_request(f"Resource not found for the segment '{request.path}'.")
    table = books.table(request.environment, logical=place[1])
    if table is None:
        message = f"Could not find an entity with the name '{place[1]}'."
        raise ApiError(404, "0x80060888", message)
    options = dict(parse_qsl(urlsplit(request.url).query))
    if place[2]:
        columns = [each for each in table.columns.values() if each.type == place[2]]
        wanted = options["$select"].split(",")
        return {"value": [_picked(_column(each), wanted) for each in columns]}
    return _definition(table, options)


def _definition(table: Table, options: dict[str, str]) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "LogicalName": table.logical,
        "EntitySetName": table.entity_set,
        "PrimaryIdAttribute": table.primary,
    }
    below = {
        "Keys": [
            {
                "SchemaName": key.name,
                "KeyAttributes": list(key.columns),
                "EntityKeyIndexStatus": key.status,
            }
            for key in table.keys
        ],
        "Attributes": [_column(column) for column in table.columns.values()],
    }
    expanded = {
        name: [_picked(row, select.split(",")) for row in below[name]]
        for name, select in WITHIN.findall(options.get("$expand", ""))
    }
    return {**_picked(whole, options["$select"].split(",")), **expanded}


def _column(column: Column) -> dict[str, Any]:
    own: dict[str, dict[str, Any]] = {
        "String": {"MaxLength": column.length},
        "Decimal": {"Precision": column.decimals, "MaxValue": DECIMAL_BOUND},
        "DateTime": {"Format": "DateOnly"},
    }
    named = {"LogicalName": column.name, "AttributeType": column.type}
    return {**named, **own.get(column.type, {})}


def _picked(row: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Return what is selected; a name that the type does not have is an error [C]."""
    unknown = [name for name in names if name not in row]
    if unknown:
        raise bad_request(f"Could not find a property named '{unknown[0]}'.")
    return {name: row[name] for name in names}


_ID = "7d0a5a7b-0000-4000-8000-00000000000b"
