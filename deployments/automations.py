"""Automations as data: what Prefect does by itself when something happens.

They are named, and applied by name: one that is there is brought into line, not made twice.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from prefect.client.orchestration import get_client
from prefect.events.actions import RunDeployment
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

if TYPE_CHECKING:
    from collections.abc import Sequence

# A run that crashed (its process was killed, its machine went away) left its period with a lease
# that runs out by itself. Running the deployment again is harmless at any time: the ledger decides.
CRASHED = AutomationCore(
    name="kvitt: run again after a crash",
    description="A crashed run of `sync` is followed by another one of the same integration.",
    trigger=EventTrigger(
        expect={"prefect.flow-run.Crashed"},
        match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
        match_related=ResourceSpecification(
            {"prefect.resource.role": "flow", "prefect.resource.name": "sync"}
        ),
        posture=Posture.Reactive,
        threshold=1,
        within=timedelta(0),
    ),
    # After the lease of the crashed run has run out (2 min): before that, it would be Busy.
    actions=[
        RunDeployment(
            source="inferred",
            deployment_id=None,
            job_variables=None,
            parameters={"trigger": "automation"},
            schedule_after=timedelta(minutes=2, seconds=15),
        )
    ],
)

AUTOMATIONS: Sequence[AutomationCore] = (CRASHED,)


async def apply_automations(wanted: Sequence[AutomationCore] = AUTOMATIONS) -> list[str]:
    """Create what is missing and update the rest; returns the names of what was created."""
    created: list[str] = []
    async with get_client() as prefect:
        for automation in wanted:
            there = await prefect.read_automations_by_name(automation.name)
            if there:
                await prefect.update_automation(there[0].id, automation)
            else:
                await prefect.create_automation(automation)
                created.append(automation.name)
    return created
