"""Everything at once: the local Supabase, both vendors, a Prefect server, a worker, and the set-up.

    with Home.open("demo") as home:
        stack = Stack.start(home, say=print)
        stack.set_up_and_load(say=print)
        stack.run("prefect", "deployment", "run", "sync/nordvest-xledger", "--watch")

What is set up here is set up with the commands that a person would type, so that they are tried
each time. Only the blocks are saved from Python, where a person would use the Prefect UI.
"""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx
import yaml

from kvitt.domain.calendar import due_before
from sandbox import claims
from sandbox.audit import audit
from sandbox.prefect_server import PrefectServer
from sandbox.processes import CHECKOUT, inherited_environment
from sandbox.supabase import Supabase
from sandbox.vendors import setup

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sandbox.audit import Findings
    from sandbox.postgres import Postgres
    from sandbox.processes import Home, Process

EXAMPLES = CHECKOUT / "examples"
POOL = "kvitt"
_COMMAND_SECONDS = 180
_CLAIMS = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """An integration with its approved records in the ledger, and where its books are."""

    integration: str
    file: Path
    mapping: Mapping[str, Any]
    vendor_url: str
    company: str

    def audit(self) -> Findings:
        """Compare the vendor's books with what was approved."""
        return audit(self.vendor_url, self.file, self.mapping, self.company)


class CommandFailed(RuntimeError):
    """A command of the set-up failed; the message has what it printed."""


