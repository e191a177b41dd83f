"""The OData that Dataverse documents: keys in addresses, query options, $filter.

$filter knows eq, ne, gt, ge, lt and le, `and`, `or`, `not`, parentheses, contains, startswith and
endswith. Strings are compared without regard to case [C]. There is no $skip [C].
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

from sandbox.vendors.dataverse.books import Column, Table
from sandbox.vendors.dataverse.errors import ApiError, bad_request

OPERATORS = {"eq": "=", "ne": "!=", "ge": ">=", "le": "<=", "gt": ">", "lt": "<"}
PATTERNS = {"contains": "%{}%", "startswith": "{}%", "endswith": "%{}"}
TOKEN = re.compile(r"\s*('(?:[^']|'')*'|[(),]|[^\s(),']+)")
GUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
SEGMENT = re.compile(r"(\w+)(?:\((.*)\))?")
PAIR = re.compile(r"\s*(\w+)=('(?:[^']|'')*'|[^',]+)\s*(?:,|$)")
NUMBER = re.compile(r"-?\d+(\.\d+)?")
COOKIE = re.compile(r'<cookie pagenumber="(\d+)" last="([0-9a-f-]{36})" />')
# What an alternate key's value must not have in an address [C].
UNADDRESSABLE = set("/<>*%&:\\?+")


@dataclass(frozen=True)
class Clause:
    """A condition in SQL, and its values."""

    sql: str = "1"
    values: tuple[Any, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a GET asks for. `after` is the id of the last row of the page before."""

    select: tuple[str, ...] = ()
    where: Clause = Clause()
    order: str = ""
    top: int | None = None
    page: int = 1
    after: str = ""


def segment(text: str) -> tuple[str, str | None]:
    """Return the name of `set` or `set(key)`, and the key. Raises ApiError."""
    parts = SEGMENT.fullmatch(unquote(text))
    if parts is None:
        raise bad_request(f"Bad Request - Error in query syntax at '{text}'.")
    return parts[1], parts[2]


def key_of(table: Table, text: str) -> str | dict[str, Any]:
    """Return the id, or the alternate key by column, that an address names. Raises ApiError."""
    if GUID.fullmatch(text):
        return text.lower()
    pairs = dict[str, Any]()
    rest = text
    while found := PAIR.match(rest):
        pairs[found[1]] = _literal(found[2])
        rest = rest[found.end() :]
    if rest or not pairs:
        raise bad_request(f"Bad Request - Error in query syntax at '({text})'.")
    if not any(set(key.columns) == set(pairs) and key.status == "Active" for key in table.keys):
        raise bad_request(
            f"The specified key attributes are not a defined key for the {table.logical} entity"
        )
    if any(UNADDRESSABLE & set(str(value)) for value in pairs.values()):
        raise bad_request("Bad Request - Error in query syntax.")
    return pairs


def read_options(
    table: Table, given: Iterable[tuple[str, str]], *, hyphens_sort: bool = True
) -> Options:
    """Return the query options. Raises ApiError on any that isn't documented.

    `hyphens_sort`: they count where texts are compared; else as if they were not there.
    """
    wanted: dict[str, Any] = {}
    for name, text in given:
        match name:
            case "$select":
                wanted["select"] = tuple(_known(table, each.strip()) for each in text.split(","))
            case "$filter":
                wanted["where"] = _Filter(table, text, hyphens_sort=hyphens_sort).clause()
            case "$top":
                wanted["top"] = _count(text)
            case "$orderby":
                wanted["order"] = ", ".join(_ordered(table, each) for each in text.split(","))
            case "$skiptoken":
                wanted["page"], wanted["after"] = _cookie(text)
            case _:
                raise bad_request(f"The query parameter {name} is not supported.")
    return Options(**wanted)


def expression(name: str) -> str:
    """Return the SQL for a column's value."""
    return f"json_extract(content, '$.{name}')"


