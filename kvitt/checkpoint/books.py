"""Which codes of a mapping an accounting system does not have: asked with one or two requests.

It stands beside the vendors' clients, as the questions in `kvitt.vendors.facts` do: an export needs
none of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel, ValidationError

from kvitt.checkpoint.items import NotApplicable
from kvitt.domain.mapping import codes_of, dimensions_of
from kvitt.vendors import BusinessCentral, Xledger

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence

    from kvitt.domain.mapping import Mapping, Path
    from kvitt.vendors import Client

_SLOT = "glObject"
_OK = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Named:
    """A code that a mapping gives to the accounting system, and where it stands in the mapping.

    `of` is the dimension that a value belongs to, as the accounting system calls it.
    """

    place: Path
    code: str
    of: str | None = None

    def __str__(self) -> str:
        what = f"{self.of} {self.code}" if self.of else self.code
        return f"{what} (mapping.{'.'.join(self.place)})"


def accounts_of(mapping: Mapping) -> list[Named]:
    """Return the accounts that a mapping names."""
    return [Named(place=p, code=code) for p, code in codes_of(mapping) if _is_account(p)]


def values_of(mapping: Mapping) -> list[Named]:
    """Return the values of dimensions that a mapping names."""
    found = [
        (place, code, place[1] if place[0] == "values" else place[-1])
        for place, code in codes_of(mapping)
        if place[0] == "values" or "dimensions" in place
    ]
    return [
        Named(place=place, code=code, of=mapping.dimensions.get(name, name))
        for place, code, name in found
    ]


def _is_account(place: Path) -> bool:
    return (
        place[0] == "accounts" or place[-1] == "account" or place[:-1] == ("defaults", "accounts")
    )


# -- what is not there -----------------------------------------------------------------------------


async def unknown_accounts(client: Client, mapping: Mapping) -> list[str]:
    """Say which accounts are missing or blocked. NotApplicable where that is not to be asked."""
    wanted = accounts_of(mapping)
    match client:
        case BusinessCentral():
            rows = await _rows(client, "accounts?$select=number,blocked")
            there = {str(row["number"]).casefold(): bool(row.get("blocked")) for row in rows}
        case Xledger():
            codes = sorted({named.code for named in wanted})
            there = dict.fromkeys(await _codes(client, "accounts", codes), False)
        case _:
            raise NotApplicable("it keeps no chart of accounts that could be asked")
    return [
        f"{named} {'is blocked' if named.code.casefold() in there else 'is not there'}"
        for named in wanted
        if there.get(named.code.casefold(), True)
    ]


async def unknown_dimensions(client: Client, mapping: Mapping) -> list[str]:
    """Say which dimensions and values are missing. NotApplicable where that is not to be asked."""
    match client:
        case BusinessCentral():
            return list(await _unknown_in_business_central(client, mapping))
        case Xledger():
            return [name async for name in _unknown_in_xledger(client, mapping)]
        case _:
            raise NotApplicable("it keeps no list of dimensions that could be asked")


async def _unknown_in_business_central(client: BusinessCentral, mapping: Mapping) -> Iterator[str]:
    what = "dimensions?$select=code&$expand=dimensionValues($select=code)"
    there = {
        str(row["code"]).casefold(): {str(v["code"]).casefold() for v in row["dimensionValues"]}
        for row in await _rows(client, what)
    }
    names = [Named(place=place, code=code) for place, code in dimensions_of(mapping)]
    missing = [named for named in names if named.code.casefold() not in there]
    values = [
        named
        for named in values_of(mapping)
        if named.code.casefold()
        not in there.get((named.of or "").casefold(), {named.code.casefold()})
    ]
    return (f"{named} is not there" for named in (*missing, *values))


async def _unknown_in_xledger(client: Xledger, mapping: Mapping) -> AsyncGenerator[str]:
    values = [named for named in values_of(mapping) if (named.of or "").startswith(_SLOT)]
    for slot in sorted({named.of or "" for named in values}):
        own = [named for named in values if named.of == slot]
        codes = sorted({named.code for named in own})
        there = await _codes(client, "objectValues", codes, slot=int(slot.removeprefix(_SLOT)))
        for named in own:
            if named.code.casefold() not in there:
                yield f"{named} is not there"


# -- asking ----------------------------------------------------------------------------------------


async def _rows(client: BusinessCentral, what: str) -> list[dict[str, Any]]:
    status, body = await client.exchange("GET", f"{client.company}/{what}")
    if status != _OK:
        raise NotApplicable(f"Business Central does not show {what.partition('?')[0]} ({status})")
    return cast("list[dict[str, Any]]", body.get("value", []))


async def _codes(
    client: Xledger, of: str, codes: Sequence[str], *, slot: int | None = None
) -> set[str]:
    """Return which of some codes there are, in lower case."""
    if not codes:
        return set()
    kind = "CodeFilter" if slot is None else "ObjectValueFilter"
    document = (
        f"query Codes($first: Int, $filter: {kind}) {{ {of}(first: $first, filter: $filter) "
        "{ edges { node { code } } } }"
    )
    which: dict[str, Any] = {"code_in": list(codes)} | ({} if slot is None else {"slot": slot})
    reply = await client.exchange(document, {"first": len(codes), "filter": which})
    try:
        found = _Reply.model_validate(reply).data[of]
    except (ValidationError, KeyError) as error:
        raise NotApplicable(f"this tenant's schema has no {of} to be asked by code") from error
    return {edge.node.code.casefold() for edge in found.edges or ()} if found else set()


class _Coded(BaseModel):
    code: str


class _Edge(BaseModel):
    node: _Coded


class _Edges(BaseModel):
    edges: list[_Edge] | None = None


class _Reply(BaseModel):
    data: dict[str, _Edges | None]
