"""Errors as Xledger words them: the code stands beside the message, the status is 200 [C]."""

from dataclasses import dataclass, replace
from typing import Any

BURST = "BAD_REQUEST.BURST_RATE_LIMIT_REACHED"
CREDITS = "BAD_REQUEST.INSUFFICIENT_CREDITS"
CONCURRENCY = "BAD_REQUEST.CONCURRENCY_LIMIT_REACHED"
INVALID_VALUE = "INVALID_VALUE"


@dataclass
class XledgerError(Exception):
    """A refusal: nothing of the request has happened."""

    message: str
    code: str | None = None
    reset_at: str | None = None  # local time; when a limit is lifted
    path: tuple[str | int, ...] = ()

    def __str__(self) -> str:
        return self.message

    def formatted(self) -> dict[str, Any]:
        """Return one of `errors` in a reply."""
        code = {} if self.code is None else {"code": self.code}
        reset = {} if self.reset_at is None else {"extensions": {"resetAt": self.reset_at}}
        path = {"path": list(self.path)} if self.path else {}
        return {"message": self.message, **code, **reset, **path}

    def about(self, place: int, client_id: str | None, *, naming: str) -> "XledgerError":
        """Return a refusal of a node, with the node named as it is wanted."""
        match naming:
            case "client-id":
                return replace(self, message=f"{client_id}: the value is not valid.")
            case "place":
                return replace(self, message=f"The value at inputs[{place}].node is not valid.")
            case "path":
                path = ("addGLImportItems", place)
                return replace(self, message="The value is not valid.", path=path)
            case "nobody":
                return replace(self, message="The value is not valid.")
            case _:
                return self


def invalid(message: str) -> XledgerError:
    """Return the error for a value that is refused at once."""
    return XledgerError(message, INVALID_VALUE)
