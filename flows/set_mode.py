"""The flow `set-mode`: has a connection probed, or not. For the UI, and for an automation.

A person's word holds until the next one. After a limit, which an automation hears of, the passive
mode lasts for a cool-down; then a trial probe of the flow `health` may end it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from prefect import flow
from prefect.states import Completed, Failed

from blocks import SupabaseProject
from blocks.loading import load_block
from flows.modes import tell_modes
from flows.sync import PROJECT
from kvitt import health as way
from kvitt.domain.errors import KvittError
from kvitt.domain.health import Mode
from kvitt.domain.patience import LONGEST_WISH
from kvitt.ledger import SupabaseLedger

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State


@flow(name="set-mode", flow_run_name="set-mode {vendor} {mode}", persist_result=False)
async def set_mode(
    vendor: str,
    reason: str,
    by: str,
    connection: str | None = None,
    mode: Mode = Mode.PASSIVE,
    retry_after_seconds: float | None = None,
    project: str = PROJECT,
) -> State[None]:
    """Set the mode of a connection, or of all that a vendor has.

    Args:
        vendor: The vendor's id, as integrations name it.
        reason: Why; it is kept, and shown.
        by: Who says so.
        connection: The connection's name; none: all of the vendor's, and those to come.
        mode: active: probed; passive: not.
        retry_after_seconds: Only after a limit: how long the vendor asked to be left alone, or 0.
            The passive mode then ends by itself, when a trial probe is answered.
        project: The name of the block SupabaseProject.
    """
    if mode is Mode.ACTIVE and retry_after_seconds is not None:
        return Failed(
            message="retry_after_seconds is for the passive mode after a limit: leave it out, and "
            f"{vendor} is {mode} until somebody says otherwise"
        )
    supabase = await load_block(SupabaseProject, project)
    try:
        async with supabase.open() as client:
            ledger = SupabaseLedger(client)
            if retry_after_seconds is None:
                changed = await ledger.set_mode(vendor, connection, mode, reason=reason, by=by)
            else:
                changed = await way.passive_after_limit(
                    ledger,
                    vendor,
                    connection,
                    reason=reason,
                    by=by,
                    retry_after=_wish(retry_after_seconds),
                )
            await tell_modes(ledger)
    except KvittError as error:
        return Failed(message=str(error))
    return Completed(message=f"{changed} connections changed")


def _wish(seconds: float) -> timedelta:
    """Return how long to leave a vendor alone: a person may type any number."""
    return timedelta(seconds=min(max(seconds, 0.0), LONGEST_WISH.total_seconds()))
