"""HTTP to the vendors: what became of a request, and who sends it again. Nobody else retries.

| what happened | a write | a read |
|---|---|---|
| it never left us | again, at last Unsent | again, at last Unsent |
| a limit turned it away (429) | again, at last TurnedAway, a kind of Unsent | the same |
| no reply, 408, 5xx, a reply that cannot be read | Uncertain, at once | again, at last Unsent |
| 401 | Unauthorised, a kind of Refused | Unauthorised |
| JSON that lacks a field | Uncertain, at once | Refused, with the field's name |
| anything else that is no success | Refused | Refused |

A vendor adds what its own error codes mean. A call waits for one of the places that the vendor has,
and keeps it while it is made again; each try takes a request out of the budget, and asks a write's
guard last whether it may still be sent.
Where the budget is spent, no request is made: BudgetSpent, a kind of Unsent. Messages quote what
the vendor said, without the secrets that `conceal` was given, wherever they came back from.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cache
from http import HTTPStatus
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Annotated, Self, TypeVar
from urllib.parse import urlsplit

import httpx
import stamina
from pydantic import AfterValidator, SecretStr, ValidationError

from kvitt.domain.budget import Purpose  # noqa: TC001 - vendors take it from here
from kvitt.domain.errors import Refused, TurnedAway, Uncertain, Unsent, VendorError
from kvitt.domain.patience import LONGEST_WISH
from kvitt.ports import ANSWER, Uncounted

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Collection, Mapping
    from types import TracebackType

    from kvitt.domain.integrations import Timeouts
    from kvitt.ports import Budget, Guard

T = TypeVar("T")

# Raised before the first byte of a request is written: no connection was made, or none was free.
_NEVER_LEFT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_LONGEST_QUOTE = 500
_SERVER_ERRORS = 500
_MOST_FIELDS = 3


def is_loopback(url: str) -> bool:
    """Whether an address is on this machine."""
    return urlsplit(url).hostname in _LOOPBACK


def _check_address(url: str) -> str:
    if urlsplit(url).scheme != "https" and not is_loopback(url):
        raise ValueError(f"{url!r} does not begin with https://, and secrets are sent there")
    return url.rstrip("/")


def _check_secret(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value().strip()
    if not text or not text.isascii() or not text.isprintable():
        raise ValueError("a secret is not empty, and has neither line breaks nor letters like å")
    return SecretStr(text)


Address = Annotated[str, AfterValidator(_check_address)]
Secret = Annotated[SecretStr, AfterValidator(_check_secret)]


class Unauthorised(Refused):
    """The vendor does not know us, or no longer; nothing was executed."""


class Declined(Refused):
    """The vendor refused a call, and said why: `complaint` has it all, `words` is for a receipt."""

    def __init__(
        self,
        message: str,
        complaint: Complaint,
        words: str,
        *,
        culprits: Collection[int] = (),
        of_content: bool = False,
    ) -> None:
        super().__init__(
            message, culprits=dict.fromkeys(sorted(culprits), words), of_content=of_content
        )
        self.complaint = complaint
        self.words = words


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How long to go on by ourselves: tries in all, seconds in all, seconds for one wait.

    Short, since the lease and the flow wait along: the next run goes on where this one gave up.
    """

    tries: int = 5
    total: float = 60
    longest_wait: float = 15


PATIENCE = Patience()
ONCE = Patience(tries=1)
"""For a probe: what came of it is the answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One request. `what` says it to a person. It is a write if it has a guard, and only then."""

    what: str
    purpose: Purpose
    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    content: str | None = field(default=None, repr=False)
    guard: Guard | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Complaint:
    """What a vendor says where it does not say yes.

    `words` is the message without what only the vendor's support can read, where there is that.
    """

    status: int
    code: str = ""
    message: str = ""
    words: str = ""
    retry_after: timedelta | None = None


@cache
def _trust() -> ssl.SSLContext:
    """Return the certificates that we trust. Reading them takes 100 ms, once in a process."""
    return httpx.create_ssl_context()


class Line:
    """What clients share that ask a little each, as probes do: `most` connections, kept open.

    Not for long: vendors close what idles for minutes, and one that died on the way looks like an
    outage. It keeps no cookies, which would go to other clients' requests.
    """

    def __init__(self, *, most: int) -> None:
        self.client = httpx.AsyncClient(
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            verify=_trust(),
            limits=httpx.Limits(
                max_connections=most, max_keepalive_connections=most, keepalive_expiry=30
            ),
        )
        self._places: dict[str, asyncio.Semaphore] = {}

    def places(self, principal: str, at_once: int) -> asyncio.Semaphore:
        """Return the places of all who ask as the same principal: the vendor counts them as one."""
        return self._places.setdefault(principal, asyncio.Semaphore(at_once))

    async def close(self) -> None:
        """Close the connections."""
        await self.client.aclose()


