"""Prefect servers on Postgres, and workers for them, as processes of the sandbox.

On SQLite, Prefect crashed 3 to 20 of 50 simultaneous runs (measured); on Postgres none. So wherever
kvitt starts Prefect, it gives it a Postgres database.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import httpx
import psycopg

from sandbox.processes import CHECKOUT, StartError, free_port

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sandbox.postgres import Postgres
    from sandbox.processes import Home, Process

# The first start migrates Prefect's database: 24 s measured on two slow cores.
_START_SECONDS = 120
_DATABASE = "prefect"


@dataclass(kw_only=True)
class PrefectServer:
    """A running Prefect server. `env` is what a client or worker needs to find it.

    `settings` are the server's own, its database among them.
    """

    url: str
    env: dict[str, str]
    process: Process
    home: Home
    settings: Mapping[str, str]

    @classmethod
    def start(
        cls, home: Home, postgres: Postgres, *, settings: Mapping[str, str] | None = None
    ) -> Self:
        """Start a server with a database of its own. Raises StartError."""
        _check_extension(postgres)
        database = _for_asyncpg(postgres.create_database(_DATABASE))
        settings = {**(settings or {}), "PREFECT_API_DATABASE_CONNECTION_URL": database}
        return cls._start("prefect-server", home, home.path / "prefect", settings)

    def start_another(self, name: str) -> Self:
        """Start one more on the same database, as on another machine: it shares no file with us.

        The database is migrated already, once.
        """
        settings = {**self.settings, "PREFECT_SERVER_DATABASE_MIGRATE_ON_START": "false"}
        return self._start(name, self.home, self.home.path / name, settings)

    @classmethod
    def _start(cls, name: str, home: Home, folder: Path, settings: Mapping[str, str]) -> Self:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        env = _environment(folder, url)
        process = home.spawn(
            name,
            [*_prefect(), "server", "start", "--host", "127.0.0.1", "--port", str(port)],
            env={**env, **settings},
            ready=lambda _: _healthy(url),
            timeout=_START_SECONDS,
        )
        return cls(url=url, env=env, process=process, home=home, settings=settings)

    def start_worker(self, pool: str, *options: str, name: str = "worker") -> Process:
        """Start a worker of the pool's type; it asks for runs each two seconds."""
        # Prefect's runner makes a folder of a fixed name in the temporary directory, and whoever
        # made it first on this machine keeps all others out.
        temporary = self.home.path / "tmp"
        temporary.mkdir(exist_ok=True)
        return self.home.spawn(
            name,
            [*_prefect(), "worker", "start", "--pool", pool, "--name", name, *options],
            env={
                "PREFECT_WORKER_QUERY_SECONDS": "2",
                "KVITT_WORKER_GRACE": "5",
                "TMPDIR": str(temporary),
                **self.env,
            },
            cwd=CHECKOUT,
            grace=10,
            ready=lambda process: f"Worker '{name}' started!" in process.output(),
            timeout=_START_SECONDS,
        )

    def latest_run(self, deployment: str) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the latest ended run of `flow/name`, and its tasks' names and states in order."""
        flow, name = deployment.split("/")
        run = self._ask(
            "flow_runs",
            {
                "flows": {"name": {"any_": [flow]}},
                "deployments": {"name": {"any_": [name]}},
                "flow_runs": {"state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED"]}}},
                "sort": "END_TIME_DESC",
                "limit": 1,
            },
        )[0]
        tasks = self._ask("task_runs", {"flow_runs": {"id": {"any_": [run["id"]]}}})
        ordered = sorted(tasks, key=lambda task: task["expected_start_time"])
        return run, {t["name"].split(" ")[0]: t["state"]["name"] for t in ordered}

    def _ask(self, what: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        answer = httpx.post(f"{self.url}/api/{what}/filter", json=body, trust_env=False)
        return answer.raise_for_status().json()


def _check_extension(postgres: Postgres) -> None:
    """Say it in words; Prefect would fail in the middle of its migrations."""
    with psycopg.connect(postgres.url()) as database:
        query = "select from pg_available_extensions where name = 'pg_trgm'"
        if database.execute(query).fetchone() is None:
            raise StartError(
                "this Postgres has no pg_trgm, which Prefect needs: install its contrib package "
                "(postgresql-contrib), or name another Postgres in KVITT_POSTGRES_BIN"
            )


def _prefect() -> list[str]:
    return [sys.executable, "-m", "prefect"]


def _environment(folder: Path, url: str) -> dict[str, str]:
    """Keep Prefect's files in a folder of the home, and the user's own profile out of it."""
    return {
        "PREFECT_HOME": str(folder),
        "PREFECT_PROFILES_PATH": str(folder / "profiles.toml"),
        "PREFECT_API_URL": f"{url}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_CLI_COLORS": "false",
        # The memo store is a file per home; without it each start checks all block types again.
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
    }


def _for_asyncpg(url: str) -> str:
    return url.replace("postgresql://", "postgresql+asyncpg://", 1)


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/api/health", timeout=2, trust_env=False).is_success
    except httpx.TransportError:
        return False
