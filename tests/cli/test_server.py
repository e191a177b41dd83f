"""Commands that need Prefect, where no server is named or none answers: one sentence, no server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sandbox.processes import free_port
from tests.cli.test_cli import refused

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Kvitt = Callable[..., subprocess.CompletedProcess[str]]

COMMANDS = [
    ("periods",),  # the project is a block in Prefect, where the environment does not say it
    ("plan",),
    ("apply",),
    ("facts", "xledger", "nordvest"),
]


@pytest.fixture
def by_blocks(kvitt: Kvitt, tmp_path: Path) -> Kvitt:
    """Run a command of somebody who has no Prefect profile, and no project in the environment."""

    def by_blocks(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        own = {"SUPABASE_URL": "", "PREFECT_HOME": str(tmp_path), "PREFECT_API_URL": "", **env}
        return kvitt(*arguments, **own)

    return by_blocks


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_without_a_server_that_is_named_no_temporary_one_starts(
    by_blocks: Kvitt, command: tuple[str, ...], tmp_path: Path
) -> None:
    said = refused(by_blocks(*command, PREFECT_SERVER_ALLOW_EPHEMERAL_MODE="true"))
    assert "PREFECT_API_URL is not set" in said
    assert "source the environment that `make up` prints, or name your server" in said
    assert list(tmp_path.glob("*.db")) == []


@pytest.mark.parametrize(
    "address",
    ["nonsense", "ftp://prefect.example/api", "http://kvitt:not-to-be-shown@[::1/api"],
)
@pytest.mark.parametrize("command", ["periods", "checkpoint"])
def test_an_address_that_is_none_is_told_in_one_sentence(
    by_blocks: Kvitt, address: str, command: str
) -> None:
    said = refused(by_blocks(command, PREFECT_API_URL=address))
    assert "PREFECT_API_URL is no address, like http://127.0.0.1:4200/api" in said
    assert "not-to-be-shown" not in said


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_server_that_does_not_answer_is_named(by_blocks: Kvitt, command: tuple[str, ...]) -> None:
    address = f"127.0.0.1:{free_port()}"
    said = refused(
        by_blocks(*command, PREFECT_API_URL=f"http://kvitt:not-to-be-shown@{address}/api")
    )
    assert f"the Prefect server at http://{address} (PREFECT_API_URL) does not answer" in said
    assert "not-to-be-shown" not in said
