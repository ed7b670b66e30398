"""The programs of everyday life on each kind of source, unmodified, bare and in a mount."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.native.fs_harness import MOUNT, TIME, Overlay, bare, make_tree, pack

pytestmark = pytest.mark.native
LibDir = Callable[[str], Path]
NOBODY = 65534
ARCHIVES = ("tar.gz", "tar.xz", "tar.zst", "zip", "7z", "cpio.gz", "iso", "squashfs.zst")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = make_tree(tmp_path_factory.mktemp("tree") / "mount")
    (top / "hard2").unlink()  # zip has no hard links
    (top / "pack").mkdir()
    (top / "pack/__init__.py").write_text("")
    (top / "pack/answer.py").write_text("VALUE = 42\n")
    (top / "data.txt").write_text("found by the program\n")
    for path in [*top.rglob("*"), top]:
        os.utime(path, (TIME, TIME), follow_symlinks=False)
    for path in [top, *top.parents][:4]:
        path.chmod(path.stat().st_mode | 0o755)
    return top


def overlay(run: Path, libdir: LibDir, *mounts: dict[str, Any]) -> Overlay:
    return Overlay(run, libdir("filesystem") / "libcse-fs.so", mounts)


READERS = {
    "cat": "cat a.txt sub/b.txt sub/deep/n.bin link | sha256sum",
    "ls": "ls -lR --time-style=+%s | grep -v ^total"
    " | sed -E 's/^(d[^ ]+ +)[0-9]+( +[^ ]+ +[^ ]+ +)[0-9]+/\\1\\2/'",
    "find": "find . -mindepth 1 -printf '%p %y %m %T@ %l\\n' | sort",
    "find -size": "find . -type f -size +1k | sort",
    "grep": "grep -r content . | sort",
    "tar": "tar cf - --sort=name --exclude=./closed ."
    " | tar tvf - | sed 's/  */ /g' | grep -v ' ./$'",
    "du": "du -a --apparent-size | grep -v -e '[^t]$' | sort",
    "md5sum": "find . -type f ! -name closed | sort | xargs -d '\\n' md5sum",
    "shell": "cd sub/deep && pwd -P | sed s:.*mount:mount:"
    " && cat ../../a.txt && cd ../.. && echo *",
    "stat": "stat -c '%n %F %s %a %Y' a.txt link sub/b.txt run.sh",
    "diff": "diff -r many many && echo same",
    "script": "./run.sh one; echo $?",
}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_readers(kind: str, tree: Path, tmp_path: Path, libdir: LibDir) -> None:
    archive = pack(tree, tmp_path / f"t.{kind}")
    application = overlay(
        tmp_path / "run", libdir, {"path": MOUNT, "source": "archive", "from": archive}
    )
    for name, command in READERS.items():
        expected = bare(["bash", "-c", command], cwd=str(tree))
        found = application.run(["bash", "-c", f"cd {MOUNT} && {command}"])
        assert (found.stdout, found.stderr, found.returncode) == (
            expected.stdout,
            expected.stderr,
            expected.returncode,
        ), name


@pytest.mark.parametrize("kind", ARCHIVES)
def test_cp_takes_everything_out(kind: str, tree: Path, tmp_path: Path, libdir: LibDir) -> None:
    archive = pack(tree, tmp_path / f"t.{kind}")
    application = overlay(
        tmp_path / "run", libdir, {"path": MOUNT, "source": "archive", "from": archive}
    )
    found = application.run(["cp", "-a", MOUNT, str(tmp_path / "copy")])
    assert (found.returncode, found.stderr) == (0, "")
    assert bare(["diff", "-r", "--no-dereference", str(tree), str(tmp_path / "copy")]).stdout == ""


@pytest.mark.parametrize("kind", ARCHIVES)
def test_python_imports_from_the_mount(
    kind: str, tree: Path, tmp_path: Path, libdir: LibDir
) -> None:
    archive = pack(tree, tmp_path / f"t.{kind}")
    application = overlay(
        tmp_path / "run", libdir, {"path": MOUNT, "source": "archive", "from": archive}
    )
    text = (
        "import pack.answer, os; print(pack.answer.VALUE, pack.answer.__file__, len(os.listdir()))"
    )
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin:/bin") or sys.executable
    found = application.run(
        ["sh", "-c", f"cd {MOUNT} && exec {python} -c '{text}'"], environment={"PYTHONPATH": MOUNT}
    )
    count = len(list(tree.iterdir()))
    assert found.stdout == f"42 {MOUNT}/pack/answer.py {count}\n", found.stderr


@pytest.mark.root
@pytest.mark.parametrize("kind", ARCHIVES)
def test_another_user_fills_what_root_has_listed(
    kind: str, tree: Path, tmp_path: Path, libdir: LibDir
) -> None:
    """As a server does whose workers drop root: right modes and times for both."""
    for path in [tmp_path, *tmp_path.parents][:4]:
        path.chmod(path.stat().st_mode | 0o711)
    archive = pack(tree, tmp_path / f"t.{kind}")
    application = overlay(
        tmp_path / "run", libdir, {"path": MOUNT, "source": "archive", "from": archive}
    )
    command = (
        "stat -c '%n %a %s %Y %u' a.txt sub sub/b.txt many/f01; cat many/f01 many/f59; ls sub/deep"
    )
    root = application.run(
        ["sh", "-c", f"cd {MOUNT} && ls -l > /dev/null; {command.split(';')[0]}"]
    )
    nobody = application.run(["sh", "-c", f"cd {MOUNT} && {command}"], user=NOBODY)
    after = application.run(["sh", "-c", f"cd {MOUNT} && {command}"])
    assert nobody.returncode == 0, nobody.stderr
    assert nobody.stdout == after.stdout
    assert nobody.stdout.startswith(root.stdout)
    assert "content 59" in nobody.stdout
    closed = application.run(["cat", f"{MOUNT}/closed"], user=NOBODY)
    assert "Permission denied" in closed.stderr


@pytest.mark.root
@pytest.mark.parametrize("kind", ARCHIVES)
def test_readers_as_an_ordinary_user(kind: str, tree: Path, tmp_path: Path, libdir: LibDir) -> None:
    for path in [tmp_path, *tmp_path.parents][:4]:
        path.chmod(path.stat().st_mode | 0o711)
    archive = pack(tree, tmp_path / f"t.{kind}")
    application = overlay(
        tmp_path / "run", libdir, {"path": MOUNT, "source": "archive", "from": archive}
    )
    for name in ("cat", "find", "grep", "tar", "md5sum", "script"):
        command = READERS[name]
        expected = bare(["bash", "-c", command], cwd=str(tree))
        found = application.run(["bash", "-c", f"cd {MOUNT} && {command}"], user=NOBODY)
        mine = found.stdout.replace("nobody/nogroup", "root/root")
        refused = [line for line in found.stderr.splitlines() if "closed" not in line]
        if name == "grep":
            expected.stdout = "".join(
                x for x in expected.stdout.splitlines(True) if "closed" not in x
            )
        assert (mine, refused) == (expected.stdout, []), name


# ---- copy-on-write ------------------------------------------------------------------------------


def test_sqlite_on_cow(tmp_path: Path, libdir: LibDir) -> None:
    lower = tmp_path / "lower"
    lower.mkdir()
    bare(["sqlite3", str(lower / "db"), "create table t(a); insert into t values (1), (2);"])
    before = (lower / "db").read_bytes()
    application = overlay(tmp_path / "run", libdir, {"path": MOUNT, "source": "cow", "from": lower})
    for statement, answer in (
        ("select sum(a) from t", "3\n"),
        ("insert into t values (40); select sum(a) from t", "43\n"),
        ("pragma journal_mode=wal; insert into t values (100); select sum(a) from t", "wal\n143\n"),
        ("begin; insert into t values (7); rollback; select sum(a) from t", "143\n"),
        ("vacuum; pragma integrity_check", "ok\n"),
    ):
        found = application.run(["sqlite3", f"{MOUNT}/db", statement])
        assert (found.stdout, found.stderr) == (answer, "")
    assert (lower / "db").read_bytes() == before
    assert [path.name for path in lower.iterdir()] == ["db"]


GIT = """
cd {top}
git status --short
echo change >> d1/f1 && rm d2/f2 && echo new > new && mkdir e && echo x > e/x
git status --short
git mv d3 moved && git add -A && git commit -q -m second
git status --short; git log --format=%s
git checkout -q HEAD~1 && ls && git status --short
git checkout -q - && git stash list && git gc -q && git fsck
git ls-files | sort; git diff HEAD~1 --stat | tail -1
"""


def test_git_on_cow(tmp_path: Path, libdir: LibDir) -> None:
    lower, plain = tmp_path / "lower", tmp_path / "plain"
    setup = """
    git init -q -b main . && git config user.name T && git config user.email t@example.org
    for i in $(seq 40); do mkdir -p d$((i % 5)); echo $i > d$((i % 5))/f$i; done
    git add . && git commit -q -m first
    """
    lower.mkdir()
    made = bare(["bash", "-ec", setup], cwd=str(lower))
    assert made.returncode == 0, made.stderr
    shutil.copytree(lower, plain, symlinks=True)
    before = bare(["find", str(lower), "-printf", "%p %s %T@\n"]).stdout
    application = overlay(tmp_path / "run", libdir, {"path": MOUNT, "source": "cow", "from": lower})
    expected = bare(["bash", "-c", GIT.format(top=plain)])
    found = application.run(["bash", "-c", GIT.format(top=MOUNT)])
    assert (found.stdout, found.stderr) == (expected.stdout, expected.stderr)
    assert "second\nfirst" in found.stdout
    assert bare(["find", str(lower), "-printf", "%p %s %T@\n"]).stdout == before


def test_two_applications_change_the_same_directory_apart(tmp_path: Path, libdir: LibDir) -> None:
    lower = tmp_path / "lower"
    lower.mkdir()
    (lower / "f").write_text("shared\n")
    one, two = (
        overlay(tmp_path / name, libdir, {"path": MOUNT, "source": "cow", "from": lower})
        for name in ("one", "two")
    )
    one.run(["sh", "-c", f"echo one >> {MOUNT}/f; touch {MOUNT}/mine"])
    two.run(["rm", f"{MOUNT}/f"])
    assert one.run(["sh", "-c", f"cat {MOUNT}/f; ls {MOUNT}"]).stdout == "shared\none\nf\nmine\n"
    assert two.run(["ls", "-A", MOUNT]).stdout == ""
    assert (lower / "f").read_text() == "shared\n"


def test_the_lower_directory_by_its_own_name_is_itself(tmp_path: Path, libdir: LibDir) -> None:
    """A program that knows the real path gets the real directory, not the mount."""
    lower = make_tree(tmp_path / "lower")
    application = overlay(tmp_path / "run", libdir, {"path": MOUNT, "source": "cow", "from": lower})
    application.run(["sh", "-c", f"rm {MOUNT}/a.txt; echo new > {MOUNT}/sub/new"])
    found = application.run(
        ["sh", "-c", f"ls {lower} {lower}/sub | grep -c -e a.txt -e new; cd {lower}; pwd"]
    )
    assert found.stdout == f"1\n{lower}\n"
    found = application.run(["cp", "-a", f"{lower}/sub", f"{MOUNT}/copy"])
    assert (found.returncode, found.stderr) == (0, "")
    assert application.run(["ls", f"{MOUNT}/copy"]).stdout == "b.txt\ndeep\n"


# ---- nginx --------------------------------------------------------------------------------------

NGINX = """
worker_processes 2;
pid {run}/nginx.pid;
error_log {run}/error.log;
events {{ }}
http {{
  access_log off;
  sendfile on;
  default_type text/plain;
  client_body_temp_path {run}/b; proxy_temp_path {run}/p; fastcgi_temp_path {run}/f;
  uwsgi_temp_path {run}/u; scgi_temp_path {run}/s;
  server {{ listen 127.0.0.1:{port}; root {root}; autoindex on; }}
}}
"""


def _get(url: str) -> tuple[bytes, str]:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read(), answer.headers["Last-Modified"] or ""


@pytest.mark.skipif(
    shutil.which("nginx") is None, reason="nginx is not installed: apt install nginx-light"
)
@pytest.mark.parametrize("kind", ARCHIVES)
def test_nginx_serves_an_archive(kind: str, tree: Path, tmp_path: Path, libdir: LibDir) -> None:
    for path in [tmp_path, *tmp_path.parents][:4]:
        path.chmod(path.stat().st_mode | 0o711)
    archive = pack(tree, tmp_path / f"t.{kind}")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    run = tmp_path / "nginx"
    run.mkdir()
    config = run / "nginx.conf"
    config.write_text(NGINX.format(run=run, port=port, root=MOUNT))
    application = overlay(
        tmp_path / "run", libdir, {"path": MOUNT, "source": "archive", "from": archive}
    )
    server = subprocess.Popen(
        ["nginx", "-c", str(config), "-e", str(run / "start.log"), "-g", "daemon off;"],
        env=application.environment,
        cwd="/",
    )
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        content, modified = _get(f"{url}/sub/deep/n.bin")
        assert content == (tree / "sub/deep/n.bin").read_bytes()
        assert modified == "Sun, 13 Sep 2020 12:26:40 GMT"
        for i in range(60):
            assert _get(f"{url}/many/f{i:02}")[0] == f"content {i}\n".encode()
        assert b"deep/" in _get(f"{url}/sub/")[0]
        assert application.errors == ""
    finally:
        server.send_signal(signal.SIGQUIT)
        server.wait(10)


# ---- mounts in each other, programs in mounts ---------------------------------------------------


def test_a_mount_in_a_mount_and_parents_that_do_not_exist(
    tree: Path, tmp_path: Path, libdir: LibDir
) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "f").write_text("inner\n")
    application = overlay(
        tmp_path / "run",
        libdir,
        {"path": MOUNT, "source": "archive", "from": pack(tree, tmp_path / "t.tar.gz")},
        {"path": f"{MOUNT}/sub", "source": "redirect", "from": inner},
    )
    found = application.run(
        ["sh", "-c", f"cat {MOUNT}/sub/f {MOUNT}/a.txt; cd {MOUNT}/sub/..; pwd; ls {MOUNT}/sub"]
    )
    assert found.stdout == f"inner\nalpha\n{MOUNT}\nf\n", found.stderr
    parent = str(Path(MOUNT).parent)
    assert application.run(["ls", parent]).stdout == "mount\n"
    assert "Read-only file system" in application.run(["mkdir", f"{parent}/x"]).stderr


def test_a_program_and_its_library_in_an_archive(tmp_path: Path, libdir: LibDir) -> None:
    top = tmp_path / "tree"
    (top / "bin").mkdir(parents=True)
    (top / "lib").mkdir()
    (tmp_path / "lib.c").write_text("int answer(void) { return 42; }\n")
    (tmp_path / "main.c").write_text(
        "#include <stdio.h>\n#include <unistd.h>\nint answer(void);\nint main(void) {"
        ' char path[500] = "";'
        ' readlink("/proc/self/exe", path, 499); printf("%d %s\\n", answer(), path); return 0; }\n'
    )
    for command in (
        f"gcc -shared -fPIC {tmp_path}/lib.c -o {top}/lib/libanswer.so",
        f"gcc {tmp_path}/main.c -o {top}/bin/main -L{top}/lib -lanswer -Wl,-rpath,'$ORIGIN/../lib'",
    ):
        subprocess.run(["sh", "-c", command], check=True)
    application = overlay(
        tmp_path / "run",
        libdir,
        {"path": MOUNT, "source": "archive", "from": pack(top, tmp_path / "t.tar.zst")},
    )
    found = application.run(["sh", "-c", f"{MOUNT}/bin/main"])
    assert found.stdout == f"42 {MOUNT}/bin/main\n", found.stderr


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_node_reads_by_system_call_numbers(
    tree: Path, tmp_path: Path, libdir: LibDir, variant: str
) -> None:
    if variant == "asan":
        pytest.skip("node reserves the addresses that the sanitizer's shadow needs")
    application = overlay(
        tmp_path / "run",
        libdir,
        {"path": MOUNT, "source": "archive", "from": pack(tree, tmp_path / "t.zip")},
    )
    text = (
        f"const fs = require('fs'), d = '{MOUNT}';"
        "console.log(fs.readFileSync(d + '/a.txt', 'utf8').trim(),"
        " fs.statSync(d + '/sub/b.txt').size, fs.readdirSync(d + '/sub', {withFileTypes: true})"
        ".map(e => e.name + e.isDirectory()).sort().join(),"
        " fs.realpathSync(d + '/link'), fs.existsSync(d + '/missing'))"
    )
    found = application.run(["node", "-e", text])
    assert found.stdout == f"alpha 5 b.txtfalse,deeptrue {MOUNT}/a.txt false\n", found.stderr
