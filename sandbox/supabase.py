"""A local Supabase made of the real parts: Postgres, PostgREST, Edge Functions behind one URL.

    with Home.open("demo") as home:
        supabase = Supabase.start(home)          # Supabase.start(home, project=Path("…"))
        migrate(supabase.database_url)           # yours: plain Postgres, as its superuser
        supabase.reload_schema()                 # now PostgREST has seen it for certain
        client = await create_async_client(supabase.url, supabase.secret_key)

        supabase.functions.change(memory_mb=64, failing_boots=1)  # see sandbox.edge.Limits
        supabase.functions.end_workers()         # the next call is a cold start
        supabase.functions.counts("collect")     # {"invocations": 3, "boots": 1, "statuses": …}

        supabase.postgrest.process.stop()        # or .kill(), .pause(), .resume(), .restart()
        supabase.postgres.kill(); supabase.postgres.restart()
        supabase.gateway.restart()               # all of them come back at the same address

Everything ends when the home is closed, or when we die.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx

from sandbox.gateway import Keys, Settings, read_config
from sandbox.postgres import Postgres
from sandbox.postgrest import Postgrest
from sandbox.processes import CHECKOUT, Home, Process


@dataclass(frozen=True, kw_only=True)
class Functions:
    """The sandbox's hold on the Edge Functions."""

    url: str
    secret_key: str

    def change(self, **limits: float) -> None:
        """Change limits (the fields of `sandbox.edge.Limits`), from the next request on."""
        self._ask("PATCH", "", limits)

    def end_workers(self) -> None:
        """End all workers, so that the next request of each function is a cold start."""
        self._ask("POST", "/end")

    def counts(self, name: str) -> dict[str, Any]:
        """Return `{"invocations": int, "boots": int, "statuses": {"200": int}}` of a function."""
        nothing: dict[str, Any] = {"invocations": 0, "boots": 0, "statuses": {}}
        return self._ask("GET", "").json()["functions"].get(name, nothing)

    def _ask(self, method: str, path: str, body: object = None) -> httpx.Response:
        url, headers = f"{self.url}/_sandbox/functions{path}", {"apikey": self.secret_key}
        answer = httpx.request(method, url, headers=headers, json=body, trust_env=False)
        return answer.raise_for_status()


@dataclass(kw_only=True)
class Supabase:
    """A running local Supabase."""

    url: str
    keys: Keys
    postgres: Postgres
    postgrest: Postgrest
    gateway: Process

    @classmethod
    def start(
        cls, home: Home, project: Path = CHECKOUT, *, postgres: Postgres | None = None
    ) -> Self:
        """Start all parts for the project whose `supabase` folder this is. Raises StartError.

        `postgres` is one that runs already, as where it is to have pg_cron.
        """
        keys = Keys.generate()
        postgres = postgres or Postgres.start(home)
        api = read_config(project / "supabase").get("api", {})
        postgrest = Postgrest.start(home, postgres, jwt_secret=keys.jwt_secret, api=api)
        settings = Settings(
            project=str(project),
            home=str(home.path),
            postgrest_url=postgrest.url,
            database_url=postgres.url(),
            keys=keys,
        )
        gateway = home.serve(
            "gateway", [sys.executable, "-m", "sandbox.gateway"], env=settings.to_environment()
        )
        return cls(
            url=gateway.url, keys=keys, postgres=postgres, postgrest=postgrest, gateway=gateway
        )

    @property
    def secret_key(self) -> str:
        """The `sb_secret_…` key: the role service_role."""
        return self.keys.secret

    @property
    def publishable_key(self) -> str:
        """The `sb_publishable_…` key: the role anon."""
        return self.keys.publishable

    @property
    def database_url(self) -> str:
        """The database of the project, as its superuser: for migrations."""
        return self.postgres.url()

    @property
    def functions(self) -> Functions:
        """The hold on the Edge Functions."""
        return Functions(url=self.url, secret_key=self.secret_key)

    def reload_schema(self) -> None:
        """Return when PostgREST knows the schema as it is now."""
        self.postgrest.reload_schema()
