"""The demo: the main job from end to end, and everything down again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sandbox.processes import Home
from sandbox.stack import POOL, Stack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandbox.stack import Loaded

_PATIENCE = 90


class DemoFailed(RuntimeError):
    """The demo did not show what it promises."""


class Progress:
    """Says what happens, with the seconds since the start."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self, what: str) -> None:
        """Say it."""
        print(f"[{time.monotonic() - self._began:5.1f} s] {what}", flush=True)


def demo() -> None:
    """Run the main job once, then again, and compare the books with what was approved."""
    say = Progress()
    with Home.open("demo") as home:
        stack = Stack.start(home, say=say)
        loaded = stack.set_up_and_load(say=say)
        stack.prefect.start_worker(POOL)
        say("running one period of each: prefect deployment run sync/<integration> --watch")
        _run_all(stack, loaded)
        _show_receipts(stack, loaded)
        say("running the same again")
        _run_all(stack, loaded)
        _show_second_runs(stack, loaded)
        say("letting Xledger's own job post what is staged")
        stack.run_vendor_jobs()
        say("comparing the vendors' books with what was approved, line by line")
        _check_books(loaded)
        say("taking everything down")
    say("done")


def _run_all(stack: Stack, loaded: Sequence[Loaded]) -> None:
    """Run each integration's deployment, as a person would, and wait until its period is settled.

    The flow `watch` may have come first and work on it already: then ours says Busy, and we wait.
    """
    commands = [("prefect", "deployment", "run", _deployment(one), "--watch") for one in loaded]
    until = time.monotonic() + _PATIENCE
    while True:
        stack.run_each(*commands)
        table = stack.run("kvitt", "periods")
        if table.count("verified") >= len(loaded):
            return
        if time.monotonic() > until:
            raise DemoFailed(f"the periods were not settled:\n{table}")


def _show_receipts(stack: Stack, loaded: Sequence[Loaded]) -> None:
    for one in loaded:
        print("\n" + stack.run("kvitt", "receipt", one.integration))


def _show_second_runs(stack: Stack, loaded: Sequence[Loaded]) -> None:
    for one in loaded:
        run, tasks = stack.prefect.latest_run(_deployment(one))
        shown = ", ".join(f"{name}: {state}" for name, state in tasks.items())
        print(f"  {run['state']['message']} ({shown})")
        if run["state"]["name"] != "Already settled" or set(tasks.values()) != {"Cached"}:
            raise DemoFailed(
                f"the second run of {one.integration} was no second run: {run['state']}"
            )


def _check_books(loaded: Sequence[Loaded]) -> None:
    for one in loaded:
        found = one.audit()
        print(f"  {one.integration}: {found.lines} lines booked, {found.summary}")
        if not found.clean:
            raise DemoFailed(f"the books of {one.integration} are wrong: {found}")


def _deployment(one: Loaded) -> str:
    return f"sync/{one.integration}"
