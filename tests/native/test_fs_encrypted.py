"""Encrypted stores: an ordinary directory to the program, nothing readable where it lies."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.native.fs_harness import MOUNT, Overlay, bare, build, make_tree, pack
from tests.native.test_fs_calls import _comparable, _equal

pytestmark = pytest.mark.native
LibDir = Callable[[str], Path]
KEY = "ab" * 32


class Store:
    """A store and a key; `application()` is a new one that mounts it."""

    def __init__(self, folder: Path, library: Path) -> None:
        self.folder, self.library = folder, library
        self.path, self.key = folder / "store", folder / "key"
        self.path.mkdir()
        self.key.write_text(KEY + "\n")
        self.count = 0

    def application(self, **settings: Any) -> Overlay:
        self.count += 1
        mount = {"path": MOUNT, "source": "encrypted", "store": str(self.path), **settings}
        if "key_environment" not in settings:
            mount.setdefault("key_file", str(self.key))
        return Overlay(self.folder / f"run-{self.count}", self.library, [mount])

    def bytes(self) -> bytes:
        """All that somebody without the key could see: names, links, contents."""
        seen = b""
        for path in sorted(self.path.rglob("*")):
            seen += os.fsencode(str(path.relative_to(self.path))) + b"\n"
            if path.is_symlink():
                seen += os.fsencode(path.readlink())
            elif path.is_file():
                seen += path.read_bytes()
        return seen


@pytest.fixture
def store(tmp_path: Path, libdir: LibDir) -> Store:
    return Store(tmp_path, libdir("filesystem") / "libcse-fs.so")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = Path(__file__).parent / "fs/calls.c"
    return build(source, tmp_path_factory.mktemp("program") / "calls")


def _no_links(output: str) -> str:
    """A file has one name in a store (link() gives EPERM); FIFOs and sockets stay outside it."""
    lines = _comparable(output).splitlines()
    return "\n".join(
        line for line in lines if not re.search("hard|^link|/(fifo|sock) |/(fifo|sock)$", line)
    )


def _plain(folder: Path) -> Path:
    tree = make_tree(folder / "tree/mount")
    (tree / "hard2").unlink()
    os.utime(tree, (1_600_000_000, 1_600_000_000))
    return tree


def test_what_goes_in_comes_out(program: Path, store: Store, tmp_path: Path) -> None:
    tree = _plain(tmp_path)
    copied = store.application().run(["cp", "-a", f"{tree}/.", MOUNT])
    assert (copied.returncode, copied.stderr) == (0, "")
    application = store.application()
    expected = bare([str(program), str(tree), "read"])
    found = application.run([str(program), MOUNT, "read"])
    assert found.returncode == 0, found.stderr[-3000:]
    _equal(_no_links(expected.stdout), _no_links(found.stdout))
    assert bare(["diff", "-r", "--no-dereference", str(tree), str(tree)]).stdout == ""
    found = application.run(["cp", "-a", MOUNT, str(tmp_path / "out")])
    assert bare(["diff", "-r", "--no-dereference", str(tree), str(tmp_path / "out")]).stdout == ""
    assert application.errors == ""


def test_nothing_of_it_can_be_read_in_the_store(store: Store, tmp_path: Path) -> None:
    tree = _plain(tmp_path)
    store.application().run(["cp", "-a", f"{tree}/.", MOUNT])
    seen = store.bytes()
    for secret in (b"alpha", b"a.txt", b"deep", b"content 1", b"nowhere", KEY.encode()):
        assert secret not in seen, secret
    assert len(list(store.path.rglob("*"))) > 60


def test_changes_are_those_of_a_directory(program: Path, store: Store, tmp_path: Path) -> None:
    tree = _plain(tmp_path)
    store.application().run(["cp", "-a", f"{tree}/.", MOUNT])
    expected = bare([str(program), str(tree), "write"])
    found = store.application().run([str(program), MOUNT, "write"])
    assert found.returncode == 0, found.stderr[-3000:]
    _equal(_no_links(expected.stdout), _no_links(found.stdout))
    later = store.application()
    expected = bare([str(program), str(tree), "read"])
    found = later.run([str(program), MOUNT, "read"])
    _equal(_no_links(expected.stdout), _no_links(found.stdout))
    later.run(["rm", "-rf", f"{MOUNT}/sub", f"{MOUNT}/many"])
    assert store.application().run(["ls", f"{MOUNT}/sub"]).returncode != 0


LONG = "n" * 250
PYTHON = f'import mmap, os; f = open("{MOUNT}/f", "w+b"); '


def test_names_that_are_too_long_when_hidden(store: Store) -> None:
    script = f"cd {MOUNT}; mkdir {LONG} && echo x > {LONG}/{LONG} && cd {LONG} && "
    script += f"mv {LONG} other{LONG[5:]}; ls"
    assert store.application().run(["sh", "-c", script]).stdout == f"other{LONG[5:]}\n"
    found = store.application().run(["sh", "-c", f"cat {MOUNT}/{LONG}/o*; rm -r {MOUNT}/*"])
    assert (found.stdout, found.stderr) == ("x\n", "")
    assert sorted(path.name for path in store.path.iterdir()) == [".cse", ".id"]


@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("shell", "echo text > {at}/f"),
        ("inherited", "exec 3> {at}/f; sh -c 'echo text >&3'"),
        ("late child", "{{ (sleep 0.3; echo text) & }} > {at}/f; wait"),
        ("append", "printf te > {at}/f; printf 'xt\\n' >> {at}/f"),
        ("renamed", "exec 3> {at}/g; echo text >&3; mv {at}/g {at}/f"),
        (
            "moved directory",
            "cd {at}; mkdir d; exec 3> d/f; mv d e; echo text >&3; exec 3>&-; mv e/f .",
        ),
        ("truncated", "printf 'text\\nmore' > {at}/f; truncate -s 5 {at}/f"),
        ("python", 'python3 -c \'open("{at}/f", "w").write("text\\n")\''),
        ("unclosed", "python3 -c '{python}f.write(b\"text\\n\"); f.flush(); os._exit(0)'"),
        ("unflushed", 'awk \'BEGIN {{ print "text" > "{at}/f" }}\''),
        ("executed", "exec > {at}/f; exec echo text"),
        (
            "mapped",
            "python3 -c '{python}f.truncate(5); m = mmap.mmap(f.fileno(), 5); f.close(); "
            'm[:] = b"text\\n"\'',
        ),
        ("tee", "echo text | tee {at}/f > /dev/null"),
        ("sed", "echo tent > {at}/f; sed -i s/n/x/ {at}/f"),
    ],
)
def test_what_programs_wrote_is_in_the_store(name: str, script: str, store: Store) -> None:
    application = store.application()
    done = application.run(["bash", "-c", script.format(at=MOUNT, python=PYTHON)])
    assert (done.returncode, done.stderr) == (0, "")
    shutil.rmtree(application.run_directory)  # nothing is left of the plain tree
    found = store.application().run(["cat", f"{MOUNT}/f"])
    assert (found.stdout, found.stderr) == ("text\n", "")


KILLED = f"""
import os, signal, sys
os.chdir({MOUNT!r})
for number in range(20):
    with open("f", "r+" if os.path.exists("f") else "w") as file:
        file.write(f"{{number:08}}" * 1000)
        file.flush()
        os.fsync(file.fileno())
    print(number, flush=True)
