"""The warm worker on a real Prefect server: what it runs, and what it survives."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import httpx
import psycopg

from sandbox.claims import THEATRE
from tests.workers.conftest import in_seconds, make_pool
from workers.warm import BLOCKED

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

    from sandbox.stack import Stack
    from tests.workers.conftest import Pool


async def test_it_runs_a_flow_under_its_own_name(shared: Pool) -> None:
    run = await shared.run("hello", whom="nordvest")
    seen = await shared.state_of(run, "Completed")
    assert seen.name == "hello-nordvest"
    assert (seen.infrastructure_pid or "").startswith("kvitt-warm/shared-/")


async def test_each_run_has_its_own_logs(shared: Pool) -> None:
    runs = {whom: await shared.run("hello", whom=whom) for whom in ("nordvest", "fjordby")}
    for whom, run in runs.items():
        other = ({"nordvest", "fjordby"} - {whom}).pop()
        lines = await shared.logs_of(run, until="Finished in state")
        assert f"hello {whom}" in lines
        assert not any(other in line for line in lines)


async def test_a_run_that_was_fetched_early_starts_when_it_is_due(shared: Pool) -> None:
    due = in_seconds(8)
    run = await shared.run("nap", due=due, seconds=0)
    early = await shared.state_of(run, "Pending", seconds=10)
    assert early.start_time is None
    seen = await shared.state_of(run, "Completed")
    assert seen.start_time is not None
    assert 0 <= (seen.start_time - due).total_seconds() < 1


async def test_a_run_is_cancelled_while_it_runs(shared: Pool) -> None:
    run = await shared.run("nap", seconds=600)
    await shared.state_of(run, "Running")
    await shared.cancel(run)
    await shared.state_of(run, "Cancelled", seconds=15)


async def test_a_run_is_cancelled_before_it_is_due(shared: Pool) -> None:
    run = await shared.run("nap", due=in_seconds(40), seconds=600)
    await shared.state_of(run, "Pending")
    await shared.cancel(run)
    await shared.state_of(run, "Cancelled", seconds=15)


async def test_flows_that_end_badly_end_alone(shared: Pool) -> None:
    bystander = await shared.run("nap", seconds=4)
    await shared.state_of(bystander, "Running")
    ends = {
        await shared.run("fail"): "Failed",
        await shared.run("leave"): "Crashed",
        await shared.run("in_step"): "Crashed",
        await shared.run("tests.workers.broken.hello"): "Crashed",
        await shared.run("tests/workers/flows.py:hello", whom="nobody"): "Crashed",
        await shared.run("tests.workers.absent.hello"): "Crashed",
        await shared.run("hello"): "Crashed",  # whom?
    }
    said = {run: (await shared.state_of(run, state)).state for run, state in ends.items()}
    words = " ".join(str(state.message) for state in said.values() if state)
    assert "this flow fails" in words
    assert "is no `async def` flow" in words
    assert "this module is broken" in words
    assert "a warm worker runs modules" in words
    assert "No module named 'tests.workers.absent'" in words
    await shared.state_of(bystander, "Completed")
    after = await shared.run("hello", whom="nordvest")
    await shared.state_of(after, "Completed")


async def test_a_cancelled_sync_gives_its_period_back(
    shared: Pool, stack: Stack, prefect: PrefectClient
) -> None:
    """The lease is returned at once, and the attempt says that it was interrupted."""
    deployment = await prefect.read_deployment_by_name(f"sync/{THEATRE.integration}")
    worker = stack.prefect.start_worker("kvitt", name="for-sync")
    stack.xledger.pause()
    try:
        run = (await prefect.create_flow_run_from_deployment(deployment.id)).id
        await until(lambda: attempts(stack) == [None])
        await asyncio.sleep(1)  # into the call that the vendor does not answer
        await shared.cancel(run)
        await shared.state_of(run, "Cancelled")
        assert attempts(stack) == ["interrupted"]
        assert leases(stack) == []
    finally:
        stack.xledger.resume()
        worker.kill()


async def test_no_more_runs_than_the_limit_run_at_once(pool: Pool) -> None:
    runs = [await pool.run("nap", seconds=1) for _ in range(5)]
    pool.start_worker("--limit", "2")
    seen = [await pool.state_of(run, "Completed") for run in runs]
    times = [(run.start_time, run.end_time) for run in seen]
    most = max(sum(a <= start < b for a, b in times) for start, _ in times)
    assert most == 2


async def test_a_flow_that_blocks_is_named_and_at_last_the_process_ends(pool: Pool) -> None:
    worker = pool.start_worker(blocked_warn="1", blocked_end="4")
    waiting = await pool.run("nap", due=in_seconds(40), seconds=0)
    await pool.state_of(waiting, "Pending")
    run = await pool.run("block", seconds=600)
    await until(lambda: not worker.alive)

    assert worker.exit_status == BLOCKED
    assert "time.sleep(seconds)" in worker.output()
    seen = await pool.prefect.read_flow_run(run)
    assert seen.state_name == "Crashed"
    assert seen.name in worker.output()
    assert (await pool.prefect.read_flow_run(waiting)).state_name == "Scheduled"
    events = await events_of(pool, "kvitt.worker.blocked")
    assert events[0]["payload"]["run"] == seen.name


async def test_a_stopped_worker_ends_what_it_can_and_hands_back_the_rest(pool: Pool) -> None:
    first = pool.start_worker(name="first", grace="3")
    await pool.state_of(await pool.run("nap", seconds=0), "Completed")  # it has started
    short, long = await pool.run("nap", seconds=2), await pool.run("nap", seconds=15)
    waiting = await pool.run("nap", due=in_seconds(40), seconds=0)
    for run in (short, long):
        await pool.state_of(run, "Running")
    await pool.state_of(waiting, "Pending")

    os.kill(first.pid, signal.SIGTERM)
    await pool.state_of(waiting, "Scheduled", "Late")
    await until(lambda: not first.alive)
    assert first.exit_status == 0
    assert "Traceback" not in first.output()
    await pool.state_of(short, "Completed", seconds=1)
    await pool.state_of(long, "AwaitingRetry", "Late", seconds=1)

    pool.start_worker(name="second")
    await pool.state_of(waiting, "Completed", seconds=60)
    await pool.state_of(long, "Completed", seconds=40)


async def test_the_runs_of_a_killed_worker_are_seen_to_by_another(pool: Pool) -> None:
    killed = pool.start_worker(name="killed")
    await pool.state_of(await pool.run("nap", seconds=0), "Completed")  # it has started
    running = await pool.run("nap", seconds=600)
    cancelled = await pool.run("nap", seconds=600)
    waiting = await pool.run("nap", due=in_seconds(30), seconds=0)
    for run in (running, cancelled):
        await pool.state_of(run, "Running")
    await pool.state_of(waiting, "Pending")
    killed.kill()
    await pool.cancel(cancelled)

    pool.start_worker(name="other", sign_of_life="1")
    crashed = await pool.state_of(running, "Crashed")
    assert "is gone" in str(crashed.state and crashed.state.message)
    await pool.state_of(cancelled, "Cancelled")
    await pool.state_of(waiting, "Completed", seconds=60)


async def test_a_living_workers_runs_are_left_alone(pool: Pool) -> None:
    """Whichever of the two takes it, the other one looks at it for longer than its patience."""
    for name in ("one", "two"):
        pool.start_worker(name=name, sign_of_life="1")
    deleted, run = await pool.run("nap", seconds=6), await pool.run("nap", seconds=6)
    for each in (deleted, run):
        await pool.state_of(each, "Running")
    await pool.prefect.delete_flow_run(deleted)
    await pool.state_of(run, "Completed")


async def test_the_stock_worker_runs_the_same_deployments(
    stack: Stack, prefect: PrefectClient
) -> None:
    pool = await make_pool(stack, prefect, "stock", "process")
    worker = pool.start_worker()
    run = await pool.run("hello", whom="nordvest")
    seen = await pool.state_of(run, "Completed", seconds=60)
    assert (seen.infrastructure_pid or "").rpartition(":")[2].isdigit()
    worker.stop()


async def until(happens: Any, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.1)


def attempts(stack: Stack) -> list[str | None]:
    with psycopg.connect(stack.supabase.database_url) as database:
        query = "select outcome from kvitt.attempts where integration_id = %s order by fence"
        return [outcome for (outcome,) in database.execute(query, [THEATRE.integration])]


def leases(stack: Stack) -> list[str]:
    with psycopg.connect(stack.supabase.database_url) as database:
        return [
            key
            for (key,) in database.execute("select key from kvitt.periods where holder is not null")
        ]


async def events_of(pool: Pool, name: str) -> list[dict[str, Any]]:
    body = {"filter": {"event": {"name": [name]}}}
    async with httpx.AsyncClient(trust_env=False) as http:
        for _ in range(50):
            answer = await http.post(f"{pool.stack.prefect.url}/api/events/filter", json=body)
            if found := answer.raise_for_status().json()["events"]:
                return found
            await asyncio.sleep(0.1)
    raise AssertionError(f"no event {name}")
