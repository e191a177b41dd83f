"""The loop on which all flows of the warm worker run, in a thread of its own.

The worker's own loop stays free of them: whatever a flow does, the worker goes on to ask for runs,
to give signs of life, to hear of cancellations, and to notice a flow that blocks the others. Also,
Prefect's engine puts its own handler for SIGTERM in place wherever it may, and that is in the main
thread only: with several runs at once, the handlers would be put back in the wrong order.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
import traceback
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from prefect.context import AsyncClientContext

if TYPE_CHECKING:
    from collections.abc import Coroutine

_STOP_SECONDS = 10


class FlowLoop:
    """A thread with an event loop, and one Prefect client that all runs on it share.

    A client costs some 30 ms to make, so one for each run would be a good part of a run's cost.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._tasks: dict[Future[None], asyncio.Task[None]] = {}
        self._context = contextvars.copy_context()
        self._ready: Future[None] = Future()
        self._stop = asyncio.Event()
        # The settings that the worker was started with live in its context.
        self._thread = threading.Thread(
            target=contextvars.copy_context().run, args=(self._run,), name="flows", daemon=True
        )

    async def start(self) -> None:
        """Return when flows can be run on it; RuntimeError where the server cannot be reached."""
        self._thread.start()
        await asyncio.wrap_future(self._ready)

    async def stop(self) -> None:
        """End it; what still runs on it is cancelled. What does not end even then, is left."""
        self._loop.call_soon_threadsafe(self._stop.set)
        await asyncio.to_thread(self._thread.join, _STOP_SECONDS)

    def submit(self, work: Coroutine[Any, Any, None], name: str) -> Future[None]:
        """Start work on it, from another thread. The future says when it has ended, not how."""
        ended: Future[None] = Future()

        def begin() -> None:
            task = self._loop.create_task(work, name=name, context=self._context.copy())
            self._tasks[ended] = task
            task.add_done_callback(lambda _: end())

        def end() -> None:
            del self._tasks[ended]
            ended.set_result(None)

        self._loop.call_soon_threadsafe(begin)
        return ended

    def cancel(self, work: Future[None]) -> None:
        """Cancel work, from another thread, if it has not ended."""

        def cancel() -> None:
            if work in self._tasks:
                self._tasks[work].cancel()

        # One turn of the loop later: a task that is cancelled before its first step never takes it,
        # and could not say how it ended.
        self._loop.call_soon_threadsafe(self._loop.call_soon, cancel)

    def ask_for_beat(self) -> threading.Event:
        """Return an event that the loop sets as soon as it gets round to it."""
        beat = threading.Event()
        self._loop.call_soon_threadsafe(beat.set)
        return beat

    def what_it_does(self) -> tuple[str, str]:
        """Tell the name of the work that it is at, and its stack, as lines: no values."""
        task = asyncio.current_task(self._loop)
        frames = sys._current_frames()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - made for this
        frame = frames.get(self._thread.ident or 0)
        stack = "".join(traceback.format_stack(frame)) if frame else "no stack"
        return (task.get_name() if task else "no flow"), stack

    def _run(self) -> None:
        """Run until told to stop. A flow that asks for the end of the process does not get it."""
        asyncio.set_event_loop(self._loop)
        main = self._loop.create_task(self._serve(), name="the loop itself")
        while not main.done():
            try:
                self._loop.run_until_complete(main)
            except (SystemExit, KeyboardInterrupt):
                traceback.print_exc()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    async def _serve(self) -> None:
        client = AsyncClientContext()
        try:
            await client.__aenter__()
        except Exception as error:  # noqa: BLE001 - whoever waits for the start raises it
            self._ready.set_exception(error)
            return
        self._context = contextvars.copy_context()
        self._ready.set_result(None)
        try:
            await self._stop.wait()
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        finally:
            await client.__aexit__(None, None, None)
