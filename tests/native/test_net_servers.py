"""Servers of many processes and threads on private stacks, under the load of their own tools.

test_net_programs.py asks whether a program works; here it is pressed: several workers share one
listener, connections are kept alive, and clients come from the machine and from other instances.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.native.net.lab import Host, Lab
from tests.native.test_net_programs import fetch, need, port_open

pytestmark = [pytest.mark.native, pytest.mark.root]
APACHE_MODULES = Path("/usr/lib/apache2/modules")
POSTGRES = "/usr/lib/postgresql"


@pytest.fixture
def site() -> Iterator[Path]:
    """Served by programs that drop root: the whole way down to it is open to all."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        (directory / "index.html").write_text("hello\n")
        (directory / "big").write_bytes(bytes(range(256)) * 20_000)
        yield directory


def apache(host: Host, site: Path, mpm: str) -> subprocess.Popen[str]:
    configuration = host.run / "apache.conf"
    modules = [f"mpm_{mpm}", "authz_core"]
    loads = "".join(f"LoadModule {m}_module {APACHE_MODULES}/mod_{m}.so\n" for m in modules)
    configuration.write_text(
        f"{loads}ServerName {host.name}\nListen 80\nPidFile {host.run}/apache.pid\n"
        f"DefaultRuntimeDir {host.run}\nMutex file:{host.run}\nErrorLog {host.run}/error.log\n"
        f"User www-data\nGroup www-data\nStartServers 3\nDocumentRoot {site}\n"
        f"MaxKeepAliveRequests 0\nKeepAliveTimeout 5\n"
    )
    program = need("apache2")
    # A session of its own: at its end Apache signals its whole process group.
    return host.start("setsid", program, "-DFOREGROUND", "-f", str(configuration))


def load(program: Host | None, *words: str) -> str:
    """The output of a load generator: one on the machine, or one that is an instance itself."""
    if program is not None:
        return program.check(*words, timeout=60)
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout


@pytest.mark.parametrize("mpm", ["prefork", "event", "worker"])
def test_apache_under_load(lab: Lab, site: Path, mpm: str) -> None:
    need("apache2")
    server, client = lab.host(), lab.host()
    process = apache(server, site, mpm)
    port_open(server, 80)
    assert fetch(server.address, "/index.html") == b"hello\n"
    assert fetch(server.address, "/big") == (site / "big").read_bytes()
    url = f"http://{server.address}/index.html"
    for origin in (None, client):
        for keep in ([], ["-k"]):
            out = load(origin, need("ab"), "-q", *keep, "-n", "1000", "-c", "20", url)
            assert re.search(r"Complete requests:\s+1000\b", out), out
            assert re.search(r"Failed requests:\s+0\b", out), out
    assert server.stop(process, 10) == 0, (server.run / "error.log").read_text()


def as_postgres(host: Host, *words: str) -> tuple[str, ...]:
    """PostgreSQL refuses to run as root: an ordinary user, who needs no capability here."""
    return ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *words)


def postgres_tools() -> Path:
    found = sorted(Path(POSTGRES).glob("*/bin/initdb")) if Path(POSTGRES).is_dir() else []
    if not found:
        pytest.skip("no PostgreSQL server here")
    return found[-1].parent


def start_postgres(lab: Lab, tools: Path) -> Host:
    host = lab.host()
    lab.directory.chmod(0o711)
    for path in (host.run, *host.run.iterdir()):
        shutil.chown(path, "postgres", "postgres")
    data = str(host.run / "cluster")
    initdb = (str(tools / "initdb"), "-A", "trust", "-N", "-E", "UTF8", "--locale=C", "-D", data)
    host.check(*as_postgres(host, *initdb), timeout=60)
    with open(f"{data}/pg_hba.conf", "a") as rules:
        rules.write(f"host all all {lab.network}.0/24 trust\n")
    options = ("-c", "listen_addresses=*", "-c", "fsync=off", "-k", str(host.run))
    host.start(*as_postgres(host, str(tools / "postgres"), "-D", data, *options), cwd=host.run)
    port_open(host, 5432)
    return host


def test_postgres_serves_clients_of_both_kinds(lab: Lab) -> None:
    """One process for each connection, made by fork; SELECTs large and small, cancel, COPY."""
    tools = postgres_tools()
    server, client = start_postgres(lab, tools), lab.host()
    words = ("-h", server.address, "-U", "postgres")
    query = "select sum(length(v)) from (select repeat('x', 1000) v from generate_series(1,9)) t"
    pgbench = str(tools / "pgbench")
    assert (
        "creating tables"
        in subprocess.run(
            [pgbench, "-i", *words, "-q", "postgres"], capture_output=True, text=True, check=True
        ).stderr
    )
    for origin in (None, client):
        assert load(origin, "psql", *words, "-Atc", query).strip() == "9000"
        rows = "copy (select repeat('y', 99) from generate_series(1, 50000)) to stdout"
        assert len(load(origin, "psql", *words, "-Atc", rows)) == 100 * 50_000
        for mode in ([], ["-C"]):
            limit = "20" if mode else "200"
            out = load(
                origin, pgbench, *words, "-n", "-c", "8", "-j", "2", "-t", limit, *mode, "postgres"
            )
            assert re.search(r"failed transactions: 0 ", out), out
            assert f"actually processed: {8 * int(limit)}/" in out
        cancelled = ("psql", *words, "-c", "set statement_timeout=300", "-c", "select pg_sleep(60)")
        probe = subprocess.run(
            origin.command(*cancelled) if origin else cancelled,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert "statement timeout" in probe.stderr
