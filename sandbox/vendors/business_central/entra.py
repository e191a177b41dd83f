"""Microsoft Entra's token endpoint, for client credentials."""

from collections.abc import Mapping
from secrets import token_urlsafe
from uuid import uuid4

from starlette.responses import JSONResponse, Response

from sandbox.vendors.business_central.books import Books
from sandbox.vendors.business_central.errors import ApiError

SCOPE = "https://api.businesscentral.dynamics.com/.default"


class Entra:
    """Hands out tokens, and knows whose they are."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def token(self, tenant: str, form: Mapping[str, str]) -> Response:
        """Return a token for the right secret, or Entra's error."""
        client = self._books.row(
            "SELECT secret FROM clients WHERE id = ?", form.get("client_id", "")
        )
        if tenant != self._books.settings.tenant:
            return _error(400, "invalid_request", 90002, f"Tenant '{tenant}' not found.")
        if form.get("grant_type") != "client_credentials":
            return _error(400, "unsupported_grant_type", 70003, "Unsupported grant type.")
        if form.get("scope") != SCOPE:
            return _error(400, "invalid_scope", 1002012, "The scope is not valid.")
        if client is None:
            return _error(401, "unauthorized_client", 700016, "The application was not found.")
        if form.get("client_secret") != client["secret"]:
            return _error(401, "invalid_client", 7000215, "Invalid client secret provided.")
        return JSONResponse(self._issue(form["client_id"]))

    def principal(self, authorization: str) -> str:
        """Return whose token this is. Raises ApiError 401 if it's nobody's any more."""
        client = self._books.row(
            """SELECT clients.id FROM tokens JOIN clients ON clients.id = tokens.client
               WHERE token = ? AND expires > ?
                 AND registered AND permitted""",
            authorization.removeprefix("Bearer "),
            self._books.now(),
        )
        if client is None:
            raise unauthenticated()
        return client["id"]

    def revoke(self, authorization: str) -> None:
        """Let this token be void from now on."""
        token = authorization.removeprefix("Bearer ")
        self._books.write("DELETE FROM tokens WHERE token = ?", token)

    def _issue(self, client: str) -> dict[str, object]:
        seconds, token = self._books.settings.token_seconds, token_urlsafe(32)
        expires = self._books.now() + seconds
        self._books.insert("tokens", {"token": token, "client": client, "expires": expires})
        return {
            "token_type": "Bearer",
            "expires_in": seconds,
            "ext_expires_in": seconds,
            "access_token": token,
        }


def unauthenticated() -> ApiError:
    """Return what BC says to a token that it doesn't accept, or an app that it doesn't know."""
    return ApiError(
        401,
        "Authentication_InvalidCredentials",
        "The server has rejected the client credentials.",
    )


def _error(status: int, error: str, number: int, message: str) -> Response:
    body = {
        "error": error,
        "error_description": f"AADSTS{number}: {message}",
        "error_codes": [number],
        "trace_id": str(uuid4()),
        "correlation_id": str(uuid4()),
    }
    return JSONResponse(body, status_code=status)
