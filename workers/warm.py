"""The worker of type `kvitt-warm`: `prefect worker start --pool kvitt` on a pool of that type.

A stock worker starts a process for each run, which imports everything anew: seconds, and most of a
core. This one has it all imported, asks for runs ahead of time, and starts them when they are due.
What that gives up, and what stands in its place, is in docs/worker.md.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.events import emit_event
from prefect.settings import (
    PREFECT_WORKER_ENABLE_CANCELLATION,
    get_current_settings,
    temporary_settings,
)
from prefect.workers.base import (
    BaseJobConfiguration,
    BaseVariables,
    BaseWorker,
    BaseWorkerResult,
)

from blocks.links import link_to
from workers.engine import Ending
from workers.flow_loop import FlowLoop
from workers.patience import Patience
from workers.runs import Flows, Run, end_without_its_loop
from workers.strays import MARK, Strays
from workers.watchdog import Blocked, Watchdog

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from concurrent.futures import Future

    from anyio.abc import TaskStatus
    from prefect.client.schemas.objects import FlowRun

    from workers.strays import AnyLogger

PREFETCH_SECONDS = 50
"""How far ahead runs are asked for, unless Prefect's own setting says otherwise. Its default, 10,
is no more than it may take until the worker asks again."""

BLOCKED = 70
"""The exit status of a worker that ended itself because a flow blocked all others."""

_LAST_WORDS_SECONDS = 10
_HAND_BACK_SECONDS = 20


class WarmWorkerResult(BaseWorkerResult):
    """How a run ended for the worker: always well. What became of it, its state says."""


class WarmWorker(BaseWorker[BaseJobConfiguration, BaseVariables, WarmWorkerResult]):
    """Runs async flows in its own process."""

    type = "kvitt-warm"
    _description = "Runs kvitt's flows inside the worker's own process: warm, and on time."
    _documentation_url = "https://docs.prefect.io/v3/concepts/workers"

    def __init__(
        self, *arguments: Any, prefetch_seconds: float | None = None, **others: Any
    ) -> None:
        """Take what `prefect worker start` gives; how long it waits, the environment says."""
        super().__init__(*arguments, prefetch_seconds=_prefetch(prefetch_seconds), **others)
        self._patience = Patience.of(os.environ)
        self._mark = f"{MARK}{self.name}/{uuid4()}"
        self._flow_loop = FlowLoop()
        self._flows = Flows()
        self._runs: dict[UUID, tuple[Run, Future[None]]] = {}
        self._slot_is_free = asyncio.Event()
        self._chores: list[asyncio.Task[None]] = []
        self._stopping = False

    @classmethod
    def get_default_base_job_template(cls) -> dict[str, Any]:
        """Return what can be set per pool or deployment: nothing, since no process is made.

        Prefect takes no template without a job configuration, so it has one without content.
        """
        return {
            "job_configuration": {"env": {}},
            "variables": {"type": "object", "properties": {}, "required": []},
        }

    async def setup(self) -> None:
        """Start the loop for flows and the chores beside it."""
        await self._flow_loop.start()
        await super().setup()
        watchdog = Watchdog(
            self._flow_loop, self._patience, warn=self._warn_of, end=self._end_process
        )
        self._chores = [
            asyncio.create_task(chore, name=chore.__qualname__)
            for chore in (watchdog.watch(), self._refill(), self._look_after_runs())
        ]

    async def teardown(self, *exc_info: Any) -> None:
        """Let runs end, hand back the others, and stop. No new ones are taken from here on."""
        if exc_info and exc_info[0] is not None:
            await self._wind_up()
        else:  # it was told to look for runs once: it does those to their end
            await self._until_no_run_is_left()
        for chore in self._chores:
            chore.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)
        await super().teardown(*exc_info)
        await self._flow_loop.stop()

    # -- one run -----------------------------------------------------------------------------------

    async def _submit_run(self, flow_run: FlowRun) -> None:
        """Take a run and stay with it to its end; a slot of the limit is held for that long.

        Prefect's own way prepares and describes infrastructure in nine requests. We have none.
        """
        try:
            if await self._propose_pending_state(flow_run):
                await self.run(flow_run, BaseJobConfiguration())
        except Exception:
            self._logger.exception("Flow run %s could not be looked after", flow_run.name)
        finally:
            self._submitting_flow_run_ids.discard(flow_run.id)
            if self._cancelling_observer is not None:
                self._cancelling_observer.remove_in_flight_flow_run_id(flow_run.id)
            self._release_limit_slot(flow_run.id)
            self._slot_is_free.set()

    async def run(
        self,
        flow_run: FlowRun,
        configuration: BaseJobConfiguration,  # noqa: ARG002 - there is nothing to configure
        task_status: TaskStatus[int] | None = None,  # noqa: ARG002 - nor a process to name
    ) -> WarmWorkerResult:
        """Run it on the loop for flows, from when it is due; return when it has ended."""
        run = Run(flow_run, mark=self._mark, flows=self._flows)
        if self._stopping:
            run.end(Ending.HAND_BACK)
        ended = self._flow_loop.submit(run.carry_out(), flow_run.name)
        self._runs[flow_run.id] = (run, ended)
        if self._stopping:
            self._flow_loop.cancel(ended)
        try:
            await asyncio.shield(asyncio.wrap_future(ended))
        finally:
            del self._runs[flow_run.id]
        return WarmWorkerResult(identifier=self._mark, status_code=0)

    async def _setup_cancellation_observer(self) -> None:
        """Listen for cancellations, which Prefect's workers do only where a setting says so."""
        with temporary_settings({PREFECT_WORKER_ENABLE_CANCELLATION: True}):
            await super()._setup_cancellation_observer()

    async def _cancel_run(self, flow_run_id: UUID) -> None:
        """Cancel a run of ours, begun or not, since somebody cancelled it in Prefect."""
        if flow_run_id in self._runs:
            self._end(flow_run_id, Ending.CANCEL)

    def _end(self, flow_run_id: UUID, why: Ending) -> None:
        run, ended = self._runs[flow_run_id]
        if run.ending is None:
            run.end(why)
            self._flow_loop.cancel(ended)

    # -- chores ------------------------------------------------------------------------------------

    async def _refill(self) -> None:
        """Ask for more runs as soon as a slot is free, where there is a limit."""
        while True:
            await self._slot_is_free.wait()
            self._slot_is_free.clear()
            if self._limiter is not None and not self._stopping:
                with _logged(self._logger, "asking for more runs"):
                    await self.get_and_submit_flow_runs()

    async def _look_after_runs(self) -> None:
        """Give signs of life of ours, and end those whose workers give none any more."""
        strays = Strays(self._work_pool_name, patience=self._patience.stray, logger=self._logger)
        while True:
            await asyncio.sleep(self._patience.sign_of_life)
            for flow_run_id in list(self._runs):
                with _logged(self._logger, f"touching run {flow_run_id}"):  # it may be deleted
                    await self.client.update_flow_run(flow_run_id, infrastructure_pid=self._mark)
            with _logged(self._logger, "looking after runs"):
                await self._cancel_unheard()
                await strays.look(self.client, ours=list(self._runs))

    async def _cancel_unheard(self) -> None:
        """Cancel those of ours of whose cancellation no event has come through."""
        if not self._runs:
            return
        cancelling = await self.client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                id=FlowRunFilterId(any_=list(self._runs)),
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.CANCELLING])),
            )
        )
        for flow_run in cancelling:
            await self._cancel_run(flow_run.id)

    # -- a blocked loop ----------------------------------------------------------------------------

    def _warn_of(self, blocked: Blocked) -> None:
        self._logger.error("%s", blocked)
        emit_event(
            event="kvitt.worker.blocked",
            resource={
                "prefect.resource.id": f"kvitt.worker.{self.get_name_slug()}",
                "prefect.resource.name": self.name,
            },
            payload={
                "text": f"worker {self.name}: {blocked}",
                "link": next((link_to(flow_run=str(i)) for i in self._named(blocked.run)), None),
                "run": blocked.run,
                "seconds": blocked.seconds,
                "stack": blocked.stack,
            },
        )

    def _named(self, name: str) -> list[UUID]:
        """Return the runs of ours that had this name when they were taken."""
        return [i for i, (run, _) in self._runs.items() if run.flow_run.name == name]

    async def _end_process(self, blocked: Blocked) -> None:
        """Say what happened, and end: only a new process gets the others going again."""
        self._warn_of(blocked)
        self._logger.critical("This worker ends itself; its supervisor starts it again")
        try:
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                why = f"its worker ended itself, since flow run {blocked.run} blocked all others"
                for run, _ in list(self._runs.values()):
                    await end_without_its_loop(self.client, run, why=why)
        except Exception:
            self._logger.exception("Not all its runs could be marked as ended")
        logging.shutdown()
        sys.stderr.flush()
        os._exit(BLOCKED)

    # -- the end -----------------------------------------------------------------------------------

    async def _wind_up(self) -> None:
        """Hand back what has not begun; give the others the grace; then hand them back as well."""
        self._stopping = True
        self._hand_back(lambda run: not run.begun)
        if not await self._until_no_run_is_left(self._patience.grace):
            self._logger.warning(
                "%s runs did not end within %g s and are handed back",
                len(self._runs),
                self._patience.grace,
            )
            self._hand_back(lambda _: True)
            await self._until_no_run_is_left(_HAND_BACK_SECONDS)

    def _hand_back(self, which: Callable[[Run], bool]) -> None:
        for flow_run_id, (run, _) in list(self._runs.items()):
            if which(run):
                self._end(flow_run_id, Ending.HAND_BACK)

    async def _until_no_run_is_left(self, seconds: float | None = None) -> bool:
        """Wait until all runs have ended or were handed back; False if that takes too long."""
        until = None if seconds is None else time.monotonic() + seconds
        while self._submitting_flow_run_ids:
            if until is not None and time.monotonic() > until:
                return False
            await asyncio.sleep(0.05)
        return True


@contextmanager
def _logged(logger: AnyLogger, what: str) -> Generator[None]:
    """Log that a chore failed; it is done again the next time."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever it is, the runs go on
        logger.warning("%s failed (%s: %s); tried again later", what, type(error).__name__, error)


def _prefetch(given: float | None) -> float | None:
    """Return our default where nobody has chosen; `prefect worker start` always gives a value."""
    worker = get_current_settings().worker
    chosen = "prefetch_seconds" in worker.model_fields_set
    if given is None or (not chosen and given == worker.prefetch_seconds):
        return worker.prefetch_seconds if chosen else PREFETCH_SECONDS
    return given
