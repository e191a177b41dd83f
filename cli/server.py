"""The Prefect server that a command asks: the one that is named, and never one for a moment."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

import httpx

_SECONDS = 10
_NAME_IT = "source the environment that `make up` prints, or name your server"


class NoServer(LookupError):
    """There is no Prefect server to ask; the message says why, and what to do."""


def never_start_one() -> None:
    """Keep Prefect from starting a temporary server, which knows of nothing. Before its import."""
    for name in ("PREFECT_SERVER_EPHEMERAL_ENABLED", "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE"):
        os.environ[name] = "false"


def demand_address() -> None:
    """Raise NoServer where PREFECT_API_URL is no address. Call it before importing Prefect."""
    if named := os.environ.get("PREFECT_API_URL"):
        _address(named)  # Prefect has many words for what is no address


async def demand_server() -> None:
    """Raise NoServer unless a server is named, and answers. Call it before importing Prefect."""
    demand_address()
    from prefect.client.orchestration import get_client  # noqa: PLC0415 - it takes seconds
    from prefect.settings import get_current_settings  # noqa: PLC0415

    url = get_current_settings().api.url
    if not url:
        raise NoServer(f"PREFECT_API_URL is not set, so there is no Prefect to ask: {_NAME_IT}")
    address = _address(url)
    async with get_client(httpx_settings={"timeout": _SECONDS}) as client:
        error = await client.api_healthcheck()
    if isinstance(error, httpx.TransportError | httpx.InvalidURL):
        raise NoServer(
            f"the Prefect server at {address} (PREFECT_API_URL) does not answer "
            f"({type(error).__name__}): start it, or {_NAME_IT}"
        )


def _address(url: str) -> str:
    """Return where a server is, without the password that its address may hold."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        parts, port = urlsplit(""), ""
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise NoServer("PREFECT_API_URL is no address, like http://127.0.0.1:4200/api: " + _NAME_IT)
    return f"{parts.scheme}://{parts.hostname}{port}"
