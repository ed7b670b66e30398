"""Reading /proc of one process: mappings, namespaces, sockets, the executed file.

Called by `claims`. Everything here may be gone the next moment: functions return None where it
could not be read, and then no claim may be said to hold.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_HEAD = re.compile(
    r"^[0-9a-f]+-[0-9a-f]+ (?P<mode>[rwxps-]{4}) [0-9a-f]+ (?P<device>[0-9a-f:]+) "
    r"(?P<inode>\d+) *(?P<path>.*)$"
)
_SOCKET_TABLES = ("tcp", "tcp6", "udp", "udp6", "raw", "raw6")
NAMESPACES = ("mnt", "pid", "ipc", "uts", "net")


@dataclass(frozen=True)
class Mapping:
    """One line of /proc/PID/smaps with the sizes under it, in kB."""

    mode: str
    device: str
    inode: int
    path: str
    kb: dict[str, int] = field(default_factory=dict)

    @property
    def file(self) -> tuple[str, int]:
        """What is mapped, wherever it is seen."""
        return self.device, self.inode


def mappings(pid: int) -> list[Mapping] | None:
    """All mappings of the process."""
    try:
        text = Path(f"/proc/{pid}/smaps").read_text(errors="replace")
    except OSError:
        return None
    found: list[Mapping] = []
    for line in text.splitlines():
        head = _HEAD.match(line)
        if head:
            found.append(
                Mapping(head["mode"], head["device"], int(head["inode"]), head["path"].strip())
            )
        elif found:
            name, _, value = line.partition(":")
            number = value.split()[0] if value.split() else ""
            if number.isdigit():
                found[-1].kb[name] = int(number)
    return found or None


def maps_library(pid: int, inodes: set[int]) -> bool:
    """A cheap look: one of these files is mapped, executable."""
    try:
        with Path(f"/proc/{pid}/maps").open() as lines:
            for line in lines:
                head = _HEAD.match(line)
                if head and "x" in head["mode"] and int(head["inode"]) in inodes:
                    return True
    except OSError:
        pass
    return False


def namespace(pid: int | str, kind: str) -> str | None:
    """As `net:[4026531840]`."""
    try:
        return str(Path(f"/proc/{pid}/ns/{kind}").readlink())
    except OSError:
        return None


def kernel_sockets(pid: int) -> dict[str, int] | None:
    """Protocol → IP sockets that the kernel has in the process's network namespace."""
    found = {}
    for table in _SOCKET_TABLES:
        try:
            lines = Path(f"/proc/{pid}/net/{table}").read_text().splitlines()
        except FileNotFoundError:
            if not Path(f"/proc/{pid}").exists():
                return None
            continue  # this kernel has no IPv6
        except OSError:
            return None
        found[table] = len(lines) - 1
    return found or None


def descriptors(pid: int) -> Iterator[tuple[int, str]]:
    """Number and target (`socket:[…]`, a path, …) of each; those that are closed meanwhile are left
    out. Raises OSError where the process is gone or not ours to look at."""
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            yield int(entry.name), os.readlink(entry)  # noqa: PTH115 - not a path


def socket_kinds(pid: int) -> dict[str, int] | None:
    """What the descriptors are: `socket`, `memfd:…`, `pipe`, … → how many."""
    found: dict[str, int] = {}
    try:
        for _, target in descriptors(pid):
            kind = target.split(":")[0]
            found[kind] = found.get(kind, 0) + 1
    except OSError:
        return None
    return found


def executed_file(pid: int) -> tuple[str, str] | None:
    """(path as the process sees it, SHA-256) of the file that it executes."""
    link = Path(f"/proc/{pid}/exe")
    try:
        path = str(link.readlink())
        with link.open("rb") as file:
            return path, hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def parent(pid: int) -> int | None:
    """The parent's pid."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    return int(text[text.rindex(")") + 2 :].split()[1])


def interfaces(pid: int) -> list[str] | None:
    """Names in the process's network namespace."""
    try:
        lines = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
    except OSError:
        return None
    return [line.partition(":")[0].strip() for line in lines]


def local_addresses(pid: int) -> list[str] | None:
    """IPv4 addresses of the process's network namespace, from its routing table."""
    try:
        text = Path(f"/proc/{pid}/net/fib_trie").read_text()
    except OSError:
        return None
    found = re.findall(r"\|-- ([0-9.]+)\n +/32 host LOCAL", text)
    return sorted(set(found))
