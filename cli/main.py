"""`kvitt`: what an engineer and a finance person ask from a terminal.

The Supabase project is taken from SUPABASE_URL and SUPABASE_SECRET_KEY where both are set, else
from the Prefect block `kvitt-supabase-project/<project>`.
"""

from __future__ import annotations

import asyncio
import getpass
import logging
import os
import sys
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cli import files
from kvitt import planning, sync
from kvitt.domain.errors import KvittError
from kvitt.domain.money import Totals
from kvitt.domain.periods import key_of
from kvitt.domain.receipts import as_text
from kvitt.ledger import SupabaseLedger
from kvitt.ledger import migrate as migrations
from kvitt.project import open_project
from kvitt.retries import explain_retries
from kvitt.vendors import VENDORS, exact_json

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Iterator

    from flows.deployments import Step
    from kvitt.domain.integrations import Integration
    from kvitt.domain.periods import Period
    from kvitt.domain.records import Record
    from kvitt.domain.vouchers import Voucher
    from kvitt.ledger.rpc import Integrations, Progress

app = typer.Typer(
    help="Carries approved records into accounting systems, exactly once, and proves it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
integrations = typer.Typer(help="The integrations: who exports what, where to, and when.")
records = typer.Typer(help="The approved records.")
app.add_typer(integrations, name="integrations", no_args_is_help=True)
app.add_typer(records, name="records", no_args_is_help=True)

# Off a terminal, as in a pipe or a log, nothing is cut or wrapped.
out = Console(width=None if sys.stdout.isatty() else 200)
err = Console(stderr=True, soft_wrap=True)

Project = Annotated[str, typer.Option(help="Name of the blocks that hold the project.")]
Pool = Annotated[str, typer.Option(help="Name of the work pool.")]
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


@asynccontextmanager
async def _ledger(project: str) -> AsyncGenerator[SupabaseLedger]:
    url, key = os.environ.get("SUPABASE_URL"), os.environ.get("SUPABASE_SECRET_KEY")
    if not (url and key):
        from blocks import SupabaseProject  # noqa: PLC0415 - Prefect takes seconds to import
        from blocks.loading import load_block  # noqa: PLC0415

        block = await load_block(SupabaseProject, project)
        url, key = block.url, block.secret_key.get_secret_value()
    async with open_project(url, key) as client:
        yield SupabaseLedger(client)


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
        difference = escape(f"{name}: {was[name]} → {becomes[name]}")
        out.print(f"[yellow]~ {after.id}[/] {difference}", highlight=False, soft_wrap=True)


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
            out.print(table)
        _warn_of(integrations)

    _run(work())


def _warn_of(integrations: Integrations) -> None:
    for name, why in integrations.broken.items():
        err.print(f"{escape(name)} cannot be read: {escape(why)}", highlight=False)


@records.command("import")
def import_records(file: Path, project: Project = "kvitt") -> None:
    """Add approved records from a file of JSON lines; the same record twice is one."""

    async def work() -> None:
        added = present = 0
        async with _ledger(project) as ledger:
            for batch in _batches(files.read_records(file)):
                new, old = await ledger.add_records(batch)
                added, present = added + new, present + old
        out.print(f"{added} records added, {present} were there already")

    _run(work())


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
        async with _ledger(project) as ledger:
            table = Table("period", "state", "records", "why")
            for p in await ledger.read_periods(integration, limit=limit):
                table.add_row(p.key, p.state, str(p.record_count), escape(p.reason or ""))
            out.print(table)

    _run(work())


@app.command()
def receipt(
    integration: str,
    period: SomePeriod = None,
    project: Project = "kvitt",
    *,
    as_json: Annotated[bool, typer.Option("--json", help="As the ledger keeps it.")] = False,
) -> None:
    """Show the receipt of a period: the latest one, or the one that was due at a time."""

    async def work() -> None:
        async with _ledger(project) as ledger:
            found = await _settled_period(ledger, integration, period)
        if as_json:
            out.print_json(data=found)
        else:
            out.print(as_text(found), highlight=False, soft_wrap=True)

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
        async with _ledger(project) as ledger:
            who = await ledger.read_integration(integration)
            it = await _period_of(ledger, integration, period)
            total = Totals()
            async for voucher in sync.preview(ledger, who, it):
                total += voucher.totals
                _show_rows(voucher, VENDORS[who.vendor].rows(it, voucher), as_json=as_json)
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


@app.command()
def skip(
    integration: str,
    period: ThePeriod,
    reason: Annotated[str, typer.Option(help="Why; it is kept.")],
    by: By,
    project: Project = "kvitt",
) -> None:
    """Leave a period out for good. What it took and did not export is not exported."""

    async def work() -> None:
        async with _ledger(project) as ledger:
            taken, booked = await ledger.skip(integration, period, who=by, reason=reason)
        out.print(f"{key_of(integration, period)} is skipped", highlight=False)
        if taken:
            words = f"it had taken {taken} vouchers: {booked} of them are in the books"
            out.print(f"{words}, {taken - booked} are not", highlight=False)

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
    project: Project = "kvitt",
) -> None:
    """Let a failed period go on, or a record that was set aside, once it is mended."""
    if (period is None) == (record is None):
        raise CommandError("say which period was mended, or with --record which record")

    async def work() -> None:
        async with _ledger(project) as ledger:
            if record is not None:
                new = await ledger.mend_record(integration, record, who=by, reason=reason)
                words = f"record {record} goes again with the next period, as {new}"
            else:
                due_at = cast("datetime", period)
                key = await ledger.mend(integration, due_at, who=by, reason=reason)
                words = f"{key} goes on with its next run, or within five minutes"
        out.print(escape(words), highlight=False, soft_wrap=True)

    _run(work())


