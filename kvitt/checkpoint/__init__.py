"""The checkpoint: whether all that kvitt depends on is there, and works together.

`items` says what an item is and how they are looked at; `foundation`, `services`, `orchestration`
and `data_flow` declare them, one function each. Those that ask Prefect are declared in
`deployments/checkpoint.py`, which also puts them together. See docs/checkpoint.md.
"""

from kvitt.checkpoint.items import (
    Awaits,
    Broken,
    Group,
    Item,
    NotApplicable,
    Report,
    Result,
    Verdict,
    each,
    once,
)
from kvitt.checkpoint.looking import look
from kvitt.checkpoint.site import Site

__all__ = [
    "Awaits",
    "Broken",
    "Group",
    "Item",
    "NotApplicable",
    "Report",
    "Result",
    "Site",
    "Verdict",
    "each",
    "look",
    "once",
]