@dataclass(kw_only=True)
class Stack:
    """All parts, running."""

    home: Home
    supabase: Supabase
    xledger: Process
    business_central: Process
    prefect: PrefectServer

    @classmethod
    def start(
        cls,
        home: Home,
        *,
        say: Callable[[str], None],
        project: Path = CHECKOUT,
        postgres: Postgres | None = None,
        prefect_settings: Mapping[str, str] | None = None,
    ) -> Self:
        """Start the parts; nothing is in them yet. Raises StartError.

        `project` is the folder of the Supabase project, where it is another one than ours.
        `prefect_settings` are for the Prefect server, as where there is more than one.
        """
        say("starting Postgres, PostgREST and the Edge Functions")
        supabase = Supabase.start(home, project, postgres=postgres)
        say("starting Xledger and Business Central (simulators)")
        xledger = _vendor(home, "xledger")
        business_central = _vendor(home, "business_central")
        say("starting the Prefect server, on Postgres")
        prefect = PrefectServer.start(home, supabase.postgres, settings=prefect_settings)
        return cls(
            home=home,
            supabase=supabase,
            xledger=xledger,
            business_central=business_central,
            prefect=prefect,
        )

    @property
    def env(self) -> dict[str, str]:
        """What the commands need to find it all."""
        return {
            **self.prefect.env,
            "DATABASE_URL": self.supabase.database_url,
            "SUPABASE_URL": self.supabase.url,
            "SUPABASE_SECRET_KEY": self.supabase.secret_key,
        }

    def set_up(self, *, say: Callable[[str], None]) -> None:
        """Do the first part of what a new user does: migrations and blocks."""
        say("applying the migrations: kvitt migrate")
        self.run("kvitt", "migrate")
        self.supabase.reload_schema()
        say("saving the blocks: the Supabase project and a connection to each vendor")
        self.run_python("-m", "sandbox.connections", given=self._connections())

    def set_up_and_load(self, *, say: Callable[[str], None]) -> list[Loaded]:
        """Do what a new user does: migrations, blocks, integrations, records, deployments."""
        self.set_up(say=say)
        say("importing two integrations, and the claims that were approved: kvitt … import")
        loaded = self._load(EXAMPLES / "integrations.yaml")
        say("applying deployments and automations: kvitt apply, prefect deploy --all")
        self.run("kvitt", "apply")
        self.run("prefect", "--no-prompt", "deploy", "--all")
        self.run("kvitt", "apply")  # an automation names one of those deployments
        return loaded

    def _load(self, example: Path) -> list[Loaded]:
        """Import the example's integrations, each with a first period that has just been due."""
        content = yaml.safe_load(example.read_text())
        for integration in content["integrations"]:
            integration["first_period"] = due_before(
                integration["cron"], integration["time_zone"], due=datetime.now(UTC)
            )
        file = self.home.path / example.name
        file.write_text(yaml.safe_dump(content, allow_unicode=True))
        self.run("kvitt", "integrations", "import", str(file))
        loaded = [self._load_records(integration) for integration in content["integrations"]]
        self.run_each(*(("kvitt", "records", "import", str(one.file)) for one in loaded))
        return loaded

    def _load_records(self, integration: dict[str, Any]) -> Loaded:
        organisation, vendor, company = {
            claims.THEATRE.integration: (claims.THEATRE, self.xledger, setup.THEATRE_ENTITY),
            claims.CLUB.integration: (claims.CLUB, self.business_central, setup.CLUB),
        }[integration["id"]]
        records = claims.approved(organisation, _CLAIMS, before=integration["first_period"])
        file = self.home.path / f"{organisation.integration}.jsonl"
        file.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records))
        return Loaded(
            integration=integration["id"],
            file=file,
            mapping=integration["mapping"],
            vendor_url=vendor.url,
            company=str(company),
        )

    def run(self, *command: str) -> str:
        """Run a command as a person would type it; returns what it printed."""
        return _run([str(Path(sys.executable).parent / command[0]), *command[1:]], self.env)

    def run_python(self, *arguments: str, given: Mapping[str, Any]) -> str:
        """Run Python with JSON on its standard input, where secrets do not show."""
        return _run([sys.executable, *arguments], self.env, given=json.dumps(given))

    def run_each(self, *commands: tuple[str, ...]) -> list[str]:
        """Run commands side by side."""
        with ThreadPoolExecutor(len(commands)) as pool:
            return list(pool.map(self._run_one, commands))

    def run_vendor_jobs(self) -> None:
        """Let the vendors' own jobs run now: Xledger posts what is staged."""
        for vendor in (self.xledger, self.business_central):
            httpx.post(f"{vendor.url}/_sandbox/jobs", trust_env=False).raise_for_status()

    def _run_one(self, command: tuple[str, ...]) -> str:
        return self.run(*command)

    def _connections(self) -> dict[str, Any]:
        return {
            "supabase": {"url": self.supabase.url, "secret_key": self.supabase.secret_key},
            "xledger": {
                "name": "nordvest",
                "token": setup.THEATRE_TOKEN,
                "api_url": f"{self.xledger.url}/graphql",
            },
            "business_central": {
                "name": "fjordby",
                "tenant_id": setup.TENANT,
                "environment": setup.ENVIRONMENT,
                "company_id": setup.CLUB,
                "client_id": setup.CLIENT_ID,
                "client_secret": setup.CLIENT_SECRET,
                "api_url": self.business_central.url,
                "login_url": self.business_central.url,
            },
        }


def _vendor(home: Home, module: str) -> Process:
    books = home.path / f"{module}.db"
    command = [sys.executable, "-m", f"sandbox.vendors.{module}", "--books", str(books)]
    return home.serve(module.replace("_", "-"), command)


def _run(command: list[str], env: Mapping[str, str], *, given: str = "") -> str:
    words = " ".join(Path(part).name for part in command)
    try:
        done = subprocess.run(
            command,
            cwd=CHECKOUT,
            env={**inherited_environment(), **env},
            input=given,
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        printed = (late.stdout or b"").decode(errors="replace")
        raise CommandFailed(f"{words} took over {_COMMAND_SECONDS} s:\n{printed}") from late
    if done.returncode:
        raise CommandFailed(f"{words} failed:\n{done.stdout}{done.stderr}")
    return done.stdout
