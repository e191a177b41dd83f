"""JSON with exact numbers, for simulators; they share no code with the exporter."""

import json
from decimal import Decimal
from typing import Any, cast


def dumps(value: Any) -> str:
    """Return JSON in which a Decimal is a number with all of its digits."""
    match value:
        case Decimal():
            return f"{value:f}"
        case dict():
            pairs = cast("dict[str, Any]", value).items()
            return "{" + ",".join(f"{json.dumps(name)}:{dumps(each)}" for name, each in pairs) + "}"
        case list() | tuple():
            return "[" + ",".join(dumps(each) for each in value) + "]"  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        case _:
            return json.dumps(value, ensure_ascii=False)
