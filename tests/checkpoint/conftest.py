"""One sound set-up for all tests of this folder; each breaks one thing, and mends it again."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from sandbox.processes import Home
from tests.checkpoint import scene as scenes

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.checkpoint.scene import Scene


@pytest.fixture(scope="session")
async def scene() -> AsyncGenerator[Scene]:
    with Home.open(f"checkpoint-{os.getpid()}") as home:
        scene = scenes.start(home, print)
        await scenes.finish(scene)
        yield scene
        scene.database.close()
        scene.prefect_database.close()


@pytest.fixture(scope="session")
async def at_rest(scene: Scene) -> AsyncGenerator[Scene]:
    """The same, with a worker that stands still: `watch` mends nothing meanwhile."""
    scene.worker.pause()
    yield scene
    scene.worker.resume()
