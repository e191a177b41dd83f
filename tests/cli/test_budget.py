"""`kvitt budget`: what each connection has spent, what is left, and what the month will come to."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

from kvitt.budget import MonthlyBudget, open_budget
from kvitt.domain.budget import Purpose
from tests.cast import HOUR, NORDVEST
from tests.cli.test_cli import refused
from tests.ledger.stages import a_connection, budget, spend

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Awaitable, Callable

    from kvitt.ledger import SupabaseLedger
    from tests.cast import Stage

    Kvitt = Callable[..., subprocess.CompletedProcess[str]]
    Enrol = Callable[..., Awaitable[Stage]]


def row_of(kvitt: Kvitt, connection: str) -> dict[str, str]:
    """Return the only row that is shown of a connection, by heading."""
    head, *rows = (
        [cell.strip() for cell in line.strip("┃│").replace("┃", "│").split("│")]
        for line in kvitt("budget", connection).stdout.splitlines()
        if line[0] in "┃│"
    )
    [row] = rows
    return dict(zip(head, row, strict=True))


async def test_it_shows_what_was_spent_on_what_and_what_is_left(
    kvitt: Kvitt, enrol: Enrol, ledger: SupabaseLedger
) -> None:
    stage = await enrol(NORDVEST, **budget(requests=2_000, paid=True))
    connection = stage.integration.connection
    async with open_budget(ledger, "xledger", connection) as purse:
        await spend(purse, Purpose.EXPORT, 3)
        await spend(purse, Purpose.READ_BACK, 2)
        await spend(purse, Purpose.PROBE)
    killed = MonthlyBudget(ledger, "xledger", connection)
    await spend(killed, Purpose.EXPORT)
    row = row_of(kvitt, connection)
    assert int(row.pop("forecast")) >= 14
    assert row.pop("month")
    assert row == {
        "connection": f"xledger/{connection}",
        "export": "3",
        "read-back": "2",
        "probe": "1",
        "token": "0",
        "set-up": "0",
        "reserved": "8",
        "allowance": "2,000 or paid",
        "left": "1,986",
    }


async def test_a_vendor_without_an_allowance_has_no_limit(
    kvitt: Kvitt, ledger: SupabaseLedger
) -> None:
    connection = a_connection()
    async with open_budget(ledger, "business-central", connection) as purse:
        await purse.spend(Purpose.TOKEN, allowance=None)
    row = row_of(kvitt, connection)
    assert (row["token"], row["allowance"], row["left"]) == ("1", "no limit", "")


async def test_periods_shows_until_when_one_waits_and_why(kvitt: Kvitt, enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    period = await stage.claimed()
    until = await stage.ledger.postpone(period, "vendor", HOUR, postponed=1, reason="HTTP 503")
    words = f"waits until {until.astimezone(UTC):%Y-%m-%d %H:%M} UTC: HTTP 503"
    assert words in kvitt("periods", stage.id).stdout


async def test_a_connection_of_nobody_is_an_error_and_one_that_spent_nothing_is_none(
    kvitt: Kvitt, enrol: Enrol
) -> None:
    stage = await enrol(NORDVEST, connection=a_connection())
    own = stage.integration.connection
    said = refused(kvitt("budget", "nobody"))
    assert "no integration has the connection nobody; they have" in said
    assert own in said
    assert kvitt("budget", own).stdout == "nothing has been spent yet\n"
