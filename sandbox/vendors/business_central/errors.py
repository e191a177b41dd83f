"""Errors as Business Central words them."""

from dataclasses import dataclass
from uuid import uuid4


@dataclass
class ApiError(Exception):
    """A refusal: HTTP status, BC's code, and the message for a person."""

    status: int
    code: str
    message: str
    retry_after: int | None = None

    def body(self) -> dict[str, object]:
        """Return the error in BC's shape; the correlation id ends the message."""
        message = f"{self.message}  CorrelationId:  {uuid4()}."
        return {"error": {"code": self.code, "message": message}}


def bad_request(message: str) -> ApiError:
    """Return the error for a request that BC can't read."""
    return ApiError(400, "BadRequest", message)


def refused(message: str) -> ApiError:
    """Return the error that BC's own business logic raises."""
    return ApiError(400, "Application_DialogException", message)


def not_found(what: str) -> ApiError:
    """Return the error for an id that leads nowhere."""
    return ApiError(404, "Internal_RecordNotFound", f"The {what} can't be found.")


def no_such_value(field: str, table: str, value: str, related: str) -> ApiError:
    """Return the error for a code that names no row of another table."""
    return ApiError(
        400,
        "Internal_InvalidTableRelation",
        f"The field {field} of table {table} contains a value ({value}) that cannot be found in "
        f"the related table ({related}).",
    )
