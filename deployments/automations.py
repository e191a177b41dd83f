"""Automations as data: what Prefect does by itself when something happens.

They are named, and applied by name: one that is there is brought into line, not made twice.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from prefect.client.orchestration import get_client
from prefect.events.actions import RunDeployment, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound
from prefect.variables import Variable

from blocks.loading import BlockMissing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

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

# What is told to people, and how the message is headed. The text comes with the event.
NOTIFICATIONS = {
    "kvitt.period.late": "kvitt: late",
    "kvitt.period.missed": "kvitt: missed",
    "kvitt.period.uncertain": "kvitt: uncertain",
    "kvitt.period.failed": "kvitt: failed, a person is needed",
    "kvitt.period.stuck": "kvitt: stuck",
    "kvitt.period.set-aside": "kvitt: vouchers were not taken",
    "kvitt.period.refused": "kvitt: vouchers were refused after the receipt",
    "kvitt.period.differs": "kvitt: the books differ from the receipt",
    "kvitt.period.abandoned": "kvitt: nobody looks any more whether it is posted",
    "kvitt.budget.low": "kvitt: the requests of this month are nearly spent",
    "kvitt.worker.blocked": "kvitt: a worker is blocked",
    "kvitt.watcher.silent": "kvitt: a watcher is silent",
    "kvitt.integration.unreadable": "kvitt: an integration cannot be read",
    "kvitt.deployments.unaligned": "kvitt: the deployments are not in line",
    "kvitt.checkpoint.failed": "kvitt: the checkpoint found something to mend",
    "kvitt.incident.over": "kvitt: over",
}
_REMEMBERED = "kvitt_notify"


def notifications(block: UUID) -> list[AutomationCore]:
    """Return an automation for each event that people are told of, with the block that tells them.

    The ledger sees to it that an incident comes as one event, so each of them is passed on.
    """
    return [
        AutomationCore(
            name=f"kvitt: tell of {event.removeprefix('kvitt.')}",
            description=f"Each event {event} is passed on to people.",
            trigger=EventTrigger(
                expect={event},
                match=ResourceSpecification({"prefect.resource.id": "kvitt.*"}),
                posture=Posture.Reactive,
                threshold=1,
                within=timedelta(0),
            ),
            actions=[
                SendNotification(
                    block_document_id=block, subject=subject, body="{{ event.payload.text }}"
                )
            ],
        )
        for event, subject in NOTIFICATIONS.items()
    ]


async def apply_notifications(named: str | None) -> list[str] | None:
    """Have people told by a block, `type/name`: the one named now, or the last one named.

    Returns the names of the automations that were created; None where no block was ever named.
    """
    block = named or await _remembered()
    if block is None:
        return None
    found = await _notifying_block(block)
    if named is not None:
        await Variable.aset(_REMEMBERED, named, overwrite=True)
    return await apply_automations(notifications(found))


async def remembered_block() -> UUID | None:
    """Return the id of the block that tells people; None where none was ever named.

    Raises BlockMissing where it is gone.
    """
    block = await _remembered()
    return None if block is None else await _notifying_block(block)


async def _remembered() -> str | None:
    """Return the block that was named last; `Variable.aget` would leave its connection open."""
    async with get_client() as prefect:
        variable = await prefect.read_variable_by_name(_REMEMBERED)
    return None if variable is None else str(variable.value)


async def _notifying_block(named: str) -> UUID:
    """Return the id of a notification block; BlockMissing where there is none of that name."""
    kind, _, name = named.partition("/")
    async with get_client() as prefect:
        try:
            found = await prefect.read_block_document_by_name(name, kind, include_secrets=False)
        except ObjectNotFound as error:
            raise BlockMissing(
                f"there is no block {named}: create it in the Prefect UI under Blocks, and name it "
                "as its type and its name, like slack-webhook/finance"
            ) from error
    return found.id


async def apply_automations(wanted: Sequence[AutomationCore] = AUTOMATIONS) -> list[str]:
    """Create what is missing and update the rest; returns the names of what was created."""
    created: list[str] = []
    async with get_client() as prefect:
        for automation in wanted:
            there = await prefect.read_automations_by_name(automation.name)
            if there:
                await prefect.update_automation(there[0].id, automation)
                if automation.enabled and not there[0].enabled:  # an update leaves that as it is
                    await prefect.resume_automation(there[0].id)
            else:
                await prefect.create_automation(automation)
                created.append(automation.name)
    return created