class Http:
    """The one client of a run: its connections stay open from call to call, or are those of a line.

    `at_once`, `answer` and `allowance` are the vendor's habits. A write waits for its answer as
    long as the vendor may work on it; a read waits the usual time, and is asked again. On a line,
    all clients of a `principal` have `at_once` places together. `limit` is the last error with
    which a limit turned a call away, even if a further try went through.
    """

    def __init__(
        self,
        vendor: str,
        timeouts: Timeouts,
        *,
        patience: Patience = PATIENCE,
        budget: Budget | None = None,
        at_once: int = 1,
        answer: timedelta = ANSWER,
        allowance: int | None = None,
        line: Line | None = None,
        principal: str = "",
    ) -> None:
        self.requests: Counter[str] = Counter()
        self.limit: TurnedAway | None = None
        self._vendor = vendor
        self._patience = patience
        self._budget = budget or Uncounted()
        self._allowance = allowance
        places = line.places(principal, at_once) if line and principal else None
        self._places = places or asyncio.Semaphore(at_once)
        self._secrets: set[str] = set()
        self._of_a_write = _timeout(timeouts, answer)
        self._of_a_read = _timeout(timeouts, ANSWER)
        # An idle connection is dropped after 5 s (httpx's default, kept): the longer it idles, the
        # likelier the other side closes it under a write, and that would be Uncertain.
        self._shared = line is not None
        self._client = line.client if line else httpx.AsyncClient(verify=_trust())

    def at_most(self, at_once: int) -> None:
        """Make at most so many requests at a time, from now on; nothing is under way yet."""
        self._places = asyncio.Semaphore(at_once)

    async def close(self) -> None:
        """Close the connections, unless they are a line's."""
        if not self._shared:
            await self._client.aclose()

    def conceal(self, secret: SecretStr) -> str:
        """Return a secret's text, for a header or a form; from now on no message shows it."""
        text = secret.get_secret_value()
        self._secrets.add(text)
        return text

    def without_secrets(self, text: str) -> str:
        """Return a text on one line, bounded, without the secrets that were concealed."""
        return self._clean(text)

    async def ask(self, call: Call, read: Callable[[httpx.Response], T]) -> T:
        """Make a call, again where that is safe, and return what `read` makes of the reply.

        `read` gets every reply, whatever its status; it raises ValueError for one that it cannot
        read, and what `verdict` gives for one that is no success. Raises Unsent, Uncertain (of a
        write), Refused, and whatever the guard raises.
        """
        again = stamina.AsyncRetryingCaller(
            attempts=self._patience.tries,
            timeout=self._patience.total,
            wait_initial=0.5,
            wait_max=self._patience.longest_wait,
        )
        request = self._client.build_request(
            call.method,
            call.url,
            headers=dict(call.headers),
            content=call.content,
            timeout=self._of_a_read if call.guard is None else self._of_a_write,
        )
        async with self._places:
            return await again(self._wait_before_another, self._try, call, request, read)

    def verdict(self, call: Call, complaint: Complaint) -> VendorError:
        """Return what a complaint means to the caller, by its HTTP status."""
        why = self.quote(complaint)
        match complaint.status:
            case HTTPStatus.TOO_MANY_REQUESTS:
                return self.turned_away(call, why, retry_after=complaint.retry_after)
            case HTTPStatus.UNAUTHORIZED:
                return Unauthorised(self._words_of_refusal(call, why))
            case status if status == HTTPStatus.REQUEST_TIMEOUT or status >= _SERVER_ERRORS:
                return self.lost(call, why, retry_after=complaint.retry_after)
            case _:
                return self.declined(call, complaint)

    def unsent(self, call: Call, why: str, *, retry_after: timedelta | None = None) -> Unsent:
        """Return the error for a call that was not executed, and may be sent again."""
        return Unsent(
            f"{self._vendor} could not be asked to {call.what}: {why}. Nothing was executed: the "
            "next run asks again",
            retry_after=retry_after,
        )

    def turned_away(
        self, call: Call, why: str, *, retry_after: timedelta | None = None
    ) -> TurnedAway:
        """Return the error for a call that a limit of the vendor's turned away."""
        return TurnedAway(
            f"{self._vendor} turned us away by a limit of its own, asked to {call.what}: {why}. "
            f"Nothing was executed: the next run asks again",
            retry_after=retry_after,
        )

    def lost(
        self,
        call: Call,
        why: str,
        *,
        retry_after: timedelta | None = None,
        refusal: Refused | None = None,
    ) -> VendorError:
        """Return the error for a call whose outcome nobody knows; of a read there is none.

        For `refusal` see `Uncertain`.
        """
        if call.guard is None:
            return self.unsent(call, why, retry_after=retry_after)
        alone = f" (Retry-After: {retry_after.total_seconds():.0f} s)" if retry_after else ""
        return Uncertain(
            f"{self._vendor} was asked to {call.what}, and what came of it is not known: "
            f"{why}{alone}. It is read back before anything is sent again",
            refusal=refusal,
            retry_after=retry_after,
        )

    def refused(self, call: Call, why: str) -> Refused:
        """Return the error for a call that cannot succeed as it is."""
        return Refused(self._words_of_refusal(call, why))

    def declined(
        self,
        call: Call,
        complaint: Complaint,
        *,
        culprits: Collection[int] = (),
        of_content: bool = False,
    ) -> Declined:
        """Return the error for a call that the vendor refused; see `Refused` for the last two."""
        return Declined(
            self._words_of_refusal(call, self.quote(complaint)),
            complaint,
            self._clean(complaint.words or complaint.message) or self.quote(complaint),
            culprits=culprits,
            of_content=of_content,
        )

    def quote(self, complaint: Complaint) -> str:
        """Return a complaint for a person: on one line, bounded, without secrets."""
        said = f"HTTP {complaint.status} {complaint.code}".strip()
        return self._clean(f"{said}: {complaint.message}" if complaint.message else said)

    async def _try(
        self, call: Call, request: httpx.Request, read: Callable[[httpx.Response], T]
    ) -> T:
        reply = await self._exchange(call, request)
        try:
            return read(reply)
        except TurnedAway as limit:
            self.limit = limit
            raise
        except ValueError as error:
            fields = _misfits(error)
            if fields and reply.is_success:
                why = f"its reply is not as kvitt knows it, at {self._clean(fields)}"
                raise self.lost(call, why) if call.guard else self.refused(call, why) from None
            # Without the error's own words: they quote the reply, which may hold a new token.
            why = f"HTTP {reply.status_code} with {len(reply.content)} bytes that cannot be read"
            raise self.lost(call, why) from None

    async def _exchange(self, call: Call, request: httpx.Request) -> httpx.Response:
        """Send once, and count what left us. `from None`, as httpx's errors hold the request.

        The guard comes last: nothing that takes time may lie between it and the request.
        """
        unspend = await self._budget.spend(call.purpose, allowance=self._allowance)
        try:
            if call.guard is not None:
                call.guard()
        except BaseException:
            unspend()
            raise
        self.requests[call.purpose] += 1
        try:
            return await self._client.send(request)
        except _NEVER_LEFT as error:
            self.requests[call.purpose] -= 1
            unspend()
            raise self.unsent(call, self._words_of(error)) from None
        except httpx.HTTPError as error:
            raise self.lost(call, self._words_of(error)) from None

    def _wait_before_another(self, error: Exception) -> bool | float:
        """Answer stamina: never, after the usual back-off, or after so many seconds."""
        if not isinstance(error, Unsent):
            return False
        if error.retry_after is None:
            return True
        wait = error.retry_after.total_seconds()
        jitter = random.uniform(0, 1)  # noqa: S311 - spreads load, guards nothing
        return wait + jitter if wait <= self._patience.longest_wait else False

    def _words_of_refusal(self, call: Call, why: str) -> str:
        return (
            f"{self._vendor} refused to {call.what}: {why}. Asking again does not help before a "
            "person has mended what this says"
        )

    def _words_of(self, error: httpx.HTTPError) -> str:
        return self._clean(f"{type(error).__name__} {error}".strip())

    def _clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "(secret)")
        return " ".join(text.split())[:_LONGEST_QUOTE].rstrip(".")


