"""What the shared layer does whoever the vendor is."""

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
import respx
import stamina
from pydantic import SecretStr, ValidationError

from kvitt.domain.errors import Uncertain, Unsent
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


async def test_messages_are_bounded_on_one_line_and_without_secrets() -> None:
    http = Http("Books", Timeouts())
    http.conceal(SecretStr("hush"))
    words = http.quote(Complaint(status=400, code="Bad", message="hush\n" + "x" * 9_999))
    assert words.startswith("HTTP 400 Bad: (secret) xxx")
    assert len(words) == 500


@pytest.mark.parametrize(
    ("header", "seconds"), [("17", 17), ("", None), ("soon", None), ("-3", None), ("1.5", None)]
)
def test_retry_after_is_seconds(header: str, seconds: int | None) -> None:
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
    assert sorted(VENDORS) == ["business-central", "xledger"]
