"""A batch is cut into calls: in order, none left out, no voucher cut, none larger than allowed."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from kvitt.domain.chunks import cut
from tests.domain.test_vouchers import TRAVEL, mapped

if TYPE_CHECKING:
    from kvitt.domain.vouchers import Voucher

CLAIM = mapped(TRAVEL)


def of(lines: int, sequence: int) -> Voucher:
    return replace(CLAIM, sequence=sequence, lines=CLAIM.lines[:1] * lines)


batches = st.lists(st.integers(1, 12), max_size=40).map(
    lambda sizes: [of(lines, n) for n, lines in enumerate(sizes, 1)]
)


@given(batches, st.integers(1, 10), st.integers(1, 20))
def test_chunks_follow_one_another_and_hold_all(
    batch: list[Voucher], most: int, lines: int
) -> None:
    chunks = list(cut(batch, most=most, lines=lines))
    assert [voucher for chunk in chunks for voucher in chunk] == batch
    assert all(chunks)


@given(batches, st.integers(1, 10), st.integers(1, 20))
def test_no_chunk_is_larger_than_it_may_be(batch: list[Voucher], most: int, lines: int) -> None:
    for chunk in cut(batch, most=most, lines=lines):
        assert len(chunk) <= most
        assert len(chunk) == 1 or sum(len(voucher.lines) for voucher in chunk) <= lines


@given(batches, st.integers(1, 10), st.integers(1, 20))
def test_no_chunk_ends_while_the_next_voucher_would_fit(
    batch: list[Voucher], most: int, lines: int
) -> None:
    chunks = list(cut(batch, most=most, lines=lines))
    for chunk, following in itertools.pairwise(chunks):
        with_next = sum(len(voucher.lines) for voucher in [*chunk, following[0]])
        assert len(chunk) == most or with_next > lines