class OverHttp:
    """What vendors that are reached over HTTP have in common: one connection, closed at the end.

    `_http` is set by the vendor.
    """

    _http: Http

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.close()

    @property
    def requests(self) -> Mapping[str, int]:
        """Requests spent so far, by purpose. Those that a limit turned away are among them."""
        return self._http.requests

    @property
    def limit(self) -> TurnedAway | None:
        """How a limit turned us away the last time, if one did."""
        return self._http.limit

    def at_most(self, at_once: int) -> None:
        """Make at most so many requests at a time, from now on; nothing is under way yet."""
        self._http.at_most(at_once)


def _timeout(timeouts: Timeouts, usual: timedelta) -> httpx.Timeout:
    answer = usual.total_seconds() if timeouts.read is None else timeouts.read
    return httpx.Timeout(connect=timeouts.connect, read=answer, write=answer, pool=timeouts.pool)


def _misfits(error: ValueError) -> str:
    """Name the fields of a JSON reply that are missing or of another kind, without their values."""
    if not isinstance(error, ValidationError):
        return ""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    if any(each["type"] == "json_invalid" for each in found):
        return ""
    places = [".".join(str(part) for part in each["loc"]) or "its top" for each in found]
    return ", ".join(
        f"{place} ({each['type']})"
        for place, each in zip(places, found[:_MOST_FIELDS], strict=False)
    )


def retry_after(reply: httpx.Response) -> timedelta | None:
    """Return how long a reply's Retry-After asks us to wait: seconds or a date (RFC 9110).

    It is LONGEST_WISH at most.
    """
    wish = reply.headers.get("Retry-After", "").strip()
    if wish.isascii() and wish.isdecimal():
        longest = int(LONGEST_WISH.total_seconds())
        digits = wish.lstrip("0") or "0"
        # One digit more than the longest has is more than the longest: the rest says nothing.
        return timedelta(seconds=min(int(digits[: len(str(longest)) + 1]), longest))
    try:
        wait = parsedate_to_datetime(wish) - datetime.now(UTC)
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(wait, timedelta(0)), LONGEST_WISH)
