"""openat2's rules, execveat, exchanged names, and what is refused: as on a directory."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.native.fs_harness import MOUNT, Overlay, bare, build, make_tree, pack
from tests.native.test_fs_listing import escapes

SOURCE = Path(__file__).parent / "fs/rules.c"
pytestmark = pytest.mark.native
LibDir = Callable[[str], Path]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(SOURCE, tmp_path_factory.mktemp("program") / "rules")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "tree/mount")


@pytest.fixture
def mount(tmp_path: Path, libdir: LibDir, tree: Path) -> Callable[[str], Overlay]:
    def make(source: str) -> Overlay:
        origin = pack(tree, tmp_path / "t.tar.gz") if source == "archive" else tree
        one: dict[str, Any] = {"path": MOUNT, "source": source, "from": origin}
        return Overlay(tmp_path / "run", libdir("filesystem") / "libcse-fs.so", [one])

    return make


Make = Callable[[str], Overlay]


@pytest.mark.parametrize("source", ["redirect", "archive", "cow"])
@pytest.mark.parametrize("step", ["open", "exec"])
def test_openat2_and_execveat_obey_the_rules(
    step: str, source: str, program: Path, tree: Path, mount: Make
) -> None:
    overlay = mount(source)
    expected = bare([str(program), str(tree), step])
    found = overlay.run([str(program), MOUNT, step])
    assert found.returncode == expected.returncode == 0, found.stderr
    assert found.stdout.splitlines() == expected.stdout.splitlines()
    assert escapes(overlay) == {}


def test_rules_hold_where_the_descriptor_is_above_the_mount(
    program: Path, tree: Path, tmp_path: Path, libdir: LibDir
) -> None:
    above = tmp_path / "above"
    above.mkdir()
    library = libdir("filesystem") / "libcse-fs.so"
    mounts = [{"path": str(above / "m"), "source": "redirect", "from": tree}]
    overlay = Overlay(tmp_path / "run", library, mounts)
    script = """
import ctypes, os, struct
libc = ctypes.CDLL(None, use_errno=True)
base = os.open(%r, os.O_RDONLY)
for path in (b"m/a.txt", b"m/link", b"m/../m/a.txt", b"../above/m/a.txt", b"/m/a.txt"):
    for rule in (0, 1, 4, 8, 16):
        how = struct.pack("<QQQ", os.O_RDONLY, 0, rule)
        fd = libc.syscall(437, base, path, how, 24)
        print(path.decode(), rule, os.read(fd, 9) if fd >= 0 else os.strerror(ctypes.get_errno()))
