"""Runs that were left behind by a worker that is gone: killed, cut off, or with its machine.

Prefect shows them as *Running* or *Pending* for ever. A warm worker touches each of its runs now
and then; a run of the pool that is not touched any more has no worker.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import StateType
from prefect.states import Cancelled, Crashed

from workers.runs import handed_back

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime
    from logging import Logger, LoggerAdapter
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun, State

    AnyLogger = Logger | LoggerAdapter[Any]

MARK = "kvitt-warm/"
"""What the infrastructure of a run of a warm worker begins with."""

_OPEN = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
_PAGE = 200


class Strays:
    """Looks for the strays of a pool and says in Prefect how they ended.

    A run counts as left behind when it has not changed for the patience, by our own clock that
    never jumps: no two machines' clocks are compared. If its worker lives after all (cut off from
    the server for that long), nothing is booked twice: the ledger's lease decides, not the state.
    """

    def __init__(self, pool: str, *, patience: float, logger: AnyLogger) -> None:
        self._pool = pool
        self._patience = patience
        self._logger = logger
        self._seen: dict[UUID, tuple[datetime | None, float]] = {}

    async def look(self, prefect: PrefectClient, *, ours: Collection[UUID]) -> None:
        """Look once, at all open runs of the pool but ours."""
        runs = [run for run in await self._open_runs(prefect, ours) if _is_of_a_warm_worker(run)]
        seen, now = self._seen, time.monotonic()
        self._seen = {}
        for run in runs:
            updated, since = seen.get(run.id, (None, now))
            since = since if updated == run.updated else now
            self._seen[run.id] = (run.updated, since)
            if now - since >= self._patience:
                await self._end(prefect, run)

    async def _open_runs(self, prefect: PrefectClient, ours: Collection[UUID]) -> list[FlowRun]:
        found: list[FlowRun] = []
        while True:
            page = await prefect.read_flow_runs(
                flow_run_filter=FlowRunFilter(
                    id=FlowRunFilterId(not_any_=list(ours)),
                    state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_OPEN)),
                ),
                work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[self._pool])),
                offset=len(found),
                limit=_PAGE,
            )
            found += page
            if len(page) < _PAGE:
                return found

    async def _end(self, prefect: PrefectClient, run: FlowRun) -> None:
        state = _after(run)
        self._logger.warning(
            "Flow run %s is %s, but its worker (%s) is gone: it becomes %s",
            run.name,
            run.state_name,
            run.infrastructure_pid,
            state.name,
        )
        # Not by force: whoever was faster has decided.
        await prefect.set_flow_run_state(run.id, state)


def _is_of_a_warm_worker(run: FlowRun) -> bool:
    return run.infrastructure_pid is None or run.infrastructure_pid.startswith(MARK)


def _after(run: FlowRun) -> State[Any]:
    """Return what becomes of a run that was left behind."""
    match run.state_type:
        case StateType.RUNNING:
            return Crashed(message=f"its worker ({run.infrastructure_pid}) is gone")
        case StateType.CANCELLING:
            return Cancelled(message="cancelled; its worker was gone already")
        case _:
            return handed_back(run, begun=False, why="its worker is gone")
