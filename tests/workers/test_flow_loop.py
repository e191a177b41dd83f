"""The loop that all flows share, without a server: what it survives, and how it is watched."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED,
    temporary_settings,
)

from sandbox.processes import free_port
from workers.flow_loop import FlowLoop
from workers.patience import Patience
from workers.watchdog import Blocked, Watchdog

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

PATIENCE = Patience(blocked_warn=1, blocked_end=3)


@pytest.fixture
async def loop() -> AsyncGenerator[FlowLoop]:
    with temporary_settings(
        {
            PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api",
            PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED: False,
        }
    ):
        loop = FlowLoop()
        await loop.start()
        yield loop
        await loop.stop()


async def test_work_runs_beside_us_and_says_when_it_has_ended(loop: FlowLoop) -> None:
    seen: list[bool] = []

    async def work() -> None:
        seen.append(asyncio.get_running_loop() is here)

    here = asyncio.get_running_loop()
    await asyncio.wrap_future(loop.submit(work(), "work"))
    assert seen == [False]


async def test_work_that_is_cancelled_at_once_still_gets_to_say_so(loop: FlowLoop) -> None:
    said: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            said.append("cancelled")

    ended = loop.submit(work(), "work")
    loop.cancel(ended)
    await asyncio.wrap_future(ended)
    loop.cancel(ended)  # once more does nothing
    assert said == ["cancelled"]


async def test_a_part_of_a_flow_that_asks_for_the_end_of_the_process_does_not_get_it(
    loop: FlowLoop, capfd: pytest.CaptureFixture[str]
) -> None:
    async def leave() -> None:
        raise SystemExit(3)

    async def work() -> None:
        with pytest.raises(SystemExit):
            await asyncio.create_task(leave())

    await asyncio.wrap_future(loop.submit(work(), "work"))
    await asyncio.wrap_future(loop.submit(asyncio.sleep(0), "after"))
    assert "SystemExit: 3" in capfd.readouterr().err


async def test_a_server_that_cannot_be_reached_is_said_at_the_start() -> None:
    nobody = temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"})
    with nobody, pytest.raises(RuntimeError, match="Failed to reach API"):
        await FlowLoop().start()


async def test_a_blocked_loop_is_warned_of_once_and_then_ended(loop: FlowLoop) -> None:
    warned: list[Blocked] = []
    ended: asyncio.Future[Blocked] = asyncio.get_running_loop().create_future()

    async def end(blocked: Blocked) -> None:
        ended.set_result(blocked)
        await asyncio.sleep(600)  # as the end of the process would

    async def work() -> None:
        time.sleep(5)  # noqa: ASYNC251 - that is what is noticed

    watching = asyncio.create_task(Watchdog(loop, PATIENCE, warn=warned.append, end=end).watch())
    work_ended = loop.submit(work(), "nordvest-xledger")
    last = await asyncio.wait_for(ended, 10)
    watching.cancel()
    await asyncio.wrap_future(work_ended)
    assert [(b.run, b.seconds) for b in [*warned, last]] == [
        ("nordvest-xledger", PATIENCE.blocked_warn),
        ("nordvest-xledger", PATIENCE.blocked_end),
    ]
    assert "time.sleep(5)" in last.stack


async def test_a_busy_loop_that_answers_is_left_alone(loop: FlowLoop) -> None:
    async def work() -> None:
        for _ in range(20):
            time.sleep(0.1)  # noqa: ASYNC251 - busy, but it lets others through
            await asyncio.sleep(0)

    async def end(blocked: Blocked) -> None:
        raise AssertionError(blocked)

    warned: list[Blocked] = []
    watching = asyncio.create_task(Watchdog(loop, PATIENCE, warn=warned.append, end=end).watch())
    await asyncio.wrap_future(loop.submit(work(), "work"))
    watching.cancel()
    assert warned == []
