import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from sandbox.edge import Usage
from sandbox.processes import CHECKOUT, Home, HomeBusyError, StartError

SLEEP = ["sleep", "1000"]
SERVER = """
import http.server, json, sys
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[2])), http.server.BaseHTTPRequestHandler)
print(json.dumps({"url": f"http://127.0.0.1:{server.server_port}"}))
server.serve_forever()
"""
PARENT = """
import os, sys, time
from sandbox.processes import Home
home = Home.open(sys.argv[1])
first = home.spawn("first", ["sh", "-c", "sleep 1000 & echo $! >&2; wait"])
second = home.spawn("second", ["sleep", "1000"])
while not first.output():
    time.sleep(0.01)
print(home.path, first.pid, second.pid, first.output(), flush=True)
time.sleep(1000)
"""


def is_running(pid: int) -> bool:
    return Usage.of(pid).memory > 0  # a zombie, which no init may have reaped yet, has none


def wait_until_gone(*pids: int) -> None:
    until = time.monotonic() + 10
    while any(map(is_running, pids)):
        assert time.monotonic() < until, f"still there: {[*filter(is_running, pids)]}"
        time.sleep(0.01)


def answers(url: str, timeout: float) -> bool:
    try:
        httpx.get(url, timeout=timeout, trust_env=False)
    except httpx.TransportError:
        return False
    return True


def test_children_and_their_children_end_when_the_parent_is_killed() -> None:
    name = f"orphans-{os.getpid()}"
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, name], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        path, *pids = parent.stdout.readline().split()
        assert len(pids) == 3
        assert all(is_running(int(pid)) for pid in pids)
        parent.kill()
    wait_until_gone(*map(int, pids))
    Home.sweep()
    assert not Path(path).exists()


def test_a_home_with_a_living_owner_is_neither_swept_nor_shared(home: Home) -> None:
    assert home.path not in Home.sweep()
    with pytest.raises(HomeBusyError, match="in use"):
        Home.open(f"test-{os.getpid()}")


def test_the_owner_of_a_home_is_known_while_it_lives() -> None:
    name = f"owned-{os.getpid()}"
    with Home.open(name):
        assert Home.owner(name) == os.getpid()
    assert Home.owner(name) is None


def test_a_closed_home_is_gone_unless_it_is_to_be_kept() -> None:
    name = f"kept-{os.getpid()}"
    with Home.open(name, keep=True) as kept:
        child = kept.spawn("child", SLEEP)
    assert kept.path not in Home.sweep()
    assert kept.path.exists()
    wait_until_gone(child.pid)
    with Home.open(name) as again:
        assert again.path == kept.path
    assert not kept.path.exists()


def test_a_child_that_does_not_listen_is_killed_after_the_grace(home: Home) -> None:
    deaf = ["sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.1; done"]
    child = home.spawn("deaf", deaf, grace=0.3, ready=lambda it: "deaf" in it.output())
    child.stop()
    assert child.exit_status == 128 + signal.SIGKILL


def test_a_paused_child_can_be_stopped(home: Home) -> None:
    child = home.spawn("child", SLEEP)
    child.pause()
    began = time.monotonic()
    child.stop()
    assert time.monotonic() - began < 2
    assert child.exit_status == 128 + signal.SIGTERM


def test_a_killed_child_is_noticed(home: Home) -> None:
    child = home.spawn("child", SLEEP)
    child.kill()
    assert not child.alive
    assert child.exit_status == 128 + signal.SIGKILL
    child.stop()


def test_a_failed_start_shows_the_end_of_the_log(home: Home) -> None:
    with pytest.raises(StartError, match=r"ended \(3\)[\s\S]*no such ledger"):
        home.spawn("bad", ["sh", "-c", "echo no such ledger; exit 3"], ready=lambda _: False)


def test_a_start_that_takes_too_long_fails_and_leaves_nothing_behind(home: Home) -> None:
    with pytest.raises(StartError, match="did not become ready"):
        home.spawn("silent", SLEEP, ready=lambda _: False, timeout=0.2)


def test_a_command_that_does_not_exist_fails(home: Home) -> None:
    with pytest.raises(StartError, match="no-such-command"):
        home.spawn("bad", ["no-such-command"])


def test_a_server_comes_back_on_the_same_url(home: Home) -> None:
    server = home.serve("server", [sys.executable, "-c", SERVER])
    url, pid = server.url, server.pid
    assert answers(url, timeout=5)
    server.kill()
    assert not answers(url, timeout=5)
    server.restart()
    assert (server.url, server.pid == pid) == (url, False)
    assert answers(url, timeout=5)


def test_a_paused_server_keeps_silent_until_it_is_resumed(home: Home) -> None:
    server = home.serve("server", [sys.executable, "-c", SERVER])
    server.pause()
    assert not answers(server.url, timeout=0.2)
    server.resume()
    assert answers(server.url, timeout=5)
