"""Prefect's engine for async flows, fitted to run many of them in one process."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from prefect.flow_engine import AsyncFlowRunEngine

if TYPE_CHECKING:
    from collections.abc import Generator

    from prefect._flow_run_suspension import FlowRunSuspensionRequest
    from prefect.client.schemas.objects import State


class Ending(StrEnum):
    """Why a run is cancelled from outside."""

    CANCEL = "cancel"  # somebody cancelled it in Prefect
    HAND_BACK = "hand back"  # the worker stops; another one is to take it


class WarmEngine(AsyncFlowRunEngine[Any, Any]):
    """An engine that is ready before its run is due, and knows why it is cancelled.

    What it leaves out of Prefect's own: the thread for heartbeats (the worker gives the signs of
    life of all its runs), and the thread that looks out for a suspension, which opens a connection
    of its own for each run and has the loop wait for it (0.3 s measured, in which all others stand
    still). Our flows are not suspended.
    """

    due: datetime | None = None
    begun = False
    ending: Ending | None = None

    @property
    def heartbeat_seconds(self) -> int | None:
        """Never: see above."""
        return None

    @contextmanager
    def setup_flow_run_suspension_request(self) -> Generator[FlowRunSuspensionRequest]:
        """Give the request that nobody will make."""
        yield self._get_flow_run_suspension_request()

    async def set_state(self, state: State[Any], force: bool = False) -> State[Any]:  # noqa: FBT001, FBT002 - the engine's signature
        """Propose a state; *Running* not before it is due, when all else is ready."""
        if state.is_running() and not self.begun:
            await _until(self.due)
            self.begun = True
        return await super().set_state(state, force)

    async def handle_crash(self, exc: BaseException) -> None:
        """Report what was raised as a crash, unless it is the end that somebody asked for."""
        if isinstance(exc, asyncio.CancelledError) and self.ending is Ending.CANCEL:
            await self.handle_cancellation(exc)
        elif not (isinstance(exc, asyncio.CancelledError) and self.ending):
            await super().handle_crash(exc)

    async def run(self) -> None:
        """Run the flow, as `prefect.flow_engine.run_flow_async` does."""
        async with self.start():
            while self.is_running():
                async with self.run_context():
                    await self.call_flow_fn()


async def _until(due: datetime | None) -> None:
    """Sleep until a time; the clock is asked again, since sleeping may end a little early."""
    while due is not None and (left := (due - datetime.now(UTC)).total_seconds()) > 0:  # noqa: ASYNC110 - no event comes
        await asyncio.sleep(left)
