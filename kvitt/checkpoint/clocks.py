"""Clocks: how far another one is from this machine's, as a reply tells it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import httpx

from kvitt.checkpoint.items import Broken, NotApplicable

if TYPE_CHECKING:
    from collections.abc import Mapping

NEAR = timedelta(seconds=5)
# HTTP's Date has no parts of a second.
_A_SECOND = timedelta(seconds=1)


def compared(there: datetime, *, asked: datetime, answered: datetime, whose: str) -> str:
    """Say how far a clock is from ours, which it was read by between two moments.

    Raises Broken where it is more than a few seconds off, however the reply was under way.
    """
    if there < asked:
        off, words = asked - there, "behind"
    elif there > answered:
        off, words = there - answered, "ahead"
    else:
        return f"{whose} and this machine agree"
    told = f"{whose} is {off.total_seconds():.0f} s {words} of this machine"
    if off > NEAR:
        raise Broken(told)
    return told


async def compared_by_date(
    http: httpx.AsyncClient, url: str, *, whose: str, headers: Mapping[str, str] | None = None
) -> str:
    """Compare the clock of an HTTP server, by the header Date of whatever it answers."""
    asked, began = datetime.now(UTC), time.monotonic()
    try:
        reply = await http.head(url, headers=headers)
    except httpx.HTTPError as error:
        raise Broken(f"{whose} does not answer ({type(error).__name__})") from error
    answered = asked + timedelta(seconds=time.monotonic() - began)
    try:
        there = parsedate_to_datetime(reply.headers.get("Date", ""))
    except ValueError:
        raise NotApplicable(f"{whose} does not say what time it is") from None
    return compared(there, asked=asked - _A_SECOND, answered=answered, whose=whose)
