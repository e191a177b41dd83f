"""Flows that behave, and some that do not."""

from __future__ import annotations

import asyncio
import sys
import time

from prefect import flow, get_run_logger


@flow(name="hello", flow_run_name="hello-{whom}")
async def hello(whom: str) -> None:
    get_run_logger().info("hello %s", whom)


@flow(name="nap")
async def nap(seconds: float) -> None:
    await asyncio.sleep(seconds)


@flow(name="fail")
async def fail() -> None:
    raise ValueError("this flow fails")


@flow(name="leave")
async def leave() -> None:
    sys.exit(3)


@flow(name="block")
async def block(seconds: float) -> None:
    time.sleep(seconds)  # noqa: ASYNC251 - that is what it is for


@flow(name="in-step")
def in_step() -> None:
    """Not async: it would block the others."""
