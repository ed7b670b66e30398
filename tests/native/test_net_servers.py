"""Servers of many processes and threads on private stacks, under the load of their own tools.

test_net_programs.py asks whether a program works; here it is pressed: several workers share one
listener, connections are kept alive, and clients come from the machine and from other instances.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.native.net.lab import Host, Lab, need, retry
from tests.native.test_net_programs import fetch, port_open

pytestmark = [pytest.mark.native, pytest.mark.root]


@pytest.fixture(autouse=True)
def _not_sanitized(variant: str) -> None:
    if variant == "asan":
        pytest.skip("curl, initdb and others hang in setlocale under any preloaded sanitizer")


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
        rules.write(f"host all all {lab.subnet} trust\n")
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


def certificate(host: Host) -> Path:
    """Key and certificate in one file, signed by itself."""
    path = host.run / "server.pem"
    request = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    made = ("-nodes", "-days", "2", "-subj", "/CN=lab", "-keyout", str(path), "-out", f"{path}.crt")
    subprocess.run([*request, *made], check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


def haproxy(lab: Lab, backend: Host) -> Host:
    host = lab.host()
    configuration = host.run / "haproxy.cfg"
    configuration.write_text(
        "global\n  nbthread 2\n  maxconn 500\n"
        "defaults\n  mode http\n  timeout connect 5s\n  timeout client 20s\n  timeout server 20s\n"
        f"frontend plain\n  bind *:80\n  bind *:443 ssl crt {certificate(host)}\n"
        f"  default_backend one\nbackend one\n  server s {backend.address}:80 check inter 300\n"
    )
    host.start(need("haproxy"), "-W", "-db", "-f", str(configuration))
    port_open(host, 80)
    return host


def test_haproxy_before_another_instance(lab: Lab, site: Path) -> None:
    """Threads that share a listener and an epoll set each, TLS, health checks, a pool behind."""
    need("haproxy")
    backend, client = lab.host(), lab.host()
    apache(backend, site, "event")
    port_open(backend, 80)
    proxy = haproxy(lab, backend)
    assert retry(lambda: fetch(proxy.address, "/index.html") == b"hello\n")
    assert fetch(proxy.address, "/big") == (site / "big").read_bytes()
    for origin in (None, client):
        for scheme in ("http", "https"):
            url = f"{scheme}://{proxy.address}/index.html"
            out = load(origin, need("ab"), "-q", "-k", "-n", "1000", "-c", "20", url)
            assert re.search(r"Complete requests:\s+1000\b", out), out
            assert re.search(r"Failed requests:\s+0\b", out), out
            big = load(
                origin,
                "curl",
                "-sk",
                "-w",
                "%{size_download}",
                "-o",
                "/dev/null",
                f"{scheme}://{proxy.address}/big",
            )
            assert big == str((site / "big").stat().st_size)


MANY_REQUESTS = """
import sys, urllib.request
from concurrent.futures import ThreadPoolExecutor
def one(_):
    return urllib.request.urlopen(f"http://{sys.argv[1]}/", timeout=20).read() == b"0 bytes\\n"
with ThreadPoolExecutor(10) as pool:
    print(sum(pool.map(one, range(300))))
"""
APPLICATION = """
import os
def app(environ, start):
    body = environ["wsgi.input"].read()
    start("200 OK", [("Content-Type", "text/plain"), ("X-Worker", str(os.getpid()))])
    return [b"%d bytes\\n" % len(body)]
"""


@pytest.mark.parametrize("worker", ["sync", "gthread"])
def test_gunicorn_prefork(lab: Lab, worker: str) -> None:
    program = need("gunicorn")
    host, client = lab.host(), lab.host()
    (host.run / "wsgi.py").write_text(APPLICATION)
    words = ("-w", "3", "-k", worker, "--threads", "2", "-b", "0.0.0.0:80")
    master = host.start("/usr/bin/python3", program, *words, "wsgi:app", cwd=host.run)
    port_open(host, 80)
    body = host.run / "body"
    body.write_bytes(bytes(1_000_000))
    url = f"http://{host.address}/"
    for origin in (None, client):
        # Not ab: it opens connections that it never uses, and all workers may wait for those.
        for _ in range(2):
            pool = load(origin, sys.executable, "-c", MANY_REQUESTS, host.address)
            assert pool.split() == ["300"]
        sent = load(origin, "curl", "-sS", "--data-binary", f"@{body}", url)
        assert sent == "1000000 bytes\n"
    master.send_signal(1)  # HUP: new workers on the same listener
    assert retry(lambda: "Hang up" in host.log() or "Handling signal: hup" in host.log())
    for _ in range(20):
        assert fetch(host.address) == b"0 bytes\n"
    assert host.stop(master, 10) == 0, host.log()


def test_memcached_threads_under_load(lab: Lab) -> None:
    """Connections accepted in one thread, handed to four others by a pipe, each with its epoll."""
    host, client = lab.host(), lab.host()
    host.start(need("memcached"), "-u", "root", "-l", "0.0.0.0", "-t", "4", "-c", "256")
    port_open(host, 11211)
    for origin in (None, client):
        # Room for few descriptors above the program's limit: each waiting thread needs two.
        limit = ("prlimit", "--nofile=256:300")
        words = (*limit, sys.executable, "-c", MEMCACHED_LOAD, host.address)
        assert load(origin, *words).split() == ["40"]


MEMCACHED_LOAD = """
import socket, sys, threading
good = []
def run(n):
    c = socket.create_connection((sys.argv[1], 11211), timeout=20)
    f = c.makefile("rb")
    value = (b"%d-" % n) * 3000
    for turn in range(60):
        c.sendall(b"set k%d 0 0 %d\\r\\n%b\\r\\nget k%d\\r\\n" % (n, len(value), value, n))
        assert f.readline() == b"STORED\\r\\n"
        f.readline()
        assert f.read(len(value) + 2) == value + b"\\r\\n"
        assert f.readline() == b"END\\r\\n"
    good.append(n)
