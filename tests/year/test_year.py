"""A small year; `make year` is the whole one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sandbox.ground import Ground, running
from sandbox.vendors.simulators import SIMULATORS
from tests.year.year import play

if TYPE_CHECKING:
    from collections.abc import Generator


@pytest.fixture(scope="module")
def ground() -> Generator[Ground]:
    with running("small-year") as ground:
        yield ground


@pytest.mark.parametrize("vendor", SIMULATORS)
async def test_a_year_is_in_the_books_to_the_oere(ground: Ground, vendor: str) -> None:
    outcome = await play(ground, vendor, 600, seed=3, say=print, mend=False)

    assert outcome.wrong == {}
    assert outcome.booked == outcome.receipts > 0
    assert outcome.set_aside > 0
    assert outcome.vouchers > 600 - outcome.set_aside
    shown = SIMULATORS[vendor].original_currency
    assert set(outcome.originals) == (
        {"NOK", "EUR", "USD", "GBP", "SEK", "DKK"} if shown else set()
    )
