"""Two Prefect servers on one Postgres and one Redis, warm workers behind each, many integrations.

Each server carries Prefect's background services as well, the case in which they could do a thing
twice. A worker knows one server only, so that one that stops takes its workers' connection along.
"""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
import yaml
from psycopg.rows import dict_row

from sandbox import claims
from sandbox.audit import audit
from sandbox.redis import Redis
from sandbox.stack import EXAMPLES, POOL, Stack
from sandbox.vendors import setup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime
    from pathlib import Path

    from sandbox.audit import Findings
    from sandbox.prefect_server import PrefectServer
    from sandbox.processes import Home, Process

# Slow enough that a period takes some seconds, so that a kill falls into its middle. The companies
# are shared, so their limits on calls are not what is tried.
_VENDOR_SETTINGS: dict[str, dict[str, float]] = {
    "xledger": {"burst_requests": 10**6, "concurrency": 1000, "latency_ms": 300},
    "business-central": {"quota": 10**6, "concurrency": 1000, "latency_ms": 300},
}
# The simulators commit within the call, so what a killed worker left uncertain need not wait for
# the vendors' real settle times, of 10 and 18 minutes.
_LIMITS = {"chunk_lines": 8, "settle": 60, "absence_gap": 10, "first_wait": 30}


@dataclass(kw_only=True)
class Books:
    """One company at a vendor, into which many integrations export, and all that was approved."""

    vendor: str
    url: str
    company: str
    file: Path
    mapping: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def audit(self) -> Findings:
        """Compare it with what was approved, line by line."""
        return audit(self.url, self.file, self.mapping, self.company)


@dataclass(kw_only=True)
class Scene:
    """The running parts. `servers` are the Prefect servers, `workers` go by their names."""

    stack: Stack
    servers: list[PrefectServer]
    books: dict[str, Books]
    workers: dict[str, Process] = field(default_factory=dict[str, "Process"])
    integrations: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    _approved: int = 0

    def start_worker(self, name: str, *, server: PrefectServer, limit: int) -> None:
        """Start a worker that knows this server only. Without a limit, the first takes them all."""
        self.workers[name] = server.start_worker(POOL, "--limit", str(limit), name=name)

    def enrol(self, count: int, *, cron: str, first_period: datetime) -> None:
        """Import integrations of both vendors in turn, and deploy them, as a person would."""
        examples = yaml.safe_load((EXAMPLES / "integrations.yaml").read_text())["integrations"]
        for number in range(count):
            example = examples[number % len(examples)]
            self.books[example["vendor"]].mapping = example["mapping"]
            own = {
                "id": f"{example['vendor']}-{number:02}",
                "cron": cron,
                "time_zone": "UTC",
                "first_period": first_period,
                "limits": _LIMITS,
            }
            if example["vendor"] == "xledger":  # they write into the same books
                own["mapping"] = {**example["mapping"], "source": f"KV{number:02}"}
            self.integrations.append({**example, **own})
        file = self.stack.home.path / "integrations.yaml"
        file.write_text(yaml.safe_dump({"integrations": self.integrations}, allow_unicode=True))
        self.stack.run("kvitt", "integrations", "import", str(file))
        self.stack.run("kvitt", "apply")
        self.stack.run("prefect", "--no-prompt", "deploy", "--all")

    def approve(self, each: int, *, at: datetime) -> None:
        """Have people approve so many claims for each integration, as the app would."""
        file = self.stack.home.path / "approved.jsonl"
        with file.open("w") as imported:
            for one in self.integrations:
                for record in self._records(one, each, at):
                    line = json.dumps(record, ensure_ascii=False) + "\n"
                    imported.write(line)
                    with self.books[one["vendor"]].file.open("a") as approved:
                        approved.write(line)
        self.stack.run("kvitt", "records", "import", str(file))

    def _records(
        self, integration: dict[str, Any], count: int, at: datetime
    ) -> Iterator[dict[str, Any]]:
        foreign = integration["vendor"] == "xledger"
        who = claims.Organisation(integration=integration["id"], foreign=foreign)
        for record in claims.approved(who, count, before=at, seed=self._approved):
            self._approved += 1  # the companies are shared, so that each number is given once
            yield {**record, "id": f"K{self._approved:05}", "approved_at": at.isoformat()}

    def start_runs(self, server: PrefectServer) -> None:
        """Ask a server for a run of each integration, now."""
        for one in self.integrations:
            url = f"{server.url}/api/deployments"
            found = httpx.get(f"{url}/name/sync/{one['id']}", trust_env=False, timeout=60)
            deployment = found.raise_for_status().json()["id"]
            asked = httpx.post(
                f"{url}/{deployment}/create_flow_run", json={}, trust_env=False, timeout=60
            )
            asked.raise_for_status()

    def ask(self, question: str, **values: Any) -> list[dict[str, Any]]:
        """Look into the ledger, or let time pass in it."""
        return _ask(self.stack.supabase.database_url, question, values)

    def ask_prefect(self, question: str, **values: Any) -> list[dict[str, Any]]:
        """Look into the database that the Prefect servers share."""
        return _ask(self.stack.supabase.postgres.url("prefect"), question, values)

    def open_periods(self, until: datetime) -> int:
        """Count the periods that are due and not settled."""
        [found] = self.ask(
            "select count(*) as n from kvitt.periods where due_at <= %(until)s"
            " and state <> 'verified'",
            until=until,
        )
        return found["n"]

    def attempts(self) -> list[dict[str, Any]]:
        """Return all attempts, oldest first, each with its period's key and its worker's name."""
        attempts = self.ask(
            """
            select a.*, p.key, extract(epoch from a.drift)::float8 as late, p.settled_at
              from kvitt.attempts a join kvitt.periods p using (integration_id, due_at)
             order by a.started_at
            """
        )
        runs = self.ask_prefect("select id::text, infrastructure_pid as mark from flow_run")
        marks = {run["id"]: run["mark"] for run in runs}
        return [{**a, "worker": _worker(marks.get(a["flow_run"]))} for a in attempts]

    def at_work(self, worker: str) -> list[dict[str, Any]]:
        """Return the open attempts of a worker."""
        return [a for a in self.attempts() if a["outcome"] is None and a["worker"] == worker]

    def chunks_on_their_way(self) -> int:
        """Count the chunks of which nobody knows yet whether the vendor has them."""
        [found] = self.ask("select count(*) as n from kvitt.chunks where state = 'intended'")
        return found["n"]

    def post_what_is_staged(self) -> None:
        """Let the vendors' own jobs run."""
        self.stack.run_vendor_jobs()


