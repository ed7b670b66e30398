"""Sources that are no package: memory with a limit, and files that a command computes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.native.fs_harness import Overlay, bare

AT = "/cse-test/out.txt"
pytestmark = pytest.mark.native
LibDir = Callable[[str], Path]
Make = Callable[..., Overlay]


@pytest.fixture
def computed(tmp_path: Path, libdir: LibDir) -> Make:
    """`computed(script, **settings)` is an application with that shell script's output at AT."""

    def make(script: str, **settings: Any) -> Overlay:
        mount = {"path": AT, "source": "computed", "command": ["sh", "-c", script], **settings}
        return Overlay(tmp_path / "run", libdir("filesystem") / "libcse-fs.so", [mount])

    return make


def test_the_output_is_a_file_with_a_size_that_can_be_seeked(computed: Make) -> None:
    application = computed("seq 1 1000")
    expected = "".join(f"{number}\n" for number in range(1, 1001))
    found = application.run(
        ["sh", "-c", f"wc -c < {AT}; tail -c 5 {AT}; cat {AT}; stat -c %s {AT}"]
    )
    size = f"{len(expected)}\n"
    assert found.stdout == size + "1000\n" + expected + size, found.stderr
    text = f"import mmap; f = open('{AT}', 'rb'); f.seek(-5, 2); print(f.read(), len(mmap.mmap("
    found = application.run([sys.executable, "-c", text + "f.fileno(), 0, prot=1)))"])
    assert found.stdout == f"b'1000\\n' {len(expected)}\n", found.stderr
    assert application.run(["ls", str(Path(AT).parent)]).stdout == "out.txt\n"


def test_it_is_computed_once_and_seen_by_all_programs_of_the_application(computed: Make) -> None:
    application = computed("date +%N")
    first = application.run(["cat", AT]).stdout
    assert len(first) == 10
    assert {application.run(["cat", AT]).stdout for _ in range(3)} == {first}


