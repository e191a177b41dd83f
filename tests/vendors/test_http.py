"""What the shared layer does whoever the vendor is."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
import respx
import stamina
from pydantic import BaseModel, SecretStr, ValidationError

from kvitt.domain.errors import BudgetSpent, LeaseLost, Refused, Uncertain, Unsent
from kvitt.domain.integrations import Timeouts
from kvitt.vendors import VENDORS
from kvitt.vendors.http import Call, Complaint, Http, Patience, Purpose, retry_after
from kvitt.vendors.xledger import XledgerSettings

URL = "https://books.example/"


def a_call(*, writes: bool) -> Call:
    return Call(
        what="book it",
        purpose=Purpose.EXPORT if writes else Purpose.READ_BACK,
        method="POST",
        url=URL,
        guard=(lambda: None) if writes else None,
    )


@dataclass
class Purse:
    """A budget of so many requests."""

    left: int
    asked: list[tuple[str, int | None]] = field(default_factory=list["tuple[str, int | None]"])

    async def spend(self, purpose: Purpose, *, allowance: int | None) -> Callable[[], None]:
        self.asked.append((purpose, allowance))
        if not self.left:
            raise BudgetSpent("nothing is left", retry_after=timedelta(days=3))
        self.left -= 1
        return self._put_back

    def _put_back(self) -> None:
        self.left += 1


def text(reply: httpx.Response) -> str:
    return reply.text


@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout])
@pytest.mark.parametrize("writes", [True, False])
async def test_what_never_left_is_tried_again_then_unsent(
    error: type[httpx.TransportError], *, writes: bool
) -> None:
    http = Http("Books", Timeouts(), patience=Patience(tries=4))
    with respx.mock as router:
        route = router.post(URL).mock(side_effect=error("no way"))
        with pytest.raises(Unsent, match=error.__name__):
            await http.ask(a_call(writes=writes), text)
    assert (route.call_count, http.requests.total()) == (4, 0)


@pytest.mark.parametrize(
    "error",
    [httpx.ReadTimeout, httpx.WriteTimeout, httpx.ReadError, httpx.RemoteProtocolError],
)
async def test_what_left_without_a_reply_is_uncertain_at_once(
    error: type[httpx.TransportError],
) -> None:
    http = Http("Books", Timeouts())
    with respx.mock as router:
        route = router.post(URL).mock(side_effect=error("gone"))
        with pytest.raises(Uncertain, match=error.__name__):
            await http.ask(a_call(writes=True), text)
    assert (route.call_count, http.requests["export"]) == (1, 1)


class Needed(BaseModel):
    """What a test reads of a reply."""

    secret: int


@pytest.mark.parametrize(("writes", "kind"), [(True, Uncertain), (False, Refused)])
async def test_a_field_that_is_missing_or_of_another_kind_is_named_without_its_value(
    kind: type[Exception], *, writes: bool
) -> None:
    http = Http("Books", Timeouts())
    for reply, said in (("{}", "missing"), ('{"secret": "hush"}', "int_parsing")):
        with respx.mock as router:
            route = router.post(URL).mock(return_value=httpx.Response(200, text=reply))
            with pytest.raises(kind, match=rf"at secret \({said}\)") as caught:
                await http.ask(
                    a_call(writes=writes), lambda it: Needed.model_validate_json(it.content)
                )
        assert route.call_count == 1
        assert "hush" not in str(caught.value)


async def test_a_reply_that_is_no_json_is_asked_for_again() -> None:
    http = Http("Books", Timeouts())
    with respx.mock as router:
        router.post(URL).mock(
            side_effect=[httpx.Response(200, text="{"), httpx.Response(200, text='{"secret": 1}')]
        )
        read = await http.ask(
            a_call(writes=False), lambda it: Needed.model_validate_json(it.content)
        )
    assert read.secret == 1


def test_an_uncertain_write_keeps_how_long_the_vendor_wants_to_be_left_alone() -> None:
    http, wait = Http("Books", Timeouts()), timedelta(hours=2)
    said = Complaint(status=503, message="Maintenance", retry_after=wait)
    error = http.verdict(a_call(writes=True), said)
    assert isinstance(error, Uncertain)
    assert error.retry_after == wait
    assert "Maintenance (Retry-After: 7200 s)" in str(error)


async def test_a_read_without_a_reply_is_tried_again() -> None:
    http = Http("Books", Timeouts())
    with respx.mock as router:
        router.post(URL).mock(
            side_effect=[httpx.ReadTimeout("slow"), httpx.Response(200, text="x")]
        )
        assert await http.ask(a_call(writes=False), text) == "x"
    assert http.requests == {"read-back": 2}


async def test_a_retry_after_is_waited_for() -> None:
    def read(reply: httpx.Response) -> str:
        if reply.is_success:
            return reply.text
        raise http.verdict(call, Complaint(status=429, retry_after=retry_after(reply)))

    http, call = Http("Books", Timeouts()), a_call(writes=True)
    busy = httpx.Response(429, headers={"Retry-After": "1"})
    began = time.monotonic()
    with respx.mock as router, stamina.set_testing(False):
        router.post(URL).mock(side_effect=[busy, httpx.Response(200, text="x")])
        assert await http.ask(call, read) == "x"
    assert 1 <= time.monotonic() - began < 3


async def test_no_more_requests_are_under_way_than_the_vendor_takes_at_once() -> None:
    under_way: list[int] = [0]
    most = 0

    async def slow(_: httpx.Request) -> httpx.Response:
        nonlocal most
        under_way[0] += 1
        most = max(most, under_way[0])
        await asyncio.sleep(0.02)
        under_way[0] -= 1
        return httpx.Response(200, text="x")

    http = Http("Books", Timeouts(), at_once=3)
    with respx.mock as router:
        router.post(URL).mock(side_effect=slow)
        await asyncio.gather(*(http.ask(a_call(writes=True), text) for _ in range(10)))
    assert most == 3


async def test_who_is_turned_away_keeps_its_place_until_it_has_asked_again() -> None:
    asked: list[str] = []

    def busy_at_first(request: httpx.Request) -> httpx.Response:
        asked.append(request.content.decode())
        return httpx.Response(429 if len(asked) == 1 else 200)

    def read(reply: httpx.Response) -> None:
        if not reply.is_success:
            raise http.verdict(a_call(writes=True), Complaint(status=reply.status_code))

    http = Http("Books", Timeouts(), at_once=3)
    http.at_most(1)
    with respx.mock as router:
        router.post(URL).mock(side_effect=busy_at_first)
        calls = [replace(a_call(writes=True), content=which) for which in ("first", "second")]
        await asyncio.gather(*(http.ask(call, read) for call in calls))
    assert asked == ["first", "first", "second"]


async def test_what_the_budget_has_nothing_left_for_is_not_asked_nor_tried_again() -> None:
    purse = Purse(2)
    http = Http("Books", Timeouts(), budget=purse, allowance=7)
    with respx.mock as router:
        route = router.post(URL).mock(return_value=httpx.Response(200, text="x"))
        for _ in range(2):
            await http.ask(a_call(writes=True), text)
        with pytest.raises(BudgetSpent):
            await http.ask(a_call(writes=True), text)
    assert route.call_count == 2
    assert http.requests == {"export": 2}
    assert purse.asked == [("export", 7)] * 3


async def test_each_further_try_is_spent_as_well() -> None:
    purse = Purse(3)
    http = Http("Books", Timeouts(), budget=purse)
    with respx.mock as router:
        route = router.post(URL).mock(side_effect=httpx.ReadTimeout("slow"))
        with pytest.raises(BudgetSpent):
            await http.ask(a_call(writes=False), text)
    assert route.call_count == 3


async def test_what_never_left_is_put_back_into_the_budget() -> None:
    purse = Purse(1)
    http = Http("Books", Timeouts(), budget=purse)
    with respx.mock as router:
        router.post(URL).mock(side_effect=[httpx.ConnectError("no way"), httpx.Response(200)])
        await http.ask(a_call(writes=True), text)
    assert purse.left == 0


async def test_the_guard_is_asked_last_and_what_it_stops_is_put_back() -> None:
    """To ask the budget takes time, in which a lease may be lost."""
    purse = Purse(5)

    def guard() -> None:
        raise LeaseLost("it ran out") if purse.left < 5 else AssertionError("asked too early")

    http = Http("Books", Timeouts(), budget=purse)
    with respx.mock, pytest.raises(LeaseLost):
        await http.ask(replace(a_call(writes=True), guard=guard), text)
    assert purse.left == 5
    assert http.requests.total() == 0


async def test_messages_are_bounded_on_one_line_and_without_secrets() -> None:
    http = Http("Books", Timeouts())
    http.conceal(SecretStr("hush"))
    words = http.quote(Complaint(status=400, code="Bad", message="hush\n" + "x" * 9_999))
    assert words.startswith("HTTP 400 Bad: (secret) xxx")
    assert len(words) == 500


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("17", 17),
        ("0", 0),
        ("0000000000017", 17),
        ("", None),
        ("soon", None),
        ("-3", None),
        ("1.5", None),
        ("2678399", 2_678_399),
        ("2678401", 2_678_400),
        ("99999999999999999", 2_678_400),
        ("9" * 5000, 2_678_400),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 2_678_400),
        ("Fri, 31 Dec 9999 23:59:59 -9999", None),
        ("Mon, 01 Jan 0001 00:00:00 +9999", None),
    ],
)
def test_retry_after_is_seconds_and_31_days_at_most(header: str, seconds: int | None) -> None:
    wait = retry_after(httpx.Response(429, headers={"Retry-After": header}))
    assert wait == (None if seconds is None else timedelta(seconds=seconds))


@pytest.mark.parametrize(("ahead", "expected"), [(90, 90), (-90, 0)])
def test_retry_after_is_a_date(ahead: int, expected: int) -> None:
    when = datetime.now(UTC) + timedelta(seconds=ahead)
    reply = httpx.Response(429, headers={"Retry-After": format_datetime(when, usegmt=True)})
    wait = retry_after(reply)
    assert wait is not None
    assert wait.total_seconds() == pytest.approx(expected, abs=2)


@pytest.mark.parametrize("url", ["http://books.example/graphql", "books.example", "ftp://x"])
def test_a_secret_goes_over_tls_or_nowhere(url: str) -> None:
    with pytest.raises(ValidationError, match="https://"):
        XledgerSettings.model_validate({"token": "t", "api_url": url})


def test_a_secret_that_would_break_a_header_is_refused_without_being_shown() -> None:
    with pytest.raises(ValidationError, match="line breaks") as caught:
        XledgerSettings.model_validate({"token": "hush\r\nhush"})
    assert "hush" not in str(caught.value)


def test_settings_do_not_show_their_secret() -> None:
    assert "hush" not in repr(XledgerSettings.model_validate({"token": " hush \n"}))


def test_the_registry_knows_its_vendors() -> None:
    assert sorted(VENDORS) == ["business-central", "dataverse", "xledger"]
