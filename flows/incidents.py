"""Telling incidents: the ledger says what nobody knows of yet, and Prefect gets an event of each.

Emitted first and noted as told afterwards: where the server does not answer, the next run tells it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import NAMESPACE_URL, uuid5

import httpx
from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.events.schemas.events import Event, RelatedResource, Resource

from blocks.links import link_to
from kvitt.domain.incidents import IncidentKind

if TYPE_CHECKING:
    from kvitt.domain.incidents import Incident
    from kvitt.ledger import SupabaseLedger


async def tell(ledger: SupabaseLedger, integration: str | None = None) -> list[Incident]:
    """Compare what is wrong with the open incidents, and tell what is new or over; returns that.

    Of one integration or of all. A server that does not take an event disturbs nothing.
    """
    untold = await ledger.note_incidents(integration)
    told: list[Incident] = []
    for incident in untold:
        get_run_logger().warning("%s: %s", incident.event, incident.words)
        try:
            await _emit(incident)
        except httpx.HTTPError as error:
            get_run_logger().warning("it will be told later: %s", type(error).__name__)
            return told
        await ledger.incident_told(incident)
        told.append(incident)
    return told


def _what_is(incident: Incident) -> str:
    """Name the kind of thing that an incident is about which is about no integration."""
    return "connection" if incident.kind is IncidentKind.UNHEALTHY else incident.kind


async def _emit(incident: Incident) -> None:
    """Hand an event to the server, and wait until it has it: `emit_event` does not."""
    about = incident.integration_id
    resource = f"integration.{about}" if about else f"{_what_is(incident)}.{incident.subject}"
    event = Event(
        # The same event when it is told twice.
        id=uuid5(NAMESPACE_URL, f"kvitt:{incident.id}:{incident.opened_at}:{incident.event}"),
        event=incident.event,
        resource=Resource(
            {
                "prefect.resource.id": f"kvitt.{resource}",
                "prefect.resource.name": about or incident.subject,
            }
        ),
        related=_related(incident),
        payload={
            **incident.payload(),
            "link": link_to(flow_run=incident.flow_run, deployment=incident.deployment),
        },
    )
    async with get_client() as prefect:
        await prefect.request("POST", "/events", json=[event.model_dump(mode="json")])


def _related(incident: Incident) -> list[RelatedResource]:
    """Name the run and the deployment, so that the event shows on their pages as well."""
    about = {"flow-run": incident.flow_run, "deployment": incident.deployment}
    return [
        RelatedResource(
            {"prefect.resource.id": f"prefect.{role}.{known}", "prefect.resource.role": role}
        )
        for role, known in about.items()
        if known
    ]
