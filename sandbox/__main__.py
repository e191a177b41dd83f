"""`python -m sandbox demo | up | down`: what `make` calls."""

from __future__ import annotations

import sys

from sandbox.demo import DemoFailed, demo
from sandbox.processes import HomeBusyError, StartError
from sandbox.stack import CommandFailed
from sandbox.standing import StandingError, down, serve, up

COMMANDS = {"demo": demo, "up": up, "down": down, "serve": serve}


def main() -> int:
    """Run one command; what goes wrong is said in words."""
    if len(sys.argv) != 2 or sys.argv[1] not in COMMANDS:  # noqa: PLR2004 - program and command
        print(f"usage: python -m sandbox {' | '.join(COMMANDS)}", file=sys.stderr)
        return 2
    try:
        COMMANDS[sys.argv[1]]()
    except (DemoFailed, StartError, StandingError, CommandFailed, HomeBusyError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; everything is taken down", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
