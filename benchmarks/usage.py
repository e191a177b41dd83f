"""What processes use: processor time, also of children that have ended, and memory of their own."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(kw_only=True)
class Usage:
    """One process with all that it starts, from now on."""

    pid: int
    peak_bytes: int = 0
    _before: float = field(init=False)

    def __post_init__(self) -> None:
        self._before = self._cpu()

    @property
    def cpu_seconds(self) -> float:
        """Processor time since the beginning."""
        return self._cpu() - self._before

    def look(self) -> None:
        """Note how much memory is used now; what several processes share counts for none."""
        self.peak_bytes = max(self.peak_bytes, sum(_own_bytes(p) for p in self._processes()))

    def _processes(self) -> Iterator[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(self.pid)
            yield root
            yield from root.children(recursive=True)

    def _cpu(self) -> float:
        total = 0.0
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
                total += getattr(times, "children_user", 0) + getattr(times, "children_system", 0)
        return total


def _own_bytes(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        return process.memory_full_info().uss
    return 0
