"""Everything as in the demo, with a real pg_cron in the database, and two integrations under it.

The theatre's is started by pg_cron alone and is due each minute. The club's is started by Prefect's
schedule and by pg_cron, both at once. pg_net and Vault are the sandbox's stand-ins.
"""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING, Any

import psycopg
import yaml

from sandbox import claims
from sandbox.pg_cron import start_with_pg_cron
from sandbox.pg_net import install_pg_net, install_vault, start_pg_net
from sandbox.stack import POOL, Stack
from tests.scheduler.webhook import Webhook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sandbox.processes import Home, Process
    from sandbox.stack import Loaded

ALONE, BOTH = claims.THEATRE, claims.CLUB
MINUTE = timedelta(minutes=1)
# The records of the set-up are numbered from 1 on.
_FIRST_NUMBER = 1001


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One period of the theatre: what left when, in seconds from when it was due, and what came."""

    key: str
    prewarm: float
    booted: bool
    """The pre-warm found the function cold, and it had to boot."""
    trigger: float
    start: float
    cold_starts: int
    """That the sync had to wait for."""
    attempts: list[str]
    """Who started each attempt."""
    state: str


@dataclass(kw_only=True)
class Scene:
    """The running parts."""

    stack: Stack
    loaded: dict[str, Loaded]
    worker: Process
    webhook: Webhook
    _numbers: Iterator[int] = field(default_factory=lambda: count(_FIRST_NUMBER))

    def ask(self, question: str, **values: Any) -> list[tuple[Any, ...]]:
        """Look into the database, or let time pass in it."""
        url = self.stack.supabase.database_url
        with psycopg.connect(url, autocommit=True) as database:
            asked = database.execute(question.encode(), values)
            return asked.fetchall() if asked.description else []

    def approve(self, who: claims.Organisation, number: int) -> None:
        """Approve some more claims, as the app would: one SQL function."""
        new = list(claims.approved(who, number, before=datetime.now(UTC)))
        for record in new:
            record["id"] = f"2026-{next(self._numbers):04d}"
        with self.loaded[who.integration].file.open("a") as file:
            file.write("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in new))
        self.ask("select kvitt.add_records(%(new)s)", new=json.dumps(new))

    def open_periods(self, until: datetime) -> int:
        """Count the periods that are due and neither settled nor given up."""
        [[found]] = self.ask(
            "select count(*) from kvitt.periods where due_at <= %(until)s and state <> 'verified'",
            until=until,
        )
        return found

    def run_periods(self, number: int, say: Callable[[str], None]) -> list[datetime]:
        """Let minutes pass: each with new claims, and a cold function half a minute before due."""
        due = self.next_due()
        for _ in range(number):
            self.approve(ALONE, 2)
            self.approve(BOTH, 1)
            # A function that is used each minute stays warm. Here somebody ends it, as a platform
            # does after a while, before the pre-warm, once the run before needs it no more. The
            # first time there is no worker yet, and so no run that could wake it again.
            wait_until(due - timedelta(seconds=50))
            if self.settled_by(due - timedelta(seconds=32)) or not self.worker.alive:
                self.stack.supabase.functions.end_workers()
            wait_until(due - timedelta(seconds=29))
            if not self.worker.alive:
                self.worker.start()
            wait_until(due)
            say(f"{due:%H:%M} is due")
            due += MINUTE
        return [due - back * MINUTE for back in range(number, 0, -1)]

    def next_due(self) -> datetime:
        """Return the next due time for which the pre-warm is still to come."""
        now = datetime.now(UTC)
        this = now.replace(second=0, microsecond=0)
        return this + (MINUTE if now.second < 5 else 2 * MINUTE)

    def settled_by(self, moment: datetime) -> bool:
        """Wait until all that was due is settled, but not longer than to a moment."""
        while datetime.now(UTC) < moment:
            if self.open_periods(datetime.now(UTC)) == 0:
                return True
            time.sleep(0.25)
        return False

    def measure(self, due: datetime) -> Measured:
        """Read what happened to a period of the theatre."""
        key = f"{ALONE.integration}@{due:%Y-%m-%dT%H:%MZ}"
        [[state, start, attempts, cold]] = self.ask(
            """
            select p.state::text,
                   (select extract(epoch from min(a.drift))::float8 from kvitt.attempts a
                     where a.integration_id = p.integration_id and a.due_at = p.due_at),
                   array(select a.trigger from kvitt.attempts a
                          where a.integration_id = p.integration_id and a.due_at = p.due_at
                          order by a.fence),
                   (select count(*) from kvitt.cold_starts c
                     where c.integration_id = p.integration_id and c.due_at = p.due_at)
              from kvitt.periods p where p.key = %(key)s
            """,
            key=key,
        )
        [[prewarm, booted]] = self.ask(
            """
            select extract(epoch from s.sent_at - %(due)s)::float8,
                   (r.content::jsonb ->> 'booted')::boolean
              from net.sandbox_sent s join net._http_response r using (id)
             where s.body = '{"ping": true}' and s.sent_at between %(due)s - interval '1 minute'
                                                              and %(due)s
            """,
            due=due,
        )
        [[trigger]] = self.ask(
            """
            select extract(epoch from min(sent_at) - %(due)s)::float8 from net.sandbox_sent
             where body ->> 'idempotency_key' = 'pg_cron/' || %(key)s || '/1'
            """,
            due=due,
            key=key,
        )
        return Measured(
            key=key,
            prewarm=prewarm,
            booted=booted,
            trigger=trigger,
            start=start,
            cold_starts=cold,
            attempts=attempts,
            state=state,
        )

    def stop_prefect(self, *, silent_for: timedelta) -> None:
        """Kill the server, and let time pass for the heartbeat as if it were long gone."""
        self.stack.prefect.process.kill()
        self.ask(
            "update kvitt.heartbeats set beat_at = beat_at - %(t)s, since = since - %(t)s",
            t=silent_for,
        )

    def start_prefect(self) -> None:
        """Start server and worker again, and run `watch` as the alarm says."""
        self.stack.prefect.process.start()
        self.worker.restart()
        self.stack.run("prefect", "deployment", "run", "watch/kvitt", "--watch")


@contextmanager
def scene(home: Home, *, both: str, say: Callable[[str], None]) -> Iterator[Scene]:
    """Start it all; `both` is the club's cron. The first, old periods are settled when it is up."""
    say("starting Postgres with pg_cron")
    postgres = start_with_pg_cron(home)
    install_vault(postgres.url())
    install_pg_net(postgres.url())
    with Webhook() as webhook:
        stack = Stack.start(home, say=say, postgres=postgres)
        start_pg_net(home, postgres)
        loaded = {one.integration: one for one in stack.set_up_and_load(say=say)}
        say("changing the schedules: each minute, by pg_cron")
        worker = stack.prefect.start_worker(POOL)
        for one in loaded:
            stack.run("prefect", "deployment", "run", f"sync/{one}", "--watch")
        it = Scene(stack=stack, loaded=loaded, worker=worker, webhook=webhook)
        worker.stop()  # `run_periods` starts it again
        _reschedule(it, both)
        _tell_secrets(it)
        say(stack.run("kvitt", "scheduler", "install"))
        yield it


