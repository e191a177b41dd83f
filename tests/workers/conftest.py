"""Everything running as `make up` has it, without a worker: each test starts the ones it needs."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.states import Cancelling, Scheduled

from sandbox.processes import Home
from sandbox.stack import Stack
from workers.warm import WarmWorker

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from uuid import UUID

    from prefect.client.schemas.objects import FlowRun

    from sandbox.processes import Process

FLOWS = "tests.workers.flows"


@dataclass(kw_only=True)
class Pool:
    """A work pool of a test's own, its workers and its runs."""

    stack: Stack
    prefect: PrefectClient
    name: str
    workers: list[Process] = field(default_factory=list["Process"])

    def start_worker(self, *options: str, name: str = "", **env: str) -> Process:
        """Start a worker; it is of the pool's type, and ends with the test."""
        self.stack.prefect.env.update({f"KVITT_WORKER_{k.upper()}": v for k, v in env.items()})
        try:
            worker = self.stack.prefect.start_worker(
                self.name, *options, name=f"{self.name}-{name}"
            )
        finally:
            for variable in env:
                del self.stack.prefect.env[f"KVITT_WORKER_{variable.upper()}"]
        self.workers.append(worker)
        return worker

    async def deploy(self, entrypoint: str) -> UUID:
        """Deploy a flow of the tests, by its entrypoint."""
        flow = await self.prefect.create_flow_from_name(entrypoint.rpartition(".")[2])
        return await self.prefect.create_deployment(
            flow_id=flow,
            name=f"{self.name}-{uuid4()}",
            entrypoint=entrypoint,
            work_pool_name=self.name,
        )

    async def run(self, flow: str, *, due: datetime | None = None, **parameters: Any) -> UUID:
        """Create a run, due now or then."""
        deployment = await self.deploy(flow if "." in flow else f"{FLOWS}.{flow}")
        run = await self.prefect.create_flow_run_from_deployment(
            deployment,
            parameters=parameters,
            state=Scheduled(scheduled_time=due or datetime.now(UTC)),
        )
        return run.id

    async def cancel(self, run: UUID) -> None:
        """Do what the button in the UI does."""
        await self.prefect.set_flow_run_state(run, Cancelling())

    async def state_of(self, run: UUID, *names: str, seconds: float = 30) -> FlowRun:
        """Wait until a run is in one of these states."""
        until = time.monotonic() + seconds
        while True:
            seen = await self.prefect.read_flow_run(run)
            if seen.state_name in names:
                return seen
            assert time.monotonic() < until, f"{seen.state}, not {names}"
            await asyncio.sleep(0.1)

    async def logs_of(self, run: UUID, *, until: str) -> list[str]:
        """Wait until a line has come to Prefect; returns all of the run's."""
        wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run]))
        for _ in range(100):
            lines = [log.message for log in await self.prefect.read_logs(wanted)]
            if any(until in line for line in lines):
                return lines
            await asyncio.sleep(0.1)
        raise AssertionError(f"no log says {until}: {lines}")


@pytest.fixture(scope="session")
def stack() -> Generator[Stack]:
    with Home.open(f"workers-{os.getpid()}") as home:
        stack = Stack.start(home, say=print)
        stack.set_up_and_load(say=print)
        yield stack


@pytest.fixture(scope="session")
async def prefect(stack: Stack) -> AsyncGenerator[PrefectClient]:
    async with PrefectClient(f"{stack.prefect.url}/api") as client:
        yield client


async def make_pool(stack: Stack, prefect: PrefectClient, name: str, kind: str) -> Pool:
    await prefect.create_work_pool(WorkPoolCreate(name=name, type=kind))
    return Pool(stack=stack, prefect=prefect, name=name)


@pytest.fixture
async def pool(
    stack: Stack, prefect: PrefectClient, request: pytest.FixtureRequest
) -> AsyncGenerator[Pool]:
    """Give a warm pool of the test's own."""
    name = request.node.name.removeprefix("test_")[:40].rstrip("_").replace("_", "-")
    pool = await make_pool(stack, prefect, name, WarmWorker.type)
    yield pool
    for worker in pool.workers:
        worker.kill()
        print(f"{worker.name}:\n{worker.last_lines(60)}")  # shown where the test failed
        stack.home.processes.remove(worker)


@pytest.fixture(scope="session")
async def shared(stack: Stack, prefect: PrefectClient) -> Pool:
    """Give a warm pool with one worker that outlives what the tests do to it."""
    pool = await make_pool(stack, prefect, "shared", WarmWorker.type)
    pool.start_worker()
    return pool


def in_seconds(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)
