"""How many records a page holds: halved when it was too much, and grown again with care."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from kvitt.domain.pages import PageSize, first_page

LIMITS = st.integers(min_value=1, max_value=20_000)


def pages(fits: int, *, most: int, number: int, page: PageSize | None = None) -> list[PageSize]:
    """Ask for full pages of a function in which `fits` records fit; returns each page asked for."""
    asked: list[PageSize] = []
    page = page or PageSize(records=most)
    for _ in range(number):
        asked.append(page)
        went_well = page.records <= fits
        page = page.after_full_page(most=most) if went_well else page.after_too_much()
    return asked


def failures(asked: list[PageSize], fits: int) -> list[int]:
    return [place for place, page in enumerate(asked) if page.records > fits]


@given(LIMITS, st.integers(min_value=1, max_value=20_000))
def test_a_page_is_at_least_one_record_and_never_above_the_limit(most: int, fits: int) -> None:
    assert all(1 <= page.records <= most for page in pages(fits, most=most, number=200))


@given(LIMITS, st.integers(min_value=1, max_value=20_000))
def test_it_fits_after_as_many_halvings_as_it_takes_and_no_more(most: int, fits: int) -> None:
    asked = pages(fits, most=most, number=20)
    first_good = next(place for place, page in enumerate(asked) if page.records <= fits)
    assert most // 2**first_good <= fits
    assert first_good == 0 or most // 2 ** (first_good - 1) > fits


@given(LIMITS, st.integers(min_value=1, max_value=20_000))
def test_it_grows_by_a_step_at_a_time(most: int, fits: int) -> None:
    for before, after in pairwise(pages(fits, most=most, number=300)):
        grown = after.records - before.records
        assert grown <= max(1, min(most // 10, before.records // 2))


@given(LIMITS, st.integers(min_value=1, max_value=20_000))
def test_it_never_grows_right_back_into_what_was_too_much(most: int, fits: int) -> None:
    """What was too much is tried again after 64 good pages in a row; anything larger as well."""
    asked = pages(fits, most=most, number=600)
    for place, page in enumerate(asked):
        if page.too_much is not None and page.records >= page.too_much and page.records > 1:
            before = asked[max(0, place - 64) : place]
            assert {earlier.records for earlier in before} == {before[0].records}
            assert len(before) == 64


@given(LIMITS, st.integers(min_value=2, max_value=20_000))
def test_in_the_long_run_few_pages_are_too_much(most: int, fits: int) -> None:
    """Twenty while it is found out what fits, then one in 64."""
    assert len(failures(pages(fits, most=most, number=1000), fits)) <= 20 + 1000 // 64


@given(LIMITS)
def test_what_had_another_cause_is_back_at_the_limit_in_the_end(most: int) -> None:
    """The page was too much once; then all fit."""
    asked = pages(most, most=most, number=1500, page=PageSize(records=most).after_too_much())
    assert asked[-1] == PageSize(records=most)


@given(LIMITS)
def test_at_the_limit_nothing_is_to_be_remembered(most: int) -> None:
    assert PageSize(records=most).after_full_page(most=most) == PageSize(records=most)


@given(LIMITS, LIMITS)
def test_a_limit_that_was_lowered_counts_at_once(most: int, learned: int) -> None:
    assert PageSize(records=learned, good=3).within(most).records == min(most, learned)


@given(LIMITS, st.integers(min_value=32, max_value=8192))
def test_where_nothing_is_known_the_memory_says_how_much(most: int, memory_mb: int) -> None:
    records = first_page(most=most, memory_mb=memory_mb).records
    assert 1 <= records <= most
    assert records == most or records <= most * memory_mb / 256 or records == 1


def test_half_the_memory_of_a_hosted_function_is_half_a_page() -> None:
    assert first_page(most=500, memory_mb=128).records == 250
    assert first_page(most=500, memory_mb=256).records == 500
    assert first_page(most=500, memory_mb=1024).records == 500
