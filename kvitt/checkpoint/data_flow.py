"""The data flow as a whole: an empty period goes the whole way, and the next one is tried dry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvitt import sync as way
from kvitt.checkpoint.items import Broken, Group, each
from kvitt.checkpoint.rehearsal import Nothing, rehearsal
from kvitt.checkpoint.schema import in_short
from kvitt.domain.errors import KvittError, LedgerRefused
from kvitt.domain.money import in_figures
from kvitt.domain.vouchers import totals_of
from kvitt.edge import EdgeFunction
from kvitt.vendors import VENDORS

if TYPE_CHECKING:
    from kvitt.checkpoint.site import Site
    from kvitt.domain.integrations import Integration
    from kvitt.domain.vouchers import Voucher

# A dry run is a look, and no second export: this many vouchers are looked at.
_MOST = 2000


@each(
    "rehearsal",
    Group.DATA_FLOW,
    checks="an empty period goes the whole way: claim, warm-up, collect, export, verify, receipt",
    why="Parts that work one by one need not work together.",
    remedy="Mend what the message says, then look again; nothing was sent, and nothing is left",
    needs=("function-page", "connection"),
)
async def whole_way(site: Site, who: Integration) -> str:
    """Walk the way of a period with a stand-in, and a vendor that must not be asked."""
    async with rehearsal(site, who) as it:
        collector = EdgeFunction(site.client, seconds=who.timeouts.function)
        try:
            async with (
                way.attempt(site.ledger, it.answer) as this,
                site.open_vendor(it.stand_in, Nothing()) as vendor,
            ):
                await way.warm_up(this, collector)
                taken = await way.collect(this, collector)
                await way.export(this, vendor)
                receipt = await way.verify(this, vendor)
        except KvittError as error:
            raise Broken(str(error)) from error
    if taken or receipt["taken"]["vouchers"]:
        raise Broken(f"it was to be empty, and took {taken} records")
    return "a receipt of zero; the accounting system was asked nothing, and nothing is left"


@each(
    "next-period",
    Group.DATA_FLOW,
    checks="its next period is planned, and all that it would send now would be taken",
    why="What it would set aside now would be missing in the books.",
    remedy="kvitt preview shows it to the line; correct the mapping, or the claim in the app",
    needs=("functions", "grants", "mapping"),
)
async def next_period(site: Site, who: Integration) -> str:
    """Translate what the next period would take; nothing is taken."""
    calendar = await site.ledger.read_calendar(who.id)
    if who.enabled and (calendar.planned_until is None or calendar.planned_until <= calendar.now):
        raise Broken(
            "its calendar is not written ahead, so that nothing comes due",
            remedy="See that watch runs, which writes it: prefect deployment run watch/kvitt",
        )
    try:
        period = await site.ledger.read_next_period(who.id)
    except LedgerRefused as error:
        raise Broken(str(error)) from error
    vouchers: list[Voucher] = []
    async for voucher in way.preview(site.ledger, who, period):
        vouchers.append(voucher)
        if len(vouchers) == _MOST:
            break
    kind = VENDORS[who.vendor]
    objections = {
        v.record_id: o for v in vouchers if (o := v.objection or kind.objection(period, v))
    }
    if objections:
        told = in_short([f"record {record} {words}" for record, words in objections.items()])
        raise Broken(
            f"{len(objections)} of its {len(vouchers)} vouchers would be set aside: {told}"
        )
    totals = totals_of(vouchers)
    more = " at least" if len(vouchers) == _MOST else ""
    booked = in_figures(totals.booked, who.book_currency)
    return (
        f"{period.key} would send {len(vouchers)} vouchers{more}, {totals.lines} lines, "
        f"{booked} {who.book_currency}"
    )


ITEMS = (whole_way, next_period)
