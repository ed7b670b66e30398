"""Runs programs bare and under the file-system overlay; used by the test_fs_* files here.

The overlay is tried by hand, as ARCHITECTURE.md allows: a run directory with `filesystem.conf` and
LD_PRELOAD, no orchestrator.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from app.runtimes.conf import flatten, to_lines

MOUNT = "/cse-test/mount"
"""Its parents do not exist outside."""
FORMATS = (
    *("tar", "tar.gz", "tar.xz", "tar.zst", "tar.bz2", "tar.lz4", "tar.lz", "tar.lzma", "tar.Z"),
    *("zip", "7z", "cpio", "cpio.gz", "iso", "squashfs", "squashfs.zst", "squashfs.xz"),
    *("squashfs.lz4", "squashfs.none"),
)
NO_HARD_LINKS = ("zip", "7z", "iso")
"""Each name is a file of its own there; genisoimage knows hard links by their contents' place."""
TIME = 1_600_000_000


def make_tree(top: Path) -> Path:
    """A small tree with everything an archive can hold, with fixed times."""
    (top / "sub/deep").mkdir(parents=True)
    (top / "many").mkdir()
    (top / "a.txt").write_text("alpha\n")
    (top / "empty").touch()
    (top / "closed").write_text("closed\n")
    (top / "closed").chmod(0o600)
    (top / "name with space").write_text("space\n")
    (top / "ä.txt").write_text("umlaut\n")
    (top / "sub/b.txt").write_text("beta\n")
    (top / "sub/b.txt").chmod(0o640)
    (top / "sub/deep/n.bin").write_bytes(bytes(i * i % 251 for i in range(200_000)))
    (top / "sub/deep/up").symlink_to("../..")
    (top / "run.sh").write_text('#!/bin/sh\necho "script $# $1 $2"\nexit 7\n')
    (top / "run.sh").chmod(0o755)
    (top / "link").symlink_to("a.txt")
    (top / "dirlink").symlink_to("sub")
    (top / "dangling").symlink_to("nowhere")
    (top / "loop").symlink_to("loop")
    (top / "hard1").write_text("hard\n")
    os.link(top / "hard1", top / "hard2")
    for i in range(60):
        (top / f"many/f{i:02}").write_text(f"content {i}\n")
    for path in [*top.rglob("*"), top]:
        os.utime(path, (TIME, TIME), follow_symlinks=False)
    return top


_FILTERS = {
    **{".gz": "-z", ".xz": "-J", ".zst": "--zstd", ".bz2": "-j", ".lz4": "-Ilz4"},
    **{".lz": "-Ilzip", ".lzma": "--lzma", ".Z": "-Z"},
}
_TOOLS = {"7z": "7z", "cpio": "cpio", "iso": "genisoimage", "squashfs": "mksquashfs"}


def pack(tree: Path, archive: Path) -> Path:
    """`tree` as an archive of the kind that the file's name says; skips without the tool."""
    kind = archive.name.partition(".")[2]
    first, _, packing = kind.partition(".")
    tool = _TOOLS.get(first) or {"lz4": "lz4", "lz": "lzip", "Z": "compress"}.get(packing, "tar")
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed; `make setup` as root installs it")
    if first == "zip":
        _run("zip", "-qry", archive, ".", cwd=tree)
    elif first == "7z":
        _run("7z", "a", "-snl", "-bso0", "-bsp0", archive, ".", cwd=tree)
    elif first == "iso":
        _run("genisoimage", "-quiet", "-R", "-J", "-o", archive, tree)
    elif first == "squashfs":
        how = ["-noI", "-noD", "-noF", "-noX"] if packing == "none" else []
        how = how or ["-comp", {"": "gzip", "zst": "zstd"}.get(packing, packing)]
        _run(
            "mksquashfs",
            tree,
            archive,
            "-noappend",
            "-quiet",
            "-no-progress",
            "-nopad",
            "-no-xattrs",
            *how,
        )
    elif first == "cpio":
        squeeze = "| gzip" if packing else ""
        command = f'find . -print0 | cpio -0o --quiet -H newc {squeeze} > "$0"'
        _run("bash", "-c", command, archive, cwd=tree)
    else:
        options = [_FILTERS[f".{packing}"]] if packing else []
        _run("tar", *options, "-cf", archive, "-C", tree, ".")
    return archive


def _run(*command: str | Path, cwd: Path | None = None) -> None:
    subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.DEVNULL)


def tar_of(members: Sequence[tuple[tarfile.TarInfo, bytes]], archive: Path) -> Path:
    """A gzipped tar with exactly these members, however odd."""
    with tarfile.open(archive, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return archive


def zip_of(members: Sequence[tuple[str, bytes]], archive: Path) -> Path:
    """A zip with exactly these members."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members:
            file.writestr(name, content)
    return archive


class Overlay:
    """One application's run directory and the environment that links the overlay."""

    def __init__(self, run: Path, library: Path, mounts: Sequence[Mapping[str, Any]]) -> None:
        self.run_directory = run
        for name in ("data", "private"):
            (run / name).mkdir(parents=True)
            (run / name).chmod(0o777)
        settings: dict[str, Any] = {"mounts": list(mounts)}
        (run / "filesystem.conf").write_text(to_lines(flatten(settings)))
        preload = str(library)
        self.environment = {**os.environ, "CSE_RUN_DIR": str(run)}
        if library.parent.name.endswith("-asan"):
            runtime = subprocess.check_output(
                ["clang", "-print-file-name=libclang_rt.asan-x86_64.so"], text=True
            ).strip()
            preload = f"{runtime} {preload}"
            self.environment["ASAN_OPTIONS"] = "detect_leaks=0:verify_asan_link_order=0"
            self.environment["UBSAN_OPTIONS"] = "print_stacktrace=1"
        self.environment["LD_PRELOAD"] = preload

    def run(
        self,
        command: Sequence[str],
        *,
        user: int | None = None,
        cwd: str = "/",
        environment: Mapping[str, str] | None = None,
        timeout_s: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """The command in the application; raises nothing on a bad exit status."""
        return subprocess.run(
            command,
            env={**self.environment, **(environment or {})},
            capture_output=True,
            text=True,
            errors="surrogateescape",
            user=user,
            group=user,
            extra_groups=[] if user is not None else None,
            cwd=cwd,
            timeout=timeout_s,
        )

    @property
    def errors(self) -> str:
        """What the element told people about its sources."""
        path = self.run_directory / "data/filesystem.errors"
        return path.read_text(errors="replace") if path.exists() else ""


def bare(command: Sequence[str], *, cwd: str = "/") -> subprocess.CompletedProcess[str]:
    """The same command without the overlay."""
    return subprocess.run(
        command, capture_output=True, text=True, errors="surrogateescape", cwd=cwd, timeout=120
    )


def build(source: Path, program: Path, *libraries: str) -> Path:
    """A test program, compiled by this machine's compiler."""
    compiler = "gcc" if shutil.which("gcc") else "clang"
    flags = ["-O1", "-g", "-std=gnu11", "-w"]
    subprocess.run(
        [compiler, *flags, str(source), "-o", str(program), "-ldl", *libraries], check=True
    )
    return program
