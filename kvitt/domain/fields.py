"""What fields of settings and of records may hold: names, codes, currencies."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, StringConstraints

Identifier = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", max_length=63)
]
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
# No control characters, which have no place in a name.
NonEmpty = Annotated[
    str,
    StringConstraints(min_length=1, strip_whitespace=True, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$"),
]


def _code(value: object) -> object:
    """Account numbers are codes, but YAML reads an unquoted 7140 as a number."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Code = Annotated[NonEmpty, BeforeValidator(_code)]
