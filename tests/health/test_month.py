"""A few days of each vendor, with all that goes wrong; `python -m tests.health` lives a month."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from kvitt.domain.health import BETWEEN_PROBES, Mode
from tests.cast import HOUR, MINUTE
from tests.health.month import SCENARIOS, Lived, Month, Scenario, Trouble
from tests.outages.clock import ClockedProject

if TYPE_CHECKING:
    from sandbox.supabase import Supabase

# Five days with one long outage, a long maintenance, and two hours of throttling.
DAYS, SEED = 5, 2050
SHORT = [SCENARIOS[0], SCENARIOS[1], SCENARIOS[3], SCENARIOS[4]]


async def live(supabase: Supabase, scenario: Scenario, *, days: int, probes: bool = True) -> Lived:
    name = f"month_{SCENARIOS.index(scenario)}_{days}_{probes}".lower()
    with closing(ClockedProject.create(supabase.postgres, name)) as project:
        return await Month(
            project=project, scenario=scenario, seed=SEED, days=days, probes=probes
        ).live()


@pytest.mark.parametrize("scenario", SHORT, ids=lambda scenario: scenario.name)
async def test_a_probe_never_costs_an_export_and_an_outage_is_told_once(
    supabase: Supabase, scenario: Scenario
) -> None:
    lived = await live(supabase, scenario, days=DAYS)
    check_budget(lived)
    check_outages(lived)
    assert lived.closest >= BETWEEN_PROBES
    # The same exports succeed, and are turned away as often, as if nobody had probed.
    alone = await live(supabase, scenario, days=DAYS, probes=False)
    assert alone.probes == []
    assert list(lived.exports) == list(alone.exports)
    assert lived.refused == alone.refused


def check_budget(lived: Lived) -> None:
    """See that probes kept within their share, and that what is counted is what was asked."""
    assert lived.for_probes >= lived.served["probe"]
    assert lived.counted >= sum(lived.served.values())
    if lived.requests is not None:
        assert lived.for_probes <= lived.requests * lived.probe_share


def check_outages(lived: Lived) -> None:
    """See that people hear of an outage, of its end, and of nothing else."""
    ended = [ended for _, ended in lived.unhealthy if ended is not None]
    assert lived.alerts == len(lived.unhealthy) + len(ended)
    spells = lived.outages(timedelta(0))
    for began, _ in lived.unhealthy:
        assert any(s.begins <= began <= s.ends + 15 * MINUTE for s in spells), began
    if lived.scenario.mode is None and lived.modes[0][1] == Mode.ACTIVE:
        long_ones = lived.outages(2 * HOUR)
        assert long_ones
        for spell in long_ones:
            noticed = lived.noticed(spell)
            assert noticed is not None, spell
            # One that announces its maintenance is left alone for as long as it asks.
            assert noticed[0] <= (HOUR if spell.trouble is Trouble.DOWN else 2 * HOUR)
            assert noticed[1] <= 4 * HOUR + 15 * MINUTE
