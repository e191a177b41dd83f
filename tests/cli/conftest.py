"""The command line as a person runs it: a process of its own, without Prefect."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sandbox.processes import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandbox.supabase import Supabase

KVITT = Path(sys.executable).with_name("kvitt")


@pytest.fixture
def kvitt(supabase: Supabase) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command; whatever comes of it, it shows neither a traceback nor a secret."""

    def kvitt(*arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
        given = {"SUPABASE_URL": supabase.url, "SUPABASE_SECRET_KEY": supabase.secret_key, **env}
        done = subprocess.run(
            [KVITT, *map(str, arguments)],
            cwd=CHECKOUT,
            env={**os.environ, **given},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        printed = done.stdout + done.stderr
        assert "Traceback" not in printed
        secrets = (given["SUPABASE_SECRET_KEY"], supabase.postgres.password)
        assert [secret for secret in secrets if secret in printed] == []
        return done

    return kvitt
