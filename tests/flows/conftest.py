"""Everything running as `make up` has it, with two integrations loaded and no period run yet."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from sandbox.processes import Home
from sandbox.stack import POOL, Loaded, Stack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.processes import Process


@dataclass(frozen=True, kw_only=True)
class Running:
    """The stack, what was loaded into it, and the worker that does the runs."""

    stack: Stack
    loaded: dict[str, Loaded]
    worker: Process

    def run(self, deployment: str, *parameters: str) -> str:
        """Run a deployment to its end; returns what `prefect deployment run` printed."""
        return self.stack.run("prefect", "deployment", "run", deployment, "--watch", *parameters)


@pytest.fixture(scope="session")
def running() -> Iterator[Running]:
    with Home.open(f"flows-{os.getpid()}") as home:
        stack = Stack.start(home, say=print)
        loaded = stack.set_up_and_load(say=print)
        worker = stack.prefect.start_worker(POOL)
        yield Running(stack=stack, loaded={o.integration: o for o in loaded}, worker=worker)
