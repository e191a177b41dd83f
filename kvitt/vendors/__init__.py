"""The accounting systems that kvitt knows.

A new one is a file here with its settings and its client, and a line in `VENDORS`. Beside that it
wants a Prefect block, a page in docs/vendors, and to pass the tests in tests/vendors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from pydantic import BaseModel

from kvitt.ports import Vendor
from kvitt.vendors.business_central import BusinessCentral, BusinessCentralSettings
from kvitt.vendors.xledger import Xledger, XledgerSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Self

    from kvitt.domain.integrations import Timeouts

S = TypeVar("S", bound=BaseModel)


class Client(Vendor, Protocol):
    """A vendor that keeps its connections open until the end of its `async with`."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Kind(Generic[S]):
    """One accounting system: what it needs to be told, and who speaks with it."""

    settings: type[S]
    client: Callable[[S, Timeouts], Client]


VENDORS: Mapping[str, Kind[Any]] = {
    "business-central": Kind(BusinessCentralSettings, BusinessCentral),
    "xledger": Kind(XledgerSettings, Xledger),
}
