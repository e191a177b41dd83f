"""JSON whose amounts are decimals on both sides; a binary float is never made."""

from __future__ import annotations

import json
from decimal import Decimal
from json.encoder import encode_basestring_ascii as _quoted
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterable


def dumps(value: Any) -> str:
    """Return JSON in which a Decimal is a number with exactly its digits.

    Takes dicts with string keys, lists, tuples, and what `json` takes, except floats: TypeError.
    """
    # By frequency: an export of a large period writes millions of them.
    match value:
        case str():
            return _quoted(value)
        case dict():
            return "{" + ",".join(_pairs(value.items())) + "}"  # pyright: ignore[reportUnknownArgumentType] - any dict
        case Decimal():
            return format(value, "f")
        case list() | tuple():
            return "[" + ",".join([dumps(each) for each in value]) + "]"  # pyright: ignore[reportUnknownVariableType] - any list
        case float():
            raise TypeError(f"{value!r} is a binary float, and amounts are decimals")
        case _:
            return json.dumps(value)


def _pairs(items: Iterable[tuple[str, Any]]) -> list[str]:
    return [
        f"{_quoted(name)}:{_quoted(value) if type(value) is str else dumps(value)}"
        for name, value in items
    ]


def loads(text: str | bytes) -> Any:
    """Return what JSON says, with a Decimal for each number that is not whole.

    Raises ValueError for anything else than JSON, NaN and Infinity among it.
    """
    return json.loads(text, parse_float=Decimal, parse_constant=_refuse)


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
