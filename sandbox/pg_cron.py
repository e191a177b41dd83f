"""A Postgres with the real pg_cron, from Debian's packages; it needs no root and installs nothing.

    postgres = start_with_pg_cron(home)
    supabase = Supabase.start(home, postgres=postgres)

No wheel has pg_cron. So Debian's package client downloads `postgresql-<version>-cron`, with
whatever it depends on and the system has not, and it is all unpacked into the home: nothing is
installed, and an ordinary user can do it. The packages are kept in `.sandbox/`.

Like hosted Supabase it has the extension in the database `postgres`. Unlike it, Debian 12 has
pg_cron 1.4, without schedules in seconds and without `cron.timezone` (it is UTC).
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from sandbox.postgres import VERSIONS, Postgres
from sandbox.postgrest import CACHE
from sandbox.processes import StartError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandbox.processes import Home

_DEBIAN = Path("usr/lib/postgresql")
_SHARED = Path("usr/share/postgresql")
_DOWNLOAD_SECONDS = 300


class NoPgCronError(StartError):
    """There is no pg_cron to be had here; the message says why."""


def start_with_pg_cron(home: Home, settings: Mapping[str, str] | None = None) -> Postgres:
    """Start a Postgres with pg_cron, and create the extension. Raises StartError."""
    tree = home.path / "debian"
    major = _unpack(_packages(), tree)
    libraries = ":".join(str(path) for path in sorted((tree / "usr/lib").glob("*-linux-*")))
    postgres = Postgres.start(
        home,
        binaries=tree / _DEBIAN / str(major) / "bin",
        settings={
            "shared_preload_libraries": "pg_cron",
            # pg_cron logs in like anybody. In the cluster's own folder nobody else gets at the
            # socket, so there no password is asked for.
            "unix_socket_directories": str(home.path / "postgres"),
            "cron.host": str(home.path / "postgres"),
            **(settings or {}),
        },
        env={"LD_LIBRARY_PATH": libraries} if libraries else {},
    )
    with psycopg.connect(postgres.url(), autocommit=True) as database:
        database.execute("create extension pg_cron")
    return postgres


def _packages() -> list[Path]:
    """Return the packages, downloading them the first time (one at a time)."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise NoPgCronError(
            "pg_cron comes from Debian's packages, and this system has no apt-get and dpkg-deb: "
            "what needs a real pg_cron cannot run here"
        )
    beside = "-".join(str(n) for n in VERSIONS if _installed(n)) or "none"
    folder = CACHE / f"pg_cron-beside-{beside}"  # what is to be downloaded depends on it
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            _download(folder)
            (folder / "complete").touch()
    return sorted((folder / "packages").glob("*.deb"))


def _installed(major: int) -> bool:
    return (Path("/") / _DEBIAN / str(major) / "bin" / "postgres").exists()


def _download(folder: Path) -> None:
    """Download pg_cron for the system's own Postgres if it has one, else for any that fits ours."""
    shutil.rmtree(folder / "packages", ignore_errors=True)
    for part in ("packages/partial", "lists/partial"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for options in ([], [f"Dir::State::lists={folder / 'lists'}"]):  # the system's lists, then ours
        told = _apt(folder, options, "update") if options else ""
        for major in sorted(VERSIONS, key=lambda n: not _installed(n)):
            said = _apt(folder, options, "install", f"postgresql-{major}-cron")
            if not said:
                return
            told += said
    raise NoPgCronError(f"the package client has no postgresql-<15 to 18>-cron:\n{told}")


def _apt(folder: Path, options: list[str], *command: str) -> str:
    """Run the package client so that it changes nothing of the system; returns what went wrong."""
    settings = [
        "Debug::NoLocking=true",
        f"APT::Sandbox::User={'root' if os.getuid() == 0 else ''}",
        f"Dir::Cache={folder}",
        f"Dir::Cache::archives={folder / 'packages'}",
        *options,
    ]
    done = subprocess.run(
        [
            *("apt-get", "--yes", "--quiet", "--download-only", "--no-install-recommends"),
            *(word for setting in settings for word in ("-o", setting)),
            *command,
        ],
        env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_DOWNLOAD_SECONDS,
        check=False,
    )
    return done.stdout + done.stderr if done.returncode else ""


def _unpack(packages: list[Path], tree: Path) -> int:
    """Unpack them into one tree, beside the system's Postgres of their version; returns that.

    Postgres finds its libraries and extensions from where its program lies. So a copy of it that
    lies in the tree finds pg_cron there.
    """
    tree.mkdir()
    tree.chmod(0o755)  # whatever our umask: if we are root, Postgres is another user
    major = next(n for n in VERSIONS if any(f"postgresql-{n}-cron_" in p.name for p in packages))
    if not any(p.name.startswith(f"postgresql-{major}_") for p in packages):
        for part in (_DEBIAN / str(major), _SHARED / str(major)):
            shutil.copytree(Path("/") / part, tree / part)
    for package in packages:
        unpacked = subprocess.run(
            ["dpkg-deb", "--extract", package, tree], capture_output=True, text=True, check=False
        )
        if unpacked.returncode:
            raise NoPgCronError(f"{package.name} cannot be unpacked: {unpacked.stderr}")
    for folder in (tree, *(path for path in tree.rglob("*") if path.is_dir())):
        folder.chmod(0o755)
    return major