def _worker(mark: str | None) -> str:
    """Return a worker's name: a run's mark is kvitt-warm/<name>/<id of the process>."""
    return mark.split("/")[1] if mark else "?"


def _ask(url: str, question: str, values: dict[str, Any]) -> list[dict[str, Any]]:
    with psycopg.connect(url, autocommit=True, row_factory=dict_row) as database:
        asked = database.execute(question.encode(), values)
        return asked.fetchall() if asked.description else []


@contextmanager
def scene(home: Home, *, sign_of_life: float, say: Callable[[str], None]) -> Iterator[Scene]:
    """Start Postgres, Redis, vendors and two servers; no integration and no worker is there yet."""
    say("starting Redis")
    redis = Redis.start(home)
    stack = Stack.start(home, say=say, prefect_settings=redis.prefect_settings)
    say("starting a second Prefect server on the same database")
    servers = [stack.prefect, stack.prefect.start_another("prefect-server-2")]
    for server in servers:
        server.env["KVITT_WORKER_SIGN_OF_LIFE"] = str(sign_of_life)
    stack.set_up(say=say)
    books = {
        "xledger": _open(stack, "xledger", stack.xledger, setup.THEATRE_ENTITY, setup.XLEDGER),
        "business-central": _open(
            *(stack, "business-central", stack.business_central),
            *(setup.CLUB, setup.BUSINESS_CENTRAL),
        ),
    }
    yield Scene(stack=stack, servers=servers, books=books)


def _open(
    stack: Stack, vendor: str, process: Process, company: object, wishes: dict[str, Any]
) -> Books:
    told = {**wishes, "settings": _VENDOR_SETTINGS[vendor]}
    httpx.post(f"{process.url}/_sandbox/setup", json=told, trust_env=False).raise_for_status()
    file = stack.home.path / f"{vendor}.jsonl"
    file.touch()
    return Books(vendor=vendor, url=process.url, company=str(company), file=file)


def wait_for(condition: Callable[[], bool], seconds: float, *, what: str) -> None:
    """Wait until it is so; an AssertionError says what did not happen in time."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"{what} did not happen in {seconds:g} s"
        time.sleep(0.2)
