"""Errors as Dataverse words them. Its codes are hexadecimal, and often stand beside HTTP 400."""

from dataclasses import dataclass


@dataclass
class ApiError(Exception):
    """A refusal: HTTP status, Dataverse's code, and the message."""

    status: int
    code: str
    message: str
    retry_after: int | None = None

    def body(self) -> dict[str, object]:
        """Return the error in Dataverse's shape."""
        return {"error": {"code": self.code, "message": self.message}}


def bad_request(message: str) -> ApiError:
    """Return the error for a request or an address that Dataverse can't read."""
    return ApiError(400, "0x80060888", message)


def bad_payload(message: str) -> ApiError:
    """Return the error for a body that does not fit the table."""
    return ApiError(
        400,
        "0x80048d19",
        f"Error identified in Payload provided by the user for Entity :'', {message}",
    )


def invalid(code: str, message: str) -> ApiError:
    """Return the error for a value that its column does not take."""
    return ApiError(400, code, f"A validation error occurred. {message}")


def aborted(message: str) -> ApiError:
    """Return what a plug-in of the organisation's says no with."""
    return ApiError(400, "0x80040265", message)


def no_such_segment(name: str) -> ApiError:
    """Return the error for a set that no table has."""
    return ApiError(404, "0x8006088a", f"Resource not found for the segment '{name}'.")


def no_such_row(logical: str, key: str) -> ApiError:
    """Return the error for a key that no row has."""
    return ApiError(404, "0x80040217", f"Entity '{logical}' With Id = {key} Does Not Exist")


def exists() -> ApiError:
    """Return the 412 of If-None-Match [C]; the documentation shows it with an empty code."""
    return ApiError(412, "0x80040237", "A record with matching key values already exists.")


def key_violated(key: str, columns: str) -> ApiError:
    """Return the 412 of a row that would share an alternate key with another one [C]."""
    return ApiError(
        412,
        "0x80060892",
        f"Entity Key {key} violated. A record with the same value for {columns} already exists. A "
        "duplicate record cannot be created. Select one or more unique values and try again.",
    )


def changed() -> ApiError:
    """Return the 412 of If-Match with another version."""
    return ApiError(
        412,
        "0x80060882",
        "The version of the existing record doesn't match the RowVersion property provided.",
    )


def no_member() -> ApiError:
    """Return what an app is told that is no application user of the environment."""
    return ApiError(403, "0x80072560", "The user is not a member of the organization.")
