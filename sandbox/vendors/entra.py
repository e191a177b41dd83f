"""Microsoft Entra's token endpoint, for client credentials; Microsoft's simulators share it.

Their books have its tables (`SCHEMA`), their settings and their set-up the fields below.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from secrets import token_urlsafe
from typing import Any
from uuid import uuid4

from pydantic import BaseModel, ConfigDict
from starlette.responses import JSONResponse, Response

from sandbox.vendors import books

SCHEMA = """
CREATE TABLE IF NOT EXISTS clients (
  id TEXT PRIMARY KEY, secret TEXT, registered INTEGER, permitted INTEGER);
CREATE TABLE IF NOT EXISTS tokens (token TEXT PRIMARY KEY, client TEXT, scope TEXT, expires REAL);
"""


class Settings(books.Settings):
    """What Entra needs to be told."""

    tenant: str = "00000000-0000-0000-0000-000000000000"
    token_seconds: int = 3599


class Client(BaseModel):
    """An app registration, as a set-up names it."""

    model_config = ConfigDict(extra="forbid")

    id: str
    secret: str
    registered: bool = True  # with the vendor, beside Entra
    permitted: bool = True  # has the permission in Entra that the vendor wants, where it wants one


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Whose token it is, and what for; `registered` and `permitted` are its client's."""

    client: str
    scope: str
    registered: bool
    permitted: bool


class Entra:
    """Hands out tokens, and knows whose they are. `grants` tells which scopes there are."""

    def __init__(self, books: books.Books[Any], grants: Callable[[str], bool]) -> None:
        self._books = books
        self._grants = grants

    def token(self, tenant: str, form: Mapping[str, str]) -> Response:
        """Return a token for the right secret, or Entra's error."""
        client = self._books.row(
            "SELECT secret FROM clients WHERE id = ?", form.get("client_id", "")
        )
        if tenant != self._books.settings.tenant:
            return _error(400, "invalid_request", 90002, f"Tenant '{tenant}' not found.")
        if form.get("grant_type") != "client_credentials":
            return _error(400, "unsupported_grant_type", 70003, "Unsupported grant type.")
        if not self._grants(form.get("scope", "")):
            return _error(400, "invalid_scope", 1002012, "The scope is not valid.")
        if client is None:
            return _error(401, "unauthorized_client", 700016, "The application was not found.")
        if form.get("client_secret") != client["secret"]:
            return _error(401, "invalid_client", 7000215, "Invalid client secret provided.")
        return JSONResponse(self._issue(form["client_id"], form["scope"]))

    def holder(self, authorization: str) -> Holder | None:
        """Return whose token this is, or None if it is nobody's any more."""
        row = self._books.row(
            """SELECT clients.id AS client, scope, registered, permitted
               FROM tokens JOIN clients ON clients.id = tokens.client
               WHERE token = ? AND expires > ?""",
            authorization.removeprefix("Bearer "),
            self._books.now(),
        )
        if row is None:
            return None
        return Holder(
            client=row["client"],
            scope=row["scope"],
            registered=bool(row["registered"]),
            permitted=bool(row["permitted"]),
        )

    def revoke(self, authorization: str) -> None:
        """Let this token be void from now on."""
        token = authorization.removeprefix("Bearer ")
        self._books.write("DELETE FROM tokens WHERE token = ?", token)

    def _issue(self, client: str, scope: str) -> dict[str, object]:
        seconds, token = self._books.settings.token_seconds, token_urlsafe(32)
        expires = self._books.now() + seconds
        row = {"token": token, "client": client, "scope": scope, "expires": expires}
        self._books.insert("tokens", row)
        return {
            "token_type": "Bearer",
            "expires_in": seconds,
            "ext_expires_in": seconds,
            "access_token": token,
        }


def _error(status: int, error: str, number: int, message: str) -> Response:
    body = {
        "error": error,
        "error_description": f"AADSTS{number}: {message}",
        "error_codes": [number],
        "trace_id": str(uuid4()),
        "correlation_id": str(uuid4()),
    }
    return JSONResponse(body, status_code=status)