threads = [threading.Thread(target=run, args=(n,)) for n in range(40)]
for t in threads: t.start()
for t in threads: t.join()
print(len(good))
"""


CLOSES_FIRST = """
import socket
listener = socket.create_server(("0.0.0.0", 7100))
while True:
    listener.accept()[0].close()
"""
SAME_PORT = """
import socket, sys
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("0.0.0.0", 7101))
s.settimeout(4)
s.connect((sys.argv[1], 7100))
assert s.recv(1) == b""
s.close()
"""


def test_ports_in_time_wait_are_taken_again(lab: Lab) -> None:
    """Each process is a new stack with sequence numbers of its own, above or below the last."""
    server, client = lab.host(), lab.host()
    server.start(sys.executable, "-c", CLOSES_FIRST)
    port_open(server, 7100)
    for _ in range(10):
        client.check(sys.executable, "-c", SAME_PORT, server.address)
    assert server.counters()["tcp_segments_in"] < 1000


def test_rsync_daemon(lab: Lab, site: Path) -> None:
    """A child for each connection, which forks again; both ends wait in select."""
    program = need("rsync")
    server, client = lab.host(), lab.host()
    configuration = server.run / "rsyncd.conf"
    configuration.write_text(f"uid = root\nuse chroot = no\n[site]\npath = {site}\n")
    server.start(program, "--daemon", "--no-detach", f"--config={configuration}")
    port_open(server, 873)
    for origin, place in ((None, client.run / "one"), (client, client.run / "two")):
        load(origin, program, "-r", f"rsync://{server.address}/site/", str(place))
        assert (place / "big").read_bytes() == (site / "big").read_bytes()


def test_git_daemon_clone(lab: Lab, tmp_path: Path) -> None:
    """The daemon gives its connection to upload-pack as standard input and output."""
    program = need("git")
    server, client = lab.host(), lab.host()
    source = tmp_path / "project"
    author = ("-c", "user.name=lab", "-c", "user.email=lab@example.com")
    subprocess.run([program, "init", "-q", str(source)], check=True)
    (source / "file").write_bytes(bytes(range(256)) * 4000)
    subprocess.run([program, "-C", str(source), "add", "file"], check=True)
    commit = ("commit", "-q", "-m", "one")
    subprocess.run([program, "-C", str(source), *author, *commit], check=True)
    base = ("--export-all", f"--base-path={tmp_path}", "--reuseaddr")
    server.start(program, "daemon", *base, str(tmp_path))
    port_open(server, 9418)
    for origin, place in ((None, tmp_path / "one"), (client, tmp_path / "two")):
        load(origin, program, "clone", "-q", f"git://{server.address}/project", str(place))
        assert (place / "file").read_bytes() == (source / "file").read_bytes()


NODE_WORKERS = """
const { Worker, isMainThread } = require("worker_threads"), http = require("http");
const body = Buffer.alloc(5120000, "n");
if (isMainThread) for (const port of [8001, 8002]) new Worker(__filename, { argv: [port] });
else http.createServer((ask, answer) => answer.end(ask.url == "/big" ? body : "hello\\n"))
  .listen(Number(process.argv[2]));
