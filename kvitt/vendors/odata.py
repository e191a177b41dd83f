"""What Microsoft's OData services have in common: pages of rows, and how they say no."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from kvitt.vendors import exact_json
from kvitt.vendors.http import Call, Complaint, Http, retry_after

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    import httpx

R = TypeVar("R", bound=BaseModel)


class Page(BaseModel, Generic[R]):
    """Some rows, and where the next ones are."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    value: list[R]
    next_link: str | None = Field(default=None, alias="@odata.nextLink")


def read(model: type[R], reply: httpx.Response) -> R:
    """Return a reply's content. Raises ValueError where it is not what the model says."""
    return model.model_validate(exact_json.loads(reply.content))


def reader(model: type[R]) -> Callable[[httpx.Response], R]:
    """Return what reads replies as the model."""
    return lambda reply: read(model, reply)


async def rows(
    http: Http, ask: Callable[[Call], Awaitable[Page[R]]], call: Call, *, below: str
) -> AsyncIterator[R]:
    """Read all rows that a call asks for, page by page.

    Our token goes to each page's address, so Refused is raised for one that is not `below` ours.
    """
    while True:
        page = await ask(call)
        for each in page.value:
            yield each
        if page.next_link is None:
            return
        if not page.next_link.startswith(f"{below}/"):
            raise http.refused(call, "its next page lies on another host")
        call = replace(call, url=page.next_link)


def complaint_of(reply: httpx.Response) -> Complaint:
    """Read a reply that is no success."""
    try:
        said = exact_json.loads(reply.content)
    except ValueError:
        said = reply.text  # a gateway's page, not the vendor's own words
    return replace(complaint(reply.status_code, said), retry_after=retry_after(reply))


def complaint(status: int, said: Any) -> Complaint:
    """Read an error: a service's is an object, Entra's a word with a description beside it."""
    match said:
        case {"error": {"code": str(code), "message": str(message)}}:
            words = message.partition("CorrelationId")[0]
            return Complaint(status=status, code=code, message=message, words=words)
        case {"error": str(code), **further}:
            return Complaint(
                status=status, code=code, message=str(further.get("error_description", ""))
            )
        case _:
            return Complaint(status=status, message=str(said or ""))
