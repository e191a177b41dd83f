"""What a period is called in the books, and how much of it is there."""

import tracemalloc
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as some

from kvitt.domain.money import checksum_of
from kvitt.domain.reconcile import FoundVoucher
from kvitt.vendors.references import LAST_SEQUENCE, Tally, reference_to, sequence_in
from tests.vendors.cast import a_period

amounts = some.decimals(-(10**14), 10**14, places=4)
lines = some.lists(some.tuples(some.integers(0, 50), amounts))


def tally_of(*rows: tuple[int, Decimal], first: int = 0, last: int = LAST_SEQUENCE) -> Tally:
    tally = Tally(first, last)
    for sequence, amount in rows:
        tally.add(sequence, amount)
    return tally


@given(some.integers(0, LAST_SEQUENCE))
def test_a_name_leads_back_to_its_voucher(sequence: int) -> None:
    period = a_period()
    assert sequence_in(period, f" {reference_to(period, sequence).lower()} ") == sequence
    assert sequence_in(a_period(), reference_to(period, sequence)) is None


@given(lines)
def test_lines_add_up_to_vouchers_in_any_order(rows: list[tuple[int, Decimal]]) -> None:
    expected = {
        sequence: FoundVoucher(
            lines=sum(s == sequence for s, _ in rows),
            booked=sum((a for s, a in rows if s == sequence and a > 0), Decimal(0)),
        )
        for sequence, _ in rows
    }
    assert tally_of(*rows).found() == expected
    assert tally_of(*reversed(rows)).found() == expected


@given(lines, lines)
def test_two_tables_add_up_to_one(
    staged: list[tuple[int, Decimal]], posted: list[tuple[int, Decimal]]
) -> None:
    both = tally_of(*staged) + tally_of(*posted)
    assert both.found() == tally_of(*staged, *posted).found()
    assert both.totals() == tally_of(*staged, *posted).totals()


def test_totals_carry_the_checksum_of_each_voucher() -> None:
    totals = tally_of((1, Decimal(5)), (1, Decimal(-5)), (7, Decimal("0.10"))).totals()
    expected = checksum_of(1, 2, Decimal(5)) + checksum_of(7, 1, Decimal("0.1"))
    assert (totals.vouchers, totals.lines, totals.booked) == (2, 3, Decimal("5.10"))
    assert totals.checksum == expected % 2**60


def test_only_the_range_is_counted() -> None:
    assert list(tally_of((1, Decimal(1)), (5, Decimal(1)), (9, Decimal(1)), first=2, last=8)) == [5]


def test_no_digit_is_lost_beyond_what_the_tally_is_made_for() -> None:
    odd = [Decimal("0.00001"), Decimal(10) ** 15, Decimal("1.5")]
    assert tally_of(*((3, amount) for amount in odd))[3].booked == sum(odd)


def test_a_million_lines_take_a_few_bytes_a_voucher() -> None:
    tracemalloc.start()
    tally = Tally()
    for number in range(300_000):
        tally.add(number // 3, Decimal("12.50"))
    grown, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert tally.totals().lines == 300_000
    assert grown < 100_000 * 16
    assert peak < 100_000 * 32
