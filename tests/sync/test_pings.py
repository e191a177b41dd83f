"""A watcher outside is told of each start and end, and disturbs nothing; its address is secret."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from kvitt.domain.errors import FunctionFailed, PeriodFailed
from kvitt.pings import seen_from_outside
from sandbox.processes import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

RUN = uuid4()
SECRET = "9f0e-not-to-be-shown"


@asynccontextmanager
async def listening(answer: str = "200 OK") -> AsyncGenerator[tuple[str, list[str]]]:
    """Serve a watcher: its address, and what it heard. An empty answer: it never answers."""
    heard: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length")
        )
        body = await reader.readexactly(length)
        target = head.split(b" ")[1].decode().replace(SECRET, "…")
        heard.append(f"{target} {body.decode()}".strip())
        if answer:
            head = f"HTTP/1.1 {answer}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            writer.write(head.encode())
            await writer.drain()
        else:
            await asyncio.sleep(30)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/{SECRET}", heard
    finally:
        server.close()


async def test_a_period_that_settles_tells_its_start_and_its_end() -> None:
    async with listening() as (address, heard), seen_from_outside(f"{address}/", RUN):
        pass
    assert heard == [f"/…/start?rid={RUN}", f"/…?rid={RUN}"]


async def test_a_period_that_fails_tells_why() -> None:
    async with listening() as (address, heard):
        with pytest.raises(PeriodFailed):
            async with seen_from_outside(address, RUN):
                raise PeriodFailed("account 7140 is blocked")
    assert heard == [f"/…/start?rid={RUN}", f"/…/fail?rid={RUN} account 7140 is blocked"]


async def test_what_was_interrupted_tells_no_end() -> None:
    async with listening() as (address, heard):
        with pytest.raises(FunctionFailed):
            await _interrupted(address)
    assert heard == [f"/…/start?rid={RUN}"]


async def _interrupted(address: str) -> None:
    async with seen_from_outside(address, RUN):
        await asyncio.sleep(0.5)
        raise FunctionFailed("it does not boot")


async def test_without_an_address_nobody_is_told() -> None:
    async with seen_from_outside(None, RUN):
        pass


@pytest.mark.parametrize("answer", ["500 Sorry", "404 Not found"])
async def test_a_watcher_that_answers_badly_disturbs_nothing(
    answer: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening(answer) as (address, heard), seen_from_outside(address, RUN):
        pass
    assert len(heard) == 2
    assert f"answered a ping with {answer[:3]}" in caplog.text


async def test_a_watcher_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvitt.pings._SECONDS", 0.3)
    async with listening("") as (address, _), seen_from_outside(address, RUN):
        pass


@pytest.mark.parametrize("address", ["http://127.0.0.1:{port}/" + SECRET, f"ftp:{SECRET}", SECRET])
async def test_an_address_that_leads_nowhere_is_in_no_log(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("httpx").setLevel(logging.INFO)
    async with seen_from_outside(address.format(port=free_port()), RUN):
        pass
    assert "could not be pinged" in caplog.text
    assert SECRET not in caplog.text


async def test_the_address_is_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with listening() as (address, heard), seen_from_outside(address, RUN):
        pass
    assert len(heard) == 2
    assert SECRET not in caplog.text