def _reschedule(it: Scene, both: str) -> None:
    file = it.stack.home.path / "integrations.yaml"
    content = yaml.safe_load(file.read_text())
    for integration in content["integrations"]:
        alone = integration["id"] == ALONE.integration
        integration["cron"] = "* * * * *" if alone else both
        integration["scheduler"] = "pg_cron" if alone else "both"
    file.write_text(yaml.safe_dump(content, allow_unicode=True))
    it.stack.run("kvitt", "integrations", "import", str(file))
    it.stack.run("kvitt", "apply")


def _tell_secrets(it: Scene) -> None:
    for name, secret in {
        "kvitt_prefect_api_url": f"{it.stack.prefect.url}/api",
        "kvitt_function_url": f"{it.stack.supabase.url}/functions/v1/collect",
        "kvitt_function_key": it.stack.supabase.publishable_key,
        "kvitt_webhook_url": it.webhook.url,
    }.items():
        it.ask("select vault.create_secret(%(secret)s, %(name)s)", name=name, secret=secret)


def wait_until(moment: datetime) -> None:
    time.sleep(max(0.0, (moment - datetime.now(UTC)).total_seconds()))


def wait_for(condition: Callable[[], bool], seconds: float, *, what: str = "it") -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"{what} did not happen in {seconds} s"
        time.sleep(0.1)
