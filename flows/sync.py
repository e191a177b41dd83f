"""The flow `sync`: brings one integration up to date.

It is handed an integration, and a period only to redo or back-fill one. Which period is worked on,
the ledger says. The four tasks of a period are cached under the idempotency key, in the ledger's
database: a second run shows them *Cached*, on whichever worker it runs. The cache saves work; what
keeps a period from being exported twice is the ledger.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from datetime import datetime  # noqa: TC003 - Prefect reads it
from typing import TYPE_CHECKING, Any, TypeVar

from prefect import flow, task
from prefect.artifacts import acreate_markdown_artifact
from prefect.cache_policies import CacheKeyFnPolicy
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.context import FlowRunContext, TaskRunContext
from prefect.events import emit_event
from prefect.states import Completed, Failed

from blocks import SupabaseProject, TaskResults
from blocks.loading import forget_block, load_block
from blocks.watchers import outside_watcher
from flows.connections import open_connection
from flows.incidents import tell
from kvitt import planning
from kvitt import sync as way
from kvitt.attempts import failed_words
from kvitt.domain.errors import (
    KvittError,
    LedgerRefused,
    PeriodPostponed,
    PeriodStopped,
    PeriodUncertain,
)
from kvitt.domain.receipts import as_markdown
from kvitt.edge import EdgeFunction
from kvitt.ledger import SupabaseLedger
from kvitt.pings import seen_from_outside
from kvitt.ports import Claim, ClaimOutcome, Trigger
from kvitt.retries import explain_retries

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from prefect.client.schemas.objects import FlowRun, State
    from supabase import AsyncClient

    from kvitt.domain.periods import Period
    from kvitt.ports import Vendor

explain_retries()

PROJECT = "kvitt"
"""The name under which the blocks SupabaseProject and TaskResults are saved, unless told else."""

# A worker that runs many flows at once asks Prefect for these two once, not once a run. The
# vendors' connections are loaded for each period.
_BLOCKS_SECONDS = 30


class Bench:
    """What the tasks of one period work with. No dataclass: Prefect would copy its parts."""

    def __init__(
        self,
        *,
        key: str,
        results: TaskResults,
        period: Period,
        attempt: way.Attempt | None = None,
        collector: EdgeFunction | None = None,
        vendor: Vendor | None = None,
    ) -> None:
        self.key = key
        self.results = results
        self.period = period
        self._attempt = attempt
        self._collector = collector
        self._vendor = vendor

    @property
    def settled(self) -> bool:
        """Nothing is to be done: the period is finished, and this run only shows it."""
        return self._attempt is None

    @property
    def attempt(self) -> way.Attempt:
        """The attempt at a claimed period."""
        return _given(self._attempt)

    @property
    def collector(self) -> EdgeFunction:
        """The Edge Function of a claimed period."""
        return _given(self._collector)

    @property
    def vendor(self) -> Vendor:
        """The vendor of a claimed period."""
        return _given(self._vendor)


T = TypeVar("T")


def _given(part: T | None) -> T:
    if part is None:
        raise LookupError("a settled period is not worked on")
    return part


def _cache_key(context: TaskRunContext, parameters: dict[str, Any]) -> str:
    return f"{context.task.name}/{parameters['bench'].key}"


_once = CacheKeyFnPolicy(cache_key_fn=_cache_key)


@task(name="warm-up", cache_policy=_once, persist_result=True, result_serializer="json")
async def warm_up(bench: Bench) -> dict[str, Any]:
    """Wake the Edge Function; its cold starts are written down."""
    if bench.settled:
        return {"pings": 0}
    return asdict(await way.warm_up(bench.attempt, bench.collector))


@task(name="sync", cache_policy=_once, persist_result=True, result_serializer="json")
async def collect(bench: Bench) -> dict[str, Any]:
    """Freeze the period's batch."""
    if bench.settled:
        return {"records": bench.period.record_count}
    return {"records": await way.collect(bench.attempt, bench.collector)}


@task(name="export", cache_policy=_once, persist_result=True, result_serializer="json")
async def export(bench: Bench) -> dict[str, Any]:
    """Bring the batch into the vendor's books, once."""
    if bench.settled:
        receipt: dict[str, Any] = dict(bench.period.receipt or {})
        return {"vouchers": receipt["sent"]["vouchers"]}
    return {"vouchers": await way.export(bench.attempt, bench.vendor)}


