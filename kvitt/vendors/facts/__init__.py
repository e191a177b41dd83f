"""Which uncertain facts about a vendor are true in a user's own tenant.

The client of a vendor is one file, and does only what an export needs. The questions do what an
export must never do, so they stand beside it: a file a vendor here, and a line in `EXAMINATIONS`.
The ids of facts are those of the register, tests/vendors/facts.yaml.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvitt.vendors.facts.asking import Answer, Examination, Question, Record, Verdict, answers_to
from kvitt.vendors.facts.business_central import BUSINESS_CENTRAL
from kvitt.vendors.facts.xledger import XLEDGER

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["EXAMINATIONS", "Answer", "Examination", "Question", "Record", "Verdict", "answers_to"]

EXAMINATIONS: Mapping[str, Examination[Any, Any]] = {
    "business-central": BUSINESS_CENTRAL,
    "xledger": XLEDGER,
}
