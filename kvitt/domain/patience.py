"""Patience with a vendor, or an Edge Function, that is away: how long a period waits to ask again.

A maintenance window lasts hours, and each try costs an attempt. So the waits grow from `first` to
`longest`, twice as long each time, until something gets through.
"""

from __future__ import annotations

from datetime import timedelta

# No vendor means to be left alone for longer; a date beyond that is a mistake of somebody's.
LONGEST_WISH = timedelta(days=31)
_JITTER = 0.2


def wait_before_next_try(
    postponed: int,
    *,
    first: timedelta,
    longest: timedelta,
    wish: timedelta | None,
    chance: float,
) -> timedelta:
    """Return how long a period waits that has waited `postponed` times in a row already.

    `wish` is how long the vendor asked to be left alone: it is never asked earlier. `chance`, from
    0 to 1, spreads those that wait for the same vendor: up to a fifth is taken off our own step, or
    a fifth of `first` is added to the vendor's wish.
    """
    # Beyond 2^20 steps of any length that makes sense, all are the longest; and no overflow.
    step = min(first * 2 ** min(postponed, 20), longest) * (1 - _JITTER * chance)
    if wish is None:
        return step
    return max(step, min(wish, LONGEST_WISH) + first * _JITTER * chance)
