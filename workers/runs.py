"""A flow run in this process: loading its flow, running it, and how it ends."""

from __future__ import annotations

import asyncio
import gc
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from prefect.client.orchestration import get_client
from prefect.flows import load_flow_from_entrypoint
from prefect.logging.loggers import flow_run_logger
from prefect.states import AwaitingRetry, Cancelled, Crashed, Scheduled
from prefect.utilities.callables import get_call_parameters

from workers.engine import Ending, WarmEngine

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun, State
    from prefect.flows import Flow


class NotRunnable(RuntimeError):
    """A deployment names what a warm worker does not run; the message says what to do."""


class Flows:
    """The flows of this process, each imported once, off the loop."""

    def __init__(self) -> None:
        self._loaded: dict[str, Flow[..., Any]] = {}
        self._turn = asyncio.Lock()

    async def load(self, entrypoint: str | None) -> Flow[..., Any]:
        """Return the flow of an entrypoint; raises whatever its module raises, or NotRunnable.

        A failed import is tried again by the next run.
        """
        async with self._turn:
            if entrypoint not in self._loaded:
                self._loaded[str(entrypoint)] = await _import(entrypoint)
                # What was imported stays. To look through all of it for garbage, again and again,
                # was up to a third of the processor time of a large export.
                gc.freeze()
        return self._loaded[str(entrypoint)]


async def _import(entrypoint: str | None) -> Flow[..., Any]:
    if entrypoint is None or ":" in entrypoint:
        raise NotRunnable(
            f"the entrypoint {entrypoint} is a file; a warm worker runs modules, like "
            "flows.sync.sync. Deploy it so, or into a work pool of type process"
        )
    flow = await asyncio.to_thread(
        load_flow_from_entrypoint, entrypoint, use_placeholder_flow=False
    )
    if not flow.isasync or flow.isgenerator:
        raise NotRunnable(
            f"{entrypoint} is no `async def` flow and would block all others. Make it async, or "
            "deploy it into a work pool of type process"
        )
    return flow


class Run:
    """One run that this worker has taken, until it has ended or was handed back."""

    def __init__(self, flow_run: FlowRun, *, mark: str, flows: Flows) -> None:
        """`mark` is what the run shows as its infrastructure: this worker, in this life."""
        self.flow_run = flow_run
        self._mark = mark
        self._flows = flows
        self._engine: WarmEngine | None = None
        self.ending: Ending | None = None

    @property
    def begun(self) -> bool:
        """Whether it has been due, and shows as running."""
        return self._engine is not None and self._engine.begun

    def end(self, why: Ending) -> None:
        """Say why its task is about to be cancelled."""
        self.ending = why
        if self._engine is not None:
            self._engine.ending = why

    async def carry_out(self) -> None:
        """Run it to its end. Never raises: what goes wrong is the run's own affair."""
        try:
            self._engine = await self._prepare()
            await self._engine.run()
        except asyncio.CancelledError:
            if self.ending is None:
                raise
            await self._finish(self.ending)
        except BaseException as error:  # noqa: BLE001 - one flow's end, whatever it raises, is not ours
            await self._crashed(error)

    async def _prepare(self) -> WarmEngine:
        """Do all that can be done before it is due."""
        async with get_client() as prefect:
            await prefect.update_flow_run(self.flow_run.id, infrastructure_pid=self._mark)
            # What the work pool hands out says nothing of the run's state.
            run = self.flow_run = await prefect.read_flow_run(self.flow_run.id)
            if run.deployment_id is None:
                raise NotRunnable("the run has no deployment, so nothing says which flow it is of")
            deployment = await prefect.read_deployment(run.deployment_id)
        flow = await self._flows.load(deployment.entrypoint)
        engine = WarmEngine(
            flow=flow, flow_run=run, parameters=get_call_parameters(flow.fn, (), run.parameters)
        )
        engine.due = due_time(run)
        engine.ending = self.ending
        return engine

    async def _crashed(self, error: BaseException) -> None:
        """Say in Prefect what ended the run, where the engine has not said it already."""
        logger = flow_run_logger(self.flow_run)
        if self._engine is not None and self._engine.state.is_final():
            logger.debug("The flow ended with %s", type(error).__name__, exc_info=error)
            return
        logger.error("The run could not be carried out", exc_info=error)
        await self._set(Crashed(message=f"{type(error).__name__}: {error}"))

    async def _finish(self, why: Ending) -> None:
        if why is Ending.HAND_BACK:
            await self._set(handed_back(self.flow_run, begun=self.begun, why="its worker stops"))
        elif self._engine is None or not self._engine.state.is_final():
            await self._set(Cancelled(message="cancelled before it began"))

    async def _set(self, state: State[Any]) -> None:
        try:
            async with get_client() as prefect:
                await prefect.set_flow_run_state(self.flow_run.id, state, force=True)
        except Exception:  # noqa: BLE001 - nobody touches the run from here on: another worker says it
            flow_run_logger(self.flow_run).exception("Prefect was not told of the end of the run")


def due_time(run: FlowRun) -> datetime | None:
    """Return when a run is to start: at its first try, or at this one."""
    details = run.state.state_details if run.state else None
    return (details.scheduled_time if details else None) or run.expected_start_time


def handed_back(run: FlowRun, *, begun: bool, why: str) -> State[Any]:
    """Return the state in which another worker takes a run: at once where it had begun."""
    if begun:
        return AwaitingRetry(
            scheduled_time=datetime.now(UTC), message=f"{why}; another one goes on from here"
        )
    return Scheduled(scheduled_time=due_time(run), message=f"{why}; another one takes it")


async def end_without_its_loop(prefect: PrefectClient, run: Run, *, why: str) -> None:
    """Say in Prefect how a run ended whose loop answers no more."""
    state = Crashed(message=why)
    if not run.begun:
        state = handed_back(run.flow_run, begun=False, why=why)
    await prefect.set_flow_run_state(run.flow_run.id, state, force=True)
