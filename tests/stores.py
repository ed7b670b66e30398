"""Databases for tests: SQLite in the test's directory, or one of a PostgreSQL server of the run's.

`pytest --store postgresql` runs every test that makes a control plane or a store on PostgreSQL
instead. The server is Debian's own, started at the first use, without TCP, and ended with the run.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

import psycopg
import pytest

_USER = "postgres"
kind = "sqlite"
"""`sqlite` or `postgresql`; set from the command line."""


def url(path: Path) -> str:
    """The database of this path: the same each time, empty at first."""
    if kind == "sqlite":
        return f"sqlite:///{path}"
    return postgresql(path)


def postgresql(path: Path) -> str:
    """A PostgreSQL database of this path. Skips where there is no server to start."""
    socket, name = _server(), "t" + hashlib.sha256(str(path).encode()).hexdigest()[:30]
    with psycopg.connect(host=str(socket), user=_USER, dbname="postgres", autocommit=True) as own:
        if not own.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
            own.execute(f'CREATE DATABASE "{name}"')
    return f"postgresql://{_USER}@/{name}?host={socket}"


@functools.cache
def _server() -> Path:
    """The directory of a running server's socket."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("no PostgreSQL server; `make setup` as root installs Debian's")
    home, programs = Path(tempfile.mkdtemp(prefix="cse-postgres-")), found[-1].parent
    as_user: list[str | Path] = []
    if os.geteuid() == 0:
        account = pwd.getpwnam(_USER)
        os.chown(home, account.pw_uid, account.pw_gid)
        as_user = ["setpriv", "--reuid", _USER, "--regid", _USER, "--clear-groups"]
    data, log = home / "data", home / "log"
    initdb = programs / "initdb"
    make: list[str | Path] = [initdb, "-D", data, "-U", _USER, "-A", "trust", "--no-sync"]
    make += ["-E", "UTF8", "--locale", "C.UTF-8"]
    subprocess.run([*as_user, *make], cwd=home, check=True, capture_output=True)
    # Fast, for a crash of the machine may take these.
    options = f"-c listen_addresses= -c fsync=off -k {home}"
    control: list[str | Path] = [*as_user, programs / "pg_ctl", "-D", data, "-w", "-l", log]
    subprocess.run([*control, "-o", options, "start"], cwd=home, check=True, capture_output=True)

    def end() -> None:
        subprocess.run([*control, "-m", "immediate", "stop"], cwd=home, capture_output=True)
        shutil.rmtree(home, ignore_errors=True)

    atexit.register(end)
    return home