def test_never_kept_means_anew_at_each_open(computed: Make, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    application = computed(f"echo x >> {runs}; wc -l < {runs}", cache="never")
    assert [application.run(["cat", AT]).stdout for _ in range(3)] == ["1\n", "2\n", "3\n"]
    assert application.run(["stat", "-c", "%s", AT]).stdout == "2\n"
    assert runs.read_text() == "x\n" * 3


def test_kept_for_some_time(computed: Make, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    application = computed(f"echo x >> {runs}; wc -l < {runs}", cache=600)
    assert [application.run(["cat", AT]).stdout for _ in range(2)] == ["1\n", "1\n"]
    content = application.run_directory / "private/fs/c0/content"
    old = time.time() - 601
    os.utime(content, (old, old))
    assert [application.run(["cat", AT]).stdout for _ in range(2)] == ["2\n", "2\n"]


def test_whoever_has_it_open_keeps_its_version(computed: Make, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.write_text("old\n")
    application = computed(f"cat {state}", cache="never")
    script = f"exec 3< {AT}; echo newer > {state}; cat {AT}; cat <&3"
    assert application.run(["sh", "-c", script]).stdout == "newer\nold\n"


def test_it_is_read_only(computed: Make) -> None:
    application = computed("echo x")
    for command in (f"echo y > {AT}", f"rm {AT}", f"chmod 600 {AT}"):
        assert application.run(["sh", "-c", command]).returncode != 0, command
    assert application.run(["cat", AT]).stdout == "x\n"
    assert "Not a directory" in application.run(["cat", f"{AT}/x"]).stderr


@pytest.mark.parametrize(
    ("script", "settings", "shown", "told"),
    [
        ("echo no >&2; exit 3", {}, "Input/output error", "ended with status 3: no"),
        ("sleep 600", {"timeout": 0.2}, "Connection timed out", "took longer than 200 ms"),
        ("yes", {"max_bytes": 100000}, "File too large", "wrote more than max_bytes"),
        ("kill -9 $$", {}, "Input/output error", "was ended by signal 9"),
        (f"cat {AT}", {}, "Input/output error", "Resource deadlock avoided"),
    ],
)
def test_a_command_that_fails(
    script: str, settings: dict[str, Any], shown: str, told: str, computed: Make
) -> None:
    application = computed(script, **settings)
    found = application.run(["cat", AT])
    assert shown in found.stderr
    assert told in application.errors
    assert not (application.run_directory / "private/fs/c0/content").exists()
    assert not (application.run_directory / "private/fs/c0/content.new").exists()


def test_a_program_that_is_not_there(tmp_path: Path, libdir: LibDir) -> None:
    mount = {"path": AT, "source": "computed", "command": ["no-such-program"]}
    application = Overlay(tmp_path / "run", libdir("filesystem") / "libcse-fs.so", [mount])
    assert "No such file" in application.run(["cat", AT]).stderr
    assert "'no-such-program' cannot be started" in application.errors


CHILDREN = f"""
import os, signal
seen = []
signal.signal(signal.SIGCHLD, lambda *_: seen.append(1))
assert open({AT!r}).read() == "x\\n"
try:
    os.waitpid(-1, 0)
except ChildProcessError:
    print("no child", seen)
child = os.fork()
if child == 0:
    os._exit(7)
print(os.waitpid(-1, 0)[1] >> 8)
"""


def test_the_program_sees_no_child_of_ours(computed: Make) -> None:
    found = computed("echo x").run([sys.executable, "-c", CHILDREN])
    assert found.stdout == "no child []\n7\n", found.stderr


def test_a_program_without_standard_descriptors(computed: Make) -> None:
    text = f"import os\nfor fd in 0, 1, 2: os.close(fd)\nopen({AT!r}).read()\n"
    application = computed("echo x; echo said >&2")
    assert application.run([sys.executable, "-c", text]).returncode == 0
    assert application.run(["cat", AT]).stdout == "x\n"


def test_many_at_once_compute_it_once(computed: Make, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    application = computed(f"echo x >> {runs}; sleep 0.3; echo done")
    readers = [
        subprocess.Popen(["cat", AT], env=application.environment, stdout=subprocess.PIPE)
        for _ in range(8)
    ]
    assert [reader.communicate(timeout=60)[0] for reader in readers] == [b"done\n"] * 8
    assert runs.read_text() == "x\n"


# ---- memory -------------------------------------------------------------------------------------


@pytest.fixture
def memory(tmp_path: Path, libdir: LibDir) -> Iterator[Overlay]:
    """One of 1 MiB, made as a runtime makes it."""
    if os.geteuid() != 0:
        pytest.skip("needs root: a file system in memory is mounted")
    place = tmp_path / "memory"
    place.mkdir()
    options = "size=1m,mode=1777"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "cse-test", str(place)], check=True)
    mount = {"path": "/cse-test/memory", "source": "memory", "size": str(place)}
    yield Overlay(tmp_path / "run", libdir("filesystem") / "libcse-fs.so", [mount])
    subprocess.run(["umount", "-l", str(place)], check=True)


FULL = """
cd {at}; head -c 3000000 /dev/zero > big; stat -c %s big; rm big; mkdir d; echo x > d/f; mv d e
cat e/f; ls; df --output=size . | tail -1; head -c 500000 /dev/zero > fits; stat -c %s fits
"""


def test_memory_is_a_directory_with_a_limit(memory: Overlay, tmp_path: Path) -> None:
    found = memory.run(["sh", "-c", FULL.format(at="/cse-test/memory")])
    assert "No space left on device" in found.stderr
    subprocess.run(["sh", "-c", f"rm -r {tmp_path}/memory/*"], check=True)
    expected = bare(["sh", "-c", FULL.format(at=tmp_path / "memory")])
    assert found.stdout == expected.stdout
    assert "1048576\nx\ne\n" in found.stdout


def test_memory_that_nobody_made_is_refused(tmp_path: Path, libdir: LibDir) -> None:
    mount = {"path": "/cse-test/memory", "source": "memory", "size": 4096}
    application = Overlay(tmp_path / "run", libdir("filesystem") / "libcse-fs.so", [mount])
    assert "Input/output error" in application.run(["ls", "/cse-test/memory"]).stderr
    assert "is memory that nobody made" in application.errors