file = open("f", "r+")
file.write("half")
file.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_program_leaves_what_it_had_synced_and_nothing_half(store: Store) -> None:
    application = store.application()
    done = application.run([sys.executable, "-c", KILLED])
    assert done.returncode == -signal.SIGKILL and done.stdout.endswith("19\n"), done.stderr
    shutil.rmtree(application.run_directory)
    found = store.application().run(["cat", f"{MOUNT}/f"])
    assert found.stdout == "00000019" * 1000


def test_what_a_killed_program_left_unsynced_is_saved_by_the_next_one(store: Store) -> None:
    application = store.application()
    application.run([sys.executable, "-c", KILLED])
    application.run(["ls", MOUNT])  # another program of the same application
    shutil.rmtree(application.run_directory)
    found = store.application().run(["cat", f"{MOUNT}/f"])
    assert found.stdout == "half0019" + "00000019" * 999


@pytest.mark.parametrize("moment_ms", [20, 60, 120, 200])
def test_killed_at_any_moment_every_file_is_whole(moment_ms: int, store: Store) -> None:
    script = f"""
import os
number = 0
while True:
    number += 1
    for name in "abc":
        with open(f"{MOUNT}/" + name, "w") as file:
            file.write(f"{{number:08}}" * 3000)
            file.flush()
            os.fsync(file.fileno())
        print(name, number, flush=True)
"""
    application = store.application()
    writer = subprocess.Popen(
        [sys.executable, "-c", script], env=application.environment, stdout=subprocess.PIPE
    )
    assert writer.stdout is not None
    lines = [writer.stdout.readline() for _ in range(2 + moment_ms // 10)]
    writer.kill()
    lines += writer.stdout.readlines()
    writer.wait()
    shutil.rmtree(application.run_directory)
    synced = dict(line.split() for line in lines)
    later = store.application()
    for name, number in synced.items():
        text = later.run(["cat", f"{MOUNT}/{name.decode()}"]).stdout
        assert text == text[:8] * 3000 and len(text) == 24000, (name, len(text))
        assert int(text[:8]) >= int(number)


# ---- keys and damage ----------------------------------------------------------------------------


def test_the_key_may_come_from_the_environment(store: Store) -> None:
    store.application().run(["sh", "-c", f"echo text > {MOUNT}/f"])
    application = store.application(key_environment="STORE_KEY")
    found = application.run(["cat", f"{MOUNT}/f"], environment={"STORE_KEY": KEY})
    assert found.stdout == "text\n"
    assert "Required key not available" in application.run(["cat", f"{MOUNT}/f"]).stderr
    assert "the variable of key_environment is not set" in application.errors


@pytest.mark.parametrize(
    ("key", "shown", "told"),
    [
        ("cd" * 32, "Key was rejected by service", "has a key that does not open its store"),
        ("short", "Required key not available", "neither 32 bytes nor 64 hexadecimal digits"),
    ],
)
def test_a_wrong_key_opens_nothing_and_is_not_told(
    key: str, shown: str, told: str, store: Store
) -> None:
    store.application().run(["sh", "-c", f"echo text > {MOUNT}/f"])
    before = store.bytes()
    store.key.write_text(key)
    application = store.application()
    assert shown in application.run(["ls", MOUNT]).stderr
    assert told in application.errors and key not in application.errors
    assert store.bytes() == before


def test_damage_is_an_error_that_names_the_file(store: Store) -> None:
    script = f"cd {MOUNT}; seq 100000 > bad; echo good > good"
    store.application().run(["sh", "-c", script])
    (sealed,) = (path for path in store.path.iterdir() if path.stat().st_size > 100_000)
    content = bytearray(sealed.read_bytes())
    content[300_000] ^= 1
    sealed.write_bytes(content)
    application = store.application()
    found = application.run(["cat", f"{MOUNT}/bad", f"{MOUNT}/good"])
    assert "Input/output error" in found.stderr and found.stdout == "good\n"
    assert "'bad' is damaged in the store" in application.errors
    sealed.write_bytes(content[:200_000])
    assert "Input/output error" in store.application().run(["cat", f"{MOUNT}/bad"]).stderr


@pytest.mark.parametrize("size", [8 << 20, (11 << 20) + 12_345])
def test_a_large_file_is_whole_wherever_several_threads_met(size: int, store: Store) -> None:
    plain = store.folder / "plain"
    plain.write_bytes(os.urandom(size))
    assert store.application().run(["cp", str(plain), f"{MOUNT}/file"]).returncode == 0
    compare = ["cmp", str(plain), f"{MOUNT}/file"]
    assert store.application().run(compare).returncode == 0
    (sealed,) = (path for path in store.path.iterdir() if path.stat().st_size > size)
    whole = sealed.read_bytes()
    for at in (64 + size // 3, len(whole) - 1):
        sealed.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        found = store.application().run(compare)
        assert found.returncode == 2
        assert "Input/output error" in found.stderr


def test_files_that_change_places_in_the_store_are_found_out(store: Store) -> None:
    store.application().run(["sh", "-c", f"mkdir {MOUNT}/d; echo x > {MOUNT}/d/f"])
    (directory,) = (path for path in store.path.iterdir() if path.is_dir())
    (file,) = (path for path in directory.iterdir() if path.name != ".id")
    file.rename(store.path / file.name)
    application = store.application()
    assert application.run(["ls", MOUNT]).stdout == "d\n"
    assert "is in the store, but not by this key" in application.errors


def test_a_directory_with_files_is_no_store(store: Store) -> None:
    (store.path / "something").write_text("x")
    application = store.application()
    assert "Input/output error" in application.run(["ls", MOUNT]).stderr
    assert "is not empty and has no file .cse" in application.errors
    assert [path.name for path in store.path.iterdir()] == ["something"]


def test_one_application_at_a_time(store: Store) -> None:
    one, two = store.application(), store.application()
    holder = subprocess.Popen(
        ["sh", "-c", f"echo text > {MOUNT}/f; echo ready; read line"],
        env=one.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None and holder.stdout.readline() == b"ready\n"
    assert one.run(["cat", f"{MOUNT}/f"]).stdout == "text\n"
    assert "Device or resource busy" in two.run(["cat", f"{MOUNT}/f"]).stderr
    assert "has a store that another application has in use" in two.errors
    holder.communicate(b"\n")
    assert two.run(["cat", f"{MOUNT}/f"]).stdout == "text\n"


def test_sqlite_and_git(store: Store) -> None:
    if not shutil.which("git") or not shutil.which("sqlite3"):
        pytest.skip("needs git and sqlite3; `make setup` as root installs them")
    sql = "create table t(a); insert into t values (1), (2); pragma journal_mode=wal; "
    identity = "git config user.name T && git config user.email t@example.org"
    script = f"cd {MOUNT} && sqlite3 db '{sql} insert into t values (4);' && "
    script += f"git init -q -b main . && {identity} && git add db && git commit -qm one"
    done = store.application().run(["bash", "-c", script])
    assert (done.returncode, done.stderr) == (0, "")
    script = f"cd {MOUNT} && git fsck && git status --short && git log --format=%s && "
    script += "sqlite3 db 'pragma integrity_check; select sum(a) from t'"
    found = store.application().run(["bash", "-c", script])
    assert (found.stdout, found.returncode) == ("one\nok\n7\n", 0), found.stderr


# ---- sources that stack -------------------------------------------------------------------------


def test_an_encrypted_archive_under_a_cow(store: Store, tmp_path: Path) -> None:
    archive = pack(make_tree(tmp_path / "packed"), tmp_path / "t.tar.gz")
    store.application().run(["cp", str(archive), f"{MOUNT}/t.tar.gz"])
    mounts: list[dict[str, Any]] = [
        {"path": MOUNT, "source": "encrypted", "store": store.path, "key_file": store.key},
        {
            "path": "/cse-test/work",
            "source": "cow",
            "lower": {"source": "archive", "inside": f"{MOUNT}/t.tar.gz"},
        },
    ]
    application = Overlay(tmp_path / "run-stack", store.library, mounts)
    script = "cd /cse-test/work; cat a.txt; echo more >> a.txt; rm -r many; cat a.txt; ls sub"
    found = application.run(["sh", "-c", script])
    assert found.stdout == "alpha\nalpha\nmore\nb.txt\ndeep\n", found.stderr


def test_an_archive_in_an_archive(store: Store, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "packed")
    outer = tmp_path / "outer"
    outer.mkdir()
    pack(tree, outer / "inner.zip")
    pack(outer, tmp_path / "t.tar.xz")
    mounts: list[dict[str, Any]] = [
        {"path": MOUNT, "source": "archive", "from": tmp_path / "t.tar.xz"},
        {"path": f"{MOUNT}/inner", "source": "archive", "inside": f"{MOUNT}/inner.zip"},
        {"path": "/cse-test/self", "source": "archive", "inside": "/cse-test/self/x"},
    ]
    application = Overlay(tmp_path / "run-stack", store.library, mounts)
    found = application.run(["sh", "-c", f"ls {MOUNT}; cat {MOUNT}/inner/sub/b.txt"])
    assert found.stdout == "inner\ninner.zip\nbeta\n", found.stderr
    assert "Too many levels" in application.run(["ls", "/cse-test/self"]).stderr
