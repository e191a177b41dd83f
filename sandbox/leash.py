"""Runs one command and never lets it outlive whoever holds the other end of our standard input.

    python -I -S leash.py LOCK STOP_SIGNAL GRACE USER command…

The parent keeps the write end of the pipe that is our stdin. However the parent ends, `kill -9`
included, the kernel closes that end, and we end the command's whole process group: first with
STOP_SIGNAL (a number), after GRACE seconds with SIGKILL. While we live we hold a shared lock on
the file LOCK, so that nobody removes the directory under a command that is still shutting down.
USER is whom the command runs as, or "" for ourselves. We stay who we are, since an unprivileged
USER may not even reach this interpreter.

The command's pid is printed on stdout, its own output goes to our stderr, and we exit with its
status (128 + signal where a signal ended it, as shells do). Standard library only: this has to
start in some milliseconds.
"""

import contextlib
import fcntl
import os
import pwd
import signal
import subprocess
import sys
import threading
import time
from types import FrameType
from typing import NoReturn


def main() -> None:
    """Run the command until it ends or our stdin is closed."""
    lock, stop, grace, user, *command = sys.argv[1:]
    fcntl.flock(os.open(lock, os.O_RDWR | os.O_CREAT, 0o600), fcntl.LOCK_SH)
    child = start(command, user)
    print(child.pid, flush=True)
    threading.Thread(target=reap, args=(child,)).start()
    signal.signal(signal.SIGTERM, let_go)
    try:
        while os.read(0, 1):
            pass
    finally:
        end(child, stop=int(stop), grace=float(grace))


def let_go(_signal: int, _frame: FrameType | None) -> NoReturn:
    """Leave the wait for stdin, as if our parent had died."""
    sys.exit()


def start(command: list[str], user: str) -> subprocess.Popen[bytes]:
    """Start the command in a process group of its own."""
    account = pwd.getpwnam(user) if user else None
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=2,
        process_group=0,
        user=account and account.pw_uid,
        group=account and account.pw_gid,
        extra_groups=[] if account else None,
    )


def reap(child: subprocess.Popen[bytes]) -> NoReturn:
    """Wait for the command, take what it left in its group with it, and exit as it did."""
    status = child.wait()
    signal_group(child, signal.SIGKILL)
    os._exit(status if status >= 0 else 128 - status)


def end(child: subprocess.Popen[bytes], *, stop: int, grace: float) -> None:
    """Ask the group to end, then make it; `reap` ends us as soon as it has."""
    signal_group(child, stop)
    signal_group(child, signal.SIGCONT)  # a paused process sees no other signal
    time.sleep(grace)
    signal_group(child, signal.SIGKILL)


def signal_group(child: subprocess.Popen[bytes], number: int) -> None:
    """Signal the command's group; macOS says EPERM where only zombies are left in it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)


if __name__ == "__main__":
    main()
