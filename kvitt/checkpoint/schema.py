"""What the migrations make, as `kvitt.describe_schema` tells it, and how a database differs.

The expectation is the file schema.json beside this one. `python -m tests.checkpoint` writes it anew
from the migrations, and a test holds it to them.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

EXPECTATION = Path(__file__).with_name("schema.json")
PARTS = ("tables", "guards", "functions", "row_security", "grants")
# An administrator may add an index of his own.
_MAY_BE_ADDED = " index "
_SHOWN = 5


@cache
def expected() -> dict[str, Any]:
    """Return what the migrations make: `versions`, and each of PARTS."""
    return cast("dict[str, Any]", json.loads(EXPECTATION.read_text(encoding="utf-8")))


def expectation_of(described: Mapping[str, Any]) -> str:
    """Return the text of the expectation that a described database would be."""
    kept = {part: described[part] for part in ("versions", *PARTS)}
    return json.dumps(kept, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def differences(part: str, described: Mapping[str, Any]) -> list[str]:
    """Say how one part of a database differs from what the migrations make."""
    return list(_differences(expected()[part], described[part]))


def in_short(found: list[str]) -> str:
    """Name the first few of them."""
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return "; ".join(found[:_SHOWN]) + more


def _differences(wanted: Mapping[str, str], there: Mapping[str, str]) -> Iterator[str]:
    for name, what in wanted.items():
        if name not in there:
            yield f"{name} is missing"
        elif there[name] != what:
            yield f"{name} is `{there[name]}` and should be `{what}`"
    for name in there.keys() - wanted.keys():
        if _MAY_BE_ADDED not in name:
            yield f"{name} is none of kvitt's"
