"""Rounding at the ledger's door: only by the mapping's rule, and as the domain says."""

from __future__ import annotations

from decimal import Decimal
from itertools import count
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvitt.domain.errors import LedgerRefused
from kvitt.domain.money import Totals
from kvitt.domain.records import Record, as_taken
from kvitt.domain.vouchers import voucher_of
from tests.cast import HOUR, NORDVEST, another, claim_for_travel
from tests.ledger.protocol import Protocol
from tests.ledger.stages import close, collect

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from kvitt.domain.integrations import Integration
    from kvitt.domain.records import TakenRecord
    from tests.cast import Stage

    Enrol = Callable[..., Awaitable[Stage]]

RULE = {"account": "rounding", "text": "Avrunding"}
MAPPING = {"accounts": {"rounding": "7770"}, "rounding": RULE}
_numbers = count(1)
amounts = st.decimals("0.004", "9999", places=4)


def claim(integration: str, at: Any, *lines: tuple[str, str], number: int = 1) -> Record:
    """Return a claim in euro of lines of an amount, and of what is booked of it."""
    told = [{"account": "travel", "amount": a, "book_amount": b} for a, b in lines]
    plain = claim_for_travel(integration, number, at).model_dump()
    return Record.model_validate({**plain, "currency": "EUR", "lines": told})


HALVES = (("0.50", "5.815"), ("0.50", "5.815"), ("-1.00", "-11.63"))


async def test_without_a_rule_nothing_is_rounded(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    with pytest.raises(LedgerRefused, match=r"line 1 has 5\.815 NOK, finer than the currency is"):
        await stage.ledger.add_records([claim(stage.id, stage.due[0] - HOUR, *HALVES)])


async def test_a_rule_puts_the_difference_on_its_account_and_keeps_what_was_approved(
    enrol: Enrol,
) -> None:
    stage = await enrol(NORDVEST, mapping=MAPPING)
    await stage.ledger.add_records([claim(stage.id, stage.due[0] - HOUR, *HALVES)])
    rows = stage.ask(
        "select account, amount, book_amount, approved_amount, approved_book_amount"
        " from kvitt.record_lines where integration_id = %(id)s order by number"
    )
    half, fine = Decimal("0.5"), Decimal("5.815")
    assert rows == [
        ("travel", half, Decimal("5.82"), half, fine),
        ("travel", half, Decimal("5.82"), half, fine),
        ("travel", -1, Decimal("-11.63"), None, None),
        ("rounding", 0, Decimal("-0.01"), 0, 0),
    ]


async def test_the_same_record_is_the_same_whatever_the_rule_says_now(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST, mapping=MAPPING)
    record = claim(stage.id, stage.due[0] - HOUR, *HALVES)
    assert await stage.ledger.add_records([record]) == (1, 0)
    await stage.ledger.save_integration(another(NORDVEST, id=stage.id))
    with pytest.raises(LedgerRefused, match="finer than the currency"):
        await stage.ledger.add_records([record])
    other = {**MAPPING, "rounding": {"account": "other"}}
    await stage.ledger.save_integration(another(NORDVEST, id=stage.id, mapping=other))
    assert await stage.ledger.add_records([record]) == (0, 1)


async def test_a_rounded_batch_is_taken_sent_and_settled_to_the_last_decimal(
    enrol: Enrol,
) -> None:
    stage = await enrol(NORDVEST, mapping=MAPPING)
    await stage.ledger.add_records([claim(stage.id, stage.due[0] - HOUR, *HALVES)])
    period = await stage.claimed()
    await collect(stage, period)
    [taken] = await stage.ledger.read_batch(period, after=0, records=9, lines=99)
    voucher = voucher_of(taken, stage.integration, due_at=period.due_at)
    assert voucher.lines[-1].account == "7770"
    chunk = await stage.ledger.intend(period, "lines", 1, 1, voucher.totals, HOUR)
    assert chunk is not None
    await stage.ledger.settle_chunk(period, chunk.number, "confirmed")
    receipt = await stage.ledger.settle(period, voucher.totals, {})
    assert receipt is not None
    assert (receipt["taken"]["lines"], receipt["taken"]["booked"]) == (4, "11.64")
    assert receipt["taken"] == receipt["sent"]


async def test_a_mended_record_is_the_same_as_the_one_that_was_set_aside(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST, mapping=MAPPING)
    await stage.ledger.add_records([claim(stage.id, stage.due[0] - HOUR, *HALVES)])
    period = await stage.claimed()
    await collect(stage, period)
    await stage.ledger.set_aside(period, {1: "account 7140 is blocked"}, most=5)
    await stage.ledger.settle(period, Totals(), {})
    await close(stage, "settled")
    again = await stage.ledger.mend_record(stage.id, "2026-0001", who="Inger", reason="open again")
    kept = await stage.ledger.read_record(stage.id, again)
    assert [line.book_amount for line in kept.lines] == [
        Decimal(amount) for amount in ("5.82", "5.82", "-11.63", "-0.01")
    ]


@given(
    st.lists(amounts, min_size=1, max_size=8),
    st.sampled_from([None, Decimal("11.6345"), Decimal("0.0731")]),
    st.sampled_from(["NOK", "JPY", "BHD"]),
    st.booleans(),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_the_ledger_rounds_and_refuses_as_the_domain_does(
    database: psycopg.Connection,
    debits: list[Decimal],
    rate: Decimal | None,
    books: str,
    ruled: bool,  # noqa: FBT001 - hypothesis gives it
) -> None:
    who = another(NORDVEST, book_currency=books, mapping=MAPPING if ruled else {})
    record = _record(who.id, debits, rate, books)
    protocol = Protocol(database=database, integration=who.id)
    protocol.save(who)
    told = record.model_dump(mode="json", exclude_none=True)
    kept = _kept_or_why_not(record, who)
    if isinstance(kept, str):
        with pytest.raises(psycopg.DatabaseError) as refused:
            protocol.call("add_records", records=[told])
        assert kept in str(refused.value)
        return
    protocol.call("add_records", records=[told])
    rows = database.execute(
        "select number, account, amount, book_amount, text from kvitt.record_lines"
        " where integration_id = %s order by number",
        [who.id],
    ).fetchall()
    assert rows == [(x.number, x.account, x.amount, x.book_amount, x.text) for x in kept.lines]


def _kept_or_why_not(record: Record, who: Integration) -> TakenRecord | str:
    try:
        return as_taken(record, who)
    except ValueError as error:
        return str(error)


def _record(integration: str, debits: list[Decimal], rate: Decimal | None, books: str) -> Record:
    given = [*debits, -sum(debits, Decimal(0))]
    lines: list[dict[str, Any]] = [{"account": "travel", "amount": amount} for amount in given]
    if rate is not None:
        whole = [amount.quantize(Decimal("0.01")) or Decimal("0.01") for amount in debits]
        given = [*whole, -sum(whole, Decimal(0))]
        lines = [{"account": "travel", "amount": a, "book_amount": a * rate} for a in given]
    head = {**claim_for_travel(integration, next(_numbers), NORDVEST.first_period).model_dump()}
    return Record.model_validate(
        {**head, "currency": books if rate is None else "EUR", "lines": lines}
    )