def _known(table: Table, name: str) -> str:
    if name not in table.columns and name != table.primary:
        raise bad_request(
            f"Could not find a property named '{name}' on type "
            f"'Microsoft.Dynamics.CRM.{table.logical}'."
        )
    return name


def _count(text: str) -> int:
    if not text.isdecimal():
        raise bad_request(f"Invalid value '{text}' for $top.")
    return int(text)


def _ordered(table: Table, text: str) -> str:
    match text.split():
        case [name] | [name, "asc"]:
            return expression(_known(table, name))
        case [name, "desc"]:
            return f"{expression(_known(table, name))} DESC"
        case _:
            raise bad_request(f"Syntax error in $orderby at '{text}'.")


def _cookie(text: str) -> tuple[int, str]:
    found = COOKIE.fullmatch(text)
    if found is None:
        raise bad_request("Malformed XML in the Paging Cookie")
    return int(found[1]), found[2]


class _Filter:
    """A recursive-descent reader of one $filter."""

    def __init__(self, table: Table, text: str, *, hyphens_sort: bool) -> None:
        self._table = table
        self._text = text
        self._hyphens_sort = hyphens_sort
        self._tokens = _tokens(text)

    def clause(self) -> Clause:
        clause = self._either()
        if self._tokens:
            raise self._wrong(self._tokens[0])
        return clause

    def _either(self) -> Clause:
        clause = self._both()
        while self._next_is("or"):
            clause = _joined(clause, "OR", self._both())
        return clause

    def _both(self) -> Clause:
        clause = self._one()
        while self._next_is("and"):
            clause = _joined(clause, "AND", self._one())
        return clause

    def _one(self) -> Clause:
        if self._next_is("not"):
            inner = self._one()
            return Clause(f"NOT {inner.sql}", inner.values)
        if self._next_is("("):
            clause = self._either()
            self._expect(")")
            return Clause(f"({clause.sql})", clause.values)
        name = self._take()
        return self._matching(PATTERNS[name]) if name in PATTERNS else self._compared(name)

    def _compared(self, name: str) -> Clause:
        column, operator = self._column(name), self._take()
        if operator not in OPERATORS:
            raise self._wrong(operator)
        value, ours, fold = self._value(column), expression(name), ""
        if isinstance(value, str):
            fold = " COLLATE NOCASE"
            if operator not in {"eq", "ne"} and not self._hyphens_sort:
                ours, value = f"replace({ours}, '-', '')", value.replace("-", "")
        return Clause(f"({ours} {OPERATORS[operator]} ?{fold})", (value,))

    def _matching(self, pattern: str) -> Clause:
        self._expect("(")
        column = self._column(self._take())
        self._expect(",")
        value = self._value(column)
        self._expect(")")
        return Clause(f"({expression(column.name)} LIKE ?)", (pattern.format(value),))

    def _column(self, name: str) -> Column:
        return self._table.columns[_known(self._table, name)]

    def _value(self, column: Column) -> Any:
        value, kind = _literal(self._take()), column.type
        if kind == "Decimal":
            raise ApiError(501, "0x80060888", "The simulator compares no decimals.")
        if (kind == "Integer") is not isinstance(value, int):
            raise self._wrong(f"the value of '{column.name}' is of another type")
        return value

    def _next_is(self, token: str) -> bool:
        found = self._tokens[:1] == [token]
        del self._tokens[: int(found)]
        return found

    def _expect(self, token: str) -> None:
        if not self._next_is(token):
            raise self._wrong(f"'{token}' is missing")

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
            raise bad_request(f"There is an unterminated literal at position {place} in '{text}'.")
        tokens.append(found[1])
        place = found.end()
    return tokens


def _joined(left: Clause, word: str, right: Clause) -> Clause:
    return Clause(f"({left.sql} {word} {right.sql})", left.values + right.values)


def _literal(text: str) -> Any:
    """Return a string, a whole number, a decimal, or a date, which stays text."""
    if text.startswith("'"):
        return text[1:-1].replace("''", "'")
    if NUMBER.fullmatch(text):
        return Decimal(text) if "." in text else int(text)
    return text
