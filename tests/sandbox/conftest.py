"""One local Supabase for all tests of this folder, with a project of their own."""

import os
from collections.abc import AsyncGenerator, Generator
from dataclasses import asdict
from pathlib import Path

import httpx
import psycopg
import pytest
from supabase import AsyncClient, AsyncClientOptions, create_async_client

from sandbox.edge import Limits
from sandbox.processes import Home
from sandbox.supabase import Supabase

PROJECT = Path(__file__).with_name("project")


@pytest.fixture
def home() -> Generator[Home]:
    with Home.open(f"test-{os.getpid()}") as home:
        yield home


@pytest.fixture(scope="session")
def running_supabase() -> Generator[Supabase]:
    with Home.open(f"tests-{os.getpid()}") as home:
        supabase = Supabase.start(home, PROJECT)
        with psycopg.connect(supabase.database_url) as connection:
            for migration in sorted(PROJECT.glob("supabase/migrations/*.sql")):
                connection.execute(migration.read_bytes())
        supabase.reload_schema()
        yield supabase


@pytest.fixture
def supabase(running_supabase: Supabase) -> Supabase:
    running_supabase.functions.change(**asdict(Limits()))
    running_supabase.functions.end_workers()
    return running_supabase


@pytest.fixture(scope="session")
async def http() -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
        yield client


@pytest.fixture
async def client(supabase: Supabase, http: httpx.AsyncClient) -> AsyncClient:
    options = AsyncClientOptions(httpx_client=http)
    return await create_async_client(supabase.url, supabase.secret_key, options)


@pytest.fixture
async def stranger(supabase: Supabase, http: httpx.AsyncClient) -> AsyncClient:
    options = AsyncClientOptions(httpx_client=http)
    return await create_async_client(supabase.url, supabase.publishable_key, options)
