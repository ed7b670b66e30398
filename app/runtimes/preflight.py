"""Reading a program before it is started: can its elements be linked into it?

Why: a preloaded library is ignored without a word by static programs and by programs with file
capabilities, bypassed by Go, and crashes a program of another libc. Each runtime says where its
programs' files are (`Files`), asks `examine` for the facts, and `judge` for the verdict; the agent
refuses to create what was refused here.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import stat
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, Protocol

from app.domain.errors import PreflightRefused
from app.domain.launch import Launch
from app.domain.observed import Coverage
from app.runtimes import elf

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MAX_SCRIPTS = 4
"""The kernel follows as many `#!` lines (BINPRM_MAX_RECURSION)."""


@dataclass(frozen=True)
class ProgramFile:
    """A regular file: where the application sees it and where this process can read it."""

    path: str
    host_path: str
    file_capabilities: bool = False


class Files(Protocol):
    """The application's file tree."""

    def find(self, path: str) -> ProgramFile | None:
        """The file at an absolute path, symbolic links followed inside the tree."""


@dataclass(frozen=True)
class Program:
    """What the program's file says; `problem` is set where it cannot be executed at all."""

    path: str
    sha256: str = ""
    interpreter: str | None = None
    libc: Literal["glibc", "musl", "none"] = "none"
    machine: str = ""
    static: bool = False
    set_id: bool = False
    file_capabilities: bool = False
    go: bool = False
    loader_found: bool = True
    problem: str = ""
    remedy: str = ""

    @property
    def target(self) -> str:
        """`<libc>-<machine>`, as manifests name their libraries."""
        return f"{self.libc}-{self.machine}"


def examine(
    command: str, files: Files, *, path: str | None = None, directory: str = "/"
) -> Program:
    """Find `command` as execvp would and read it; scripts are followed to their interpreter."""
    found = _look_up(command, files, path or DEFAULT_PATH, directory)
    if isinstance(found, Program):
        return found
    first = found
    set_id = False
    for _ in range(_MAX_SCRIPTS):
        facts = read_file(found.host_path)
        set_id = set_id or facts.set_id
        if not facts.script:
            break
        words = facts.script
        program = words[1] if Path(words[0]).name == "env" and len(words) > 1 else words[0]
        interpreter = _look_up(program, files, path or DEFAULT_PATH, directory)
        if isinstance(interpreter, Program):
            return replace(
                interpreter,
                path=first.path,
                problem=f"{first.path} needs {program}: " + interpreter.problem,
            )
        found = interpreter
    if facts.elf is None:
        return Program(
            first.path,
            facts.sha256,
            problem=f"{found.path} is neither an ELF program nor a script: {facts.problem}",
            remedy="start it through its interpreter, as in: sh FILE",
        )
    loader = facts.elf.interpreter
    return Program(
        path=first.path,
        sha256=read_file(first.host_path).sha256,
        interpreter=loader,
        libc=facts.elf.libc,  # type: ignore[arg-type]
        machine=facts.elf.machine,
        static=loader is None,
        set_id=set_id,
        file_capabilities=found.file_capabilities,
        go=facts.elf.go,
        loader_found=loader is None or files.find(loader) is not None,
    )


def judge(launch: Launch, program: Program) -> Coverage:
    """The verdict of one application; never raises."""
    reason, remedy = _obstacle(launch, program)
    kinds = {bound.element.manifest.kind for bound in launch.linked}
    chosen = [one.element.manifest.name for one in launch.elements if one not in launch.linked]
    verdict: Literal["private", "kernel", "refused"] = "refused"
    if program.problem:
        pass
    elif not reason and chosen:
        verdict = "kernel"
        reason = f"{chosen[0]} was asked for: the kernel's own stack in a namespace of its own"
    elif not reason:
        verdict = "private"
        reason = "" if kinds else "no element is used: the kernel's own services"
    elif launch.spec.fallback == "kernel" and kinds == {"network"}:
        verdict, remedy = "kernel", ""
        reason += "; it gets the kernel's own stack in a network namespace of its own"
    elif launch.spec.fallback == "kernel":
        others = ", ".join(sorted(kinds - {"network"}))
        reason += f"; 'fallback: kernel' stands in for network elements only, not for: {others}"
    return Coverage(
        program=program.path,
        sha256=program.sha256,
        interpreter=program.interpreter,
        libc=program.libc,
        machine=program.machine,
        static=program.static,
        set_id=program.set_id,
        file_capabilities=program.file_capabilities,
        go=program.go,
        verdict=verdict,
        reason=reason,
        remedy=remedy,
    )


