"""`python -m sandbox demo | up | down`: what `make` calls."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

from sandbox.demo import DemoFailed, demo
from sandbox.processes import HomeBusyError, StartError
from sandbox.stack import CommandFailed
from sandbox.standing import StandingError, down, serve, up

if TYPE_CHECKING:
    from types import FrameType

COMMANDS = {"demo": demo, "up": up, "down": down, "serve": serve}


def _end(_number: int, _frame: FrameType | None) -> None:
    """End as an exception does, so that each `with` takes down what it holds."""
    sys.exit(128 + signal.SIGTERM)


def main() -> int:
    """Run one command; what goes wrong is said in words."""
    if len(sys.argv) != 2 or sys.argv[1] not in COMMANDS:  # noqa: PLR2004 - program and command
        print(f"usage: python -m sandbox {' | '.join(COMMANDS)}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _end)
    try:
        COMMANDS[sys.argv[1]]()
    except (DemoFailed, StartError, StandingError, CommandFailed, HomeBusyError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped, and taken down", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
