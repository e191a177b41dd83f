"""What replies of PostgREST, Postgres and a gateway mean: asked again, refused, or over for us."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest
import respx

from kvitt.domain.errors import LeaseLost, LedgerRefused
from kvitt.ledger import SupabaseLedger
from kvitt.project import open_project

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

URL = "https://abcdefgh.supabase.co"
DONE = httpx.Response(200, json=True)


@pytest.fixture
async def ledger() -> AsyncGenerator[SupabaseLedger]:
    async with open_project(URL, "sb_secret_of_a_test") as client:
        yield SupabaseLedger(client)


def said(status: int, code: str, message: str = "as PostgREST says it") -> httpx.Response:
    words = {"code": code, "message": message, "details": None, "hint": None}
    return httpx.Response(status, json=words)


@pytest.mark.parametrize(
    "passing",
    [
        said(500, "57014", "canceling statement due to statement timeout"),
        said(500, "57P01", "terminating connection due to administrator command"),
        said(503, "53300", "too many connections for role"),
        said(500, "40001", "could not serialize access"),
        said(503, "PGRST002", "Could not query the database for the schema cache"),
        httpx.Response(502, text="<html>Bad gateway</html>"),
        httpx.Response(504, text=""),
        httpx.ReadTimeout("nothing came"),
    ],
    ids=lambda one: str(getattr(one, "status_code", "silence")),
)
async def test_what_passes_is_asked_again(
    ledger: SupabaseLedger, passing: httpx.Response | Exception
) -> None:
    with respx.mock as supabase:
        asked = supabase.post(path="/rest/v1/rpc/forget_watcher").mock(side_effect=[passing, DONE])
        assert await ledger.forget_watcher("somebody") is True
    assert asked.call_count == 2


@pytest.mark.parametrize(
    ("final", "kind"),
    [
        (said(400, "KV001", "the lease of club@2026-11-25T05:00Z is lost"), LeaseLost),
        (said(403, "42501", "permission denied for function forget_watcher"), LedgerRefused),
        (said(400, "23514", "violates check constraint"), LedgerRefused),
        (said(404, "PGRST202", "Could not find the function"), LedgerRefused),
    ],
)
async def test_what_stays_is_asked_once(
    ledger: SupabaseLedger, final: httpx.Response, kind: type[Exception]
) -> None:
    with respx.mock as supabase:
        asked = supabase.post(path="/rest/v1/rpc/forget_watcher").mock(return_value=final)
        with pytest.raises(kind, match=final.json()["message"]):
            await ledger.forget_watcher("somebody")
    assert asked.call_count == 1
