"""Xledger over HTTP: who asks, within which limits, and what it is called."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    GraphQLError,
    OperationDefinitionNode,
    OperationType,
    execute_sync,  # pyright: ignore[reportUnknownVariableType] - its middleware is untyped
    parse,
    validate,
)
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from sandbox.vendors.faults import Effect, Fault
from sandbox.vendors.server import Call, Door, Kind
from sandbox.vendors.xledger.books import Books, Setup
from sandbox.vendors.xledger.errors import BURST, INVALID_VALUE, XledgerError
from sandbox.vendors.xledger.limits import Limits
from sandbox.vendors.xledger.posting import Posting
from sandbox.vendors.xledger.schema import Root, schema_for

ARGUMENTS = "ARGUMENTS_OF_CORRECT_TYPE"
JOB_STEP = 0.1  # seconds between looks at the posting interval


class _Given(BaseModel):
    """A request as it comes."""

    query: str
    variables: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class _Query:
    """What a request asks; `document` is None where it can't be read."""

    document: DocumentNode | None
    variables: Mapping[str, Any]
    fields: tuple[str, ...] = ()
    mutates: bool = False

    @property
    def kind(self) -> Kind:
        if self.mutates:
            return Kind.WRITE
        return Kind.PROBE if set(self.fields) == {"__typename"} else Kind.READ


class Xledger:
    """The simulator, as the shared server sees it."""

    def __init__(self, path: Path) -> None:
        self._books = Books(path)
        self._limits = Limits(self._books)
        self._posting = Posting(self._books)
        self._empty_answers = count()

    def routes(self, door: Door) -> list[BaseRoute]:
        """Return the one endpoint."""

        async def graphql(request: Request) -> Response:
            return await door.answer(await self._call(request))

        return [Route("/graphql", graphql, methods=["POST"])]

    def audit(self) -> dict[str, Any]:
        """Return the books in the neutral shape."""
        return self._books.audit()

    def setup(self, wishes: Any) -> None:
        """Add to the set-up, or change it."""
        self._books.set_up(Setup.model_validate(wishes))

    def settings(self) -> dict[str, Any]:
        """Return the settings in force."""
        return self._books.settings.model_dump(mode="json")

    async def run_jobs(self) -> int:
        """Run the posting job, and return how many rows it posted."""
        return await self._posting.run()

    async def work(self) -> None:
        """Run the posting job at its interval, for ever."""
        waited = 0.0
        while True:
            await asyncio.sleep(JOB_STEP)
            waited += JOB_STEP
            if 0 < self._books.settings.posting_interval_seconds <= waited:
                await self._posting.run()
                waited = 0.0

    async def _call(self, request: Request) -> Call:
        query = _read(await request.body())
        token = request.headers.get("authorization", "")

        async def run(*, half: bool) -> Response:
            try:
                entity = self._entity(token)
                async with self._limits.place(token):
                    return JSONResponse(self._execute(query, entity, half=half))
            except XledgerError as error:
                return _refusal(error)
            except _UnknownTokenError:
                return self._unknown_token()

        name = "+".join(query.fields) or "unreadable"
        return Call(operation=name, kind=query.kind, run=run, refuse=self._refuse)

    def _entity(self, authorization: str) -> int:
        """Return the entity to which the token is bound."""
        scheme, _, token = authorization.partition(" ")
        found = self._books.row("SELECT id FROM entities WHERE token = ?", token)
        if scheme != "token" or found is None:
            raise _UnknownTokenError
        return found["id"]

    def _execute(self, query: _Query, entity: int, *, half: bool) -> dict[str, Any]:
        """Return the reply: data, or errors beside a data of null."""
        if query.document is None:
            raise XledgerError("Syntax error: the query can't be read.")
        schema = schema_for(
            filterable=self._books.settings.filter_by_ext_identifier,
            errors_carry_reference=self._books.settings.errors_carry_ext_identifier,
            ids_as=self._books.settings.ids_as,
        )
        if wrong := validate(schema, query.document):
            return _failed(wrong, ARGUMENTS)
        root = Root(self._books, entity, self._empty_answers, half=half)
        result = execute_sync(
            schema, query.document, root.fields(), variable_values=dict(query.variables)
        )
        if result.errors:
            return _failed(result.errors, INVALID_VALUE)
        refused = [refusal.formatted() for refusal in root.refusals]
        if not refused:
            return {"data": result.data}
        silent = self._books.settings.one_bad_node == "is-left-out-without-data"
        return {"data": None if silent else result.data, "errors": refused}

    def _unknown_token(self) -> Response:
        body = _errors([{"message": "The token is invalid or has expired."}])
        return JSONResponse(body, self._books.settings.token_error_status)

    def _refuse(self, fault: Fault) -> Response:
        """Return a fault in Xledger's words; what isn't GraphQL comes from the gateway."""
        if fault.effect is Effect.TOKEN_EXPIRED:
            return self._unknown_token()
        if fault.effect is Effect.RATE_LIMIT:
            wait = fault.retry_after
            reset = None if wait is None else self._books.moment(wait)
            return _refusal(XledgerError("A limit on order.", fault.code or BURST, reset))
        wait = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
        return Response("<html>A fault on order</html>", fault.status, wait, "text/html")


class _UnknownTokenError(Exception):
    """Nobody's token."""


def _read(body: bytes) -> _Query:
    """Read a request, as far as it can be read."""
    try:
        given = _Given.model_validate_json(body)
        document = parse(given.query)
    except (ValidationError, GraphQLError):
        return _Query(document=None, variables={})
    operations = [
        each for each in document.definitions if isinstance(each, OperationDefinitionNode)
    ]
    fields = [
        field.name.value
        for operation in operations
        for field in operation.selection_set.selections
        if isinstance(field, FieldNode)
    ]
    mutates = any(each.operation is OperationType.MUTATION for each in operations)
    return _Query(
        document=document, variables=given.variables or {}, fields=tuple(fields), mutates=mutates
    )


def _failed(errors: Sequence[GraphQLError], code: str) -> dict[str, Any]:
    return _errors([_formatted(error, code) for error in errors])


def _formatted(error: GraphQLError, code: str) -> dict[str, Any]:
    """Return an error as Xledger says it; one about the query itself has no code."""
    if isinstance(error.original_error, XledgerError):
        return error.original_error.formatted()
    known = {} if error.message.startswith("Cannot query field") else {"code": code}
    return {"message": error.message, **known}


def _errors(errors: list[dict[str, Any]]) -> dict[str, Any]:
    return {"errors": errors, "data": None}


def _refusal(error: XledgerError) -> Response:
    return JSONResponse(_errors([error.formatted()]))