@app.command("set-aside")
def set_aside(
    integration: Annotated[str | None, typer.Argument()] = None, project: Project = "kvitt"
) -> None:
    """List the records that the accounting system did not take, and nobody has mended."""

    async def work() -> None:
        async with _ledger(project) as ledger:
            table = Table("period", "record", "why")
            for aside in await ledger.read_set_aside(integration):
                key = key_of(aside.integration_id, aside.due_at)
                table.add_row(key, escape(aside.record_id), escape(aside.reason))
            out.print(table)

    _run(work())


@app.command()
def backfill(
    integration: str,
    since: Annotated[datetime, typer.Option("--from", parser=_due, help="From when on, in UTC.")],
    until: Annotated[
        datetime | None, typer.Option("--to", parser=_due, help="Up to when; else up to now.")
    ] = None,
    pace: Annotated[float, typer.Option(min=0, help="Seconds between two periods.")] = 0,
    project: Project = "kvitt",
    *,
    wait: Annotated[bool, typer.Option(help="Stay, and show the progress.")] = False,
) -> None:
    """Bring past periods up to date, in order: also ones before the calendar's first.

    The calendar is written on into the past first. Ask again at any time: what is done stays done.
    """

    async def work() -> None:
        async with _ledger(project) as ledger:
            who = await ledger.read_integration(integration)
            await planning.write_ahead(ledger, who)
            await _check_end(ledger, who, until)
            new = await planning.extend_back(ledger, who, since=since, pace=timedelta(seconds=pace))
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
            out.print(table)

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
            out.print(table)

    _run(work())


@app.command()
def plan(project: Project = "kvitt", pool: Pool = "kvitt") -> None:
    """Show how Prefect's deployments differ from the integrations; changes nothing."""

    async def work() -> None:
        _show_plan(await _plan(project, pool))

    _run(work())


@app.command()
def apply(project: Project = "kvitt", pool: Pool = "kvitt", notify: Notify = None) -> None:
    """Bring Prefect into line with the integrations: deployments, automations, result storage."""

    async def work() -> None:
        from deployments.automations import apply_automations  # noqa: PLC0415 - Prefect is slow
        from deployments.foundations import ensure_pool, ensure_task_results  # noqa: PLC0415
        from flows.deployments import apply as apply_deployments  # noqa: PLC0415

        await ensure_task_results(project)
        await ensure_pool(pool)
        steps = await _plan(project, pool)
        await apply_deployments(steps, project=project, pool=pool)
        _show_plan(steps)
        for name in await apply_automations() + await _apply_notifications(notify):
            out.print(f"[green]+[/] automation {name}")

    _run(work())


async def _apply_notifications(named: str | None) -> list[str]:
    from deployments.automations import apply_notifications  # noqa: PLC0415 - Prefect is slow

    created = await apply_notifications(named)
    if created is None:
        err.print(
            "nobody is told when a period is late, missed, uncertain or failed: name a block "
        )
        err.print("that tells somebody, once: kvitt apply --notify slack-webhook/NAME")
        return []
    return created


async def _plan(project: str, pool: str) -> list[Step]:
    from flows.deployments import plan as compare  # noqa: PLC0415 - Prefect is slow

    async with _ledger(project) as ledger:
        integrations = await ledger.read_integrations()
        _warn_of(integrations)
        known = set(integrations.broken)
        return await compare(integrations.valid, project=project, pool=pool, untouched=known)


def _show_plan(steps: list[Step]) -> None:
    signs = {"create": "[green]+[/]", "update": "[yellow]~[/]", "pause": "[red]-[/]", "keep": "="}
    for step in steps:
        line = escape(f"sync/{step.name} {step.why}".rstrip())
        out.print(f"{signs[step.change]} {line}", highlight=False, soft_wrap=True)
    if not steps:
        out.print("there are no integrations yet: kvitt integrations import FILE.yaml")


def _yes(*, on: bool) -> str:
    return "yes" if on else "no"


def main() -> None:
    """Run the command; errors of ours become one sentence and exit code 1."""
    explain_retries()
    logging.basicConfig(format="kvitt: %(message)s")
    try:
        app()
    except (KvittError, CommandError, files.FileError, migrations.MigrationError, LookupError) as e:
        # What an error says may look like markup, and is found whole in a log.
        words = f"[red]kvitt:[/] {escape(str(e))}"
        Console(stderr=True).print(words, highlight=False, soft_wrap=True)
        sys.exit(1)
