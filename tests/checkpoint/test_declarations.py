"""What is made from the code and from the migrations is what is committed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deployments.automations import NOTIFICATIONS
from deployments.checkpoint import EVENT, ITEMS
from kvitt.checkpoint.schema import EXPECTATION
from tests.checkpoint.__main__ import DOCUMENT, documented, expectation
from tests.checkpoint.broken import CASES

if TYPE_CHECKING:
    from sandbox.supabase import Supabase

ANEW = "run python -m tests.checkpoint"


def test_the_expectation_is_what_the_migrations_make(supabase: Supabase) -> None:
    url = supabase.postgres.create_database("expectation")
    assert EXPECTATION.read_text() == expectation(url), ANEW


def test_the_document_lists_each_item() -> None:
    text = DOCUMENT.read_text()
    assert text == documented(text), ANEW


def test_each_item_says_in_full_what_a_person_needs_to_know() -> None:
    assert len({item.id for item in ITEMS}) == len(ITEMS)
    known = {item.id for item in ITEMS}
    for item in ITEMS:
        assert set(item.needs) <= known, item.id
        assert item.checks and item.why.endswith(".") and item.remedy, item.id  # noqa: PT018


def test_each_item_is_broken_at_least_once() -> None:
    assert {case.item.partition("/")[0] for case in CASES} == {item.id for item in ITEMS}
    assert len(CASES) >= 40


def test_a_failed_checkpoint_is_told_to_people() -> None:
    assert EVENT in NOTIFICATIONS
