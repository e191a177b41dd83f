"""A stand-in for pg_net and one for Vault, which no package registry has.

    install_vault(url); install_pg_net(url)      # the schemas vault and net, with their tables
    start_pg_net(home, postgres)                 # the process that sends

Of pg_net it has what matters to a caller: `net.http_post` with its signature puts a request into
an unlogged queue and returns its number; a worker takes it once the transaction is committed, sends
it beside others, and writes what came of it to the unlogged table `net._http_response`. The real
one is a background worker of Postgres, with libcurl; this one is a process with a connection. Of
its own it has `net.sandbox_sent`: when each request left.

Vault's stand-in has the view and the function that callers use. It encrypts nothing.
"""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx
import psycopg

from sandbox.processes import CHECKOUT

if TYPE_CHECKING:
    from sandbox.postgres import Postgres
    from sandbox.processes import Home, Process

_URL = "KVITT_PG_NET_DATABASE"
_READY = "pg_net: ready"
_POLL_SECONDS = 0.02
_BATCH = 200

_PG_NET = """
create schema net;
create unlogged table net.http_request_queue (
  id bigserial primary key, method text not null, url text not null, headers jsonb, body bytea,
  timeout_milliseconds integer not null
);
create unlogged table net._http_response (
  id bigint, status_code integer, content_type text, headers jsonb, content text,
  timed_out boolean, error_msg text, created timestamptz not null default now()
);
create unlogged table net.sandbox_sent (id bigint, url text, body jsonb, sent_at timestamptz);
create function net.http_post(
  url text, body jsonb default '{}', params jsonb default '{}',
  headers jsonb default '{"Content-Type": "application/json"}',
  timeout_milliseconds integer default 5000
) returns bigint language sql as $$
  insert into net.http_request_queue (method, url, headers, body, timeout_milliseconds)
  values ('POST', url, headers, convert_to(body::text, 'UTF8'), timeout_milliseconds) returning id
$$;
"""

_VAULT = """
create schema vault;
create table vault.secrets (id uuid primary key default gen_random_uuid(), name text unique,
  description text not null default '', secret text not null);
create view vault.decrypted_secrets as
  select id, name, description, secret, secret as decrypted_secret from vault.secrets;
create function vault.create_secret(
  new_secret text, new_name text default null, new_description text default ''
) returns uuid language sql as $$
  insert into vault.secrets (name, description, secret)
  values (new_name, new_description, new_secret) returning id
$$;
"""


def install_pg_net(url: str) -> None:
    """Make the schema `net` in a database."""
    _execute(url, _PG_NET)


def install_vault(url: str) -> None:
    """Make the schema `vault` in a database."""
    _execute(url, _VAULT)


def start_pg_net(home: Home, postgres: Postgres) -> Process:
    """Start the process that sends what is in the queue of the database `postgres`."""
    return home.spawn(
        "pg-net",
        [sys.executable, "-m", "sandbox.pg_net"],
        env={_URL: postgres.url()},
        cwd=CHECKOUT,
        ready=lambda process: _READY in process.output(),
    )


def _execute(url: str, statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as database:
        database.execute(statements.encode())


async def _serve(url: str) -> None:
    """Take requests from the queue and send them, many at once, until told to end."""
    async with (
        await psycopg.AsyncConnection.connect(url, autocommit=True) as database,
        httpx.AsyncClient(trust_env=False) as http,
        asyncio.TaskGroup() as sending,
    ):
        print(_READY, flush=True)
        while True:
            taken = await database.execute(
                """
                delete from net.http_request_queue where id in
                  (select id from net.http_request_queue order by id limit %s)
                returning id, url, headers, body, timeout_milliseconds
                """,
                [_BATCH],
            )
            for request in await taken.fetchall():
                sending.create_task(_send(database, http, *request))
            await asyncio.sleep(_POLL_SECONDS)


async def _send(
    database: psycopg.AsyncConnection,
    http: httpx.AsyncClient,
    number: int,
    url: str,
    headers: dict[str, str],
    body: bytes,
    milliseconds: int,
) -> None:
    sent_at = datetime.now(UTC)
    outcome: dict[str, Any] = {"status": None, "kind": None, "content": None, "error": None}
    timed_out = False
    try:
        async with asyncio.timeout(milliseconds / 1000):
            answer = await http.post(url, headers=headers, content=body, timeout=None)
        kind = answer.headers.get("content-type")
        outcome |= {"status": answer.status_code, "kind": kind, "content": answer.text}
    except TimeoutError:
        timed_out, outcome["error"] = True, f"Timeout of {milliseconds} ms reached"
    except httpx.HTTPError as error:
        outcome["error"] = type(error).__name__
    await database.execute(
        """
        with sent as (insert into net.sandbox_sent
          values (%(id)s, %(url)s, convert_from(%(body)s, 'UTF8')::jsonb, %(sent_at)s))
        insert into net._http_response
          (id, status_code, content_type, content, timed_out, error_msg)
        values (%(id)s, %(status)s, %(kind)s, %(content)s, %(timed_out)s, %(error)s)
        """,
        {
            **outcome,
            "id": number,
            "url": url,
            "body": body,
            "sent_at": sent_at,
            "timed_out": timed_out,
        },
    )


if __name__ == "__main__":
    asyncio.run(_serve(os.environ.pop(_URL)))
