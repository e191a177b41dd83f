"""The core services: the Edge Function answers its contract, and the vendors can be worked with."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import httpx

from kvitt.checkpoint import books
from kvitt.checkpoint.items import Awaits, Broken, Group, NotApplicable, each, once
from kvitt.checkpoint.rehearsal import rehearsal
from kvitt.checkpoint.schema import in_short
from kvitt.domain.errors import BudgetSpent, FunctionFailed, LeaseLost, Refused, Unsent
from kvitt.domain.integrations import Timeouts
from kvitt.domain.periods import PeriodState
from kvitt.edge import EdgeFunction
from kvitt.vendors import VENDORS

if TYPE_CHECKING:
    from kvitt.checkpoint.site import Site
    from kvitt.domain.integrations import Integration
    from kvitt.domain.periods import Period
    from kvitt.ports import Page

_PINGS = 20  # there may be many workers behind its address, and each has to boot once
_CONTRACT = "Put it right by docs/edge-function.md; kvitt's own: supabase functions deploy collect"


@once(
    "function",
    Group.SERVICES,
    checks="the Edge Function answers a ping, and is warm after a few",
    why="It freezes each period's batch.",
    remedy="Deploy it (supabase functions deploy collect); if it is there and does not start, see "
    "its logs in Supabase",
    needs=("key",),
)
async def function(site: Site) -> str:
    """Ping it until it is warm."""
    collector, within = _function(site), Timeouts().ping
    for pings in range(1, _PINGS + 1):
        try:
            pong = await collector.ping(within=within)
        except FunctionFailed as error:
            raise Broken(str(error)) from error
        if not pong.booted:
            return f"warm at ping {pings}, in {pong.reply_ms:.0f} ms"
    raise Broken(f"it says in each of {_PINGS} answers that it had to boot", remedy=_CONTRACT)


@once(
    "function-page",
    Group.SERVICES,
    checks="the Edge Function freezes an empty batch as its contract says",
    why="What it says of a batch decides what is exported.",
    remedy=_CONTRACT,
    needs=("function", "guards", "grants"),
)
async def function_page(site: Site) -> str:
    """Collect for a period of nobody's, which is removed again."""
    who = _anybody(site)
    async with rehearsal(site, who) as answer:
        period, began = answer.period, time.monotonic()
        page = await _collect(_function(site, who), period)
        took = time.monotonic() - began
        kept = await site.ledger.read_period(period.integration_id, period.due_at)
    if _batch(page) != (period.key, 0, 0, True):
        raise Broken(f"to an empty period it says {page.model_dump_json()}")
    if kept.state is not PeriodState.COLLECTED:
        raise Broken("it says that the batch is frozen, and the ledger has not frozen it")
    return f"an empty page in {took * 1000:.0f} ms"


@once(
    "function-again",
    Group.SERVICES,
    checks="called again, the Edge Function says the same; with an outdated lease, it says KV001",
    why="A reply that is lost makes kvitt call again; and whoever lost the lease has to hear it.",
    remedy=_CONTRACT,
    needs=("function-page",),
)
async def function_again(site: Site) -> str:
    """Collect twice, and once with the fence before it."""
    who = _anybody(site)
    async with rehearsal(site, who) as answer:
        period, collector = answer.period, _function(site, who)
        first, second = await _collect(collector, period), await _collect(collector, period)
        # That another worker answered, which had to boot, is no difference.
        if _batch(first) != _batch(second):
            raise Broken(f"first {first.model_dump_json()}, then {second.model_dump_json()}")
        try:
            await collector.collect(period.model_copy(update={"fence": period.fence - 1}), page=1)
        except LeaseLost:
            return "the same answer twice, and KV001 for an outdated lease"
        except FunctionFailed as error:
            raise Broken(f"with an outdated lease it does not say KV001: {error}") from error
    raise Broken("it takes an outdated lease")


@once(
    "function-strangers",
    Group.SERVICES,
    checks="the Edge Function freezes nothing for a caller without a key",
    why="Everybody can reach its address.",
    remedy="Let it pass the caller's key on to the database, as docs/edge-function.md says, and "
    "use none of its own",
    needs=("function-page",),
)
async def function_strangers(site: Site) -> str:
    """Call it as anybody could who guesses a period's name."""
    who = _anybody(site)
    async with rehearsal(site, who) as answer:
        period = answer.period
        body = {
            "key": period.key,
            "integration": period.integration_id,
            "due_at": period.due_at.isoformat(),
            "fence": period.fence,
            "page": 1,
        }
        try:
            reply = await site.http.post(f"{site.url}/functions/v1/collect", json=body)
        except httpx.HTTPError as error:
            raise Broken(f"without a key it does not answer ({type(error).__name__})") from error
    if reply.is_success:
        raise Broken(f"without a key it answers {reply.status_code}, and works")
    return f"without a key it answers {reply.status_code}"


