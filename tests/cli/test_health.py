"""`kvitt health` and `kvitt mode`: how connections are, and who says which ones are probed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.cast import NORDVEST
from tests.cli.test_cli import refused
from tests.ledger.stages import a_connection

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Awaitable, Callable

    from tests.cast import Stage

    Kvitt = Callable[..., subprocess.CompletedProcess[str]]
    Enrol = Callable[..., Awaitable[Stage]]


async def test_it_shows_each_connection_and_a_mode_with_its_reason(
    kvitt: Kvitt, enrol: Enrol
) -> None:
    connection = f"health-{a_connection()}"
    await enrol(NORDVEST, connection=connection)
    [new] = [line for line in kvitt("health").stdout.splitlines() if connection in line]
    assert "unknown" in new
    which = f"xledger/{connection}"
    done = kvitt("mode", "passive", which, "--reason", "it is moved", "--by", "Inger")
    assert f"{which} is passive (1 connections changed)" in done.stdout
    [row] = [line for line in kvitt("health").stdout.splitlines() if connection in line]
    assert "by Inger: it is moved" in row
    told = json.loads(kvitt("health", "--json").stdout)
    [found] = [one for one in told if one["connection"] == connection]
    assert (found["mode"], found["mode_by"], found["requests"]) == ("passive", "Inger", 5_000)


async def test_a_mode_of_nobody_or_without_a_reason_is_refused(kvitt: Kvitt) -> None:
    told = refused(kvitt("mode", "active", "xledger/nobody", "--reason", "a try"))
    assert "no integration has the connection xledger/nobody" in told
    assert kvitt("mode", "active", "xledger/nobody").returncode == 2
    nothing_after = kvitt("mode", "passive", "xledger/", "--reason", "a variable that is empty")
    assert nothing_after.returncode == 2
    assert "names no connection" in nothing_after.stderr
    assert kvitt("mode", "sideways", "xledger/nobody", "--reason", "a try").returncode == 2
