"""Faults of files: patterns, operations, errors, delays, short moves, full disks, seeds, ends."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.agent import file_faults
from app.domain.fault import FaultOrder, FaultSpec
from tests.native.fs_harness import MOUNT, Overlay

pytestmark = pytest.mark.native
LibDir = Callable[[str], Path]
_numbers = itertools.count()


class Faulty(Overlay):
    """An application with a cow of a directory at MOUNT, and faults to order."""

    def __init__(self, top: Path, library: Path) -> None:
        self.top = top
        self.lower = top / "lower"
        self.lower.mkdir()
        (self.lower / "kept.txt").write_text("kept\n" * 200)
        super().__init__(
            top / "run", library, [{"path": MOUNT, "source": "cow", "from": str(self.lower)}]
        )
        self.environment["AT"] = MOUNT
        self.orders: list[FaultOrder] = []
        file_faults.hold(top, [])  # as the agent does when it creates the application

    def order(self, *specs: dict[str, Any], seconds: float | None = None) -> None:
        """These faults hold from now on, and no others."""
        ends = None if seconds is None else datetime.now(UTC) + timedelta(seconds=seconds)
        self.orders = []
        for one in specs:
            spec = FaultSpec.model_validate({"seed": 7, **one})
            assert spec.seed is not None
            self.orders.append(
                FaultOrder(id=f"f{next(_numbers)}", spec=spec, seed=spec.seed, ends=ends)
            )
        file_faults.hold(self.top, self.orders)

    def python(self, text: str, *arguments: str, timeout_s: float = 60) -> str:
        """What a Python program says, that has `at`, `tried` and os; errors included."""
        head = (
            "import os, sys, time, errno\nat = os.environ['AT']\n"
            "def tried(call, *rest):\n"
            "    try: return call(*rest)\n"
            "    except OSError as error: return errno.errorcode[error.errno]\n"
        )
        command = [sys.executable, "-c", head + text, *arguments]
        found = self.run(command, timeout_s=timeout_s)
        return found.stdout + found.stderr

    def counted(self) -> dict[str, Any]:
        """Of the first fault."""
        return dict(file_faults.counted(self.run_directory, self.orders)[0])


@pytest.fixture
def app(tmp_path: Path, libdir: LibDir) -> Faulty:
    return Faulty(tmp_path, libdir("filesystem") / "libcse-fs.so")


def fault(path: str = f"{MOUNT}/**", **rest: Any) -> dict[str, Any]:
    outer: dict[str, Any] = {
        key: rest.pop(key) for key in ("delay", "jitter", "seed") if key in rest
    }
    return {"file": {"path": path, **rest}, **outer}


PATTERNS = [
    ("/srv/*.db", "/srv/a.db", True),
    ("/srv/*.db", "/srv/x/a.db", False),
    ("/srv/**/*.db", "/srv/a.db", True),
    ("/srv/**/*.db", "/srv/x/y/a.db", True),
    ("/srv/**/*.db", "/srv/x/y/a.dbx", False),
    ("/srv/**/*.db", "/srvx/a.db", False),
    ("/srv/**", "/srv/x", True),
    ("/srv/**", "/srv", False),
    ("/**/log/**/x", "/var/log/x", True),
    ("/**/log/**/x", "/var/log/a/log/b/x", True),
    ("/**/log/**/x", "/var/logs/a/x", False),
    ("/a?c/[x-z]*", "/abc/yes", True),
    ("/a?c/[!x-z]*", "/abc/yes", False),
    ("/a?c", "/a/c", False),
    ("/a/b*b/c", "/a/bxbb/c", True),
    ("/a**z", "/a/b/c/z", True),
    ("/a/\\*", "/a/*", True),
    ("/a/\\*", "/a/b", False),
    ("/**/x/*/y", "/x/x/x/1/y", True),
    ("/a*b*c*d/e", "/abababcbcd/e", True),
    ("/[]a]", "/]", True),
]


def test_patterns_take_what_they_say(app: Faulty) -> None:
    program = "for path in sys.argv[1:]: print(tried(os.stat, path))"
    for pattern, group in itertools.groupby(PATTERNS, key=lambda one: one[0]):
        cases = list(group)
        app.order(fault(pattern, op="stat", errno="EUCLEAN"))
        said = app.python(program, *(path for _, path, _ in cases)).split("\n")
        for (_, path, taken), answer in zip(cases, said, strict=False):
            assert (answer == "EUCLEAN") == taken, (pattern, path, answer)


OPERATIONS = {
    "open": "os.open(at + '/kept.txt', 0)",
    "read": "os.read(fd, 10)",
    "write": "os.write(fd, b'x')",
    "fsync": "os.fsync(fd)",
    "close": "os.close(fd)",
    "stat": "os.stat(at + '/kept.txt')",
    "readdir": "os.listdir(at)",
    "mkdir": "os.mkdir(at + '/new')",
    "rename": "os.rename(at + '/kept.txt', at + '/other')",
    "link": "os.symlink('x', at + '/link')",
    "unlink": "os.unlink(at + '/kept.txt')",
    "truncate": "os.truncate(at + '/kept.txt', 3)",
    "attributes": "os.chmod(at + '/kept.txt', 0o600)",
}


def test_each_operation_fails_alone_and_is_not_carried_out(app: Faulty) -> None:
    program = "fd = os.open(at + '/file', os.O_RDWR | os.O_CREAT)\n" + "".join(
        f"print(tried(lambda: {call}))\n" for call in OPERATIONS.values()
    )
    calls = list(OPERATIONS)
    for operation in calls:
        shutil.rmtree(app.run_directory / "data/fs-0", ignore_errors=True)
        shutil.rmtree(app.run_directory / "private/fs", ignore_errors=True)
        where = {"readdir": MOUNT, "open": f"{MOUNT}/kept.txt"}.get(operation, f"{MOUNT}/**")
        app.order(fault(where, op=operation, errno="EIO"))
        said = app.python(program).splitlines()
        failed = [one for one, answer in zip(calls, said, strict=True) if answer == "EIO"]
        assert failed == [operation], said
        assert app.counted()["failed"] >= 1


def test_files_outside_every_mount_meet_faults_too(app: Faulty, tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    app.order(fault(str(outside), op="write", errno="EDQUOT"))
    said = app.python("f = os.open(sys.argv[1], 65)\nprint(tried(os.write, f, b'x'))", str(outside))
    assert said == "EDQUOT\n"
    assert outside.read_bytes() == b""


def test_the_same_seed_gives_the_same_sequence_whatever_process_it_is(app: Faulty) -> None:
    program = (
        "fd = os.open(at + '/f', os.O_WRONLY | os.O_CREAT)\n"
        "def some(): return ''.join('x' if tried(os.write, fd, b'.') == 'EIO' else '.' "
        "for _ in range(100))\n"
        "text = some()\n"
        "reader, writer = os.pipe()\n"
        "if os.fork() == 0: os.write(writer, some().encode()); os._exit(0)\n"
        "print(text + os.read(reader, 100).decode(), end='')\n"
    )
    seen = []
    for seed in (7, 7, 8):
        app.order(fault(op="write", errno="EIO", rate="30%", seed=seed))
        seen.append(app.python(program) + app.python(program))
        assert app.counted()["operations"] == 400
    assert seen[0] == seen[1] != seen[2]
    assert len(seen[0]) == 400 and 80 < seen[0].count("x") < 160


def test_a_fault_begins_and_ends_while_the_program_runs(app: Faulty) -> None:
    program = (
        "fd = os.open(at + '/f', os.O_WRONLY | os.O_CREAT)\n"
        "for line in sys.stdin: print(tried(os.write, fd, b'x'), flush=True)\n"
    )
    command = [sys.executable, "-c", _HEAD + program]
    running = subprocess.Popen(
        command, env=app.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert running.stdin is not None and running.stdout is not None

    def ask() -> str:
        running.stdin.write("\n")  # type: ignore[union-attr]
        running.stdin.flush()  # type: ignore[union-attr]
        return running.stdout.readline().strip()  # type: ignore[union-attr]

    try:
        assert ask() == "1"
        app.order(fault(op="write", errno="EIO"))
        assert ask() == "EIO"
        app.order()
        assert ask() == "1"
        app.order(fault(op="write", errno="EROFS"), seconds=0.5)
        assert ask() == "EROFS"
        time.sleep(0.6)  # nobody lifts it: the table on disk says so still
        assert ask() == "1"
        assert app.counted()["operations"] == 1
    finally:
        running.stdin.close()
        running.wait()


def test_delays_are_waited_for_and_vary_by_the_jitter(app: Faulty) -> None:
    program = (
        "took = []\n"
        "for _ in range(8):\n"
        "    began = time.monotonic(); os.stat(at + '/kept.txt')\n"
        "    took.append(time.monotonic() - began)\n"
        "print(min(took), max(took))\n"
    )
    app.order(fault(op="stat", delay="30ms"))
    least, _ = map(float, app.python(program).split())
    assert least >= 0.03
    app.order(fault(op="stat", delay="30ms", jitter="25ms"))
    least, most = map(float, app.python(program).split())
    assert 0.005 <= least < 0.03 < most
    assert app.counted()["delayed"] >= 8


def test_short_moves_lose_nothing_to_a_program_that_looks(app: Faulty) -> None:
    app.order(fault(op="read,write", short=True))
    said = app.python(
        "fd = os.open(at + '/f', os.O_RDWR | os.O_CREAT)\n"
        "n = os.write(fd, bytes(1000)); v = os.writev(fd, [bytes(400), bytes(600)])\n"
        "print(0 < n < 1000, 0 < v < 1000, os.fstat(fd).st_size == n + v)\n"
        "os.lseek(fd, 0, 0); print(0 < len(os.read(fd, n)) < n, os.write(fd, b'x'))\n"
    )
    assert said == "True True True\nTrue 1\n"
    data = bytes(i * i % 251 for i in range(300_000))
    (app.lower / "big").write_bytes(data)
    assert app.run(["cp", f"{MOUNT}/big", f"{MOUNT}/copy"]).returncode == 0
    assert app.run(["cmp", f"{MOUNT}/big", f"{MOUNT}/copy"]).returncode == 0
    assert (app.run_directory / "data/fs-0/upper/copy").read_bytes() == data
    assert app.counted()["shortened"] > 2


def test_a_disk_that_is_full_after_so_many_bytes(app: Faulty) -> None:
    app.order(fault(f"{MOUNT}/*", full_after="100k"))
    (app.lower / "big").write_bytes(bytes(150_000))
    found = app.run(["cp", f"{MOUNT}/big", f"{MOUNT}/copy"])
    assert found.returncode != 0 and "No space left" in found.stderr, found.stderr
    assert (app.run_directory / "data/fs-0/upper/copy").stat().st_size == 102_400
    assert app.counted()["bytes_written"] == 102_400
    found = app.run(["sh", "-c", "echo more > $AT/other"])
    assert "No space left" in found.stderr or "I/O error" in found.stderr
    app.order()
    assert app.run(["cp", f"{MOUNT}/big", f"{MOUNT}/copy"]).returncode == 0


def test_sqlite_meets_a_full_disk_and_a_failing_fsync_and_keeps_its_word(app: Faulty) -> None:
    if shutil.which("sqlite3") is None:
        pytest.skip("sqlite3 is not installed")

    def sql(text: str) -> subprocess.CompletedProcess[str]:
        return app.run(["sqlite3", f"{MOUNT}/x.db", text])

    assert sql("create table t(a); insert into t values(1);").returncode == 0
    app.order(fault(f"{MOUNT}/x.db*", full_after="60k"))
    many = "insert into t select randomblob(1000) from generate_series(1,200);"
    found = sql(many)
    assert found.returncode != 0 and "full" in found.stderr, found.stderr
    app.order(fault(f"{MOUNT}/x.db*", op="fsync", errno="EIO"))
    found = sql("insert into t values(2);")
    assert found.returncode != 0 and "disk I/O error" in found.stderr, found.stderr
    app.order()
    assert sql("select * from t; pragma integrity_check;").stdout == "1\nok\n"


def test_streams_of_libc_meet_them_too(app: Faulty, tmp_path: Path) -> None:
    source = tmp_path / "streams.c"
    source.write_text(_STREAMS)
    program = tmp_path / "streams"
    subprocess.run(["gcc", "-w", "-O2", str(source), "-o", str(program)], check=True)
    app.order(fault(f"{MOUNT}/*", op="read,write", errno="EIO"))
    assert app.run([str(program), f"{MOUNT}/s"]).stdout == (
        "fwrite 0 5 1\nprintf 5\nfflush -1 5 1\nfclose -1 5\nfgets 0 5 1\ngetline -1 5\nfread 0 5\n"
    )
    app.order(fault(f"{MOUNT}/*", full_after=3))
    assert app.run([str(program), f"{MOUNT}/t"]).stdout.startswith("fwrite 3 28 1\n")


def test_mapped_files_are_counted_as_out_of_reach(app: Faulty) -> None:
    app.order(fault(op="read", errno="EIO"))
    said = app.python(
        "import mmap; f = os.open(at + '/kept.txt', 0)\n"
        "print(mmap.mmap(f, 4, prot=mmap.PROT_READ)[:4], tried(os.read, f, 1))"
    )
    assert said == "b'kept' EIO\n"
    table = (app.run_directory / "data/escapes.filesystem").read_bytes()
    assert b"mmap of a file with a fault" in table


def test_sixteen_faults_hold_at_once_and_keep_their_rows(app: Faulty) -> None:
    app.order(*(fault(f"{MOUNT}/f{i}", op="stat", errno="EIO") for i in range(16)))
    program = "print([tried(os.stat, f'{at}/f{i}') for i in range(17)].count('EIO'))"
    assert app.python(program) == "16\n"
    app.orders = app.orders[8:]
    file_faults.hold(app.top, app.orders)
    assert app.python(program) == "8\n"
    assert [line["operations"] for line in file_faults.counted(app.run_directory, app.orders)] == (
        [2] * 8
    )


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"file": {"path": "srv/x", "errno": "EIO"}}, "not absolute"),
        ({"file": {"path": "/srv/[x", "errno": "EIO"}}, "without its ]"),
        ({"file": {"path": "/srv//x", "errno": "EIO"}}, "empty name"),
        ({"file": {"path": "/srv/x", "errno": "EIOO"}}, "did you mean 'EIO'"),
        ({"file": {"path": "/srv/x"}}, "does nothing"),
        ({"file": {"path": "/srv/x", "errno": "EIO"}, "loss": 3}, "'loss' is about packets"),
        ({"file": {"path": "/srv/x", "errno": "EIO"}, "rate": "1mbit"}, "file.rate"),
        ({"file": {"path": "/srv/x", "short": True, "op": "stat"}}, "about read and write"),
        ({"file": {"path": "/srv/x", "full_after": "1M", "rate": "5%"}}, "no effect"),
    ],
)
def test_what_makes_no_sense_is_refused(spec: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        FaultSpec.model_validate(spec)


_HEAD = (
    "import os, sys, errno\nat = os.environ['AT']\n"
    "def tried(call, *rest):\n"
    "    try: return call(*rest)\n"
    "    except OSError as error: return errno.errorcode[error.errno]\n"
)
_STREAMS = r"""
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
char t[99]; int e;
#define SAY(...) { e = errno; write(1, t, sprintf(t, __VA_ARGS__)); errno = e; }
int main(int count, char **words)
{
    FILE *out = fopen(words[1], "w+"); char line[99], *any = NULL; size_t room = 0; long n;
    n = fwrite("12345", 1, 5, out); SAY("fwrite %ld %d %d\n", n, errno, !!ferror(out));
    clearerr(out); errno = 0;
    n = fprintf(out, "%d", 12345); SAY("printf %ld\n", n);
    n = fflush(out); SAY("fflush %ld %d %d\n", n, errno, !!ferror(out));
    errno = 0; n = fclose(out); SAY("fclose %ld %d\n", n, errno);
    out = fopen(words[1], "r"); errno = 0;
    n = fgets(line, 9, out) != NULL; SAY("fgets %ld %d %d\n", n, errno, !!ferror(out));
    errno = 0; n = getline(&any, &room, out); SAY("getline %ld %d\n", n, errno);
    errno = 0; n = fread(line, 1, 9, out); SAY("fread %ld %d\n", n, errno);
    return 0;
}
"""
