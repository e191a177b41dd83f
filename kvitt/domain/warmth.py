"""When an Edge Function counts as warm, by what it was like in the last attempts.

There may be several workers behind one URL. A warm answer says that one of them is up, not that the
next request reaches it: so as many warm answers in a row are wanted as workers were seen to boot.
"""

from __future__ import annotations

from dataclasses import dataclass

MOST_ANSWERS = 5
"""Warm answers in a row that are wanted at most: where each request meets another worker, warming
up is of no use, and is not to take long."""

_SHORTEST_PAUSE, _LONGEST_PAUSE = 1.0, 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Habit:
    """What the last attempts saw of a function.

    `boots`: the most workers that booted in one of them. `boot_seconds`: the longest that one of
    them took to answer, 0 where none booted.
    """

    boots: int = 0
    boot_seconds: float = 0


@dataclass(kw_only=True, slots=True)
class Warming:
    """A warm-up under way: what its pings have met so far."""

    habit: Habit
    boots: int = 0
    failures: int = 0
    _warm_in_a_row: int = 0
    _failed_in_a_row: int = 0

    @property
    def wanted(self) -> int:
        """How many warm answers in a row are wanted: as many as workers are known of, 5 at most."""
        return min(max(1, self.habit.boots, self.boots), MOST_ANSWERS)

    @property
    def warm(self) -> bool:
        """Whether there were as many."""
        return self._warm_in_a_row >= self.wanted

    def met_warm(self) -> None:
        """Count an answer of a worker that was up."""
        self._warm_in_a_row += 1
        self._failed_in_a_row = 0

    def met_boot(self) -> None:
        """Count an answer of a worker that was started for it."""
        self.boots += 1
        self._warm_in_a_row = self._failed_in_a_row = 0

    def met_failure(self) -> float:
        """Count a start that failed; returns how many seconds to wait before the next ping.

        As long as a boot takes, then twice as long each time: from 1 to 10.
        """
        self.failures += 1
        self._failed_in_a_row += 1
        self._warm_in_a_row = 0
        first = max(self.habit.boot_seconds, _SHORTEST_PAUSE)
        return min(first * 2.0 ** min(self._failed_in_a_row - 1, 20), _LONGEST_PAUSE)
