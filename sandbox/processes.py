"""Child processes that never outlive us, and the directory that they live in.

    with Home.open("demo") as home:
        server = home.serve("books", [sys.executable, "-m", "sandbox.vendors.books"])
        httpx.get(server.url)
        server.kill()  # SIGKILL; server.pause() and server.resume() stop and continue it
        server.restart()  # on the same URL

A server that `serve` starts accepts `--port N` (0: any free one) and prints one line of JSON on
stdout once it is ready: `{"url": "http://127.0.0.1:41231"}`.

Each child runs under a leash (see `sandbox/leash.py`): even if we are killed with -9, it ends.
A `Home` is locked while its owner lives; the next one to open a home removes those of the dead.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

CHECKOUT = Path(__file__).resolve().parents[1]
LEASH = Path(__file__).with_name("leash.py")
POLL_SECONDS = 0.005
OWNER = "owner.lock"  # in a home: locked by its owner, whose pid it holds
KEEP = "keep"  # a file of this name in a home: do not sweep it


class StartError(RuntimeError):
    """A process ended, or said nothing, before it was ready; the message ends with its log."""


class HomeBusyError(RuntimeError):
    """The home is in use by a living process; end that one first."""


def free_port() -> int:
    """Find a TCP port of 127.0.0.1 on which nobody listens.

    It lies below the range from which Linux (32768) and macOS (49152) take the ports of outgoing
    connections, so none of those can grab it before our server does.
    """
    while True:
        port = random.randrange(20_000, 32_000)  # noqa: S311 a guess at a port, not a secret
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


@dataclass(kw_only=True)
class Process:
    """One child process under its leash. It can be stopped and started again.

    `command` is called with the port that was announced last (0 before the first start).
    """

    name: str
    command: Callable[[int], Sequence[str]]
    log: Path
    lock: Path
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    cwd: Path | None = None
    user: str | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    grace: float = 5.0
    ready: Callable[["Process"], bool] = lambda _: True
    timeout: float = 30.0
    pid: int = 0
    url: str = ""
    _leash: subprocess.Popen[str] | None = None
    _log_start: int = 0

    @property
    def alive(self) -> bool:
        """Say whether the child runs (a paused one does)."""
        return self._leash is not None and self._leash.poll() is None

    @property
    def exit_status(self) -> int | None:
        """Say how the child ended: its status, 128 + the signal, or None while it lives."""
        return None if self._leash is None else self._leash.poll()

    def launch(self) -> None:
        """Start the child without waiting for it to be ready. Raises StartError."""
        if self.alive:
            raise StartError(f"{self.name} runs already")
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._leash = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", str(LEASH), str(self.lock)),
                    *(str(int(self.stop_signal)), str(self.grace), self.user or ""),
                    *self.command(urlsplit(self.url).port or 0),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**self.env, "PYTHONUNBUFFERED": "1"},  # or the ready line waits in a buffer
                cwd=self.cwd or self.log.parent,
                start_new_session=True,  # Ctrl-C is for us: we end the others in order
                text=True,
            )
        self.pid = self._read_pid(self._leash)

    def start(self) -> Self:
        """Start the child and wait until it is ready. Raises StartError, leaving nothing behind."""
        self.launch()
        until = time.monotonic() + self.timeout
        while not self.ready(self):
            if not self.alive or time.monotonic() > until:
                how = "did not become ready" if self.alive else f"ended ({self.exit_status})"
                self.stop()
                raise StartError(f"{self.name} {how}:\n{self.last_lines()}")
            time.sleep(POLL_SECONDS)
        return self

    def stop(self) -> None:
        """End the child as its stop signal asks, after the grace by force. Safe to call twice."""
        self._let_go()

    def kill(self) -> None:
        """End the child with SIGKILL, as a crash would."""
        self._signal(signal.SIGKILL)
        self._let_go()

    def pause(self) -> None:
        """Freeze the child: its connections stay open, and nothing answers.

        Children of its own that left its process group go on, as the backends of Postgres do.
        """
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused child go on."""
        self._signal(signal.SIGCONT)

    def restart(self) -> Self:
        """Stop the child where it runs, and start it again on the same URL."""
        self.stop()
        return self.start()

    def output(self) -> str:
        """Return what the child has logged since its last start."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def last_lines(self, count: int = 15) -> str:
        """Return the end of the log, for an error message."""
        return "\n".join(self.output().splitlines()[-count:])

    def _signal(self, number: signal.Signals) -> None:
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def _let_go(self) -> None:
        if self._leash is None:
            return
        if self._leash.stdin:
            self._leash.stdin.close()
        self._leash.wait()

    def _read_pid(self, leash: subprocess.Popen[str]) -> int:
        """Read the child's pid from its leash; a command that cannot be started has none."""
        if leash.stdout is None:
            raise StartError(f"{self.name}: its leash has no stdout")
        with leash.stdout as stdout:
            line = stdout.readline()
        if not line:
            self._let_go()
            raise StartError(f"{self.name} could not be started:\n{self.last_lines()}")
        return int(line)


