"""The flow `follow-up`: looks whether a vendor has posted what it took, until it has, or refuses.

Each quarter of an hour it asks the ledger which looks are due; mostly none is, and then it asks no
vendor. What comes of a look is written down there, and raised as an event: `kvitt.period.posted`,
`.refused`, `.differs` or `.abandoned`. An event is raised before it is written down that it was, so
after a crash it may come twice, never not at all.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from prefect import flow, get_run_logger
from prefect.events import emit_event
from prefect.states import Completed, Failed

from blocks import SupabaseProject
from blocks.links import link_to_this_run
from blocks.loading import load_block
from flows.connections import open_connection
from flows.sync import PROJECT
from kvitt import follow_up as way
from kvitt.domain.errors import KvittError
from kvitt.domain.follow_ups import FollowUp, FollowUpState, as_alert, in_brief
from kvitt.ledger import SupabaseLedger
from kvitt.retries import explain_retries

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

explain_retries()


@flow(name="follow-up", flow_run_name="follow-up", persist_result=False)
async def follow_up(project: str = PROJECT) -> State[None]:
    """Look after what vendors post by themselves, as far as a look is due."""
    supabase = await load_block(SupabaseProject, project)
    seen: list[FollowUp] = []
    put_off: list[str] = []
    try:
        async with supabase.open() as client:
            ledger = SupabaseLedger(client)
            opening = partial(open_connection, ledger, exports=False)
            async for result in way.follow_up(ledger, opening):
                if isinstance(result, way.PutOff):
                    put_off.append(result.why)
                else:
                    seen.append(result)
                    await _tell(ledger, result)
    except KvittError as error:
        return Failed(message=str(error))
    if put_off:
        return Failed(name="Put off", message=f"not looked at now: {'; '.join(put_off)}")
    return Completed(message="; ".join(f"{it.key} {in_brief(it)}" for it in seen) or "nothing due")


async def _tell(ledger: SupabaseLedger, it: FollowUp) -> None:
    """Raise an event for what is new, then write down that it was raised."""
    if not it.is_news:
        return
    good = it.state is FollowUpState.POSTED
    get_run_logger().log(logging.INFO if good else logging.WARNING, "%s: %s", it.key, in_brief(it))
    emit_event(
        event=f"kvitt.period.{it.state}",
        resource={
            "prefect.resource.id": f"kvitt.integration.{it.integration}",
            "prefect.resource.name": it.integration,
        },
        payload={
            "period": it.key,
            "text": as_alert(it),
            "link": link_to_this_run(),
            "vouchers": [voucher.words for voucher in it.vouchers if voucher.open],
        },
    )
    await ledger.look_told(it)
