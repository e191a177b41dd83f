"""The checkpoint passes on a sound set-up, and finds what is broken of it, and nothing else."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from kvitt.checkpoint import Verdict
from tests.checkpoint.broken import CASES, Case

if TYPE_CHECKING:
    from kvitt.checkpoint import Report
    from tests.checkpoint.scene import Scene


def failed(report: Report) -> dict[str, str]:
    return {result.item: result.seen for result in report.failed}


async def test_a_sound_set_up_passes(scene: Scene) -> None:
    report = await scene.look()
    assert failed(report) == {}
    assert {r.verdict for r in report.results} == {Verdict.PASSED}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
async def test_what_is_broken_is_found_and_nothing_else(at_rest: Scene, case: Case) -> None:
    async with AsyncExitStack() as stack:
        breaking = case.breaking(at_rest)
        if isinstance(breaking, AbstractAsyncContextManager):
            await stack.enter_async_context(breaking)
        else:
            stack.enter_context(breaking)
        report = await at_rest.look()
    assert list(failed(report)) == [case.item], failed(report)
    [found] = report.failed
    assert case.seen in found.seen
    assert case.remedy in (found.remedy or "")
    assert all(
        r.because_of == case.item for r in report.results if r.verdict is Verdict.NOT_LOOKED_AT
    )
