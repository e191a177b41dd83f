"""All parts running: one Supabase, one Prefect server, and lanes with a simulator each."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import certifi
import httpx

from kvitt.ledger.migrate import migrate, read_migrations
from sandbox.prefect_server import PrefectServer
from sandbox.processes import CHECKOUT, Home
from sandbox.supabase import Supabase
from sandbox.vendors import setup
from tests.crash.stage import Ground

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from sandbox.processes import Process

VENDORS = {"xledger": setup.XLEDGER, "business-central": setup.BUSINESS_CENTRAL}
_DOWN = 0.5
_GENEROUS: dict[str, dict[str, Any]] = {
    "xledger": {
        "burst_requests": 1_000_000,
        "monthly_allowance": 1_000_000,
        # As far below the gap between two looks as a job's moment is below minutes.
        "transit_seconds": 0.05,
    },
    "business-central": {"quota": 1_000_000},
}


@dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds. A vendor commits within `settle`; the lanes' late commits come at a third of it."""

    settle: float = 1.0
    gap: float = 0.3
    lease: float = 1.2


@dataclass(kw_only=True)
class Lane:
    """A lane's process, as its parent sees it."""

    vendor: str
    process: subprocess.Popen[str]
    parts: Parts

    def play(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Let it do something, a trial mostly; serves its wishes for outages meanwhile."""
        self._say(wanted)
        while line := _of(self.process.stdout).readline():
            said = json.loads(line)
            if "outage" not in said:
                return said
            self.parts.take_away(said["outage"], ready=lambda: self._say({"down": True}))
        return {"number": wanted.get("number"), "end": "broken", "reasons": ["its lane died"]}

    def lay_foundations(self) -> None:
        """Let it save the blocks that all flows stand on."""
        said = self.play({"foundations": True})
        if said.get("laid") != "laid":
            raise RuntimeError(f"the Prefect blocks could not be saved: {said}")

    def close(self) -> None:
        """End it: it leaves when its input ends."""
        with contextlib.suppress(BrokenPipeError):  # it has ended already
            _of(self.process.stdin).close()
        self.process.wait()
        _of(self.process.stdout).close()

    def _say(self, message: Mapping[str, Any]) -> None:
        stdin = _of(self.process.stdin)
        stdin.write(json.dumps(message) + "\n")
        stdin.flush()


def _of(pipe: IO[str] | None) -> IO[str]:
    if pipe is None:
        raise AssertionError("a lane has pipes")
    return pipe


@dataclass(kw_only=True)
class Parts:
    """What all lanes share. One outage at a time: each begins with everything up."""

    home: Home
    supabase: Supabase
    prefect: PrefectServer | None
    times: Times
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def take_away(self, what: str, *, ready: Callable[[], None]) -> None:
        """Take a part away, say so, and bring it back after a moment."""
        down, up = self._ways()[what]
        with self._turn:
            down()
            ready()
            time.sleep(_DOWN)
            up()

    def open_lane(self, number: int, vendor: str) -> Lane:
        """Start a simulator, and a lane on it."""
        simulator = self._simulator(f"{vendor}-{number}", vendor)
        env = {**os.environ, **(self.prefect.env if self.prefect else {})}
        env |= {"PREFECT_LOGGING_TO_API_ENABLED": "false", "SSL_CERT_FILE": self._certificate()}
        with (self.home.path / f"lane-{number}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.crash.lane"],
                cwd=CHECKOUT,
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                text=True,
            )
        lane = Lane(vendor=vendor, process=process, parts=self)
        _of(process.stdin).write(json.dumps(asdict(self.ground(vendor, simulator.url))) + "\n")
        return lane

    def ground(self, vendor: str, url: str) -> Ground:
        """Say where everything is."""
        return Ground(
            supabase_url=self.supabase.url,
            supabase_key=self.supabase.secret_key,
            database_url=self.supabase.database_url,
            vendor=vendor,
            vendor_url=url,
            **asdict(self.times),
        )

    def _certificate(self) -> str:
        """Keep one certificate in a file of its own. Returns its path.

        Nobody speaks TLS here, but each httpx client reads all of them: 20 ms of CPU, four times a
        run.
        """
        bundle = Path(certifi.where()).read_text()
        end = "-----END CERTIFICATE-----\n"
        file = self.home.path / "certificate.pem"
        file.write_text(bundle[: bundle.index(end)] + end)
        return str(file)

    def _simulator(self, name: str, vendor: str) -> Process:
        module = vendor.replace("-", "_")
        books = self.home.path / f"{name}.db"
        command = [sys.executable, "-m", f"sandbox.vendors.{module}", "--books", str(books)]
        simulator = self.home.serve(name, command)
        wish = {"settings": _GENEROUS[vendor]}
        url = f"{simulator.url}/_sandbox/setup"
        httpx.post(url, json=wish, trust_env=False).raise_for_status()
        return simulator

    def _ways(self) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
        """How each part goes, and how it comes back."""
        supabase, functions = self.supabase, self.supabase.functions

        def limit(**limits: float) -> None:
            functions.change(**limits)
            functions.end_workers()

        def nothing() -> None:
            return

        ways: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
            "postgres": (supabase.postgres.kill, supabase.postgres.restart),
            "postgrest": (supabase.postgrest.process.kill, supabase.postgrest.process.restart),
            "gateway": (supabase.gateway.kill, supabase.gateway.restart),
            "boot error": (lambda: limit(failing_boots=1), lambda: limit(failing_boots=0)),
            "memory limit": (lambda: limit(memory_mb=1), lambda: limit(memory_mb=256)),
            "cold start": (functions.end_workers, nothing),
        }
        if self.prefect is not None:
            ways["prefect"] = (self.prefect.process.pause, self.prefect.process.resume)
        return ways


@contextmanager
def running(name: str, times: Times, *, prefect: bool) -> Generator[Parts]:
    """Start Supabase with our schema, and a Prefect server if it is wanted."""
    with Home.open(name) as home:
        supabase = Supabase.start(home)
        migrate(supabase.database_url, read_migrations(CHECKOUT / "supabase" / "migrations"))
        supabase.reload_schema()
        server = PrefectServer.start(home, supabase.postgres) if prefect else None
        yield Parts(home=home, supabase=supabase, prefect=server, times=times)
