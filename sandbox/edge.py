"""Runs `supabase/functions/<name>/index.ts` in Deno, with the limits of hosted Edge Functions.

A worker is one Deno process. It boots when a request finds none free, answers one request at a
time, and is ended when it has been idle for a while: so cold starts are real ones, and as on the
hosted platform no header announces them (only `x-deno-execution-id` is a new one).

What a client gets when a function breaks a limit is what the platform says:
https://supabase.com/docs/guides/functions/status-codes and .../guides/functions/limits.
"""

import asyncio
import contextlib
import itertools
import os
import re
import signal
import socket
import subprocess
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
from deno import find_deno_bin
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sandbox.processes import CHECKOUT, Home, Process, StartError, free_port

REGION = "eu-north-1"
MEGABYTE = 1024 * 1024
PAGE, TICKS = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
WATCH_SECONDS = 0.02
REAP_SECONDS = 0.1
BOOT_SECONDS = 30.0  # the first boot may have to fetch packages
RETIRE_AT = 0.5
V8_OUT_OF_MEMORY = (128 + signal.SIGTRAP, 128 + signal.SIGABRT)
# What a worker gets of our own environment: how to reach a registry, nothing of ours.
PASSED_ON = re.compile(r"PATH|HOME|TMPDIR|(SSL|NODE|NPM|DENO)_\w+|(https?|no)_proxy", re.IGNORECASE)
# Headers about one connection; they are not the next one's.
HOP_BY_HOP = frozenset(
    {"connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding"}
    | {"upgrade", "proxy-authorization", "proxy-connection"}
)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a function may use, and how its workers are kept. The defaults are the hosted limits."""

    memory_mb: int = 256
    """Memory of one worker beyond what an empty one takes."""
    cpu_seconds: float = 2.0
    """CPU time of one request."""
    wall_clock_seconds: float = 400.0
    """How long a worker lives (paid plan; 150 on the free one)."""
    response_seconds: float = 150.0
    """How long a request may wait for the head of its response."""
    idle_seconds: float = 60.0
    """After how long without a request a worker is ended."""
    spread: int = 1
    """Requests go in turn to this many separate groups of workers; hosted has many."""
    max_workers: int = 10
    """Most workers of one function; further requests wait for one."""
    boot_delay_seconds: float = 0.0
    """Added to each boot."""
    failing_boots: int = 0
    """How many of the next boots fail with BOOT_ERROR."""


class EdgeError(Exception):
    """The platform, not the function, answers this request."""

    def __init__(self, status: int, code: str, message: str) -> None:
        """Keep what the client is told."""
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def not_found() -> EdgeError:
    """404: there is no such function."""
    return EdgeError(404, "NOT_FOUND", "Requested function was not found")


def boot_error() -> EdgeError:
    """503: the worker ended before it served."""
    return EdgeError(503, "BOOT_ERROR", "Function failed to start (please check logs)")


def worker_error() -> EdgeError:
    """500: the worker ended, by itself, in the middle of a request."""
    return EdgeError(500, "WORKER_ERROR", "Function exited due to an error (please check logs)")


def resource_limit() -> EdgeError:
    """546: memory or CPU used up."""
    return EdgeError(
        546,
        "WORKER_RESOURCE_LIMIT",
        "Function failed due to not having enough compute resources (please check logs)",
    )


def idle_timeout() -> EdgeError:
    """504: no response in time."""
    return EdgeError(504, "IDLE_TIMEOUT", "Function has been idle for too long")


@dataclass(kw_only=True, eq=False)
class Worker:
    """One booted worker. A spent one answers no further request."""

    process: Process
    url: str
    execution_id: str
    slot: int
    empty: "Usage"
    booted: float
    last_used: float
    over_limit: bool = False
    spent: bool = False

    def age(self) -> float:
        """Return for how many seconds it has lived."""
        return time.monotonic() - self.booted

    async def end(self) -> None:
        """End it at once; there is nothing in it to be saved."""
        await asyncio.to_thread(self.process.kill)


@dataclass(frozen=True)
class Usage:
    """What a process uses: resident memory in bytes, and CPU seconds since it started."""

    memory: int = 0
    cpu: float = 0.0

    @classmethod
    def of(cls, pid: int) -> "Usage":
        """Ask /proc, or `ps` where there is none. A process that is gone uses nothing."""
        try:
            memory = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return cls() if Path("/proc/self").exists() else cls._from_ps(pid)
        return cls(memory * PAGE, (int(stat[11]) + int(stat[12])) / TICKS)

    @classmethod
    def _from_ps(cls, pid: int) -> "Usage":
        command = ["ps", "-o", "rss=,time=", "-p", str(pid)]
        asked = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
        if not asked:
            return cls()
        minutes, seconds = asked[1].split(":")[-2:]
        return cls(int(asked[0]) * 1024, int(minutes) * 60 + float(seconds))


@dataclass
class Counts:
    """What happened to one function so far."""

    invocations: int = 0
    boots: int = 0
    statuses: Counter[int] = field(default_factory=Counter[int])


@dataclass(kw_only=True)
class EdgeRuntime:
    """All functions of a project. `environment` is what their workers see besides PATH."""

    functions: Path
    config: Mapping[str, Any]
    environment: Mapping[str, str]
    home: Home
    client: httpx.AsyncClient
    limits: Limits = field(default_factory=Limits)
    counts: defaultdict[str, Counts] = field(default_factory=lambda: defaultdict(Counts))
    _pools: dict[str, "Pool"] = field(default_factory=dict[str, "Pool"])

    def verifies_jwt(self, name: str) -> bool:
        """Say whether the platform asks for a valid JWT before it runs this function."""
        return self._script(name).is_file() and self.config.get(name, {}).get("verify_jwt", True)

    def change_limits(self, **changes: float) -> Limits:
        """Change some limits, from the next request on. Raises TypeError for an unknown one."""
        self.limits = replace(self.limits, **changes)
        return self.limits

    def take_failing_boot(self) -> bool:
        """Say whether this boot is one of those that shall fail, and count it off."""
        failing = self.limits.failing_boots
        if failing > 0:
            self.limits = replace(self.limits, failing_boots=failing - 1)
        return failing > 0

    async def handle(self, request: Request, name: str, rest: str) -> Response:
        """Answer a request as the hosted platform does."""
        counts = self.counts[name]
        counts.invocations += 1
        headers = {"sb-request-id": str(uuid.uuid4()), "x-sb-edge-region": REGION}
        try:
            response = await self._pool(name).answer(
                request, f"/{name}{rest}?{request.url.query}".removesuffix("?")
            )
        except EdgeError as error:
            body = {"code": error.code, "message": error.message}
            response = JSONResponse(body, error.status, {"sb-error-code": error.code})
        response.headers.update(headers)
        counts.statuses[response.status_code] += 1
        return response

    async def end_workers(self) -> None:
        """End all workers, so that the next request of each function is a cold start."""
        await asyncio.gather(*(pool.end() for pool in self._pools.values()))

    async def reap(self) -> None:
        """End workers that have been idle, or have lived, for too long; runs until cancelled."""
        while True:
            await asyncio.sleep(REAP_SECONDS)
            await asyncio.gather(*(pool.end(only=self._is_due) for pool in self._pools.values()))

    def _is_due(self, worker: Worker) -> bool:
        idle = time.monotonic() - worker.last_used
        return idle > self.limits.idle_seconds or worker.age() > self.limits.wall_clock_seconds

    def _pool(self, name: str) -> "Pool":
        script = self._script(name)
        if not re.fullmatch(r"[A-Za-z][\w-]*", name) or not script.is_file():
            raise not_found()
        return self._pools.setdefault(name, Pool(runtime=self, name=name, script=script))

    def _script(self, name: str) -> Path:
        return self.functions / name / "index.ts"


class Pool:
    """The workers of one function."""

    def __init__(self, *, runtime: EdgeRuntime, name: str, script: Path) -> None:
        """Start without any worker."""
        self.runtime, self.name, self.script = runtime, name, script
        self._free: list[Worker] = []
        self._busy: list[Worker] = []
        self._seats = 0  # requests that have, or are booting, a worker
        self._changed = asyncio.Condition()
        self._turn = itertools.count()

    async def answer(self, request: Request, path: str) -> Response:
        """Have a worker answer. Raises EdgeError."""
        body = await request.body()
        async with self._worker() as worker:
            return await self._watched(worker, self._exchange(worker, request, path, body))

    async def end(self, only: Callable[[Worker], bool] = lambda _: True) -> None:
        """End the free workers of which `only` is true; busy ones may finish their request."""
        due = [worker for worker in self._free if only(worker)]
        self._free = [worker for worker in self._free if worker not in due]
        for worker in self._busy:
            worker.spent = worker.spent or only(worker)
        await asyncio.gather(*(worker.end() for worker in due))

    @contextlib.asynccontextmanager
    async def _worker(self) -> AsyncGenerator[Worker]:
        """Lend a worker for one request, booting it if none is free. Raises EdgeError."""
        slot = next(self._turn) % self.runtime.limits.spread
        async with self._changed:
            await self._changed.wait_for(lambda: self._seats < self.runtime.limits.max_workers)
            self._seats += 1
            worker = self._take_free(slot)
        try:
            worker = worker or await self._boot(slot)
            self._busy.append(worker)
            yield worker
        finally:
            await self._give_back(worker)

    def _take_free(self, slot: int) -> Worker | None:
        """Take a free worker of the slot; of any slot where there may not be another worker."""
        full = self._seats + len(self._free) > self.runtime.limits.max_workers
        for worker in self._free:
            if worker.slot == slot or full:
                self._free.remove(worker)
                return worker if worker.process.alive else None
        return None

    async def _give_back(self, worker: Worker | None) -> None:
        async with self._changed:
            self._seats -= 1
            self._changed.notify()
            if worker in self._busy:
                self._busy.remove(worker)
            if worker and not worker.spent:
                worker.last_used = time.monotonic()
                self._free.append(worker)
        if worker and worker.spent:
            await worker.end()

    async def _watched(self, worker: Worker, exchange: Coroutine[Any, Any, Response]) -> Response:
        """Await a worker's answer while watching what it uses. Raises EdgeError."""
        before = Usage.of(worker.process.pid)
        watch = asyncio.create_task(self._watch(worker, before))
        try:
            async with asyncio.timeout(self.runtime.limits.response_seconds):
                return await exchange
        except TimeoutError:
            worker.spent = True
            raise idle_timeout() from None
        except httpx.TransportError:
            worker.spent = True
            raise await self._why_gone(worker) from None
        finally:
            watch.cancel()
            self._retire_if_half_used(worker, before)

    async def _exchange(self, worker: Worker, request: Request, path: str, body: bytes) -> Response:
        """Pass the request on and the whole response back, compressed if it came so."""
        client, headers = self.runtime.client, end_to_end(request.headers)
        async with client.stream(
            request.method, f"{worker.url}{path}", headers=headers, content=body
        ) as upstream:
            content = b"".join([part async for part in upstream.aiter_raw()])
        headers = {**end_to_end(upstream.headers), "x-deno-execution-id": worker.execution_id}
        return Response(content, upstream.status_code, headers)

    async def _watch(self, worker: Worker, before: Usage) -> None:
        """End the worker when it breaks a limit; the request then fails by itself."""
        while not worker.over_limit:
            await asyncio.sleep(WATCH_SECONDS)
            memory, cpu = self._used(worker, before)
            over = worker.age() > self.runtime.limits.wall_clock_seconds
            worker.over_limit = over or memory > 1 or cpu > 1
        await worker.end()

    def _retire_if_half_used(self, worker: Worker, before: Usage) -> None:
        """Do as hosted: who has used half of a resource finishes its request and is shut down."""
        half_used = max(self._used(worker, before)) > RETIRE_AT
        worker.spent = worker.spent or worker.over_limit or half_used

    def _used(self, worker: Worker, before: Usage) -> tuple[float, float]:
        """Return how much of its memory and of its CPU time the worker has used, as shares."""
        limits, now = self.runtime.limits, Usage.of(worker.process.pid)
        memory = (now.memory - worker.empty.memory) / (limits.memory_mb * MEGABYTE)
        return memory, (now.cpu - before.cpu) / limits.cpu_seconds

    async def _why_gone(self, worker: Worker) -> EdgeError:
        """Say why a worker went away in the middle of a request."""
        await worker.end()
        out_of_heap = worker.process.exit_status in V8_OUT_OF_MEMORY
        return resource_limit() if worker.over_limit or out_of_heap else worker_error()

    async def _boot(self, slot: int) -> Worker:
        """Start a worker and wait until it accepts connections. Raises EdgeError."""
        self.runtime.counts[self.name].boots += 1
        await asyncio.sleep(self.runtime.limits.boot_delay_seconds)
        if self.runtime.take_failing_boot():
            raise boot_error()
        execution_id, port = str(uuid.uuid4()), free_port()
        process = self._process(execution_id, port)
        try:
            await asyncio.to_thread(process.start)
        except StartError:
            raise boot_error() from None
        return Worker(
            process=process,
            url=f"http://127.0.0.1:{port}",
            execution_id=execution_id,
            slot=slot,
            empty=Usage.of(process.pid),
            booted=time.monotonic(),
            last_used=time.monotonic(),
        )

    def _process(self, execution_id: str, port: int) -> Process:
        passed_on = {key: value for key, value in os.environ.items() if PASSED_ON.fullmatch(key)}
        return Process(
            name=f"edge-{self.name}",
            command=lambda _: self._command(port),
            log=self.runtime.home.path / f"edge-{self.name}.log",
            lock=self.runtime.home.lock,
            env={
                **passed_on,
                **self.runtime.environment,
                "DENO_DIR": str(CHECKOUT / ".sandbox" / "deno"),
                "DENO_NO_UPDATE_CHECK": "1",
                "DENO_SERVE_ADDRESS": f"tcp:127.0.0.1:{port}",
                "SB_EXECUTION_ID": execution_id,
                "SB_REGION": REGION,
            },
            cwd=self.script.parent,
            ready=lambda _: _accepts(port),
            timeout=BOOT_SECONDS,
        )

    def _command(self, port: int) -> list[str]:
        """Run a script that calls `Deno.serve`, or serve one that exports `{ fetch }`.

        The hosted platform lets a function read and reach the network, not write or run programs.
        """
        exports = re.search(r"^export\s+default\b", self.script.read_text(), re.MULTILINE)
        serve = ["serve", "--host=127.0.0.1", f"--port={port}"]
        return [
            find_deno_bin(),
            *(serve if exports else ["run"]),
            *("--no-prompt", "--quiet", "--allow-net", "--allow-env", "--allow-read"),
            f"--v8-flags=--max-old-space-size={self.runtime.limits.memory_mb}",
            str(self.script),
        ]


def end_to_end(headers: Mapping[str, str]) -> dict[str, str]:
    """Leave out the headers that are about one connection only."""
    return {key: value for key, value in headers.items() if key.lower() not in HOP_BY_HOP}


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