def announces_url(process: Process) -> bool:
    """Look for the ready line in what a server printed, and keep its URL."""
    for line in process.output().splitlines():
        if line.startswith('{"url":') and line.endswith("}"):
            process.url = json.loads(line)["url"]
            return True
    return False


@dataclass
class Home:
    """A directory for the data and the logs of processes that belong together.

    `Home.open` makes one that is ours; `Home(path)` uses one that somebody else owns.
    """

    path: Path
    keep: bool = False
    processes: list[Process] = field(default_factory=list[Process])
    _lock: int | None = None

    @classmethod
    def open(cls, name: str, *, keep: bool = False) -> Self:
        """Make the home of this name for this checkout, after sweeping those of dead owners.

        Anybody may pass through it (not look into it): Postgres, run by root, is another user.
        Raises HomeBusyError if a living process owns it.
        """
        with _turn() as parent:
            _sweep(parent)
            home = cls(parent / _folder(name), keep)
            home._own()
        return home

    @classmethod
    def owner(cls, name: str) -> int | None:
        """Return the pid of the living owner of the home of this name, if there is one."""
        with _turn() as parent:
            path = parent / _folder(name) / OWNER
            if not path.exists():
                return None
            lock = _try_lock(path)
            if lock is None:
                return int(path.read_text())
            os.close(lock)
            return None

    @classmethod
    def place(cls, name: str) -> Path:
        """Return where the home of this name lies, whether it is there or not."""
        with _turn() as parent:
            return parent / _folder(name)

    @classmethod
    def sweep(cls) -> list[Path]:
        """Remove the homes whose owners are dead, and say which they were."""
        with _turn() as parent:
            return _sweep(parent)

    @property
    def lock(self) -> Path:
        """Name the file that leashes hold a shared lock on."""
        return self.path / "leashes.lock"

    def spawn(
        self,
        name: str,
        command: Sequence[str] | Callable[[int], Sequence[str]],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        grace: float = 5.0,
        ready: Callable[[Process], bool] = lambda _: True,
        timeout: float = 30.0,
    ) -> Process:
        """Start a process and wait until it is ready; closing the home ends it.

        `env` is added to our own environment. `cwd` is the home unless given. Raises StartError.
        """
        process = Process(
            name=name,
            command=command if callable(command) else lambda _: command,
            log=self.path / f"{name}.log",
            lock=self.lock,
            env={**inherited_environment(), **(env or {})},
            cwd=cwd,
            user=user,
            stop_signal=stop_signal,
            grace=grace,
            ready=ready,
            timeout=timeout,
        )
        self.processes.append(process)  # first, so that closing us ends even a half-started one
        return process.start()

    def serve(
        self,
        name: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = CHECKOUT,
    ) -> Process:
        """Start a server that takes `--port` and announces its URL on stdout."""
        return self.spawn(
            name,
            lambda port: [*command, "--port", str(port)],
            env=env,
            cwd=cwd,
            ready=announces_url,
        )

    def close(self) -> None:
        """End the processes, the latest first, and remove the directory unless it is to be kept."""
        for process in reversed(self.processes):
            process.stop()
        if self._lock is not None:
            if not self.keep:
                shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _own(self) -> None:
        _make_passable(self.path)
        lock = _try_lock(self.path / OWNER)
        if lock is None:
            raise HomeBusyError(f"{self.path} is in use")
        os.truncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())
        self._lock = lock
        if self.keep:
            (self.path / KEEP).touch()


def inherited_environment() -> dict[str, str]:
    """Return our environment without what leads out of the sandbox.

    In a shell that is set up for a real project, nothing that we start may find its way there.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SUPABASE_", "PREFECT_")) and name != "DATABASE_URL"
    }


@contextlib.contextmanager
def _turn() -> Generator[Path]:
    """Wait for our turn to make or remove homes, and give the directory that they lie in."""
    parent = Path(tempfile.gettempdir()).resolve() / f"kvitt-{os.getuid()}"
    _make_passable(parent)
    with (parent / "turn.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield parent


def _folder(name: str) -> str:
    """Name the folder of a home: two checkouts do not share theirs."""
    return f"{name}-{hashlib.sha256(bytes(CHECKOUT)).hexdigest()[:8]}"


def _make_passable(directory: Path) -> None:
    """Make a directory of ours that others may pass through, whatever the umask."""
    directory.mkdir(exist_ok=True)
    if directory.lstat().st_uid != os.getuid():
        raise PermissionError(f"{directory} belongs to somebody else")
    directory.chmod(0o711)


def _sweep(parent: Path) -> list[Path]:
    return [
        home
        for home in parent.iterdir()
        if home.is_dir() and not (home / KEEP).exists() and _remove_if_dead(home)
    ]


def _remove_if_dead(home: Path) -> bool:
    """Remove a home whose owner is dead, once the last leash has ended what it held."""
    owner = _try_lock(home / OWNER)
    if owner is None:
        return False
    with (home / "leashes.lock").open("w") as leashes:
        fcntl.flock(leashes, fcntl.LOCK_EX)
    shutil.rmtree(home, ignore_errors=True)
    os.close(owner)
    return True


def _try_lock(path: Path) -> int | None:
    """Take the exclusive lock on a file and return the descriptor that holds it, or None."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
