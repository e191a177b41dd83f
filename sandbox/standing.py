"""The same parts, left running: `make up` and `make down`.

One process in the background owns them all (`python -m sandbox serve`). It writes what it does into
`up.log` in its home, and the addresses into `addresses.json` once everything is ready.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from sandbox.processes import CHECKOUT, Home, StartError
from sandbox.stack import POOL, Stack

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

_NAME = "up"
_START_SECONDS = 180
_STOP_SECONDS = 60
_LOOK_SECONDS = 1


def up() -> None:
    """Start everything in the background, unless it runs, and say where it is."""
    if Home.owner(_NAME) is None:
        Home.sweep()  # the addresses of one that was killed lead nowhere
        _start()
    else:
        print("it is up already")
    _show(_addresses())


def down() -> None:
    """End what `up` started, and wait until it is gone."""
    owner = Home.owner(_NAME)
    if owner is None:
        Home.sweep()
        print("nothing is up")
        return
    os.kill(owner, signal.SIGTERM)
    until = time.monotonic() + _STOP_SECONDS
    while Home.place(_NAME).exists():
        if time.monotonic() > until:
            raise StandingError(f"process {owner} does not end; its log is {_log()}")
        time.sleep(0.1)
    print("everything is down")


def serve() -> None:
    """Own the parts until we are told to end; this is the process in the background."""
    told_to_end = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        told_to_end.set()

    signal.signal(signal.SIGTERM, end)
    with Home.open(_NAME) as home:
        stack = Stack.start(home, say=_say)
        stack.set_up_and_load(say=_say)
        stack.prefect.start_worker(POOL)
        _write_addresses(home.path, stack)
        while not told_to_end.wait(_LOOK_SECONDS):
            _start_what_ended(home)


def _start_what_ended(home: Home) -> None:
    """Start a part again that ended by itself, or was killed to see what happens."""
    for part in home.processes:
        if not part.alive:
            _say(f"{part.name} has ended; starting it again")
            with contextlib.suppress(StartError):  # what it needs may be away too: the next look
                part.start()


class StandingError(RuntimeError):
    """What runs in the background did not do what was asked."""


def _start() -> None:
    log = _log()
    with log.open("wb") as output:
        owner = subprocess.Popen(
            [sys.executable, "-m", "sandbox", "serve"],
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _follow(owner, log)
    except KeyboardInterrupt:
        owner.terminate()
        raise


def _follow(owner: subprocess.Popen[bytes], log: Path) -> None:
    """Show what the owner says until all is ready."""
    until = time.monotonic() + _START_SECONDS
    shown = 0
    while True:
        ready, ended = _addresses_file().exists(), owner.poll() is not None
        lines = log.read_text().splitlines()
        print("\n".join(lines[shown:]), end="\n" if lines[shown:] else "", flush=True)
        shown = len(lines)
        if ready:
            return
        if ended or time.monotonic() > until:
            owner.terminate()
            raise StandingError(f"it could not be started; its log is {log}")
        time.sleep(0.2)


def _say(what: str) -> None:
    print(what, flush=True)


def _write_addresses(home: Path, stack: Stack) -> None:
    addresses = {
        "prefect": stack.prefect.url,
        "xledger": stack.xledger.url,
        "business_central": stack.business_central.url,
        "supabase": stack.supabase.url,
        "supabase_key": stack.supabase.secret_key,
        "env": stack.env,
    }
    _write_for_us_alone(
        home / "environment",
        "".join(f"export {name}={value!r}\n" for name, value in stack.env.items()),
    )
    unfinished = home / "addresses.json.new"
    _write_for_us_alone(unfinished, json.dumps(addresses))
    unfinished.rename(_addresses_file())


def _write_for_us_alone(path: Path, text: str) -> None:
    """Write a file with secrets: others may pass through the home, not read this."""
    path.touch(mode=0o600)
    path.write_text(text)


def _show(addresses: dict[str, Any]) -> None:
    environment = Home.place(_NAME) / "environment"
    print(f"""
Prefect UI   {addresses["prefect"]}
Supabase     {addresses["supabase"]}
Xledger      {addresses["xledger"]}/_sandbox/books
Business C.  {addresses["business_central"]}/_sandbox/books

Try this, from this folder:

  source {environment}
  export PATH=$PWD/.venv/bin:$PATH
  prefect deployment run sync/nordvest-xledger --watch
  prefect deployment run sync/fjordby-business-central --watch
  kvitt periods
  kvitt receipt nordvest-xledger
  make down""")


def _addresses() -> dict[str, Any]:
    return json.loads(_addresses_file().read_text())


def _addresses_file() -> Path:
    return Home.place(_NAME) / "addresses.json"


def _log() -> Path:
    """Name the owner's log. It lies beside the home, which is gone when the owner is."""
    return Home.place(_NAME).with_suffix(".log")
