"""Errors as Business Central words them."""

from dataclasses import dataclass, replace
from uuid import uuid4

from sandbox.vendors.business_central.languages import ENGLISH, said_in


@dataclass
class ApiError(Exception):
    """A refusal: HTTP status, BC's code, and the message for a person."""

    status: int
    code: str
    message: str
    retry_after: int | None = None

    def body(self, language: str = ENGLISH) -> dict[str, object]:
        """Return the error in BC's shape; the correlation id ends the message."""
        message = f"{said_in(language, self.message)}  CorrelationId:  {uuid4()}."
        return {"error": {"code": self.code, "message": message}}

    def about(self, line: str, *, naming: str) -> "ApiError":
        """Return a refusal of what a line holds, with as much of that named as is wanted."""
        if not self.code.startswith(("Application_", "Internal_InvalidTableRelation")):
            return self
        match naming:
            case "line":
                return replace(self, message=f"{self.message.rstrip('.')} in {line}.")
            case "nobody":
                return replace(self, message="A line is not valid.")
            case _:
                return self


def line_named(batch: str, number: int) -> str:
    """Name a journal line as BC's messages do [C]."""
    return (
        "Gen. Journal Line Journal Template Name='GENERAL',"
        f"Journal Batch Name='{batch}',Line No.='{number}'"
    )


def bad_request(message: str) -> ApiError:
    """Return the error for a request that BC can't read."""
    return ApiError(400, "BadRequest", message)


def misfilled(message: str) -> ApiError:
    """Return the error for a field that holds what it must not: it has a code of its own [C]."""
    return ApiError(400, "Application_FieldValidationException", message)


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