def require(coverage: Coverage) -> Coverage:
    """Raises PreflightRefused where the verdict is `refused`."""
    if coverage.verdict == "refused":
        raise PreflightRefused(
            coverage.reason, pointer="/command/0", remedy=coverage.remedy or None
        )
    return coverage


def _obstacle(launch: Launch, program: Program) -> tuple[str, str]:
    """(why the elements cannot be linked, what to do), both empty where they can."""
    if program.problem:
        return program.problem, program.remedy
    if not launch.linked:
        return "", ""
    name = program.path
    allow = "link it dynamically, or allow 'fallback: kernel'"
    if not program.loader_found:
        return f"{name}: its loader {program.interpreter} does not exist", "install its libc"
    if program.go:
        return f"{name} is a Go program: it makes system calls itself, past every library", (
            "allow 'fallback: kernel'"
        )
    if program.static:
        return f"{name} is statically linked: no library can be linked into it", allow
    if program.file_capabilities:
        return f"{name} has file capabilities: the loader ignores preloaded libraries", (
            f"remove them from a copy: setcap -r {shlex.quote(name)}"
        )
    if program.libc == "none":
        return f"{name}: its loader {program.interpreter} is of an unknown libc", allow
    for bound in launch.linked:
        targets: Iterable[str] = bound.element.manifest.libraries
        if program.target not in targets:
            return (
                f"{name} is a {program.target} program; element {bound.element.manifest.name} "
                f"has libraries for {', '.join(sorted(targets))}"
            ), allow
    return "", ""


def _look_up(command: str, files: Files, path: str, directory: str) -> ProgramFile | Program:
    """The executable file, or a Program that says why there is none."""
    above = [""] if "/" in command else path.split(":")
    places = [f"{part}/{command}" if part else command for part in above]
    places = [place if place.startswith("/") else f"{directory}/{place}" for place in places]
    barred = ""
    for place in places:
        found = files.find(os.path.normpath(place))
        if found is None:
            continue
        if Path(found.host_path).stat().st_mode & 0o111:
            return found
        barred = found.path
    if barred:
        return Program(barred, problem=f"{barred} is not executable", remedy=f"chmod +x {barred}")
    where = "" if "/" in command else f" in PATH ({path})"
    return Program(
        command,
        problem=f"{command}: no such program{where} in the application's file tree",
        remedy="install it, or mount the directory that holds it with 'mounts'",
    )


@dataclass(frozen=True)
class FileFacts:
    """One file's own content, wherever it is seen."""

    sha256: str
    set_id: bool
    elf: elf.Elf | None
    script: tuple[str, ...] = ()
    """The words of a `#!` line."""
    problem: str = ""


def read_file(host_path: str) -> FileFacts:
    """Cached while device, inode, size and time of change stay the same."""
    info = Path(host_path).stat()
    key = (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
    return _read_file(host_path, key)


@lru_cache(maxsize=4096)
def _read_file(host_path: str, key: tuple[int, ...]) -> FileFacts:
    with open(host_path, "rb") as file:
        set_id = bool(os.fstat(file.fileno()).st_mode & (stat.S_ISUID | stat.S_ISGID))
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        first = file.read(256)
        if first.startswith(b"#!"):
            line = first[2:].split(b"\n")[0].decode(errors="replace").strip()
            words = tuple(line.split(None, 1))
            return FileFacts(digest, set_id, None, words)
        file.seek(0)
        try:
            return FileFacts(digest, set_id, elf.read(file))
        except elf.NotElf as error:
            return FileFacts(digest, set_id, None, problem=str(error))
