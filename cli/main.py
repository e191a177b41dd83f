"""`kvitt`: what an engineer and a finance person ask from a terminal.

The Supabase project is taken from SUPABASE_URL and SUPABASE_SECRET_KEY where both are set, else
from the Prefect block `kvitt-supabase-project/<project>`.
"""

from __future__ import annotations

import asyncio
import getpass
import logging
import sys
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.markup import escape
from rich.table import Table

from cli import files, mapping, scheduler
from cli.checkpoint import checkpoint
from cli.console import err, out
from cli.facts import facts
from cli.health import health
from cli.health import mode as set_mode
from cli.ledger import open_ledger as _ledger
from cli.server import demand_server, never_start_one
from kvitt import planning, sync
from kvitt.domain.budget import Purpose, forecast
from kvitt.domain.errors import KvittError
from kvitt.domain.follow_ups import as_rows, in_brief
from kvitt.domain.integrations import Scheduler
from kvitt.domain.money import Totals
from kvitt.domain.periods import key_of
from kvitt.domain.receipts import as_text
from kvitt.ledger import SupabaseLedger
from kvitt.ledger import migrate as migrations
from kvitt.retries import explain_retries
from kvitt.vendors import VENDORS, exact_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Collection, Iterator, Sequence

    from deployments.automations import Step as AutomationStep
    from flows.deployments import Step
    from kvitt.domain.integrations import Integration
    from kvitt.domain.periods import Period
    from kvitt.domain.records import Record
    from kvitt.domain.vouchers import Voucher
    from kvitt.ledger.rows import Integrations, Progress, Spending

