"""From one API request to one outcome; a $batch is many of them."""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, ValidationError

from sandbox.vendors.business_central import odata
from sandbox.vendors.business_central.books import Books
from sandbox.vendors.business_central.entities import (
    COMPANIES,
    DIMENSION_LINES,
    DIMENSION_VALUES,
    DIMENSIONS,
    ENTITIES,
    JOB_QUEUE_LOG,
    JOURNALS,
    LINES,
    Entity,
    is_guid,
)
from sandbox.vendors.business_central.errors import ApiError, bad_request, not_found
from sandbox.vendors.business_central.journals import Writer
from sandbox.vendors.business_central.languages import ENGLISH
from sandbox.vendors.business_central.odata import Options, read_options
from sandbox.vendors.business_central.posting import Posting
from sandbox.vendors.business_central.reading import Reader

BATCH_LIMIT = 100
POST_ACTION = "Microsoft.NAV.post"
SEGMENT = re.compile(r"([\w$.]+)(?:\(([^()]*)\))?")
BELOW = {JOURNALS.name: LINES, LINES.name: DIMENSION_LINES, DIMENSIONS.name: DIMENSION_VALUES}
WRITABLE = (JOURNALS, LINES, DIMENSION_LINES)
VERBS = {"POST": "create", "PATCH": "update", "DELETE": "delete"}


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request below …/api/v2.0/: header names in lower case."""

    verb: str
    url: str  # path and query
    base: str = ""  # what a next link puts before the path
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def path(self) -> str:
        """The path, without query and outer slashes."""
        return urlsplit(self.url).path.strip("/")

    @property
    def operation(self) -> str:
        """The name by which faults and counts know this kind of request."""
        last = self.path.rpartition("/")[2]
        name, _, key = last.partition("(")
        if last in {POST_ACTION, "$batch"}:
            return "post" if last == POST_ACTION else "batch"
        return f"{name}.{VERBS.get(self.verb) or ('get' if key else 'list')}"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a request came to."""

    status: int
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where a path leads: an entity under its owner, one row of it, or an action on that row."""

    entity: Entity
    owner: str
    company: str
    key: str | None = None
    action: str | None = None


class Api:
    """Executes requests against the books."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._posting = Posting(books)

    def execute(self, request: Request, *, half: bool = False) -> Outcome:
        """Return the outcome. A refusal is one, and undoes what the request had done."""
        try:
            if request.path == "$batch":
                return self._batch(request, half=half)
            return self._single(request, half=half)
        except ApiError as error:
            return refusal(error, self._language_for(request))

    def _language_for(self, request: Request) -> str:
        """Return the language that is asked for [C], or the tenant's own. Each operation asks."""
        settings = self._books.settings
        asked = request.headers.get("accept-language", "")
        if settings.honours_accept_language and asked.startswith("en"):
            return ENGLISH
        return settings.language

    def _single(self, request: Request, *, half: bool) -> Outcome:
        place = self._find(request.path)
        if request.verb in {"GET", "HEAD"} and place.action is None:
            return self._read(request, place)
        if place.action is not None:
            return self._act(request, place)
        if place.entity not in WRITABLE or request.verb not in VERBS:
            raise ApiError(405, "BadRequest_MethodNotAllowed", "The method is not allowed here.")
        with self._books.transaction():
            return self._write(request, place, half=half)

    def _find(self, path: str) -> _Place:
        """Follow a path of `entity(id)` segments. Raises ApiError."""
        first, *others = path.split("/")
        name, key = _segment(first)
        if name != COMPANIES.name:
            raise bad_request(f"Resource not found for the segment '{name}'.")
        tenant = self._books.settings.tenant
        place = _Place(entity=COMPANIES, owner=tenant, company=key or "", key=key)
        for other in others:
            place = self._below(place, *_segment(other))
        return place

    def _below(self, place: _Place, name: str, key: str | None) -> _Place:
        if place.key is None:
            raise bad_request(f"You must specify a parent id for '{name}'.")
        self._demand(place)
        if place.entity is JOURNALS and name == POST_ACTION:
            return replace(place, action=name)
        if place.entity is COMPANIES and name in {each.name for each in BELOW.values()}:
            raise bad_request(f"You must specify a parent id to get {name}.")
        entity = ENTITIES.get(name)
        expected = BELOW.get(place.entity.name, entity)
        if entity is JOB_QUEUE_LOG and not self._books.settings.has_job_queue_log:
            words = f"Resource not found for the segment '{name}'."
            raise ApiError(404, "BadRequest_ResourceNotFound", words)
        if entity is None or entity is COMPANIES or entity is not expected:
            raise bad_request(f"Resource not found for the segment '{name}'.")
        if place.entity is not COMPANIES and place.entity.name not in BELOW:
            raise bad_request(f"Resource not found for the segment '{name}'.")
        return _Place(entity=entity, owner=place.key, company=place.company, key=key)

    def _demand(self, place: _Place) -> None:
        """Raise ApiError unless the row is there, whether or not the API would show it."""
        table, owner = place.entity.table, place.entity.owner
        sql = f"SELECT 1 FROM {table} WHERE id = ? AND {owner} = ?"  # noqa: S608 - our own names
        if self._books.row(sql, place.key, place.owner) is None:
            raise not_found(place.entity.type_name)

    def _read(self, request: Request, place: _Place) -> Outcome:
        options = read_options(place.entity, parse_qsl(urlsplit(request.url).query))
        lagging = request.headers.get("data-access-intent", "").lower() == "readonly"
        reader = Reader(self._books, lagging=lagging)
        if place.key is not None:
            row = reader.one(place.entity, place.owner, place.key, options)
            return Outcome(status=200, body=row)
        size = _page_size(request, self._books.settings.page_size)
        rows, more = reader.page(place.entity, place.owner, options, size)
        link = {"@odata.nextLink": _next_link(request, options, size)} if more else {}
        return Outcome(status=200, body={"value": rows, **link})

    def _act(self, request: Request, place: _Place) -> Outcome:
        if request.verb != "POST" or place.key is None:
            raise ApiError(405, "BadRequest_MethodNotAllowed", "An action is called with POST.")
        self._posting.post(place.key)
        return Outcome(status=204)

    def _write(self, request: Request, place: _Place, *, half: bool) -> Outcome:
        writer, entity, owner = Writer(self._books, place.company), place.entity, place.owner
        if request.verb == "POST":
            if place.key is not None:
                raise bad_request("A row is created in its collection.")
            key = writer.create(entity, owner, request.body, half=half)
            return self._written(201, place, key, request.body)
        if place.key is None:
            raise bad_request("The id of the row is missing.")
        if_match = request.headers.get("if-match")
        if request.verb == "PATCH":
            writer.change(entity, owner, place.key, request.body, if_match)
            return self._written(200, place, place.key, {})
        writer.remove(entity, owner, place.key, if_match)
        return Outcome(status=204)

    def _written(self, status: int, place: _Place, key: str, body: Mapping[str, Any]) -> Outcome:
        """Return the row as it is now, with what a deep insert brought along."""
        deep = {name: Options() for name in place.entity.expands if name in body}
        try:
            options = Options(expand=deep)
            row = Reader(self._books).one(place.entity, place.owner, key, options)
        except ApiError:
            return Outcome(status=status, body={"id": key})  # written, but not readable [C]
        return Outcome(status=status, body=row)

    def _batch(self, request: Request, *, half: bool) -> Outcome:
        """Run the operations; the outer status is 200 whatever becomes of them [C]."""
        if request.verb != "POST":
            raise ApiError(405, "BadRequest_MethodNotAllowed", "A batch is a POST.")
        wanted = _operations(request)
        operations = wanted[: len(wanted) // 2] if half else wanted
        go_on = "odata.continue-on-error" in request.headers.get("prefer", "").lower()
        if request.headers.get("isolation", "").lower() != "snapshot":
            return _batched(operations, self._run(operations, go_on=go_on))
        return _batched(operations, self._run_snapshot(operations))

    def _run_snapshot(self, operations: list["_Operation"]) -> list[Outcome]:
        """Run all or nothing; what was rolled back still says 201, with ids [C, one report]."""
        outcomes: list[Outcome] = []
        with suppress(_RolledBackError), self._books.transaction():
            outcomes = self._run(operations, go_on=False)
            _demand_success(outcomes)
        return outcomes

    def _run(self, operations: list["_Operation"], *, go_on: bool) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for operation in operations:
            outcomes.append(self.execute(operation.request))
            if not _succeeded(outcomes[-1]) and not go_on:
                break
        return outcomes


class _RolledBackError(Exception):
    """A snapshot batch had an operation that failed."""


class _GivenOperation(BaseModel):
    """One of a batch's requests, as it comes."""

    id: str | int
    method: str
    url: str
    headers: dict[str, str] | None = None
    body: dict[str, Any] | None = None


class _GivenBatch(BaseModel):
    requests: list[_GivenOperation]


@dataclass(frozen=True)
class _Operation:
    id: str
    request: Request


def refusal(error: ApiError, language: str = ENGLISH) -> Outcome:
    """Return the outcome that says this error; what the platform says is English."""
    wait = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    return Outcome(status=error.status, body=error.body(language), headers=wait)


def _segment(text: str) -> tuple[str, str | None]:
    parts = SEGMENT.fullmatch(text)
    if parts is None:
        raise bad_request(f"Syntax error in the address at '{text}'.")
    name, key = parts[1], parts[2]
    if key is not None and not is_guid(key):
        raise bad_request(f"'{key}' is not an id.")
    return name, key.lower() if key else None


def _page_size(request: Request, largest: int) -> int:
    """Return the client's page size. Raises ApiError 413 for one above the limit [C]."""
    wished = re.search(r"odata\.maxpagesize=(\d+)", request.headers.get("prefer", ""))
    if wished is None:
        return largest
    if int(wished[1]) > largest:
        raise ApiError(413, "RequestEntityTooLarge", f"A page has at most {largest} rows.")
    return max(1, int(wished[1]))


def _next_link(request: Request, options: Options, size: int) -> str:
    """Return the address of the next page: the same query, further on."""
    path, _, query = request.url.partition("?")
    kept = [part for part in query.split("&") if part and not _pages(part)]
    top = [] if options.top is None else [f"$top={options.top - size}"]
    return f"{request.base}{path}?{'&'.join([*kept, *top, f'$skiptoken={options.skip + size}'])}"


def _pages(part: str) -> bool:
    return part.replace("%24", "$").startswith(("$top=", "$skip=", "$skiptoken="))


def _operations(request: Request) -> list[_Operation]:
    try:
        given = _GivenBatch.model_validate(request.body).requests
    except ValidationError as error:
        raise bad_request(f"The batch can't be read: {error}.") from error
    if len(given) > BATCH_LIMIT:
        raise ApiError(500, "Internal_ServerError", "The batch has too many operations.")
    return [_operation(request, each) for each in given]


def _operation(request: Request, given: _GivenOperation) -> _Operation:
    inner = Request(
        verb=given.method.upper(),
        url=given.url,
        base=request.base,
        headers={name.lower(): value for name, value in (given.headers or {}).items()},
        body=given.body or {},
    )
    return _Operation(str(given.id), inner)


def _succeeded(outcome: Outcome) -> bool:
    return outcome.status < 300  # noqa: PLR2004 - 2xx


def _demand_success(outcomes: list[Outcome]) -> None:
    if not all(_succeeded(outcome) for outcome in outcomes):
        raise _RolledBackError


def _batched(operations: list[_Operation], outcomes: list[Outcome]) -> Outcome:
    """Return the responses; after a stop there are fewer of them than operations."""
    responses = [
        {
            "id": operation.id,
            "status": outcome.status,
            "headers": {"content-type": "application/json", **outcome.headers},
            **({} if outcome.body is None else {"body": outcome.body}),
        }
        for operation, outcome in zip(operations, outcomes, strict=False)
    ]
    return Outcome(status=200, body={"responses": responses})


def parsed(body: bytes) -> Mapping[str, Any]:
    """Return a request's JSON object, or none for an empty body. Raises ApiError."""
    return odata.loads(body) if body else {}
