"""The accounting systems that kvitt knows.

A new one is a file here with its settings and its client, and a line in `VENDORS`; what it wants
beside that, docs/vendors/adding.md lists.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from pydantic import BaseModel

from kvitt.ports import Habits, Vendor
from kvitt.vendors import business_central, dataverse, xledger
from kvitt.vendors.business_central import BusinessCentral, BusinessCentralSettings
from kvitt.vendors.dataverse import Dataverse, DataverseSettings
from kvitt.vendors.xledger import Xledger, XledgerSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Self

    from kvitt.domain.integrations import Timeouts
    from kvitt.domain.mapping import Mapping as Declaration
    from kvitt.domain.mapping import Path
    from kvitt.domain.periods import Period
    from kvitt.domain.vouchers import Voucher

S = TypeVar("S", bound=BaseModel)


class Client(Vendor, Protocol):
    """A vendor that keeps its connections open until the end of its `async with`."""

    async def refused_lines(self, period: Period) -> Mapping[int, str]:
        """Return the vouchers that the vendor refused by itself after it took them, and why."""
        ...

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
    """One accounting system: what it needs to be told, who speaks with it, what it is sent.

    `rows` shows a voucher as the vendor is sent it, a row a line; `objection` says why the vendor
    would not take it, or None. `mapping_objections` says what of a mapping can never work there,
    and where in the mapping that stands. Nothing is asked for any of them. `habits` are those of
    each client. `numbers_by_source`: a voucher is known there by its source and number, so that two
    integrations need a source each.
    """

    settings: type[S]
    client: Callable[[S, Timeouts], Client]
    rows: Callable[[Period, Voucher], list[dict[str, Any]]]
    objection: Callable[[Period, Voucher], str | None]
    mapping_objections: Callable[[Declaration], list[tuple[Path, str]]]
    habits: Habits
    numbers_by_source: bool = False


VENDORS: Mapping[str, Kind[Any]] = {
    "business-central": Kind(
        BusinessCentralSettings,
        BusinessCentral,
        business_central.rows,
        business_central.objection,
        business_central.mapping_objections,
        BusinessCentral.habits,
    ),
    "dataverse": Kind(
        DataverseSettings,
        Dataverse,
        dataverse.rows,
        dataverse.objection,
        dataverse.mapping_objections,
        Dataverse.habits,
    ),
    "xledger": Kind(
        XledgerSettings,
        Xledger,
        xledger.rows,
        xledger.objection,
        xledger.mapping_objections,
        Xledger.habits,
        numbers_by_source=True,
    ),
}
