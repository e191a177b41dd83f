"""The periods: how they stand, their receipts, what the next would send, and past ones."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from cli.command import CommandError, Project, SomePeriod, ThePeriod, due
from cli.console import err, out, show_table
from cli.ledger import open_ledger
from kvitt import planning, sync
from kvitt.domain.follow_ups import as_rows, in_brief
from kvitt.domain.money import Totals
from kvitt.domain.receipts import as_text
from kvitt.vendors import VENDORS, exact_json

if TYPE_CHECKING:
    from kvitt.domain.integrations import Integration
    from kvitt.domain.periods import Period
    from kvitt.domain.vouchers import Voucher
    from kvitt.ledger import SupabaseLedger
    from kvitt.ledger.rows import Progress

_POLL_SECONDS = 2


def periods(
    integration: Annotated[str | None, typer.Argument()] = None,
    project: Project = "kvitt",
    *,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
) -> None:
    """Show the latest periods that have come due, and where they stand."""

    async def work() -> None:
        async with open_ledger(project, integration) as ledger:
            table = Table("period", "state", "records", "why")
            follow_ups = await ledger.read_follow_ups(integration, limit=limit)
            followed = {each.key: in_brief(each) for each in follow_ups}
            for p in await ledger.read_periods(integration, limit=limit):
                why = _why(p) or followed.get(p.key, "")
                table.add_row(p.key, p.state, str(p.record_count), escape(why))
        show_table(table, nothing="no period has come due yet")

    asyncio.run(work())


def _why(period: Period) -> str:
    """Say why a period stands where it does, and until when, if it waits."""
    if period.not_before is None or period.waiting_for is None:
        return period.reason or ""
    return f"waits until {period.not_before:%Y-%m-%d %H:%M} UTC: {period.reason}"


def receipt(
    integration: str,
    period: SomePeriod = None,
    project: Project = "kvitt",
    *,
    as_json: Annotated[bool, typer.Option("--json", help="As the ledger keeps it.")] = False,
) -> None:
    """Show the receipt of a period, the latest one or a given one, and what was posted since."""

    async def work() -> None:
        async with open_ledger(project, integration) as ledger:
            found = await _settled_period(ledger, integration, period)
            due_at = datetime.fromisoformat(str(found["due_at"]))
            followed = await ledger.read_follow_ups(integration, due_at)
        if as_json:
            out.print_json(data=found)
            return
        since = "\n".join(f"  {name:<13} {words}" for f in followed for name, words in as_rows(f))
        out.print(escape(f"{as_text(found)}\n{since}".rstrip()), highlight=False, soft_wrap=True)

    asyncio.run(work())


async def _settled_period(
    ledger: SupabaseLedger, integration: str, due_at: datetime | None
) -> dict[str, object]:
    if due_at is not None:
        found = [await ledger.read_period(integration, due_at)]
    else:
        found = await ledger.read_periods(integration, limit=100)
    settled = [p.receipt for p in found if p.receipt]
    if not settled:
        raise CommandError(f"{integration} has no receipt there; see: kvitt periods {integration}")
    return settled[0]


def preview(
    integration: str,
    period: SomePeriod = None,
    project: Project = "kvitt",
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON a row.")] = False,
) -> None:
    """Show what a period would send, to the line, without sending: the next one, or a given one."""

    async def work() -> None:
        async with open_ledger(project, integration) as ledger:
            who = await ledger.read_integration(integration)
            it = await _period_of(ledger, integration, period)
            total = Totals()
            vendor = VENDORS[who.vendor]
            async for voucher in sync.preview(ledger, who, it):
                objection = voucher.objection or vendor.objection(it, voucher)
                if objection is None:
                    total += voucher.totals
                    _show_rows(voucher, vendor.rows(it, voucher), as_json=as_json)
                else:
                    words = f"voucher {voucher.number} (record {voucher.record_id}) {objection}"
                    err.print(f"set aside: {escape(words)}", highlight=False)
        if not as_json:
            money = f"{total.booked:,f} {who.book_currency}"
            out.print(f"{it.key}: {total.vouchers} vouchers, {total.lines} lines, {money}")

    asyncio.run(work())


async def _period_of(ledger: SupabaseLedger, integration: str, due_at: datetime | None) -> Period:
    if due_at is None:
        return await ledger.read_next_period(integration)
    return await ledger.read_period(integration, due_at)


def _show_rows(voucher: Voucher, rows: list[dict[str, Any]], *, as_json: bool) -> None:
    if not as_json:
        head = f"{voucher.number}  {voucher.posting_date}  {voucher.record_id}  {voucher.text}"
        out.print(escape(head), style="bold", highlight=False, soft_wrap=True)
    for row in rows:
        # As the vendor gets it: amounts exact, not as binary floats.
        out.print(escape(exact_json.dumps(row)), highlight=False, soft_wrap=True)


def backfill(
    integration: str,
    since: Annotated[datetime, typer.Option("--from", parser=due, help="From when on, in UTC.")],
    until: Annotated[
        datetime | None, typer.Option("--to", parser=due, help="Up to when; else up to now.")
    ] = None,
    pace: Annotated[float, typer.Option(help="Seconds between two periods, up to a day.")] = 0,
    project: Project = "kvitt",
    *,
    wait: Annotated[bool, typer.Option(help="Stay, and show the progress.")] = False,
) -> None:
    """Bring past periods up to date, in order: also ones before the calendar's first.

    The calendar is written on into the past first, to 2020 at the earliest. Ask again at any time:
    what is done stays done.
    """
    apart = planning.pace_of(pace)

    async def work() -> None:
        async with open_ledger(project, integration) as ledger:
            who = await ledger.read_integration(integration)
            await planning.write_ahead(ledger, who)
            await _check_end(ledger, who, until)
            new = await planning.extend_back(ledger, who, since=since, pace=apart)
            out.print(f"{new} periods were written into the past", highlight=False)
            upto = until or datetime.now(UTC)
            seen = await _show_progress(ledger, integration, since, upto)
            while wait and not seen.finished:
                await asyncio.sleep(_POLL_SECONDS)
                seen = await _show_progress(ledger, integration, since, upto, before=seen)
        if not seen.finished:
            command = f"prefect deployment run sync/{integration}"
            out.print(f"it goes on within five minutes; at once: {command}", highlight=False)

    asyncio.run(work())


async def _check_end(ledger: SupabaseLedger, who: Integration, until: datetime | None) -> None:
    """Refuse an end before the calendar's beginning, since a calendar has no gap."""
    first = await ledger.first_period(who.id)
    if until is not None and until < first.opens_at:
        raise CommandError(
            f"the calendar of {who.id} begins at {first.opens_at:%Y-%m-%dT%H:%MZ}, and has no gap: "
            "leave --to out, or let it be that time or a later one"
        )


async def _show_progress(
    ledger: SupabaseLedger,
    integration: str,
    since: datetime,
    until: datetime,
    *,
    before: Progress | None = None,
) -> Progress:
    seen = await ledger.progress(integration, since=since, until=until)
    if seen != before:
        words = f"{seen.settled} of {seen.periods} periods settled, {seen.vouchers} vouchers"
        if seen.failed:
            words += f"; {seen.failed} wait for a person: kvitt periods {integration}"
        if seen.next_at is not None:
            words += f"; the next not before {seen.next_at:%H:%M:%S} UTC"
        out.print(words, highlight=False)
    return seen


def look_again(integration: str, period: ThePeriod, project: Project = "kvitt") -> None:
    """Look soon whether the vendor has posted what waited there, once it is mended there."""

    async def work() -> None:
        async with open_ledger(project, integration) as ledger:
            key = await ledger.look_again(integration, period)
        out.print(f"{key} is looked at with the next follow-up", highlight=False)

    asyncio.run(work())
