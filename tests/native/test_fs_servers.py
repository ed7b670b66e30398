"""Servers on mounts: PostgreSQL's cluster on a cow, nginx with every way of reading a file."""

from __future__ import annotations

import os
import pwd
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.native.fs_harness import MOUNT, Overlay, bare, make_tree, pack
from tests.native.test_fs_workloads import good, need

pytestmark = pytest.mark.native
LibDir = Callable[[str], Path]
USER = "postgres"


def _reachable(path: Path) -> None:
    """By users other than root, as what pytest makes is not."""
    for above in [path, *path.parents][:4]:
        above.chmod(above.stat().st_mode | 0o711)


# ---- PostgreSQL ----------------------------------------------------------------------------------


class Cluster:
    """A cluster made outside is the lower directory of a cow; the server runs in the mount."""

    def __init__(self, folder: Path, library: Path) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        if not found:
            pytest.skip("no PostgreSQL server; `make setup` as root installs Debian's")
        if os.geteuid() != 0:
            pytest.skip("the server's user is made one by setpriv, which needs root")
        if library.parent.name.endswith("-asan"):
            pytest.skip("PostgreSQL's programs hang in setlocale under any preloaded sanitizer")
        self.programs, self.home, self.lower = found[-1].parent, folder / "home", folder / "lower"
        _reachable(folder)
        account = pwd.getpwnam(USER)
        for path in (self.home, self.lower):
            path.mkdir(mode=0o700)
            os.chown(path, account.pw_uid, account.pw_gid)
        make: list[str | Path] = [
            self.programs / "initdb",
            "-D",
            self.lower,
            "-U",
            USER,
            "-A",
            "trust",
            "-k",
        ]
        good(bare(self._as_user(*make, "--no-sync", "-E", "UTF8", "--locale", "C.UTF-8")))
        mount = {"path": MOUNT, "source": "cow", "from": str(self.lower)}
        self.application = Overlay(folder / "run", library, [mount])
        for path in (folder / "run", *(folder / "run").iterdir()):
            os.chown(path, account.pw_uid, account.pw_gid)
        self.server: subprocess.Popen[bytes] | None = None

    def _as_user(self, *words: str | Path) -> list[str]:
        become = ["setpriv", "--reuid", USER, "--regid", USER, "--clear-groups"]
        return [*become, *map(str, words)]

    def start(self) -> None:
        options: list[str | Path] = ["-c", "listen_addresses=", "-k", self.home]
        with (self.home / "log").open("ab") as log:
            self.server = subprocess.Popen(
                self._as_user(self.programs / "postgres", "-D", MOUNT, *options),
                env=self.application.environment,
                cwd=self.home,
                stderr=log,
                start_new_session=True,
            )
        for _ in range(300):
            if self.ask("select 1", check=False).returncode == 0:
                return
            assert self.server.poll() is None, (self.home / "log").read_text()
            time.sleep(0.1)
        pytest.fail((self.home / "log").read_text())

    def end(self, how: signal.Signals) -> None:
        """SIGKILL takes all of the server's processes at once, as a crash does."""
        if self.server is None:
            return
        if how == signal.SIGKILL:
            os.killpg(self.server.pid, how)
        else:
            self.server.send_signal(how)
        self.server.wait(60)
        self.server = None

    def ask(self, query: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = bare(["psql", "-h", str(self.home), "-U", USER, "-Atc", query, "postgres"])
        if check:
            good(done)
        return done

    def bench(self, *words: str) -> list[str]:
        return [
            str(self.programs / "pgbench"),
            "-h",
            str(self.home),
            "-U",
            USER,
            *words,
            "postgres",
        ]


@pytest.fixture
def cluster(tmp_path: Path, libdir: LibDir) -> Iterator[Cluster]:
    made = Cluster(tmp_path, libdir("filesystem") / "libcse-fs.so")
    try:
        yield made
    finally:
        made.end(signal.SIGKILL)


def test_postgresql_recovers_on_a_cow_after_sigkill(cluster: Cluster) -> None:
    need("psql")
    before = good(
        bare(["sh", "-c", f"cd {cluster.lower} && find . -type f | sort | xargs sha1sum"])
    )
    cluster.start()
    good(bare(cluster.bench("-i", "-q", "-s", "2")))
    out = good(bare(cluster.bench("-n", "-c", "4", "-j", "2", "-t", "100")))
    assert "actually processed: 400/400" in out
    history = int(cluster.ask("select count(*) from pgbench_history").stdout)
    busy = subprocess.Popen(
        cluster.bench("-n", "-c", "4", "-T", "60", "-P", "1"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert busy.stderr is not None
    while "progress" not in busy.stderr.readline():
        assert busy.poll() is None
    committed = int(cluster.ask("select count(*) from pgbench_history").stdout)
    assert committed > history
    cluster.end(signal.SIGKILL)
    busy.communicate(timeout=30)
    cluster.start()
    assert "automatic recovery" in (cluster.home / "log").read_text()
    sums = "select (select sum(abalance) from pgbench_accounts) = sum(delta), count(*) from "
    equal, count = cluster.ask(sums + "pgbench_history").stdout.strip().split("|")
    assert equal == "t" and int(count) >= committed
    check = cluster.programs / "pg_amcheck"
    if check.exists():
        cluster.ask("create extension amcheck")
        words = ["-h", str(cluster.home), "-U", USER, "--heapallindexed", "-d", "postgres"]
        assert good(bare([str(check), *words])) == ""
    cluster.end(signal.SIGINT)
    after = good(bare(["sh", "-c", f"cd {cluster.lower} && find . -type f | sort | xargs sha1sum"]))
    assert after == before, "the lower directory was written to"


# ---- nginx ---------------------------------------------------------------------------------------

NGINX = """
worker_processes 2;
pid {run}/nginx.pid;
error_log {run}/error.log;
thread_pool readers threads=4;
events {{ }}
http {{
  access_log off;
  default_type application/octet-stream;
  output_buffers 2 64k;
  client_body_temp_path {run}/b; proxy_temp_path {run}/p; fastcgi_temp_path {run}/f;
  uwsgi_temp_path {run}/u; scgi_temp_path {run}/s;
  server {{ listen unix:{run}/socket; root {root}; {ways} }}
}}
"""
WAYS = {
    "sendfile": "sendfile on;",
    "threads": "sendfile off; aio threads=readers;",
    "sendfile, threads": "sendfile on; aio threads=readers;",
    "direct": "sendfile off; directio 512;",
    "direct, kernel's aio": "sendfile off; aio on; directio 512;",
    "direct, threads": "sendfile on; aio threads=readers; directio 64k;",
    "open files kept": "sendfile on; open_file_cache max=100; open_file_cache_errors on;",
}


def _get(socket_path: Path, name: str, where: str = "") -> bytes:
    words = ["curl", "-sSf", "--unix-socket", str(socket_path), f"http://x/{name}"]
    words += ["-r", where] if where else []
    done = subprocess.run(words, capture_output=True, check=False, timeout=30)
    log = socket_path.with_name("error.log")
    assert done.returncode == 0, f"{done.stderr.decode()}{log.read_text(errors='replace')}"
    return done.stdout


@pytest.mark.parametrize("source", ["archive", "cow"])
@pytest.mark.parametrize("way", WAYS)
def test_nginx_reads_in_every_way(way: str, source: str, tmp_path: Path, libdir: LibDir) -> None:
    need("nginx", "curl")
    built = bare(["nginx", "-V"]).stderr
    if "aio on" in WAYS[way] and "--with-file-aio" not in built:
        pytest.skip("this nginx is built without --with-file-aio")
    library = libdir("filesystem") / "libcse-fs.so"
    tree = make_tree(tmp_path / "tree")
    (tree / "large").write_bytes(os.urandom((3 << 20) + 12_345))
    mount: dict[str, Any] = {"path": MOUNT, "source": "archive"}
    mount["from"] = str(pack(tree, tmp_path / "t.tar.gz"))
    if source == "cow":
        mount = {
            "path": MOUNT,
            "source": "cow",
            "lower": {"source": "archive", "from": mount["from"]},
        }
    _reachable(tmp_path)
    application, run = Overlay(tmp_path / "run", library, [mount]), tmp_path / "nginx"
    run.mkdir()
    if source == "cow":
        good(application.run(["sh", "-c", f"echo more >> {MOUNT}/large; echo new > {MOUNT}/new"]))
        with (tree / "large").open("a") as file:
            file.write("more\n")
        (tree / "new").write_text("new\n")
    config = NGINX.format(run=run, root=MOUNT, ways=WAYS[way])
    (run / "nginx.conf").write_text(config)
    start = ["nginx", "-c", str(run / "nginx.conf"), "-e", str(run / "start.log")]
    server = subprocess.Popen(
        [*start, "-g", "daemon off;"], env=application.environment, cwd="/", stderr=subprocess.PIPE
    )
    try:
        for _ in range(200):
            with socket.socket(socket.AF_UNIX) as probe:
                if probe.connect_ex(str(run / "socket")) == 0:
                    break
            assert server.poll() is None, server.communicate()
            time.sleep(0.05)
        names = ["large", "sub/deep/n.bin", "a.txt", "empty", *(["new"] if source == "cow" else [])]
        for name in names * 2:  # filled by the first, read again by the second
            assert _get(run / "socket", name) == (tree / name).read_bytes(), name
        whole = (tree / "large").read_bytes()
        assert _get(run / "socket", "large", "1000001-2000000") == whole[1_000_001:2_000_001]
        assert _get(run / "socket", "large", "-5") == whole[-5:]
        assert application.errors == ""
        assert not re.search(r"\[(alert|crit)\]", (run / "error.log").read_text())
    finally:
        server.send_signal(signal.SIGQUIT)
        server.communicate(timeout=20)
