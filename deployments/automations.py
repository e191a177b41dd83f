"""Automations as data: what Prefect does by itself when something happens.

They are named, and applied by name, so that applying twice is once. All whose name begins with
`kvitt: ` are ours: what is not declared here any more goes, and what a person changed or switched
off in the UI is as it was declared again. Alerts that nobody gets are found out too late.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

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

    from prefect.client.orchestration import PrefectClient
    from prefect.events.schemas.automations import Automation

_OURS = "kvitt: "
_PAGE = 200

# A run that crashed (its process was killed, its machine went away) left its period with a lease
# that runs out by itself. Running the deployment again is harmless at any time: the ledger decides.
# A run that is silent says nothing to Prefect: other workers and `watch` find it, and mark it as
# crashed, which fires this. Threshold 1 and no window: none is passed over after another one.
CRASHED = AutomationCore(
    name=f"{_OURS}run again after a crash",
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

_PASSIVE = f"{_OURS}passive after a limit"
_SET_MODE = "set-mode/kvitt"
# What `set-mode` is told, by the field of the event that has it. A template of one expression keeps
# the kind of its value.
_FROM_THE_EVENT = {
    "vendor": "vendor",
    "connection": "connection",
    "reason": "text",
    "retry_after_seconds": "retry_after_seconds",
    "project": "project",
}


async def set_mode_deployment() -> UUID | None:
    """Return the id of the deployment of `set-mode`, which an automation runs; None without one."""
    async with get_client() as prefect:
        try:
            return (await prefect.read_deployment_by_name(_SET_MODE)).id
        except ObjectNotFound:
            return None


def passive_after_limit(deployment: UUID) -> AutomationCore:
    """Return the automation that has a connection not probed that turned us away by a limit.

    `deployment` is the one of the flow `set-mode`.
    """
    told = {name: f"{{{{ event.payload.{field} }}}}" for name, field in _FROM_THE_EVENT.items()}
    return AutomationCore(
        name=_PASSIVE,
        description="A connection that turned us away by a limit is not probed for a cool-down.",
        trigger=EventTrigger(
            expect={"kvitt.connection.rate-limited"},
            match=ResourceSpecification({"prefect.resource.id": "kvitt.connection.*"}),
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        ),
        actions=[
            RunDeployment(
                source="selected",
                deployment_id=deployment,
                job_variables=None,
                parameters={**told, "mode": "passive", "by": "automation"},
                schedule_after=timedelta(0),
            )
        ],
    )


# What is told to people, and how the message is headed. The text comes with the event.
NOTIFICATIONS = {
    "kvitt.period.late": "kvitt: late",
    "kvitt.period.missed": "kvitt: missed",
    "kvitt.period.uncertain": "kvitt: uncertain for an hour",
    "kvitt.period.failed": "kvitt: failed, a person is needed",
    "kvitt.period.stuck": "kvitt: stuck",
    "kvitt.period.set-aside": "kvitt: vouchers were not taken",
    "kvitt.period.refused": "kvitt: vouchers were refused after the receipt",
    "kvitt.period.differs": "kvitt: the books differ from the receipt",
    "kvitt.period.abandoned": "kvitt: nobody looks any more whether it is posted",
    "kvitt.budget.low": "kvitt: the requests of this month are nearly spent",
    "kvitt.connection.unhealthy": "kvitt: a connection is unhealthy",
    "kvitt.function.cold-starts": "kvitt: an Edge Function starts badly",
    "kvitt.worker.blocked": "kvitt: a worker is blocked",
    "kvitt.watcher.silent": "kvitt: a watcher is silent",
    "kvitt.integration.unreadable": "kvitt: an integration cannot be read",
    "kvitt.deployments.unaligned": "kvitt: the deployments are not in line",
    "kvitt.checkpoint.failed": "kvitt: the checkpoint found something to mend",
    "kvitt.incident.over": "kvitt: over",
}
_WHOM = "{% if event.resource.name %}: {{ event.resource.name }}{% endif %}"
_BODY = "{{ event.payload.text }}{% if event.payload.link %}\n\n{{ event.payload.link }}{% endif %}"
_REMEMBERED = "kvitt_notify"


def _name_of(event: str) -> str:
    return f"{_OURS}tell of {event.removeprefix('kvitt.')}"


def notifications(block: UUID) -> list[AutomationCore]:
    """Return an automation for each event that people are told of, with the block that tells them.

    The ledger sees to it that an incident comes as one event, so each of them is passed on: a
    threshold would keep the next one back until its window is over.
    """
    return [
        AutomationCore(
            name=_name_of(event),
            description=f"Each event {event} is passed on to people.",
            trigger=EventTrigger(
                expect={event},
                match=ResourceSpecification({"prefect.resource.id": "kvitt.*"}),
                posture=Posture.Reactive,
                threshold=1,
                within=timedelta(0),
            ),
            actions=[
                SendNotification(block_document_id=block, subject=f"{subject}{_WHOM}", body=_BODY)
            ],
        )
        for event, subject in NOTIFICATIONS.items()
    ]


async def remember_block(named: str) -> None:
    """Have people told by a notification block, `type/name`, from the next apply on.

    Raises BlockMissing.
    """
    await _notifying_block(named)
    await Variable.aset(_REMEMBERED, named, overwrite=True)


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
    """Return the id of a notification block; BlockMissing where there is none of that name.

    Also where it is a block that tells nobody: the server would find that out with the first alert.
    """
    kind, _, name = named.partition("/")
    async with get_client() as prefect:
        try:
            found = await prefect.read_block_document_by_name(name, kind, include_secrets=False)
        except ObjectNotFound as error:
            raise BlockMissing(
                f"there is no block {named}: create it in the Prefect UI under Blocks, and name it "
                "as its type and its name, like slack-webhook/finance"
            ) from error
    able = found.block_schema.capabilities if found.block_schema else []
    if "notify" not in able:
        raise BlockMissing(
            f"the block {named} tells nobody: name one that sends messages, like "
            "slack-webhook/finance"
        )
    return found.id


class Change(StrEnum):
    """What is to be done with an automation."""

    CREATE = "create"
    UPDATE = "update"
    KEEP = "keep"
    REMOVE = "remove"


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One line of a plan. `why` says what differs, for a person."""

    name: str
    change: Change
    why: str = ""
    wanted: AutomationCore | None = None
    automation_id: UUID | None = None


