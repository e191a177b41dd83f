"""The flow `health`: how each connection is, with at most one probe of each in 15 minutes.

One run for all connections. What is probed, and what an answer means, the ledger says: a run more
or less, or two at once, change nothing. The run fails only if it could not do this itself; what is
wrong with connections is told as incidents, when it begins and when it is over.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from prefect import flow
from prefect.artifacts import acreate_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.states import Completed, Failed

from blocks import SupabaseProject
from blocks.loading import load_block
from blocks.probing import open_probers
from flows.connections import tell_limit
from flows.incidents import tell
from flows.modes import tell_modes
from flows.sync import PROJECT
from kvitt import health as way
from kvitt.domain.errors import KvittError
from kvitt.domain.health import Heard, State, as_markdown
from kvitt.ledger import SupabaseLedger
from kvitt.vendors import VENDORS

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State as RunState

    from kvitt.domain.health import Connection
    from kvitt.ports import Probed

_HABITS = {name: kind.habits for name, kind in VENDORS.items()}


@flow(name="health", flow_run_name="health", persist_result=False)
async def health(project: str = PROJECT) -> RunState[None]:
    """Probe the connections that are due, and show how all of them are."""
    supabase = await load_block(SupabaseProject, project)
    try:
        async with supabase.open() as client:
            ledger = SupabaseLedger(client)
            probed = await way.look(ledger, partial(open_probers, project), _HABITS)
            for each in probed:
                if each.limit is not None:
                    tell_limit(each.due.vendor, each.due.connection, each.limit, "probe")
            await tell_modes(ledger)
            await tell(ledger)
            connections = await ledger.read_connections(way.allowances(_HABITS))
    except KvittError as error:
        return Failed(message=str(error))
    await _show(f"health-{project}", as_markdown(connections))
    return Completed(message=_summary(probed, connections))


def _summary(probed: list[Probed], connections: list[Connection]) -> str:
    asked = sum(each.heard is not Heard.UNASKED for each in probed)
    states = Counter(each.state or State.UNKNOWN for each in connections)
    counted = ", ".join(f"{states[state]} {state}" for state in State if states[state])
    return f"{asked} probed; {counted or 'no connections'}"


async def _show(key: str, markdown: str) -> None:
    """Keep one artifact up to date: one each quarter of an hour would fill Prefect's database."""
    async with get_client() as prefect:
        there = await prefect.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])), limit=1
        )
        if there:
            await prefect.update_artifact(there[0].id, ArtifactUpdate(data=markdown))
            return
    await acreate_markdown_artifact(
        key=key, markdown=markdown, description="How each connection is (UTC)"
    )
