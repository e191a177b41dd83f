"""What a person decides: a period skipped or mended, a record that was set aside."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.markup import escape
from rich.table import Table

from cli.command import By, CommandError, Project, SomePeriod, ThePeriod
from cli.console import out, show_table
from cli.ledger import open_ledger
from kvitt.domain.periods import key_of

if TYPE_CHECKING:
    from datetime import datetime


def skip(
    integration: str,
    period: ThePeriod,
    reason: Annotated[str, typer.Option(help="Why; it is kept.")],
    by: By,
    project: Project = "kvitt",
) -> None:
    """Leave a period out for good, once it is due. What it did not export is not exported."""

    async def work() -> None:
        async with open_ledger(project, integration) as ledger:
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

    asyncio.run(work())


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
        async with open_ledger(project, integration) as ledger:
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

    asyncio.run(work())


def set_aside(
    integration: Annotated[str | None, typer.Argument()] = None, project: Project = "kvitt"
) -> None:
    """List the records that the accounting system did not take, or not post, and nobody mended."""

    async def work() -> None:
        async with open_ledger(project, integration) as ledger:
            table = Table("period", "record", "why")
            for aside in await ledger.read_set_aside(integration):
                key = key_of(aside.integration_id, aside.due_at)
                table.add_row(key, escape(aside.record_id), escape(aside.reason))
            for followed in await ledger.read_follow_ups(integration):
                for voucher in followed.vouchers:
                    if voucher.open:
                        words = f"sent, and not posted: {voucher.words}"
                        table.add_row(followed.key, escape(voucher.record), escape(words))
        show_table(table, nothing="nothing is set aside")

    asyncio.run(work())