async def wanted_automations() -> tuple[list[AutomationCore], list[str]]:
    """Return what is to be there, and what is lacking for the rest, for a person.

    Where the block that tells people is gone, the rest is still wanted: `remembered_block` says so.
    """
    wanted, lacking = list(AUTOMATIONS), list[str]()
    set_mode = await set_mode_deployment()
    if set_mode is None:
        lacking.append(
            "a connection that turns us away by a limit goes on being probed, since there is no "
            f"deployment {_SET_MODE}: prefect --no-prompt deploy --all, then kvitt apply"
        )
    else:
        wanted.append(passive_after_limit(set_mode))
    try:
        block = await remembered_block()
    except BlockMissing:
        return wanted, lacking
    if block is None:
        lacking.append(
            "nobody is told when a period is late, missed, uncertain or failed: name a block that "
            "tells somebody, once: kvitt apply --notify slack-webhook/NAME"
        )
    else:
        wanted += notifications(block)
    return wanted, lacking


async def plan_automations(wanted: Sequence[AutomationCore]) -> list[Step]:
    """Compare what is wanted with what is there; changes nothing.

    Declared ones that `wanted` leaves out stay as they are.
    """
    async with get_client() as prefect:
        there = await _ours(prefect)
    by_name = {automation.name: automation for automation in reversed(there)}
    steps = [_step(automation, by_name.get(automation.name)) for automation in wanted]
    alerts = {_name_of(event) for event in NOTIFICATIONS}
    declared = {a.name for a in AUTOMATIONS} | {_PASSIVE} | alerts
    for automation in there:
        if automation.name not in declared | {a.name for a in wanted}:
            steps.append(_removal(automation, "it is not declared any more"))
        elif automation is not by_name[automation.name]:
            steps.append(_removal(automation, "it was there twice"))
    return steps


async def apply_automations(wanted: Sequence[AutomationCore]) -> list[Step]:
    """Bring Prefect into line with what is wanted; returns what was done."""
    steps = await plan_automations(wanted)
    async with get_client() as prefect:
        for step in steps:
            await _do(prefect, step)
    return steps


async def _do(prefect: PrefectClient, step: Step) -> None:
    if step.change is Change.REMOVE and step.automation_id is not None:
        await prefect.delete_automation(step.automation_id)
    elif step.change is Change.CREATE and step.wanted is not None:
        await prefect.create_automation(step.wanted)
    elif step.change is Change.UPDATE and step.wanted and step.automation_id:
        # Said outright: the client leaves out defaults, and the server keeps what it has.
        on = step.wanted.model_copy(update={"enabled": True})
        await prefect.update_automation(step.automation_id, on)


def _removal(automation: Automation, why: str) -> Step:
    return Step(name=automation.name, change=Change.REMOVE, why=why, automation_id=automation.id)


def _step(wanted: AutomationCore, there: Automation | None) -> Step:
    if there is None:
        return Step(name=wanted.name, change=Change.CREATE, why="it is new", wanted=wanted)
    differs = _differences(wanted, there)
    return Step(
        name=wanted.name,
        change=Change.UPDATE if differs else Change.KEEP,
        why=", ".join(differs),
        wanted=wanted,
        automation_id=there.id,
    )


def _differences(wanted: AutomationCore, there: Automation) -> list[str]:
    words = ["it was switched off"] if not there.enabled else []
    ours, theirs = _compared(wanted), _compared(there)
    return words + [f"its {name} was another one" for name in ours if ours[name] != theirs[name]]


def _compared(automation: AutomationCore) -> dict[str, Any]:
    """Return what is declared of an automation. The server gives triggers ids of their own."""
    content = AutomationCore.model_validate(automation.model_dump()).model_dump(mode="json")
    content["trigger"].pop("id", None)
    return {name: content[name] for name in ("description", "trigger", "actions")}


async def _ours(prefect: PrefectClient) -> list[Automation]:
    """Return the automations whose names say that they are ours, page by page."""
    found: list[Automation] = []
    read = 0
    while True:
        page = await prefect.read_automations(offset=read, limit=_PAGE)
        found += [automation for automation in page if automation.name.startswith(_OURS)]
        read += len(page)
        if len(page) < _PAGE:
            return found