@task(name="verify", cache_policy=_once, persist_result=True, result_serializer="json")
async def verify(bench: Bench) -> dict[str, Any]:
    """Read back the totals and write the receipt."""
    if bench.settled:
        return dict(bench.period.receipt or {})
    return await way.verify(bench.attempt, bench.vendor)


@flow(name="sync", flow_run_name="{integration}", persist_result=False)
async def sync(
    integration: str,
    period: datetime | None = None,
    trigger: str | None = None,
    mended: str | None = None,
    back_to: datetime | None = None,
    pace: float = 0,
    project: str = PROJECT,
) -> State[Any]:
    """Bring an integration up to date: each period that is due and unfinished, in order.

    Args:
        integration: Its id, as in the table of integrations.
        period: Only this period, named by the time at which it is due; else all that are due.
        trigger: Who asks: schedule, person, watch, pg_cron or automation. Known by itself for runs
            that a schedule or a person starts.
        mended: What a person has mended of a failed period, which then goes on; kept as the reason.
        back_to: Fill in earlier periods first, back to the first one due at or after this time.
        pace: How many seconds the periods that are filled in are apart, a day of them at most.
        project: The name of the blocks SupabaseProject and TaskResults.
    """
    results = await load_block(TaskResults, project, max_age=_BLOCKS_SECONDS)
    supabase = await load_block(SupabaseProject, project, max_age=_BLOCKS_SECONDS)
    try:
        apart = planning.pace_of(pace)
        async with supabase.open() as client:
            ledger = SupabaseLedger(client)
            who = await ledger.read_integration(integration)
            await planning.write_ahead(ledger, who)
            if back_to is not None:
                await planning.extend_back(ledger, who, since=back_to, pace=apart)
            await tell(ledger, integration)  # that it is late, before it begins at last
            return await _bring_up_to_date(
                client, results, integration, period, await _trigger(trigger), mended
            )
    except KvittError as error:  # it says all that a reader needs; a traceback would hide it
        if isinstance(error, LedgerRefused):  # its key may have been changed in the UI
            forget_block(TaskResults, project)
            forget_block(SupabaseProject, project)
        return Failed(message=str(error))


async def _bring_up_to_date(
    client: AsyncClient,
    results: TaskResults,
    integration_id: str,
    due_at: datetime | None,
    trigger: Trigger,
    mended: str | None,
) -> State[Any]:
    ledger = SupabaseLedger(client)
    settled: list[str] = []
    while True:
        answer = await way.claim(ledger, integration_id, trigger, due_at=due_at)
        claim = answer.claim
        if claim.period is not None and not settled:
            await _rename_run(claim.period.key)
        if claim.outcome is ClaimOutcome.FAILED and claim.period is not None and mended:
            who = f"flow run {trigger.flow_run}"
            await ledger.mend(integration_id, claim.period.due_at, who=who, reason=mended)
            mended = None
            continue
        if claim.outcome is not ClaimOutcome.CLAIMED or claim.period is None:
            break
        try:
            settled.append(await _work_on(client, ledger, results, answer))
        except PeriodStopped as stopped:
            await tell(ledger, integration_id)
            return _stopped(claim.period, stopped)
        if due_at is not None:
            break
        trigger = trigger.catching_up()
    if settled:
        return Completed(name="Settled", message=_settled_words(settled, claim))
    return await _nothing_done(claim.outcome, claim.period, results)


def _settled_words(keys: list[str], last: Claim) -> str:
    """Name what was settled, and what still waits for a person."""
    words = "settled " + ", ".join(keys)
    if last.outcome is ClaimOutcome.FAILED and last.period is not None:
        words += f"; {last.period.key} waits for a person: {last.period.reason}"
    return words


async def _work_on(
    client: AsyncClient, ledger: SupabaseLedger, results: TaskResults, answer: way.Answer
) -> str:
    async with _bench(client, ledger, results, answer) as bench:
        address = await outside_watcher(bench.attempt.integration)
        async with seen_from_outside(address, bench.attempt.id):
            receipt = await _tasks(bench)
    await acreate_markdown_artifact(
        key=f"receipt-{bench.period.integration_id}",
        markdown=as_markdown(receipt),
        description=f"Receipt {bench.key}",
    )
    _emit("settled", bench.period, {"receipt": receipt})
    return bench.key


