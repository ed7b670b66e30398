"""The arguments of bubblewrap and the shim's specification file, from a Launch.

Called by `runtime` when an application is created. The format of the file is described in
images/_shim/spec.c.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import signal
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from app.domain.errors import HostLacks, InvalidSpecification
from app.domain.launch import Launch
from app.runtimes.namespace.users import User
from app.runtimes.namespace.view import EMPTY
from app.runtimes.preflight import DEFAULT_PATH
from app.runtimes.rundir import INSIDE, Memory, RunDirectory

BUILT = Path(__file__).resolve().parents[3] / "build" / "bin" / platform.machine() / "bwrap"
_OPEN_FILES = resource.getrlimit(resource.RLIMIT_NOFILE)
"""As this process was started with them: the agent raises its own (see `raise_open_files`)."""
_MAX_COPIED_ENTRIES = 512
"""Of a directory that must be rebuilt because a mount point is missing in it."""


def find_bubblewrap() -> str:
    """Its path; HostLacks where there is none.

    The one built with this product starts twice as fast as distributions' (images/_bwrap). Not as
    root, the distribution's comes first: it may be the only program that its security policy lets
    make user namespaces.
    """
    built = str(BUILT) if os.access(BUILT, os.X_OK) else None
    found = (built or _installed()) if os.geteuid() == 0 else (_installed() or built)
    if found is None:
        raise HostLacks(
            "bubblewrap (bwrap) is not installed",
            remedy="run 'make native', install the package 'bubblewrap', or use runtime: docker",
        )
    return found


def _installed() -> str | None:
    path = f"{DEFAULT_PATH}:{os.environ.get('PATH', '')}"
    found = _which(path)
    if found is None or not os.access(found, os.X_OK):
        _which.cache_clear()
        found = _which(path)
    return found


@lru_cache(1)
def _which(path: str) -> str | None:
    return shutil.which("bwrap", path=path)


def inherited_descriptors() -> list[int]:
    """What whoever started this process left open to it (a lock, a pipe): it must not be held by
    applications, which outlive both."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if int(name) > 2 and os.get_inheritable(int(name)):
                found.append(int(name))
    return found


def raise_open_files() -> None:
    """The agent holds some six descriptors for each application; programs get the old limit."""
    hard = _OPEN_FILES[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def shim_specification(
    launch: Launch,
    run: RunDirectory,
    user: User | None,
    hidden: list[str],
    cgroups: list[str],
) -> bytes:
    """The content of `shim.spec`."""
    spec = launch.spec
    records: list[tuple[str, object]] = [("bwrap", find_bubblewrap())]
    records += [("bwrap", word) for word in _bubblewrap(launch, run, user, hidden)]
    records += [("arg", word) for word in spec.command]
    records += [
        ("env", f"{name}={value}") for name, value in environment(launch, run, user).items()
    ]
    records += [("cgroup", f"{directory}/cgroup.procs") for directory in cgroups]
    if launch.on_kernel_stack:
        records.append(("netns", run.path / "netns"))
    if user is not None:
        records += [("uid", user.uid), ("gid", user.gid)]
        records.append(("groups", ",".join(map(str, user.groups))))
    records += [
        ("nofile", _OPEN_FILES[0]),
        ("cwd", spec.working_directory or "/"),
        ("restart", spec.restart.policy),
        ("max_retries", -1 if spec.restart.max_retries is None else spec.restart.max_retries),
        ("delay_ms", round(spec.restart.delay * 1000)),
        ("stop_signal", int(signal.Signals[spec.stop.signal])),
        ("grace_ms", round(spec.stop.grace * 1000)),
    ]
    lines = [f"{key}={value}\0" for key, value in records]
    for (key, _), line in zip(records, lines, strict=True):
        if line.index("\0") != len(line) - 1:
            raise InvalidSpecification(
                "a NUL byte cannot be passed to a program", pointer="/" + key
            )
    return os.fsencode("".join(lines))


def environment(launch: Launch, run: RunDirectory, user: User | None) -> dict[str, str]:
    """All of the program's environment; nothing of the agent's own."""
    home = user.home if user else os.environ.get("HOME", "/")
    base = {"PATH": DEFAULT_PATH, "HOME": home, "HOSTNAME": launch.name}
    return base | run.given | run.environment


def _bubblewrap(
    launch: Launch, run: RunDirectory, user: User | None, hidden: list[str]
) -> list[str]:
    words = ["--die-with-parent", "--as-pid-1", "--unshare-pid", "--unshare-ipc", "--unshare-uts"]
    words += ["--unshare-cgroup-try", "--hostname", launch.name]
    if launch.has_private_stack:
        words.append("--unshare-net")
    words += ["--cap-drop", "ALL"]
    if os.geteuid() != 0:
        words.append("--unshare-user")
    elif user is not None:  # for init, which gives them up before the program is executed
        for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):
            words += ["--cap-add", capability]

    mounts = [
        (mount.source, _real_target(mount.target), mount.read_only) for mount in launch.mounts
    ]
    tmpfs = [*map(Memory, launch.spec.tmpfs), *run.tmpfs]
    empty = [*EMPTY, *(path for path in hidden if not _within(path, EMPTY))]
    root, sealed = _root([*(target for _, target, _ in mounts), *launch.spec.tmpfs], empty)
    words += [*root, "--dev", "/dev", "--proc", "/proc"]
    for path in empty:
        if os.path.isdir(path):
            words += ["--perms", "1777", "--tmpfs", path]
    words += _resolver_file()
    for bind in run.binds:
        target = os.path.realpath(bind.target) if _within(bind.target, ["/etc"]) else bind.target
        words += ["--ro-bind" if bind.read_only else "--bind", bind.source, target]
    for memory in tmpfs:
        size = [] if memory.size is None else ["--size", str(memory.size)]
        words += [*_parents(memory.target), "--perms", "1777", *size]
        words += ["--tmpfs", _real_target(memory.target)]
    for source, target, read_only in mounts:
        words += _parents(target)
        words += ["--ro-bind" if read_only else "--bind", source, target]
    for path in sealed:
        words += ["--remount-ro", path]
    return words