@each(
    "mapping",
    Group.SERVICES,
    checks="its mapping can work with its vendor",
    why="What can never work would set each voucher aside.",
    remedy="Correct the mapping where it says: kvitt integrations import FILE.yaml",
)
async def mapping(site: Site, who: Integration) -> str:
    """Look without asking the vendor."""
    del site
    if found := VENDORS[who.vendor].mapping_objections(who.mapping):
        raise Broken(in_short([f"mapping.{'.'.join(place)}: {words}" for place, words in found]))
    return f"{len(who.mapping.accounts)} accounts, {len(who.mapping.dimensions)} dimensions"


@each(
    "vendor",
    Group.SERVICES,
    checks="its accounting system answers",
    why="Exports go there.",
    remedy="See the vendor's status page, and the API URL in the block; if this machine may not "
    "reach it, open the way out",
    needs=("connection", "functions", "grants"),
)
async def vendor(site: Site, who: Integration) -> str:
    """Ask for a sign of life, once for all integrations of a connection."""
    try:
        await _probe(site, who)
    except Refused:
        return "it answers"  # what it says is for the next item
    except BudgetSpent:
        raise  # nothing was asked, which says nothing of the vendor
    except Unsent as error:
        raise Broken(str(error)) from error
    return "it answers"


@each(
    "credentials",
    Group.SERVICES,
    checks="its accounting system takes the credentials, and they lead to the company",
    why="Without them nothing is exported, and nothing is read back.",
    remedy="Renew them in the vendor's own settings, put them into the block, and give the app the "
    "rights that docs/vendors lists",
    needs=("vendor",),
)
async def credentials(site: Site, who: Integration) -> str:
    """See what came of the sign of life."""
    try:
        await _probe(site, who)
    except Refused as error:
        raise Broken(str(error)) from error
    return "they are taken"


@each(
    "set-up",
    Group.SERVICES,
    checks="its company is open for posting today, and has no setting that breaks reading back",
    why="What cannot be posted or read back would stop each period.",
    remedy="Change in the accounting system what is named; docs/vendors says where",
    needs=("credentials",),
)
async def set_up(site: Site, who: Integration) -> str:
    """Ask what an export asks the first time, as far as that only reads."""
    client = await site.vendor(who)
    today = who.local(datetime.now(UTC)).date()
    found = await client.misfits(book_currency=who.book_currency, today=today, reads_only=True)
    if found:
        raise Broken(in_short(found))
    return "nothing in it breaks sending or reading back, as far as reading tells"


@each(
    "accounts",
    Group.SERVICES,
    checks="each account that its mapping names is there and open",
    why="A voucher on another one is refused.",
    remedy="Create or open the account in the accounting system, or correct the mapping where it "
    "says",
    needs=("credentials", "mapping"),
)
async def accounts(site: Site, who: Integration) -> str:
    """Ask for them with one request."""
    if found := await books.unknown_accounts(await site.vendor(who), who.mapping):
        raise Broken(in_short(found))
    return f"{len(books.accounts_of(who.mapping))} accounts are there"


@each(
    "dimensions",
    Group.SERVICES,
    checks="each dimension and each value that its mapping names is there",
    why="A voucher with another one is refused.",
    remedy="Create it in the accounting system, or correct the mapping where it says",
    needs=("credentials", "mapping"),
)
async def dimensions(site: Site, who: Integration) -> str:
    """Ask for them with one request, or one for each slot."""
    if found := await books.unknown_dimensions(await site.vendor(who), who.mapping):
        raise Broken(in_short(found))
    values = len(books.values_of(who.mapping))
    return f"{len(who.mapping.dimensions)} dimensions and {values} values are there"


ITEMS = (
    function,
    function_page,
    function_again,
    function_strangers,
    mapping,
    vendor,
    credentials,
    set_up,
    accounts,
    dimensions,
)


def _function(site: Site, who: Integration | None = None) -> EdgeFunction:
    timeouts = Timeouts() if who is None else who.timeouts
    return EdgeFunction(site.client, seconds=timeouts.function)


def _anybody(site: Site) -> Integration:
    """Return an integration that can be read, whatever the others are: the table is read by now."""
    if site.integrations is None:
        raise Awaits("integrations", "it needs an integration")
    if not site.integrations:
        raise NotApplicable("there are no integrations yet")
    return site.integrations[0]


async def _collect(collector: EdgeFunction, period: Period) -> Page:
    try:
        return await collector.collect(period, page=10)
    except (FunctionFailed, LeaseLost) as error:
        raise Broken(str(error)) from error


def _batch(page: Page) -> tuple[str, int, int, bool]:
    return page.key, page.taken, page.total, page.done


async def _probe(site: Site, who: Integration) -> None:
    client = await site.vendor(who)
    await site.once(("probe", who.vendor, who.connection), client.probe)