@asynccontextmanager
async def _bench(
    client: AsyncClient, ledger: SupabaseLedger, results: TaskResults, answer: way.Answer
) -> AsyncGenerator[Bench]:
    async with AsyncExitStack() as stack:
        attempt = await stack.enter_async_context(way.attempt(ledger, answer))
        backfill = attempt.period.backfill
        vendor = await stack.enter_async_context(
            open_connection(ledger, attempt.integration, backfill=backfill)
        )
        attempt.requests = vendor.requests
        yield Bench(
            key=attempt.period.key,
            results=results,
            period=attempt.period,
            attempt=attempt,
            collector=EdgeFunction(client, seconds=attempt.integration.timeouts.function),
            vendor=vendor,
        )


async def _tasks(bench: Bench) -> dict[str, Any]:
    """Run the four tasks of a period, each under its name and the key."""
    receipt: dict[str, Any] = {}
    for step in (warm_up, collect, export, verify):
        receipt = await step.with_options(
            task_run_name=f"{step.name} {bench.key}", result_storage=bench.results
        )(bench)
    return receipt


# How a run ends that had nothing to do, so that nobody mistakes one case for another.
_NOTHING_DONE: dict[ClaimOutcome, tuple[str, str]] = {
    ClaimOutcome.WAITING: ("Waiting", "{p.key} waits until {p.not_before}: {p.reason}"),
    ClaimOutcome.BUSY: ("Busy", "another run works on {p.key}, with a lease to {p.leased_until}"),
    ClaimOutcome.EARLY: ("Not due", "{p.key} is not due yet"),
    ClaimOutcome.DISABLED: ("Disabled", "{p.integration_id} is switched off"),
    ClaimOutcome.SETTLED: ("Skipped", "{p.key} was skipped: {p.reason}"),
    ClaimOutcome.IDLE: ("Nothing due", "no period of this integration has been due yet"),
}


async def _nothing_done(
    outcome: ClaimOutcome, period: Period | None, results: TaskResults
) -> State[Any]:
    if outcome is ClaimOutcome.SETTLED and period is not None and period.receipt is not None:
        await _tasks(Bench(key=period.key, results=results, period=period))
        return Completed(name="Already settled", message=f"{period.key} is already settled")
    if outcome is ClaimOutcome.FAILED and period is not None:
        return Failed(message=failed_words(period, period.reason or "no reason is written down"))
    name, message = _NOTHING_DONE[outcome]
    return Completed(name=name, message=message.format(p=period))


def _stopped(period: Period, stopped: PeriodStopped) -> State[Any]:
    """Say how a run ends whose period goes no further for now; incidents tell people of it."""
    if isinstance(stopped, PeriodPostponed):
        _emit("waiting", period, {"reason": str(stopped)})
        return Completed(name="Waiting", message=str(stopped))
    uncertain = isinstance(stopped, PeriodUncertain)
    return Failed(name="Uncertain" if uncertain else "Failed", message=str(stopped))


def _emit(what: str, period: Period, payload: dict[str, Any]) -> None:
    emit_event(
        event=f"kvitt.period.{what}",
        resource={
            "prefect.resource.id": f"kvitt.integration.{period.integration_id}",
            "prefect.resource.name": period.integration_id,
        },
        payload={"period": period.key, **payload},
    )


async def _trigger(told: str | None) -> Trigger:
    """Tell who asked: what we were told, or what Prefect knows of this run."""
    run = _flow_run()
    if run is None:
        return Trigger(kind=told or "person")
    return Trigger(
        kind=told or ("schedule" if run.auto_scheduled else "person"),
        scheduled_at=run.expected_start_time,
        picked_up_at=await _picked_up_at(run),
        flow_run=str(run.id),
    )


async def _picked_up_at(run: FlowRun) -> datetime | None:
    """Say when a worker took this run up: it makes it Pending before it starts its process."""
    async with get_client() as prefect:
        states = await prefect.read_flow_run_states(run.id)
    return min((s.timestamp for s in states if s.type is StateType.PENDING), default=None)


def _flow_run() -> FlowRun | None:
    context = FlowRunContext.get()
    return None if context is None else context.flow_run


async def _rename_run(key: str) -> None:
    """Say integration and period in the run's name, once the ledger has told the period."""
    run = _flow_run()
    if run is None:
        return
    async with get_client() as prefect:
        await prefect.update_flow_run(run.id, name=key)
