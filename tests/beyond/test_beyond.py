"""Two Prefect servers on one Redis: a worker is killed, a server stopped, and nothing is doubled.

`make beyond` does the same with more of everything, on schedules and at the pace of the clock.
"""

from __future__ import annotations

import importlib.util
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import httpx
import pytest

from kvitt.domain.calendar import due_before
from sandbox.processes import Home
from tests.beyond.findings import crashed_runs, problems, settled_events
from tests.beyond.scene import scene, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.beyond.scene import Scene

CRON, EACH = "0 5 * * *", 3
pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def it() -> Iterator[Scene]:
    """Six integrations, each with a period that is due, and a worker behind each server."""
    with (
        Home.open(f"beyond-test-{os.getpid()}") as home,
        scene(home, sign_of_life=1, say=print) as it,
    ):
        it.enrol(2 * EACH, cron=CRON, first_period=_due())
        it.approve(4, at=_due() - timedelta(hours=1))
        yield it


def _due() -> datetime:
    """Return when the periods are due: at the latest time that has been."""
    return due_before(CRON, "UTC", due=datetime.now(UTC))


def test_work_is_shared_a_killed_worker_is_replaced_and_nothing_doubles(it: Scene) -> None:
    # One would take all six; each takes what its limit lets it have.
    for name, server in zip(("killed", "other"), it.servers, strict=True):
        it.start_worker(name, server=server, limit=EACH)
    it.start_runs(it.servers[1])
    wait_for(lambda: all(map(it.at_work, it.workers)), 60, what="both being at work")
    it.workers["killed"].kill()
    lost = {a["key"] for a in it.at_work("killed")}
    assert lost

    # For a while there is one server, the one that the living worker knows.
    it.servers[0].process.stop()
    wait_for(lambda: len(crashed_runs(it)) == len(lost), 60, what="noticing the dead worker")
    it.servers[0].process.start()
    # The automation asks for a run in two minutes, when the lease is over. Here it is over now.
    it.ask("update kvitt.periods set leased_until = now() where leased_until > now()")
    it.start_runs(it.servers[0])
    wait_for(lambda: it.open_periods(_due()) == 0, 120, what="settling")
    wait_for(lambda: all(crashed_runs(it).values()), 30, what="the automation")

    assert problems(it, [_due()]) == []
    assert {a["worker"] for a in it.attempts() if a["key"] in lost} == {"killed", "other"}
    assert set(settled_events(it).values()) == {1}


def test_a_pool_of_a_type_that_is_not_installed_here_can_be_made(it: Scene) -> None:
    """Prefect's Kubernetes worker fills its template in when it starts."""
    assert importlib.util.find_spec("prefect_kubernetes") is None
    said = it.stack.run("kvitt", "apply", "--pool", "jobs", "--pool-type", "kubernetes")
    assert "work pool: kvitt → jobs" in said
    pools = f"{it.stack.prefect.url}/api/work_pools"
    made = httpx.get(f"{pools}/jobs", trust_env=False, timeout=60).raise_for_status().json()
    assert (made["type"], made["base_job_template"]) == ("kubernetes", {})
