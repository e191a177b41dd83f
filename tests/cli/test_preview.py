"""`kvitt preview`: what would be sent, to the line, and nothing is changed by looking."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.cast import FJORDBY, HOUR, MINUTE, NORDVEST, claim_for_travel, claim_from_abroad
from tests.ledger.stages import collect

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Awaitable, Callable

    from tests.cast import Stage

    Kvitt = Callable[..., subprocess.CompletedProcess[str]]
    Enrol = Callable[..., Awaitable[Stage]]


def rows(done: subprocess.CompletedProcess[str]) -> list[dict[str, object]]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


async def test_a_period_shows_its_vouchers_as_business_central_would_get_them(
    kvitt: Kvitt, enrol: Enrol
) -> None:
    stage = await enrol(FJORDBY)
    await stage.ledger.add_records([claim_for_travel(stage.id, 1, stage.due[0] - HOUR)])
    first, second = rows(kvitt("preview", stage.id, stage.due[0].isoformat(), "--json"))
    assert (first["accountType"], first["accountNumber"]) == ("G/L Account", "7140")
    assert (second["accountType"], second["accountNumber"]) == ("Vendor", "ANS-101")
    assert (first["amount"], second["amount"]) == (513.4, -513.4)
    assert str(first["documentNumber"]).endswith("-000001")


async def test_a_period_shows_its_vouchers_as_xledger_would_get_them(
    kvitt: Kvitt, enrol: Enrol
) -> None:
    stage = await enrol(NORDVEST)
    await stage.ledger.add_records([claim_from_abroad(stage.id, 1, stage.due[0] - HOUR)])
    shown = rows(kvitt("preview", stage.id, stage.due[0].isoformat(), "--json"))
    nodes = [row["node"] for row in shown]
    assert [node["invoiceAmount"] for node in nodes] == ["100.00", "20.10", "-120.10"]  # type: ignore[index]
    assert [node["amount"] for node in nodes] == ["1163.45", "233.85", "-1397.30"]  # type: ignore[index]


async def test_looking_takes_nothing(kvitt: Kvitt, enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    await stage.ledger.add_records([claim_for_travel(stage.id, 1, stage.due[0] - HOUR)])
    before = kvitt("preview", stage.id).stdout
    assert kvitt("preview", stage.id).stdout == before
    assert stage.state() == "due"
    taken = "select id from kvitt.records where integration_id = %(id)s and sequence is not null"
    assert stage.ask(taken) == []


async def test_what_an_earlier_period_will_take_is_not_shown_twice(
    kvitt: Kvitt, enrol: Enrol
) -> None:
    stage = await enrol(NORDVEST, periods=2)
    await stage.ledger.add_records(
        [
            claim_for_travel(stage.id, 1, stage.due[0] - MINUTE),
            claim_for_travel(stage.id, 2, stage.due[1] - MINUTE),
        ]
    )
    earlier = kvitt("preview", stage.id, stage.due[0].isoformat()).stdout
    later = kvitt("preview", stage.id, stage.due[1].isoformat()).stdout
    assert ("2026-0001" in earlier, "2026-0002" in earlier) == (True, False)
    assert ("2026-0001" in later, "2026-0002" in later) == (False, True)


async def test_a_frozen_period_shows_what_it_took_and_what_it_sums_to(
    kvitt: Kvitt, enrol: Enrol
) -> None:
    stage = await enrol(NORDVEST)
    await stage.ledger.add_records(
        [
            claim_for_travel(stage.id, 1, stage.due[0] - HOUR),
            claim_for_travel(stage.id, 2, stage.due[0] - HOUR),
        ]
    )
    await collect(stage, await stage.claimed())
    await stage.ledger.add_records([claim_for_travel(stage.id, 3, stage.due[0] - HOUR)])
    shown = kvitt("preview", stage.id, stage.due[0].isoformat()).stdout
    assert "2 vouchers, 4 lines, 1,027.80 NOK" in shown
    assert "2026-0003" not in shown
