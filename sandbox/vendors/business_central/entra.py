"""Who may ask Business Central: Entra's tokens for its one scope, held by apps that it knows."""

from sandbox.vendors import entra
from sandbox.vendors.business_central.books import Books
from sandbox.vendors.business_central.errors import ApiError

SCOPE = "https://api.businesscentral.dynamics.com/.default"


class Entra(entra.Entra):
    """Entra, as Business Central sees it."""

    def __init__(self, books: Books) -> None:
        super().__init__(books, SCOPE.__eq__)

    def principal(self, authorization: str) -> str:
        """Return whose token this is. Raises ApiError 401 if it's nobody's any more."""
        holder = self.holder(authorization)
        if holder is None or not (holder.registered and holder.permitted):
            raise unauthenticated()
        return holder.client


def unauthenticated() -> ApiError:
    """Return what BC says to a token that it doesn't accept, or an app that it doesn't know."""
    return ApiError(
        401,
        "Authentication_InvalidCredentials",
        "The server has rejected the client credentials.",
    )
