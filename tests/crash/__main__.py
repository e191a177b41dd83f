"""`python -m tests.crash`: see `command`."""

from tests.crash.command import main

main()