app = typer.Typer(
    help="Carries approved records into accounting systems, exactly once, and proves it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
integrations = typer.Typer(help="The integrations: who exports what, where to, and when.")
records = typer.Typer(help="The approved records.")
app.add_typer(integrations, name="integrations", no_args_is_help=True)
app.add_typer(records, name="records", no_args_is_help=True)
mappings = typer.Typer(help="The mapping: the app's words in the accounting system's.")
app.add_typer(mappings, name="mapping", no_args_is_help=True)
app.command()(facts)
app.command()(checkpoint)
app.command()(health)
app.command("mode")(set_mode)
second_scheduler = typer.Typer(help="The second scheduler: pg_cron, in the database.")
app.add_typer(second_scheduler, name="scheduler", no_args_is_help=True)

Project = Annotated[str, typer.Option(help="Name of the blocks that hold the project.")]
Pool = Annotated[str, typer.Option(help="Name of the work pool.")]
PoolType = Annotated[
    str,
    typer.Option(
        help="Type of the work pool, where it is not there yet: kvitt-warm runs all flows in one "
        "process, process starts one for each run."
    ),
]
By = Annotated[str, typer.Option(help="Who decides; it is kept.", default_factory=getpass.getuser)]
Notify = Annotated[
    str | None,
    typer.Option(
        envvar="KVITT_NOTIFY",
        help="The notification block that tells people, TYPE/NAME; remembered.",
    ),
]
_BATCH = 500
_SHOWN = 3
_NOTHING = "nothing"
_SOON = timedelta(days=1)
_POLL_SECONDS = 2


def _due(text: str) -> datetime:
    """Read when a period is due: its key or its time, in UTC unless it says otherwise."""
    try:
        moment = datetime.fromisoformat(text.rpartition("@")[2])
    except ValueError as error:
        raise typer.BadParameter(f"{text} is no time, like 2026-11-24T05:00Z") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


_PERIOD = typer.Argument(parser=_due, metavar="PERIOD", help="Its key, or when it is due, in UTC.")
ThePeriod = Annotated[datetime, _PERIOD]
SomePeriod = Annotated[datetime | None, _PERIOD]


class CommandError(Exception):
    """What a person reads instead of a traceback."""


def _run(work: Awaitable[None]) -> None:
    async def run() -> None:
        await work

    asyncio.run(run())


@app.command()
def migrate(
    database_url: Annotated[str, typer.Argument(envvar="DATABASE_URL", help="postgresql://…")],
    folder: Annotated[Path, typer.Option(help="Where the migrations are.")] = migrations.MIGRATIONS,
) -> None:
    """Bring the ledger's schema up to date (as `supabase db push` does)."""
    applied = migrations.migrate(database_url, migrations.read_migrations(folder))
    for migration in applied:
        out.print(f"applied {migration.version} {migration.name}")
    if not applied:
        out.print("the schema is up to date")


@integrations.command("import")
def import_integrations(file: Path, project: Project = "kvitt", *, dry_run: bool = False) -> None:
    """Create or change integrations from a YAML file; shows what differs."""
    wanted = files.read_integrations(file)

    async def work() -> None:
        async with _ledger(project) as ledger:
            there = {i.id: i for i in (await ledger.read_integrations()).valid}
            files.keep_apart(file, wanted, list(there.values()))
            for integration in wanted:
                before = there.get(integration.id)
                _show_difference(before, integration)
                if before is not None and _schedule(before) != _schedule(integration):
                    _show_rescheduled(integration, await planning.reschedule(ledger, integration))
                if not dry_run:
                    await ledger.save_integration(integration)
                    await planning.write_ahead(ledger, integration)

    _run(work())


def _show_difference(before: Integration | None, after: Integration) -> None:
    if before is None:
        what = escape(f"{after.organisation} → {after.vendor}, `{after.cron}`")
        out.print(f"[green]+ {after.id}[/] {what}", highlight=False)
        return
    was, becomes = before.model_dump(mode="json"), after.model_dump(mode="json")
    # By value: a time that is written in another zone is the same.
    changed = [name for name in becomes if getattr(before, name) != getattr(after, name)]
    if not changed:
        out.print(f"= {after.id} is as it was")
    for name in changed:
        for place, old, new in _differences(name, was[name], becomes[name]):
            difference = escape(f"{place}: {old} → {new}")
            out.print(f"[yellow]~ {after.id}[/] {difference}", highlight=False, soft_wrap=True)


def _differences(place: str, was: Any, becomes: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield where two settings differ, down to the last name, and what stands there."""
    if not (isinstance(was, dict) and isinstance(becomes, dict)):
        if was != becomes:
            yield place, was, becomes
        return
    old, new = cast("dict[str, Any]", was), cast("dict[str, Any]", becomes)
    for name in dict.fromkeys((*old, *new)):
        yield from _differences(f"{place}.{name}", old.get(name, _NOTHING), new.get(name, _NOTHING))


def _schedule(integration: Integration) -> tuple[str, str, datetime]:
    return integration.cron, integration.time_zone, integration.first_period


def _show_rescheduled(integration: Integration, change: planning.Rescheduled) -> None:
    """Show which planned periods a changed schedule takes out, and which it puts in."""
    if not change.go and not change.come:
        out.print("    no planned period changes")
        return
    out.print(f"    periods that go:   {_moments(integration, change.go)}", highlight=False)
    since = ""
    if change.come and change.opens_at is not None:
        since = f"; the first takes up at {integration.local(change.opens_at):%Y-%m-%d %H:%M}"
    coming = _moments(integration, change.come)
    out.print(f"    periods that come: {coming}{since}", highlight=False, soft_wrap=True)


def _moments(integration: Integration, due: list[datetime]) -> str:
    """Name the first due times by the organisation's clocks, and how many more there are."""
    shown = ", ".join(f"{integration.local(moment):%Y-%m-%d %H:%M}" for moment in due[:_SHOWN])
    more = f" and {len(due) - _SHOWN} more" if len(due) > _SHOWN else ""
    return f"{shown}{more}, {integration.time_zone}" if due else "none"


@integrations.command("list")
def list_integrations(project: Project = "kvitt") -> None:
    """List the integrations."""

    async def work() -> None:
        async with _ledger(project) as ledger:
            table = Table("id", "organisation", "vendor", "connection", "schedule", "enabled")
            integrations = await ledger.read_integrations()
            for i in integrations.valid:
                schedule = f"{i.cron} {i.time_zone}"
                table.add_row(
                    i.id, i.organisation, i.vendor, i.connection, schedule, _yes(on=i.enabled)
                )
        _show_table(table, nothing="there is no integration yet: kvitt integrations import FILE")
        _warn_of(integrations)

    _run(work())


def _show_table(table: Table, *, nothing: str) -> None:
    """Show a table, or say in words that there is nothing to show."""
    out.print(table if table.row_count else nothing)


def _warn_of(integrations: Integrations) -> None:
    for name, why in integrations.broken.items():
        err.print(f"{escape(name)} cannot be read: {escape(why)}", highlight=False)


@records.command("import")
def import_records(file: Path, project: Project = "kvitt") -> None:
    """Add approved records from a file of JSON lines; the same record twice is one."""

    async def work() -> None:
        added = present = 0
        to_come: list[Record] = []
        async with _ledger(project) as ledger:
            for batch in _batches(files.read_records(file)):
                new, old = await ledger.add_records(batch)
                added, present = added + new, present + old
                soon = datetime.now(UTC) + _SOON
                to_come += [record for record in batch if record.approved_at > soon]
        were = "was" if present == 1 else "were"
        out.print(f"{_number_of(added, 'record')} added, {present} {were} there already")
        if to_come:
            err.print(_words_of_the_future(to_come), highlight=False)

    _run(work())


def _words_of_the_future(to_come: list[Record]) -> str:
    first = max(to_come, key=lambda record: record.approved_at)
    name = escape(f"{first.id} of {first.integration}, approved {first.approved_at.isoformat()}")
    if len(to_come) == 1:
        return (
            f"1 record is approved more than a day from now ({name}): the first period that is due "
            "after that time takes it"
        )
    return (
        f"{len(to_come)} records are approved more than a day from now (the last is {name}): each "
        "is taken by the first period that is due after its time"
    )


def _number_of(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _batches(given: Iterator[Record]) -> Iterator[list[Record]]:
    while batch := list(islice(given, _BATCH)):
        yield batch


@app.command()
def periods(
    integration: Annotated[str | None, typer.Argument()] = None,
    project: Project = "kvitt",
    *,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
) -> None:
    """Show the latest periods that have come due, and where they stand."""

    async def work() -> None:
        async with _ledger(project, integration) as ledger:
            table = Table("period", "state", "records", "why")
            follow_ups = await ledger.read_follow_ups(integration, limit=limit)
            followed = {each.key: in_brief(each) for each in follow_ups}
            for p in await ledger.read_periods(integration, limit=limit):
                why = _why(p) or followed.get(p.key, "")
                table.add_row(p.key, p.state, str(p.record_count), escape(why))
        _show_table(table, nothing="no period has come due yet")

    _run(work())


def _why(period: Period) -> str:
    """Say why a period stands where it does, and until when, if it waits."""
    if period.not_before is None or period.waiting_for is None:
        return period.reason or ""
    return f"waits until {period.not_before:%Y-%m-%d %H:%M} UTC: {period.reason}"


@app.command()
def receipt(
    integration: str,
    period: SomePeriod = None,
    project: Project = "kvitt",
    *,
    as_json: Annotated[bool, typer.Option("--json", help="As the ledger keeps it.")] = False,
) -> None:
    """Show the receipt of a period, the latest one or a given one, and what was posted since."""

    async def work() -> None:
        async with _ledger(project, integration) as ledger:
            found = await _settled_period(ledger, integration, period)
            due_at = datetime.fromisoformat(str(found["due_at"]))
            followed = await ledger.read_follow_ups(integration, due_at)
        if as_json:
            out.print_json(data=found)
            return
        since = "\n".join(f"  {name:<13} {words}" for f in followed for name, words in as_rows(f))
        out.print(escape(f"{as_text(found)}\n{since}".rstrip()), highlight=False, soft_wrap=True)

    _run(work())


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


@app.command()
def preview(
    integration: str,
    period: SomePeriod = None,
    project: Project = "kvitt",
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON a row.")] = False,
) -> None:
    """Show what a period would send, to the line, without sending: the next one, or a given one."""

    async def work() -> None:
        async with _ledger(project, integration) as ledger:
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

    _run(work())


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


@mappings.command("try")
def try_mapping(
    integration: str,
    project: Project = "kvitt",
    *,
    record: Annotated[str | None, typer.Option(help="Which record; else one of the next.")] = None,
    file: Annotated[Path | None, typer.Option(help="Records that are not added yet.")] = None,
    new: Annotated[
        Path | None, typer.Option("--mapping", help="A mapping that is not saved yet.")
    ] = None,
) -> None:
    """Show what the mapping makes of records, before and after. Sends and changes nothing."""

    async def work() -> None:
        async with _ledger(project, integration) as ledger:
            who = await ledger.read_integration(integration)
            if new is not None:
                who = files.read_mapping(new, who)
            samples = [each async for each in mapping.samples(ledger, who, record, file)]
        mapping.show(out, who, samples)

    _run(work())


@app.command()
def skip(
    integration: str,
    period: ThePeriod,
    reason: Annotated[str, typer.Option(help="Why; it is kept.")],
    by: By,
    project: Project = "kvitt",
) -> None:
    """Leave a period out for good, once it is due. What it did not export is not exported."""

    async def work() -> None:
        async with _ledger(project, integration) as ledger:
            taken, booked, perhaps = await ledger.skip(integration, period, who=by, reason=reason)
        out.print(f"{key_of(integration, period)} is skipped", highlight=False)
        if taken:
            words = f"it had taken {taken} vouchers: {booked} of them are in the books"
            if perhaps:
                words += (
                    f", up to {perhaps} more may be there: look for them before anything of it is "
                    "approved anew"
                )
            out.print(f"{words}, {taken - booked - perhaps} are not", highlight=False)

    _run(work())


@app.command()
def mend(
    integration: str,
    period: SomePeriod = None,
    *,
    reason: Annotated[str, typer.Option(help="What was mended; it is kept.")],
    by: By,
    record: Annotated[
        str | None, typer.Option(help="One that was set aside: it goes with the next period.")
    ] = None,
    deleted: Annotated[
        bool, typer.Option("--deleted", help="With --record: its rows were deleted at the vendor.")
    ] = False,
    copy: Annotated[bool, typer.Option(help="With --deleted: the same goes again, or not.")] = True,
    accept_set_up: Annotated[
        bool, typer.Option("--accept-set-up", help="Take the vendor's set-up as it is.")
    ] = False,
    project: Project = "kvitt",
) -> None:
    """Let a failed period go on, or a record that was set aside, once it is mended.

    A record that was sent, and that the vendor refused to post later, is mended at the vendor; or
    all its rows are deleted there, and with --deleted a copy goes, once kvitt has seen that twice.
    """
    if (period is None) == (record is None):
        raise CommandError("say which period was mended, or with --record which record")
    if deleted and record is None:
        raise CommandError("--deleted is said of a record: name it with --record")
    if record is not None and accept_set_up:
        raise CommandError("--accept-set-up is said of a period, not of a record")

    async def work() -> None:
        async with _ledger(project, integration) as ledger:
            if record is not None and deleted:
                new = await ledger.say_deleted(
                    integration, record, goes_again=copy, who=by, reason=reason
                )
                words = f"record {record} goes again with the next period, as {new}"
                if new is None:
                    then = "then a copy goes with the next period" if copy else "no copy goes"
                    words = (
                        f"record {record}: the next follow-ups look twice, some minutes apart, "
                        f"whether its rows are gone; {then}"
                    )
            elif record is not None:
                new = await ledger.mend_record(integration, record, who=by, reason=reason)
                words = f"record {record} goes again with the next period, as {new}"
            else:
                due_at = cast("datetime", period)
                mend = ledger.accept_set_up if accept_set_up else ledger.mend
                key = await mend(integration, due_at, who=by, reason=reason)
                words = f"{key} goes on with its next run, or within five minutes"
                if (await ledger.read_period(integration, due_at)).mapping is not None:
                    words += (
                        ". It keeps the mapping that it has, since a part of it may be in the books"
                    )
        out.print(escape(words), highlight=False, soft_wrap=True)

    _run(work())


@app.command("set-aside")
def set_aside(
    integration: Annotated[str | None, typer.Argument()] = None, project: Project = "kvitt"
) -> None:
    """List the records that the accounting system did not take, or not post, and nobody mended."""

    async def work() -> None:
        async with _ledger(project, integration) as ledger:
            table = Table("period", "record", "why")
            for aside in await ledger.read_set_aside(integration):
                key = key_of(aside.integration_id, aside.due_at)
                table.add_row(key, escape(aside.record_id), escape(aside.reason))
            for followed in await ledger.read_follow_ups(integration):
                for voucher in followed.vouchers:
                    if voucher.open:
                        words = f"sent, and not posted: {voucher.words}"
                        table.add_row(followed.key, escape(voucher.record), escape(words))
        _show_table(table, nothing="nothing is set aside")

    _run(work())


@app.command("look-again")
def look_again(integration: str, period: ThePeriod, project: Project = "kvitt") -> None:
    """Look soon whether the vendor has posted what waited there, once it is mended there."""

    async def work() -> None:
        async with _ledger(project, integration) as ledger:
            key = await ledger.look_again(integration, period)
        out.print(f"{key} is looked at with the next follow-up", highlight=False)

    _run(work())


@app.command()
def budget(
    connection: Annotated[str | None, typer.Argument(help="Its block's name; else all.")] = None,
    project: Project = "kvitt",
) -> None:
    """Show what each connection has spent of its vendor's requests, by month (UTC)."""

    async def work() -> None:
        async with _ledger(project) as ledger:
            purposes = [*Purpose]
            ends = ("reserved", "allowance", "left", "forecast")
            table = Table("connection", "month", *purposes, *ends)
            found = await ledger.read_budgets(connection)
            if connection is not None and not found:
                await _demand_connection(ledger, connection)
            for each in found:
                table.add_row(*_row_of(each, purposes))
        _show_table(table, nothing="nothing has been spent yet")

    _run(work())


async def _demand_connection(ledger: SupabaseLedger, connection: str) -> None:
    """Tell a connection that has spent nothing yet from one that nobody has."""
    known = sorted({each.connection for each in (await ledger.read_integrations()).valid})
    if connection not in known:
        there = f"they have {', '.join(known)}" if known else "there is no integration yet"
        raise CommandError(f"no integration has the connection {connection}; {there}")


def _row_of(spending: Spending, purposes: Sequence[Purpose]) -> Iterator[str]:
    spent, allowance = spending.spent, spending.allowance
    yield f"{spending.vendor}/{spending.connection}"
    yield f"{spending.month:%Y-%m}"
    for purpose in purposes:
        yield f"{spent.get(purpose, 0):,}"
    yield f"{spending.counted - sum(spent.values()):,}"
    yield "no limit" if allowance is None else f"{allowance:,}{' or paid' * spending.paid}"
    yield "" if allowance is None else f"{allowance - spending.counted:,}"
    yield f"{forecast(spending.counted, month=spending.month, at=spending.now):,}"


@app.command()
def backfill(
    integration: str,
    since: Annotated[datetime, typer.Option("--from", parser=_due, help="From when on, in UTC.")],
    until: Annotated[
        datetime | None, typer.Option("--to", parser=_due, help="Up to when; else up to now.")
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
        async with _ledger(project, integration) as ledger:
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

    _run(work())


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


@app.command()
def incidents(
    project: Project = "kvitt",
    *,
    over: Annotated[bool, typer.Option("--all", help="Those that are over as well.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
) -> None:
    """Show what is wrong now: late, missed, uncertain, failed or stuck periods, silent watchers."""

    async def work() -> None:
        async with _ledger(project) as ledger:
            table = Table("since", "kind", "what", "told", "over")
            for one in await ledger.read_incidents(limit=limit, over=over):
                ended = "" if one.ended_at is None else f"{one.ended_at:%Y-%m-%d %H:%M}"
                told = _yes(on=one.told_at is not None)
                since = f"{one.since:%Y-%m-%d %H:%M}"
                table.add_row(since, one.kind, escape(one.what), told, ended)
        _show_table(table, nothing="nothing is wrong")

    _run(work())


@app.command()
def watchers(
    project: Project = "kvitt",
    *,
    forget: Annotated[
        str | None, typer.Option(help="One that was taken away for good: expect it no more.")
    ] = None,
) -> None:
    """Show the last sign of life of each watcher."""

    async def work() -> None:
        async with _ledger(project) as ledger:
            if forget is not None and not await ledger.forget_watcher(forget):
                raise CommandError(f"there is no watcher {forget}; see: kvitt watchers")
            table = Table("watcher", "last sign of life (UTC)")
            for one in await ledger.read_heartbeats():
                table.add_row(escape(one.who), f"{one.beat_at:%Y-%m-%d %H:%M:%S}")
        _show_table(table, nothing="no watcher has given a sign of life yet")

    _run(work())


@app.command()
def plan(project: Project = "kvitt", pool: Pool = "kvitt") -> None:
    """Show how Prefect's deployments and automations differ from ours; changes nothing."""

    async def work() -> None:
        _show_plan(await _plan(project, pool))
        from deployments import automations  # noqa: PLC0415 - Prefect is slow

        wanted, lacking = await automations.wanted_automations()
        _show_automations(await automations.plan_automations(wanted), lacking)

    _run(work())


@app.command()
def apply(
    project: Project = "kvitt",
    pool: Pool = "kvitt",
    pool_type: PoolType = "kvitt-warm",
    notify: Notify = None,
) -> None:
    """Bring Prefect into line with the integrations: deployments, automations, result storage."""

    async def work() -> None:
        await demand_server()
        from deployments import automations  # noqa: PLC0415 - Prefect is slow
        from deployments.foundations import ensure_pool, ensure_task_results  # noqa: PLC0415
        from flows.deployments import NotAligned, deployment_ids  # noqa: PLC0415
        from flows.deployments import apply as apply_deployments  # noqa: PLC0415

        await ensure_task_results(project)
        await ensure_pool(pool, pool_type)
        steps = await _plan(project, pool)
        not_aligned: NotAligned | None = None
        failed: Collection[str] = ()
        try:
            await apply_deployments(steps, project=project, pool=pool)
        except NotAligned as error:
            not_aligned, failed = error, error.failed
        async with _ledger(project) as ledger:
            await ledger.name_deployments(await deployment_ids(project))
        _show_plan([step for step in steps if step.name not in failed])
        if notify is not None:
            await automations.remember_block(notify)
        wanted, lacking = await automations.wanted_automations()
        _show_automations(await automations.apply_automations(wanted), lacking)
        if not_aligned is not None:
            raise not_aligned

    _run(work())


_SIGNS = {
    "create": "[green]+[/]",
    "update": "[yellow]~[/]",
    "pause": "[red]-[/]",
    "remove": "[red]-[/]",
    "keep": "=",
}


def _show_automations(steps: Sequence[AutomationStep], lacking: Sequence[str]) -> None:
    """Show what differs, and what could not be there: those as they should be are many."""
    for step in steps:
        if step.change != "keep":
            line = escape(f"automation {step.name}: {step.why}")
            out.print(f"{_SIGNS[step.change]} {line}", highlight=False, soft_wrap=True)
    for words in lacking:
        err.print(words)


async def _plan(project: str, pool: str) -> list[Step]:
    await demand_server()
    from flows.deployments import plan as compare  # noqa: PLC0415 - Prefect is slow

    async with _ledger(project) as ledger:
        integrations = await ledger.read_integrations()
        _warn_of(integrations)
        known = set(integrations.broken)
        return await compare(integrations.valid, project=project, pool=pool, untouched=known)


def _show_plan(steps: list[Step]) -> None:
    for step in steps:
        line = escape(f"sync/{step.name} {step.why}".rstrip())
        out.print(f"{_SIGNS[step.change]} {line}", highlight=False, soft_wrap=True)
    if not steps:
        out.print("there are no integrations yet: kvitt integrations import FILE.yaml")


@second_scheduler.command("install")
def install_scheduler(
    project: Project = "kvitt",
    *,
    silence: Annotated[
        int, typer.Option(min=6, help="How many minutes Prefect's watch may give no sign of life.")
    ] = 12,
) -> None:
    """Put the job into pg_cron, or bring it up to date; says what is still missing."""

    async def work() -> None:
        async with _ledger(project) as ledger:
            await ledger.install_second_scheduler(timedelta(minutes=silence))
            found = await ledger.read_second_scheduler()
        out.print("the second scheduler is installed")
        for problem in scheduler.missing(found):
            out.print(f"[yellow]but[/] {escape(problem)}", highlight=False, soft_wrap=True)

    _run(work())


@second_scheduler.command("status")
def scheduler_status(project: Project = "kvitt") -> None:
    """Tell what of it is there, and when it was last at work; fails if something is missing."""

    async def work() -> None:
        async with _ledger(project) as ledger:
            found = await ledger.read_second_scheduler()
        for line in scheduler.lines(found):
            out.print(line, highlight=False, soft_wrap=True)
        if problems := scheduler.missing(found):
            raise CommandError("the second scheduler does not work: " + "; ".join(problems))

    _run(work())


@second_scheduler.command("uninstall")
def uninstall_scheduler(project: Project = "kvitt") -> None:
    """Take the job out of pg_cron. Extensions and secrets stay."""

    async def work() -> None:
        async with _ledger(project) as ledger:
            await ledger.uninstall_second_scheduler()
            found = await ledger.read_second_scheduler()
        out.print("the second scheduler is not installed any more")
        alone = [one.id for one in found.integrations if one.scheduler is Scheduler.PG_CRON]
        if alone:
            words = f"{', '.join(alone)}: only watch starts them now, minutes late"
            out.print(f"[yellow]{words}; set their scheduler to prefect[/]", soft_wrap=True)

    _run(work())


def _yes(*, on: bool) -> str:
    return "yes" if on else "no"


def main() -> None:
    """Run the command; errors of ours become one sentence and exit code 1."""
    explain_retries()
    never_start_one()
    logging.basicConfig(format="kvitt: %(message)s")
    try:
        app()
    except (KvittError, CommandError, files.FileError, migrations.MigrationError, LookupError) as e:
        # What an error says may look like markup, and is found whole in a log.
        words = f"[red]kvitt:[/] {escape(str(e))}"
        err.print(words, highlight=False)
        sys.exit(1)
