"""Notices a flow that blocks the loop, on which all the others wait for it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from workers.flow_loop import FlowLoop
    from workers.patience import Patience

_TICK = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Blocked:
    """What blocks the loop: the run's name, since when, and where in the code."""

    run: str
    seconds: float
    stack: str

    def __str__(self) -> str:
        """Say it to a person."""
        return (
            f"the flow run {self.run} has blocked all others for {self.seconds:.0f} s: it waits or "
            "computes without `await`. If it goes on, the worker ends, and its supervisor starts "
            f"it again: see that it did, and tell whoever wrote the flow the place:\n{self.stack}"
        )


class Watchdog:
    """Asks the loop for a beat, twice a second, from the worker's own loop.

    It counts how long it has itself been awake without an answer, not what a clock shows: a
    process or a machine that was stopped for a while and goes on has blocked nobody.
    """

    def __init__(
        self,
        loop: FlowLoop,
        patience: Patience,
        *,
        warn: Callable[[Blocked], None],
        end: Callable[[Blocked], Awaitable[None]],
    ) -> None:
        self._loop = loop
        self._patience = patience
        self._warn = warn
        self._end = end

    async def watch(self) -> None:
        """Watch until cancelled, or until `end` has ended the process."""
        while True:
            beat, waited = self._loop.ask_for_beat(), 0.0
            await asyncio.sleep(_TICK)
            while not beat.is_set():
                await self._consider(waited, waited := waited + _TICK)
                await asyncio.sleep(_TICK)

    async def _consider(self, before: float, waited: float) -> None:
        """Do what is due between two ticks: the warning once, the end for good."""
        if before < self._patience.blocked_warn <= waited:
            self._warn(self._blocked(waited))
        if waited >= self._patience.blocked_end:
            await self._end(self._blocked(waited))

    def _blocked(self, seconds: float) -> Blocked:
        run, stack = self._loop.what_it_does()
        return Blocked(run=run, seconds=seconds, stack=stack)
