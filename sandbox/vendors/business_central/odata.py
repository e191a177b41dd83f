"""The OData that Business Central documents: query options, $filter, and JSON with exact numbers.

$filter knows eq, ge, le, gt, lt, `and`, parentheses, and `or` between conditions on one field [C].
Everything else is refused with 400.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from sandbox.vendors.business_central.entities import (
    ENTITIES,
    Entity,
    Kind,
    in_cents,
    is_date,
    is_guid,
)
from sandbox.vendors.business_central.errors import ApiError, bad_request

OPERATORS = {"eq": "=", "ge": ">=", "le": "<=", "gt": ">", "lt": "<"}
TOKEN = re.compile(r"\s*('(?:[^']|'')*'|[()]|[^\s()']+)")
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
NUMBER = re.compile(r"-?\d+(\.\d+)?")


@dataclass(frozen=True)
class Clause:
    """A condition in SQL, its values, and the properties that it speaks of."""

    sql: str = "1"
    values: tuple[Any, ...] = ()
    properties: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a GET asks for."""

    where: Clause = field(default_factory=Clause)
    select: tuple[str, ...] = ()
    order: str = ""
    top: int | None = None
    skip: int = 0
    expand: Mapping[str, "Options"] = field(default_factory=dict[str, "Options"])


def read_options(entity: Entity, given: Iterable[tuple[str, str]]) -> Options:
    """Return the query options of one entity. Raises ApiError on any that isn't documented."""
    wanted: dict[str, Any] = {}
    for name, text in given:
        match name:
            case "$filter":
                wanted["where"] = _Filter(entity, text).clause()
            case "$select":
                wanted["select"] = tuple(
                    entity.field(each.strip()).name for each in text.split(",")
                )
            case "$top":
                wanted["top"] = _count(text)
            case "$skip" | "$skiptoken":
                wanted["skip"] = wanted.get("skip", 0) + _count(text)
            case "$orderby":
                wanted["order"] = ", ".join(_ordered(entity, each) for each in text.split(","))
            case "$expand":
                wanted["expand"] = dict(_expanded(entity, each) for each in _split(text, ","))
            case _:
                raise bad_request(f"The query option '{name}' is not supported.")
    return Options(**wanted)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise bad_request(f"'{text}' is not a count.")
    return int(text)


def _ordered(entity: Entity, text: str) -> str:
    match text.split():
        case [name] | [name, "asc"]:
            return entity.field(name).column
        case [name, "desc"]:
            return f"{entity.field(name).column} DESC"
        case _:
            raise bad_request(f"Syntax error in $orderby: '{text}'.")


def _expanded(entity: Entity, text: str) -> tuple[str, Options]:
    """Return what `name` or `name($option=…;…)` asks for."""
    parts = re.fullmatch(r"\s*(\w+)(?:\((.*)\))?\s*", text)
    if parts is None or parts[1] not in entity.expands:
        raise bad_request(f"Could not find a navigation property '{text}' on '{entity.name}'.")
    options = [option.partition("=") for option in _split(parts[2] or "", ";")]
    pairs = [(name, value) for name, _, value in options]
    return parts[1], read_options(ENTITIES[parts[1]], pairs)


def _split(text: str, separator: str) -> Iterator[str]:
    """Split at the separators that lie outside parentheses and strings."""
    part, depth, quoted = "", 0, False
    for letter in text:
        quoted ^= letter == "'"
        depth += 0 if quoted else (letter == "(") - (letter == ")")
        if letter == separator and depth == 0 and not quoted:
            yield part
            part = ""
        else:
            part += letter
    if part:
        yield part


class _Filter:
    """A recursive-descent reader of one $filter."""

    def __init__(self, entity: Entity, text: str) -> None:
        self._entity = entity
        self._text = text
        self._tokens = _tokens(text)

    def clause(self) -> Clause:
        clause = self._either()
        if self._tokens:
            raise self._wrong(self._tokens[0])
        return clause

    def _either(self) -> Clause:
        clause = self._both()
        while self._next_is("or"):
            other = self._both()
            if len(clause.properties | other.properties) > 1:
                raise ApiError(
                    400,
                    "BadRequest_MethodNotImplemented",
                    "An 'or' across different fields is not supported.",
                )
            clause = _joined(clause, "OR", other)
        return clause

    def _both(self) -> Clause:
        clause = self._condition()
        while self._next_is("and"):
            clause = _joined(clause, "AND", self._condition())
        return clause

    def _condition(self) -> Clause:
        if self._next_is("("):
            clause = self._either()
            if not self._next_is(")"):
                raise self._wrong("no closing parenthesis")
            return clause
        name, operator, literal = self._take(), self._take(), self._take()
        if operator not in OPERATORS:
            raise self._wrong(operator)
        known = self._entity.field(name)
        value = _literal(known.kind, literal)
        sql = f"({known.column}) {OPERATORS[operator]} ?"
        return Clause(sql, (value,), frozenset({name}))

    def _next_is(self, token: str) -> bool:
        found = self._tokens[:1] == [token]
        del self._tokens[: int(found)]
        return found

    def _take(self) -> str:
        if not self._tokens:
            raise self._wrong("it ends too early")
        return self._tokens.pop(0)

    def _wrong(self, what: str) -> ApiError:
        return bad_request(f"Syntax error in $filter '{self._text}': {what}.")


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    place = 0
    while text[place:].strip():
        found = TOKEN.match(text, place)
        if found is None:
            raise bad_request(f"Syntax error in $filter '{text}' at position {place}.")
        tokens.append(found[1])
        place = found.end()
    return tokens


def _joined(left: Clause, word: str, right: Clause) -> Clause:
    return Clause(
        f"({left.sql} {word} {right.sql})",
        left.values + right.values,
        left.properties | right.properties,
    )


def _literal(kind: Kind, text: str) -> Any:  # noqa: PLR0911 - a table
    """Return a literal of this kind as it is kept. Raises ApiError if it is of another kind.

    A string is compared as given, although BC keeps codes in upper case: whether BC would fold it
    is not documented, so an exporter had better ask in upper case.
    """
    quoted = text.startswith("'")
    match kind:
        case Kind.TEXT | Kind.CODE | Kind.CHOICE if quoted:
            return text[1:-1].replace("''", "'")
        case Kind.DATE if is_date(text):
            return text
        case Kind.MOMENT if MOMENT.fullmatch(text):
            return text
        case Kind.GUID if is_guid(text):
            return text.lower()
        case Kind.WHOLE if NUMBER.fullmatch(text) and "." not in text:
            return int(text)
        case Kind.MONEY if NUMBER.fullmatch(text):
            return in_cents(Decimal(text))
        case Kind.FLAG if text in {"true", "false"}:
            return text == "true"
        case _:
            raise bad_request(f"The literal {text} is incompatible with type '{kind}'.")


def loads(text: bytes) -> dict[str, Any]:
    """Return a JSON object, its numbers exact. Raises ApiError."""
    try:
        value = json.loads(text, parse_float=Decimal)
    except ValueError as error:
        raise bad_request(f"The body is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise bad_request("The body is not a JSON object.")
    return value  # pyright: ignore[reportUnknownVariableType]
