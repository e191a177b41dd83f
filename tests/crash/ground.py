"""All parts running: one Supabase, one Prefect server, and lanes with a simulator each."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import certifi
import httpx

from kvitt.ledger.migrate import migrate, read_migrations
from sandbox.prefect_server import PrefectServer
from sandbox.processes import CHECKOUT, Home
from sandbox.supabase import Supabase
from sandbox.vendors.simulators import SIMULATORS
from tests.crash.points import SocketWire
from tests.crash.stage import Ground

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from sandbox.processes import Process

_DOWN = 0.5


@dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds. A vendor commits within `settle`; the lanes' late commits come at a third of it."""

    settle: float = 1.0
    gap: float = 0.3
    lease: float = 1.2


@dataclass(kw_only=True)
class Lane:
    """A lane, as its parent sees it."""

    vendor: str
    wire: SocketWire
    parts: Parts

    def play(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Let it do something, a trial mostly; serves its wishes for outages meanwhile."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.wire.tell(wanted)
            while (said := self.wire.hear()) is not None:
                if "outage" not in said:
                    return said
                self.parts.take_away(said["outage"], ready=lambda: self.wire.tell({"down": True}))
        return {
            "number": wanted.get("number"),
            "end": "broken",
            "reasons": [f"its lane died: {self.parts.last_words()}"],
        }

    def lay_foundations(self) -> None:
        """Let it save the blocks that all flows stand on."""
        said = self.play({"foundations": True})
        if said.get("end") != "laid":
            raise RuntimeError(f"the Prefect blocks could not be saved: {said}")


@dataclass(kw_only=True)
class Parts:
    """What all lanes share. One outage at a time: each begins with everything up."""

    home: Home
    supabase: Supabase
    prefect: PrefectServer | None
    times: Times
    _turn: threading.Lock = field(default_factory=threading.Lock)
    _desk: threading.Lock = field(default_factory=threading.Lock)
    _wishes: dict[str, list[Callable[[], None]]] = field(default_factory=dict)

    def take_away(self, what: str, *, ready: Callable[[], None]) -> None:
        """Take a part away, say so, and bring it back after a moment.

        Whoever has waited for the same meanwhile is served by the same outage.
        """
        down, up = self._ways()[what]
        with self._desk:
            self._wishes.setdefault(what, []).append(ready)
        with self._turn:
            with self._desk:
                served = self._wishes.pop(what, [])
            if served:
                down()
                for tell in served:
                    tell()
                time.sleep(_DOWN)
                up()

    @contextmanager
    def lanes(self, vendors: Sequence[str]) -> Generator[list[Lane]]:
        """Open a lane for each vendor that is named, with a simulator of its own."""
        with ThreadPoolExecutor(len(vendors)) as pool:
            simulators = list(pool.map(self._simulator, count(), vendors))
        pairs = [socket.socketpair() for _ in vendors]
        orders = [
            {"socket": theirs.fileno(), "ground": asdict(self.ground(vendor, simulator.url))}
            for (_, theirs), vendor, simulator in zip(pairs, vendors, simulators, strict=True)
        ]
        nursery = self._nursery([theirs for _, theirs in pairs])
        stdin = nursery.stdin
        assert stdin is not None
        stdin.write(json.dumps(orders).encode() + b"\n")
        stdin.flush()
        wires = [SocketWire(ours) for ours, _ in pairs]
        try:
            yield [
                Lane(vendor=vendor, wire=wire, parts=self)
                for vendor, wire in zip(vendors, wires, strict=True)
            ]
        finally:
            for wire in wires:
                wire.close()
            stdin.close()
            nursery.wait()

    def last_words(self) -> str:
        """Return the end of what the lanes have logged."""
        return (self.home.path / "lanes.log").read_text(errors="replace")[-2000:]

    def _nursery(self, ends: Sequence[socket.socket]) -> subprocess.Popen[bytes]:
        """Start the process that all lanes are forks of, and give it their ends of the sockets."""
        env = {**os.environ, **(self.prefect.env if self.prefect else {})}
        env |= {"PREFECT_LOGGING_TO_API_ENABLED": "false", "SSL_CERT_FILE": self._certificate()}
        with (self.home.path / "lanes.log").open("ab") as log:
            nursery = subprocess.Popen(
                [sys.executable, "-m", "tests.crash.lane"],
                cwd=CHECKOUT,
                env=env,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=[end.fileno() for end in ends],
                start_new_session=True,
            )
        for end in ends:
            end.close()
        return nursery

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

    def _simulator(self, number: int, vendor: str) -> Process:
        name, kind = f"{vendor}-{number}", SIMULATORS[vendor]
        books = self.home.path / f"{name}.db"
        command = [sys.executable, "-m", kind.module, "--books", str(books)]
        simulator = self.home.serve(name, command)
        wish = {"settings": {**kind.unlimited}}
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
            "boot error": (lambda: limit(failing_boots=3), lambda: limit(failing_boots=0)),
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