"""
    found = overlay.run(["python3", "-c", script % str(above)])
    crossing, link = "Invalid cross-device link", "Too many levels of symbolic links"
    assert found.stdout.splitlines() == [
        *("m/a.txt 0 b'alpha\\n'", f"m/a.txt 1 {crossing}"),
        *(f"m/a.txt {rule} b'alpha\\n'" for rule in (4, 8, 16)),
        *("m/link 0 b'alpha\\n'", f"m/link 1 {crossing}", f"m/link 4 {link}"),
        *(f"m/link {rule} b'alpha\\n'" for rule in (8, 16)),
        *("m/../m/a.txt 0 b'alpha\\n'", f"m/../m/a.txt 1 {crossing}"),
        *(f"m/../m/a.txt {rule} b'alpha\\n'" for rule in (4, 8, 16)),
        *("../above/m/a.txt 0 b'alpha\\n'", f"../above/m/a.txt 1 {crossing}"),
        *("../above/m/a.txt 4 b'alpha\\n'", f"../above/m/a.txt 8 {crossing}"),
        "../above/m/a.txt 16 No such file or directory",
        *(f"/m/a.txt {rule} No such file or directory" for rule in (0, 1, 4)),
        *(f"/m/a.txt 8 {crossing}", "/m/a.txt 16 b'alpha\\n'"),
    ], (found.stdout, found.stderr)


@pytest.mark.parametrize("source", ["cow", "redirect"])
def test_names_are_exchanged(source: str, program: Path, tree: Path, mount: Make) -> None:
    plain = tree.parent / "plain"
    shutil.copytree(tree, plain, symlinks=True)
    overlay = mount(source)
    expected = bare([str(program), str(plain), "exchange"])
    found = overlay.run([str(program), MOUNT, "exchange"])
    assert found.stdout == expected.stdout
    for command in (["find", "{}", "-printf", "%P %y %l\n"], ["grep", "-rs", "a", "{}"]):
        there = bare([word.replace("{}", str(plain)) for word in command]).stdout
        here = overlay.run([word.replace("{}", MOUNT) for word in command]).stdout
        lines = sorted(here.replace(MOUNT, str(plain)).splitlines())
        assert lines == sorted(there.splitlines())


def test_another_root_is_refused_and_counted(mount: Make, tmp_path: Path) -> None:
    overlay = mount("redirect")
    script = (
        "import os\n"
        "for path in ('%s', '/none', '/etc/hostname'):\n"
        "  try: os.chroot(path); print('done')\n"
        "  except OSError as e: print(e.strerror)\n"
        "import ctypes\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "print(libc.syscall({'x86_64': 155, 'aarch64': 41}[os.uname().machine], b'/', b'/tmp'))\n"
        "print(os.strerror(ctypes.get_errno()))\n"
    )
    found = overlay.run(["python3", "-c", script % MOUNT])
    assert found.stdout.splitlines() == [
        "Operation not permitted",
        "No such file or directory",
        "Not a directory",
        "-1",
        "Operation not permitted",
    ]
    assert escapes(overlay) == {"chroot (refused)": 1, "pivot_root (refused)": 1}


def test_a_link_from_outside_into_a_mount_is_counted(mount: Make, tmp_path: Path) -> None:
    overlay = mount("redirect")
    assert overlay.run(["ln", "-s", f"{MOUNT}/a.txt", str(tmp_path / "l")]).returncode == 0
    assert escapes(overlay) == {"symlink from outside into a mount": 1}


# ---- policies -----------------------------------------------------------------------------------


@pytest.fixture
def with_policy(tmp_path: Path, libdir: LibDir, tree: Path) -> Callable[..., Overlay]:
    def make(**policy: Any) -> Overlay:
        one: dict[str, Any] = {"path": MOUNT, "source": "cow", "from": tree, **policy}
        return Overlay(tmp_path / "run", libdir("filesystem") / "libcse-fs.so", [one])

    return make


def test_read_only_where_that_is_wanted(with_policy: Callable[..., Overlay]) -> None:
    overlay = with_policy(read_only=True)
    for command in ("echo x > a.txt", "rm a.txt", "mkdir new", "chmod 600 a.txt", "mv a.txt b"):
        found = overlay.run(["sh", "-c", f"cd {MOUNT} && {command}"])
        assert "Read-only file system" in found.stderr, (command, found.stderr)
    assert overlay.run(["cat", f"{MOUNT}/a.txt"]).stdout == "alpha\n"


SYNCED = f"""
import os
fd = os.open("{MOUNT}/made", os.O_WRONLY | os.O_CREAT | os.O_SYNC, 0o644)
os.write(fd, b"x")
os.fsync(fd)
os.fdatasync(fd)
with open("{MOUNT}/a.txt", "a") as file:
    file.write("y")
"""


@pytest.mark.parametrize(
    ("sync", "calls", "synced_opens"), [("asked", 2, 1), ("never", 0, 0), ("always", 2, 2)]
)
def test_sync_policies(
    sync: str,
    calls: int,
    synced_opens: int,
    with_policy: Callable[..., Overlay],
    tmp_path: Path,
    variant: str,
) -> None:
    if variant == "asan" or shutil.which("strace") is None:
        pytest.skip("strace cannot start sanitized libraries, or is not installed")
    overlay = with_policy(sync=sync)
    log = tmp_path / "strace.log"
    preload = overlay.environment["LD_PRELOAD"]
    command = ["strace", "-f", "-o", str(log), "-e", "trace=openat,fsync,fdatasync"]
    found = overlay.run(
        [*command, "-E", f"LD_PRELOAD={preload}", "python3", "-c", SYNCED],
        environment={"LD_PRELOAD": ""},
    )
    assert found.returncode == 0, found.stderr
    lines = [line for line in log.read_text().splitlines() if "/work/" not in line]
    opened = [line for line in lines if "/upper/" in line and "SYNC" in line]
    assert len([line for line in lines if "fsync(" in line or "fdatasync(" in line]) == calls
    assert len(opened) == synced_opens, opened