"""
PYTHON_THREADS = """
import http.server, os, sys
os.chdir(sys.argv[1])
class Quiet(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *words): pass
http.server.ThreadingHTTPServer.request_queue_size = 64
http.server.ThreadingHTTPServer(("", 8001), Quiet).serve_forever()
"""
NGINX_THREADS = """
daemon off; worker_processes 1; pid {run}/nginx.pid; error_log {run}/error.log;
events {{ worker_connections 256; }} thread_pool default threads=4;
http {{ access_log off; sendfile on; tcp_nopush on; aio threads;
       server {{ listen 8001; root {site}; }} }}
"""


@pytest.mark.parametrize("kind", ["node", "python", "nginx"])
def test_servers_of_several_threads(lab: Lab, site: Path, kind: str) -> None:
    """A loop in each thread, a thread for each connection, threads that read the files."""
    server, client = lab.host(), lab.host()
    ports = [8001, 8002] if kind == "node" else [8001]
    keep = [] if kind == "python" else ["-k"]  # it keeps HTTP/1.0 connections without saying so
    if kind == "node":
        (server.run / "workers.js").write_text(NODE_WORKERS)
        server.start(need("node"), str(server.run / "workers.js"))
    elif kind == "python":
        server.start("/usr/bin/python3", "-c", PYTHON_THREADS, str(site))
    else:
        (server.run / "nginx.conf").write_text(NGINX_THREADS.format(run=server.run, site=site))
        server.start(need("nginx"), "-c", str(server.run / "nginx.conf"))
    for port in ports:
        port_open(server, port)
    for origin in (None, client):
        for port in ports:
            place = f"http://{server.address}:{port}"
            words = (need("ab"), "-q", *keep, "-n", "2000", "-c", "20", f"{place}/index.html")
            out = load(origin, *words)
            assert re.search(r"Complete requests:\s+2000\b", out), out
            assert re.search(r"Failed requests:\s+0\b", out), out
            for _ in range(3):
                form = ("-w", "%{size_download}", "-o", "/dev/null")
                assert load(origin, "curl", "-s", *form, f"{place}/big") == "5120000"


def test_many_streams_that_end_on_a_full_wire(lab: Lab) -> None:
    """Connections are taken down while their last acknowledgements do not fit into the ring."""
    server, client = lab.host(), lab.host()
    server.start(need("iperf3"), "-s")
    port_open(server, 5201)
    for direction in ([], ["-R"], [], ["-R"]):
        words = ("iperf3", "-c", server.address, "-P", "8", "-t", "1", *direction)
        assert "iperf Done" in client.check(*words, timeout=30)


XINETD = """
defaults {{ log_type = FILE /dev/null }}
service upper {{ type = UNLISTED
  port = 7000
  socket_type = stream
  protocol = tcp
  wait = no
  user = root
  server = {tr}
  server_args = a-z A-Z
}}
service serves {{ type = UNLISTED
  port = 7001
  socket_type = stream
  protocol = tcp
  wait = yes
  user = root
  server = {python}
  server_args = {run}/serves.py
}}
"""
SERVES = """
import socket
with socket.socket(fileno=0) as server:
    one, _ = server.accept()
    one.sendall(one.recv(100).upper())
    one.close()
"""


def test_xinetd_gives_connections_and_listeners_to_programs(lab: Lab) -> None:
    """nowait: the connection is standard input and output; wait: the listener is."""
    host = lab.host()
    names = {"tr": need("tr"), "python": sys.executable, "run": host.run}
    text = XINETD.format(**names).replace("{ ", "\n{\n").replace(" }", "\n}\n")
    (host.run / "xinetd.conf").write_text(text)
    (host.run / "serves.py").write_text(SERVES)
    words = ("-dontfork", "-pidfile", str(host.run / "pid"), "-f", str(host.run / "xinetd.conf"))
    host.start(need("xinetd"), *words)
    port_open(host, 7000)
    for port in (7000, 7000, 7001, 7001, 7001):
        with socket.create_connection((host.address, port), timeout=10) as client:
            client.sendall(b"hello")
            client.shutdown(socket.SHUT_WR)
            assert client.recv(100) == b"HELLO"


def test_vsftpd_with_its_sandbox(lab: Lab, site: Path) -> None:
    """Two processes for each client, data connections passed from one to the other."""
    program = need("vsftpd")
    host, client = lab.host(), lab.host()
    (host.run / "empty").mkdir()
    (host.run / "vsftpd.conf").write_text(
        "listen=YES\nbackground=NO\nanonymous_enable=YES\nlocal_enable=NO\nno_anon_password=YES\n"
        f"ftp_username=games\nanon_root={site}\nsecure_chroot_dir={host.run}/empty\n"
    )
    lab.directory.chmod(0o755)
    host.start("setsid", program, str(host.run / "vsftpd.conf"))
    port_open(host, 21)
    for origin in (None, client):
        out = load(origin, "curl", "-sS", "-m", "20", f"ftp://{host.address}/index.html")
        assert out == "hello\n"
