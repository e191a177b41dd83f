"""Records and integrations as they enter: what is the same, what contradicts, what is refused."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvitt.domain.errors import LedgerRefused
from kvitt.domain.money import _MINOR_UNITS, minor_units
from tests.cast import (
    FJORDBY,
    HOUR,
    NORDVEST,
    TOUR,
    another,
    claim_for_travel,
    claim_from_abroad,
    invoice_for_posters,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import psycopg

    from kvitt.domain.records import Record
    from kvitt.ledger import SupabaseLedger
    from sandbox.supabase import Supabase
    from tests.cast import Stage

    Enrol = Callable[..., Awaitable[Stage]]


def plain(record: Record, **changes: Any) -> dict[str, Any]:
    """Return a record as an app would send it, with changes."""
    return {**record.model_dump(mode="json", exclude_none=True), **changes}


def travel(stage: Stage, number: int = 1) -> Record:
    return claim_for_travel(stage.id, number, stage.due[0] - HOUR / 2)


async def add(stage: Stage, *records: Any) -> Any:
    """Add records past our own validation, as another app might."""
    return await stage.ledger._call("add_records", p_records=list(records))


async def refusal(stage: Stage, *records: Any) -> tuple[str, str]:
    with pytest.raises(LedgerRefused) as refused:
        await add(stage, *records)
    return refused.value.code, str(refused.value)


def stored(stage: Stage) -> int:
    return stage.ask("select count(*) from kvitt.records where integration_id = %(id)s")[0][0]


# -- records ---------------------------------------------------------------------------------------


async def test_records_are_added_once(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    at = stage.due[0] - HOUR / 2
    records = [
        travel(stage),
        claim_from_abroad(stage.id, 2, at),
        invoice_for_posters(stage.id, 3, at),
    ]
    assert await stage.ledger.add_records(records) == (3, 0)
    assert await stage.ledger.add_records([*records, travel(stage, 4)]) == (1, 3)
    assert stored(stage) == 4


async def test_the_same_id_belongs_to_each_integration_by_itself(enrol: Enrol) -> None:
    theatre, club = await enrol(NORDVEST), await enrol(FJORDBY)
    assert await theatre.ledger.add_records([travel(theatre), travel(club)]) == (2, 0)


async def test_the_same_content_spelled_otherwise_is_the_same(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    record = travel(stage)
    await stage.ledger.add_records([record])
    cost, owed = plain(record)["lines"]
    spelled = plain(
        record,
        approved_at=record.approved_at.astimezone(stage.integration.zone).isoformat(),
        lines=[
            {**cost, "amount": "513.4000", "book_amount": "513.4", "party": None},
            {**owed, "amount": -513.40, "dimensions": {}},
        ],
    )
    assert await add(stage, spelled) == {"added": 0, "present": 1}


@pytest.mark.parametrize(
    "change",
    [
        {"text": "Another"},
        {"kind": "payout"},
        {"voucher_date": "2026-11-21"},
        {"approved_at": "2026-11-01T00:00:00Z"},
        {"lines": [{"account": "a", "amount": "1"}, {"account": "b", "amount": "-1"}]},
    ],
)
async def test_other_content_under_a_known_id_is_a_conflict_that_names_it(
    enrol: Enrol, change: dict[str, Any]
) -> None:
    stage = await enrol(NORDVEST)
    await stage.ledger.add_records([travel(stage)])
    code, said = await refusal(stage, plain(travel(stage), **change))
    assert code == "KV002"
    assert f"{stage.id}, record 2026-0001: it is there already with other content" in said


async def test_a_conflict_lets_none_of_its_batch_in(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    await stage.ledger.add_records([travel(stage)])
    code, _ = await refusal(stage, plain(travel(stage, 2)), plain(travel(stage), text="Another"))
    assert (code, stored(stage)) == ("KV002", 1)


async def test_two_who_add_the_same_at_once_add_it_once(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    records = [travel(stage, number) for number in range(50)]
    counts = await asyncio.gather(*(stage.ledger.add_records(records) for _ in range(4)))
    assert sum(added for added, _ in counts) == 50
    assert stored(stage) == 50


def lines(*amounts: Any, **other: Any) -> list[dict[str, Any]]:
    return [{"account": "travel", "amount": amount, **other} for amount in amounts]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lines": lines("1", "-1.01")}, "its lines sum to -0.01 NOK, and must sum to 0"),
        ({"lines": lines("1", "-1"), "currency": "EUR"}, "each line needs its book_amount in NOK"),
        (
            {
                "currency": "EUR",
                "lines": [*lines("1", book_amount="11.63"), *lines("-1", book_amount="-11.64")],
            },
            "its lines sum to -0.01 NOK in the books",
        ),
        (
            {"lines": [*lines("1", book_amount="2"), *lines("-1", book_amount="-2")]},
            "the books' own currency NOK, so amount and book_amount are one",
        ),
        ({"lines": []}, "two lines at least"),
        ({"lines": None}, "its lines come as a JSON array"),
        ({"lines": "1, -1"}, "its lines come as a JSON array"),
        ({"lines": {"amount": 1}}, "its lines come as a JSON array"),
        ({"lines": lines("0", "0")}, "books nothing"),
        ({"lines": lines("0.001", "-0.001")}, "line 1 has 0.001 NOK, finer than the currency is"),
        (
            {
                "currency": "JPY",
                "lines": [*lines("1.5", book_amount="1"), *lines("-1.5", book_amount="-1")],
            },
            "line 1 has 1.5 JPY, finer than the currency is",
        ),
        (
            {
                "currency": "EUR",
                "lines": [*lines("1", book_amount="9.999"), *lines("-1", book_amount="-9.999")],
            },
            "line 1 has 9.999 NOK, finer than the currency is",
        ),
        ({"currancy": "NOK"}, "there is no field currancy; there are"),
        ({"lines": lines("1", "-1", acount="travel")}, "there is no field acount; there are"),
        ({"lines": ["1", "-1"]}, "is no JSON object"),
        ({"lines": lines("1", "-1", dimensions={"project": 7})}, "dimension project is no word"),
        ({"lines": lines("NaN", "NaN")}, "NaN"),
        ({"lines": lines("Infinity", "-Infinity")}, "is no amount"),
        ({"lines": lines("twelve", "-12")}, "twelve"),
        ({"lines": lines("1", "-1", dimensions=["20"])}, "dimensions"),
        ({"lines": [{"amount": "1"}, {"amount": "-1"}]}, "account"),
        ({"currency": "kroner"}, "it is in kroner"),
        ({"currency": None}, "book_amount"),
        ({"approved_at": None}, "approved_at"),
        ({"approved_at": "yesterday evening"}, "yesterday evening"),
        ({"voucher_date": "2026-02-30"}, "2026-02-30"),
        ({"kind": ""}, "kind"),
    ],
)
async def test_what_is_no_voucher_is_refused_by_name(
    enrol: Enrol, change: dict[str, Any], said: str
) -> None:
    stage = await enrol(NORDVEST)
    code, words = await refusal(stage, plain(travel(stage, 2)), plain(travel(stage), **change))
    assert code == "KV003"
    assert f"{stage.id}, record 2026-0001: " in words
    assert said in words
    assert stored(stage) == 0


async def test_records_of_nobody_are_refused(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    code, said = await refusal(stage, plain(travel(stage), integration="nobody"))
    assert (code, "there is no integration nobody" in said) == ("KV004", True)


@pytest.mark.parametrize("records", [{"records": []}, "records", None])
async def test_records_come_as_a_list(ledger: SupabaseLedger, records: Any) -> None:
    with pytest.raises(LedgerRefused, match="records come as a JSON array"):
        await ledger._call("add_records", p_records=records)


async def test_json_numbers_are_exact_where_a_binary_float_would_not_be(
    supabase: Supabase, enrol: Enrol
) -> None:
    stage = await enrol(NORDVEST)
    record = plain(travel(stage), lines=lines("PLUS", "0.1", "0.2", "MINUS"))
    body = json.dumps({"p_records": [record]})
    body = body.replace('"PLUS"', "90071992547409.93").replace('"MINUS"', "-90071992547410.23")
    async with httpx.AsyncClient(trust_env=False) as app:
        headers = {
            "apikey": supabase.secret_key,
            "content-type": "application/json",
            "content-profile": "kvitt",
        }
        url = f"{supabase.url}/rest/v1/rpc/add_records"
        answer = await app.post(url, content=body, headers=headers)
    assert answer.json() == {"added": 1, "present": 0}
    amounts = stage.ask(
        "select amount from kvitt.record_lines where integration_id = %(id)s order by number"
    )
    assert amounts[0] == (Decimal("90071992547409.93"),)
    assert sum(amount for (amount,) in amounts) == 0


# -- integrations ----------------------------------------------------------------------------------


async def test_an_integration_is_created_changed_and_left_alone(ledger: SupabaseLedger) -> None:
    who = another(NORDVEST)
    changed = another(NORDVEST, id=who.id, limits={"chunk_lines": 100})
    assert await ledger.save_integration(who) == "created"
    assert await ledger.save_integration(who) == "unchanged"
    assert await ledger.save_integration(changed) == "changed"
    assert await ledger.read_integration(who.id) == changed


async def test_an_integration_that_is_not_there_is_named(ledger: SupabaseLedger) -> None:
    with pytest.raises(LedgerRefused, match="there is no integration nobody"):
        await ledger.read_integration("nobody")
    with pytest.raises(LedgerRefused, match="there is no integration nobody"):
        await ledger.read_calendar("nobody")


async def test_all_integrations_are_read_by_id(ledger: SupabaseLedger) -> None:
    own = sorted([another(NORDVEST).id, another(FJORDBY).id])
    for name in own:
        await ledger.save_integration(another(TOUR, id=name))
    read = [integration.id for integration in (await ledger.read_integrations()).valid]
    assert read == sorted(read)
    assert set(own) <= set(read)


async def test_the_books_currency_stays_once_there_are_records(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    in_euro = another(NORDVEST, id=stage.id, book_currency="EUR")
    assert await stage.ledger.save_integration(in_euro) == "changed"
    assert await stage.ledger.save_integration(stage.integration) == "changed"
    await stage.approve(1)
    with pytest.raises(LedgerRefused, match="book currency NOK cannot change"):
        await stage.ledger.save_integration(in_euro)


# -- the calendar ----------------------------------------------------------------------------------


def calendar(stage: Stage) -> list[tuple[Any, Any]]:
    return stage.ask(
        "select opens_at, due_at from kvitt.periods where integration_id = %(id)s order by due_at"
    )


async def test_the_calendar_has_neither_gap_nor_overlap(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST, periods=5)
    await stage.ledger.plan_periods(
        stage.id, opens_at=None, due=[stage.due[-1] + n * HOUR for n in (3, 5, 9)]
    )
    periods = calendar(stage)
    assert len(periods) == 9
    assert [opens for opens, _ in periods[1:]] == [due for _, due in periods[:-1]]


async def test_writing_the_calendar_twice_is_once(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    due = [stage.due[-1] + n * HOUR for n in (3, 4)]
    assert await stage.ledger.plan_periods(stage.id, opens_at=None, due=due) == 2
    before = calendar(stage)
    assert await stage.ledger.plan_periods(stage.id, opens_at=None, due=due) == 0
    assert calendar(stage) == before


async def test_two_who_write_the_calendar_at_once_write_one(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST, periods=0)
    first = calendar(stage)[0][1]
    due = [first + n * HOUR for n in range(1, 40)]
    written = await asyncio.gather(
        *(stage.ledger.plan_periods(stage.id, opens_at=None, due=due[:n]) for n in (39, 20, 39, 5))
    )
    assert sum(written) == 39
    periods = calendar(stage)
    assert [opens for opens, _ in periods[1:]] == [due for _, due in periods[:-1]]


async def test_another_schedule_keeps_the_past_and_replaces_the_future(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST, periods=2)
    changed = another(NORDVEST, id=stage.id, cron="0 7 * * *")
    await stage.ledger.save_integration(changed)
    assert [due for _, due in calendar(stage)] == stage.due
    new = stage.due[-1] + timedelta(minutes=90)
    await stage.ledger.plan_periods(stage.id, opens_at=None, due=[new])
    assert calendar(stage)[-1] == (stage.due[-1], new)


async def test_a_change_that_is_none_of_the_schedule_leaves_the_calendar(enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    before = calendar(stage)
    await stage.ledger.save_integration(another(NORDVEST, id=stage.id, enabled=False))
    assert calendar(stage) == before


async def test_periods_of_nobody_are_not_planned(ledger: SupabaseLedger) -> None:
    with pytest.raises(LedgerRefused, match="there is no integration nobody"):
        await ledger.plan_periods("nobody", opens_at=None, due=[])


# -- the same on both sides ------------------------------------------------------------------------


@given(st.from_regex("[A-Z]{3}", fullmatch=True) | st.sampled_from(sorted(_MINOR_UNITS)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_database_knows_as_many_decimals_of_a_currency_as_the_domain(
    database: psycopg.Connection, currency: str
) -> None:
    [[decimals]] = database.execute("select kvitt.minor_units(%s)", [currency]).fetchall()
    assert decimals == minor_units(currency)