def _root(targets: list[str], empty: list[str]) -> tuple[list[str], list[str]]:
    """The host's tree, with room for mount points that the host does not have.

    A directory in which one is missing is rebuilt: an empty one in memory into which every
    entry is bound. Returns bubblewrap's words, and those directories, to be made read-only.
    """
    rebuilt: list[str] = []
    for target in targets:
        if os.path.exists(target) or _within(target, [*empty, INSIDE, "/dev", "/proc"]):
            continue
        if any(target != other and _within(target, [other]) for other in targets):
            continue  # inside another mount: bubblewrap makes it there, or says why not
        parent = Path(target).parent
        while not parent.is_dir():
            parent = parent.parent
        rebuilt.append(str(parent))
    words = ["--tmpfs", "/"] if "/" in rebuilt else ["--ro-bind", "/", "/"]
    for directory in sorted(set(rebuilt)):
        if directory != "/":
            words += ["--tmpfs", directory]
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
        if len(entries) > _MAX_COPIED_ENTRIES:
            raise InvalidSpecification(
                f"{directory} has no mount point for it, and too many entries to make one",
                pointer="/mounts",
                remedy="mount it at a path that exists on this host",
            )
        for entry in entries:
            if entry.is_symlink():
                words += ["--symlink", str(Path(entry.path).readlink()), entry.path]
            elif entry.path not in ("/proc", "/dev"):
                words += ["--ro-bind", entry.path, entry.path]
    return words, sorted(set(rebuilt))


def _parents(target: str) -> list[str]:
    """bubblewrap makes missing directories on the way for their owner only (0700)."""
    above = _real_target(target).split("/")[1:-1]
    parents = ["/" + "/".join(above[: count + 1]) for count in range(len(above))]
    return [
        word
        for parent in parents
        if parent not in EMPTY and (_within(parent, EMPTY) or not os.path.exists(parent))
        for word in ("--dir", parent)
    ]


def _within(path: str, places: list[str] | tuple[str, ...]) -> bool:
    return any(path == place or path.startswith(place.rstrip("/") + "/") for place in places)


def _real_target(target: str) -> str:
    """Symbolic links of the directories above resolved, as `/var/run` → `/run`: bubblewrap
    follows links of the new tree only, and `/run/…` would be outside it."""
    parent, name = os.path.split(target.rstrip("/"))
    return os.path.join(os.path.realpath(parent), name)


def _resolver_file() -> list[str]:
    """/etc/resolv.conf is often a link into /run, which is empty inside."""
    if not os.path.islink("/etc/resolv.conf"):
        return []
    real = os.path.realpath("/etc/resolv.conf")
    if os.path.isfile(real) and _within(real, EMPTY):
        return ["--ro-bind", real, real]
    return []
