import json
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx


class Simulator:
    """A running simulator, and what a test may order from it."""

    def __init__(self, process: subprocess.Popen[str], http: httpx.AsyncClient) -> None:
        self.process = process
        self.http = http

    async def order(self, what: str, wish: Any) -> None:
        reply = await self.http.post(f"/_sandbox/{what}", json=wish)
        assert reply.status_code == 200, reply.text

    async def settings(self, **wishes: Any) -> None:
        await self.order("setup", {"settings": wishes})

    async def fault(self, on: str, fault: str, **further: Any) -> None:
        await self.order("faults", {"on": on, "fault": fault, **further})

    async def run_jobs(self) -> int:
        return (await self.http.post("/_sandbox/jobs")).json()["done"]

    async def books(self, company: str) -> dict[str, list[dict[str, Any]]]:
        whole = (await self.http.get("/_sandbox/books")).json()
        return {
            state: [line for line in whole[state] if line["company"] == company]
            for state in ("posted", "staged")
        }

    async def requests(self) -> dict[str, Any]:
        return (await self.http.get("/_sandbox/requests")).json()

    async def defaults(self) -> dict[str, Any]:
        return (await self.http.get("/_sandbox/settings")).json()

    async def restore(self, settings: dict[str, Any]) -> None:
        await self.http.delete("/_sandbox/faults")
        await self.settings(**settings)


@asynccontextmanager
async def running(vendor: str, books: Path, *options: str) -> AsyncGenerator[Simulator]:
    """Start a simulator, and end it by its pid."""
    command = [sys.executable, "-m", f"sandbox.vendors.{vendor}", "--books", str(books), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: ASYNC220 - started once, before anything else runs
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        try:
            async with httpx.AsyncClient(base_url=url) as http:
                yield Simulator(process, http)
        finally:
            process.terminate()
