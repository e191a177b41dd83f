"""`make demo`: killed at any point it leaves nothing running, and the next one works."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from sandbox.processes import CHECKOUT, Home

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMAND = [sys.executable, "-m", "sandbox", "demo"]
# Ending takes as long as the slowest part takes to be ended: a worker has 10 s of grace.
GONE_WITHIN = 20


@contextlib.contextmanager
def demo() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        COMMAND, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], words: str) -> str:
    """Read what the demo prints until a line has these words, or it ends."""
    read = ""
    for line in process.stdout or ():
        read += line
        if words in line:
            break
    return read


def parts() -> list[str]:
    """Return the processes that belong to the demo: they name its home somewhere."""
    home = str(Home.place("demo"))
    return [name for process in psutil.process_iter() if (name := _named(process, home))]


def _named(process: psutil.Process, home: str) -> str | None:
    with contextlib.suppress(psutil.Error):
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        told = " ".join([*process.cmdline(), *process.environ().values(), process.cwd()])
        return " ".join(process.cmdline()) if home in told else None
    return None


def wait_until_gone() -> list[str]:
    until = time.monotonic() + GONE_WITHIN
    while (left := parts()) and time.monotonic() < until:
        time.sleep(0.2)
    return left


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("words", "seconds_later"),
    [("starting the Prefect server", 1), ("running one period of each", 4)],
)
def test_killed_in_the_middle_it_leaves_nothing_running(words: str, seconds_later: float) -> None:
    with demo() as process:
        assert words in read_until(process, words)
        time.sleep(seconds_later)
        assert parts() != []
        process.kill()
    assert wait_until_gone() == []


@pytest.mark.timeout(120)
def test_told_to_end_it_takes_everything_down_itself() -> None:
    with demo() as process:
        read_until(process, "starting the Prefect server")
        process.send_signal(signal.SIGTERM)
        process.wait(GONE_WITHIN)
    assert parts() == []
    assert not Home.place("demo").exists()


@pytest.mark.timeout(240)
def test_it_runs_to_its_end_and_leaves_nothing_behind() -> None:
    with demo() as process:
        printed = read_until(process, "] done")
        assert process.wait(GONE_WITHIN) == 0, printed
    for integration in ("nordvest-xledger", "fjordby-business-central"):
        assert f"Receipt {integration}@" in printed
        assert f"{integration}@" in printed.split("running the same again")[1]
    assert printed.count("is already settled") == 2
    assert printed.count("0 lost, 0 too many, 0 unbalanced") == 2
    assert parts() == []
    assert not Home.place("demo").exists()
