"""The claims: each a sentence about one element in one application, checked against /proc.

Called by the agent for `cse evidence`. A claim holds only if what it rests on was read; what could
not be read, or does not exist yet, is `unknown`. A manifest names the claims of `SPECIFIC` that
apply to its element; those of `GENERAL` apply to every element.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from typing import Literal

from app.domain.observed import Claim
from app.evidence import escapes, proc
from app.evidence.packet_socket import packet_socket
from app.evidence.subject import Linked, Subject

Finding = tuple[Literal["holds", "fails", "unknown"], str]
ARENA = "/memfd:cse-net"


@dataclass(frozen=True)
class Case:
    """One element in one application, and the other applications that use the same element."""

    subject: Subject
    linked: Linked
    others: list[Subject]

    @cached_property
    def users(self) -> list[int]:
        """Processes of the application with the library mapped."""
        return self.subject.users_of(self.linked)

    @cached_property
    def mapped(self) -> dict[int, list[proc.Mapping]]:
        """Those processes' mappings of the library's files."""
        found = {}
        for pid in self.users:
            every = proc.mappings(pid)
            if every is not None:
                found[pid] = [one for one in every if one.inode in self.linked.inodes]
        return found

    @cached_property
    def other_users(self) -> dict[str, list[int]]:
        """Application → processes with the same library mapped."""
        users = {other.name: other.users_of(self.linked) for other in self.others}
        return {name: pids for name, pids in users.items() if pids}


def _library_mapped(case: Case) -> Finding:
    if not case.linked.inodes:
        return "unknown", f"no library file of {case.linked.name} was found on the host"
    if not case.subject.pids:
        return "unknown", "the application has no process now"
    if not case.users:
        return "fails", (
            f"none of /proc/{{{_list(case.subject.pids)}}}/maps has "
            f"{', '.join(path.name for path in case.linked.libraries)}"
        )
    pid = case.users[0]
    files = sorted({f"{one.path} (inode {one.inode})" for one in case.mapped.get(pid, [])})
    return "holds", f"/proc/{pid}/maps: {', '.join(files)}; {len(case.users)} processes have it"


def _text_shared(case: Case) -> Finding:
    texts = [(pid, one) for pid, every in case.mapped.items() for one in every if "x" in one.mode]
    if not texts:
        return "unknown", "no executable mapping of the library could be read"
    dirty = sum(one.kb.get("Private_Dirty", 0) for _, one in texts)
    pid, text = texts[0]
    place = f"/proc/{pid}/smaps: device {text.device} inode {text.inode}, Private_Dirty {dirty} kB"
    if dirty:
        return "fails", f"{place}: pages of the text were copied"
    if not case.other_users:
        return "holds", f"{place}; no other application has it mapped now"
    same: list[str] = []
    different: list[str] = []
    for name, pids in case.other_users.items():
        seen = {_maps(pid, text) for pid in pids} - {None}
        if seen:
            (different if False in seen else same).append(name)
    if different:
        return "fails", f"{place}; another copy is mapped by {', '.join(different)}"
    if not same:
        return "holds", f"{place}; no other application has it mapped now"
    return "holds", f"{place}; the same device and inode in {', '.join(same)}"


def _maps(pid: int, text: proc.Mapping) -> bool | None:
    """Whether it maps this file, or another one of its name; None: neither, or it has ended."""
    texts = [one for one in proc.mappings(pid) or [] if "x" in one.mode]
    theirs = [one for one in texts if _name(one) == _name(text)]
    if not theirs:
        return None
    return all(one.file == text.file for one in theirs)


def _name(mapping: proc.Mapping) -> str:
    return PurePath(mapping.path.removesuffix(" (deleted)")).name


def _data_private(case: Case) -> Finding:
    writable = [
        (pid, one) for pid, every in case.mapped.items() for one in every if "w" in one.mode
    ]
    if not case.mapped:
        return "unknown", "no mapping of the library could be read"
    public = [f"{pid} {one.path}" for pid, one in writable if "s" in one.mode]
    if public:
        return "fails", f"shared writable mappings of the library file: {', '.join(public)}"
    kilobytes = sum(one.kb.get("Private_Dirty", 0) for _, one in writable)
    return "holds", (
        f"{len(writable)} writable mappings of the library in /proc/{{{_list(list(case.mapped))}}}/"
        f"smaps, all private (copy on write); Private_Dirty {kilobytes} kB"
    )


def _own_arena(case: Case) -> Finding:
    arenas = _arenas(case.users)
    if not arenas:
        return "unknown", "no arena is mapped: the instance has not been started by a call yet"
    foreign = {name: _arenas(pids) & arenas for name, pids in case.other_users.items()}
    shared = [name for name, both in foreign.items() if both]
    names = ", ".join(f"inode {inode}" for _, inode in sorted(arenas))
    place = f"/proc/{{{_list(case.users)}}}/maps: memfd arena {names}"
    if shared:
        return "fails", f"{place}; also mapped by {', '.join(shared)}"
    if len(arenas) > 1:
        return "fails", f"{place}: the application's processes do not share one instance"
    return "holds", f"{place}; in none of {len(case.other_users)} other applications"


def _own_namespaces(case: Case) -> Finding:
    pid = case.subject.main or next(iter(case.subject.pids), None)
    if pid is None:
        return "unknown", "the application has no process now"
    kinds = [kind for kind in proc.NAMESPACES if kind != "net" or case.linked.kind == "network"]
    own = {kind: proc.namespace(pid, kind) for kind in kinds}
    host = {kind: proc.namespace("self", kind) for kind in kinds}
    if None in own.values() or None in host.values():
        return "unknown", f"/proc/{pid}/ns could not be read"
    shared = [f"{kind} with the host" for kind in kinds if own[kind] == host[kind]]
    for other in case.others:
        if other.main is not None:
            shared += [
                f"{kind} with {other.name}"
                for kind in kinds
                if proc.namespace(other.main, kind) == own[kind]
            ]
    text = f"/proc/{pid}/ns: {', '.join(str(value) for value in own.values())}"
    return ("fails", f"{text}; shared: {', '.join(shared)}") if shared else ("holds", text)


def _no_kernel_socket(case: Case) -> Finding:
    pid = case.subject.main or next(iter(case.subject.pids), None)
    if pid is None:
        return "unknown", "the application has no process now"
    sockets = proc.kernel_sockets(pid)
    if sockets is None:
        return "unknown", f"/proc/{pid}/net could not be read"
    if proc.namespace(pid, "net") == proc.namespace("self", "net"):
        return "fails", "the application is in the host's network namespace"
    counts = ", ".join(f"{table} {count}" for table, count in sockets.items())
    verdict: Literal["holds", "fails"] = "fails" if any(sockets.values()) else "holds"
    return verdict, f"/proc/{pid}/net: sockets: {counts}"


def _own_kernel_stack(case: Case) -> Finding:
    pid = case.subject.main or next(iter(case.subject.pids), None)
    if pid is None:
        return "unknown", "the application has no process now"
    addresses, interfaces = proc.local_addresses(pid), proc.interfaces(pid)
    if addresses is None or interfaces is None:
        return "unknown", f"/proc/{pid}/net could not be read"
    if proc.namespace(pid, "net") == proc.namespace("self", "net"):
        return "fails", "the application is in the host's network namespace"
    text = f"/proc/{pid}/net: interfaces {', '.join(interfaces)}; addresses {', '.join(addresses)}"
    own = [address for address in addresses if not address.startswith("127.")]
    return ("holds" if own and set(interfaces) == {"lo", "eth0"} else "fails"), text


def _packet_ring(case: Case) -> Finding | None:
    if case.linked.bound.settings.get("transport") != "packet":
        return None
    pid = next(iter(case.users), None)
    if pid is None:
        return "unknown", "no process of the application has the library mapped now"
    found = packet_socket(pid)
    if found is None:
        return "unknown", f"process {pid} has no packet socket: no call has needed the network yet"
    text = (
        f"socket {found.inode} of process {pid}: filter of {found.instructions} instructions "
        f"in the kernel, {found.mapped_kb} kB of rings in /proc/{pid}/maps"
    )
    return ("holds" if found.instructions and found.mapped_kb else "fails"), text


def _program_unchanged(case: Case) -> Finding:
    pid = case.subject.main or next(iter(case.users), None)
    found = proc.executed_file(pid) if pid is not None else None
    if found is None:
        return "unknown", "/proc/PID/exe of the program could not be read"
    path, inside = found
    outside = case.subject.outside_sha256(path)
    where = f"{path} outside"
    if outside is None:
        outside, where = case.subject.expected_sha256, "the program as read before its start"
    text = f"sha256 {inside[:16]}… of /proc/{pid}/exe ({path})"
    if inside == outside:
        return "holds", f"{text} is that of {where}"
    return "fails", f"{text}; {outside[:16]}… of {where}"


def _simultaneous(case: Case) -> Finding:
    if not case.users or case.subject.since is None:
        return "unknown", "no process of the application has the library mapped now"
    since = {
        other.name: other.since
        for other in case.others
        if other.name in case.other_users and other.since is not None
    }
    if not since:
        return "unknown", "no other application uses this element now"
    began = max([case.subject.since, *since.values()])
    names = ", ".join(f"{name} since {time:%H:%M:%S}" for name, time in sorted(since.items()))
    return "holds", (
        f"{case.subject.name} since {case.subject.since:%H:%M:%S}, {names}: "
        f"{len(since) + 1} instances at once since {began:%H:%M:%S}"
    )


def _no_escapes(case: Case) -> Finding:
    table = escapes.read(case.subject.data, case.linked.kind)
    if table:
        text = ", ".join(f"{what} × {count}" for what, count in sorted(table.items()))
        return "fails", f"calls that the element did not serve: {text}"
    if not case.users:
        return "unknown", "no process of the application has the library mapped now"
    if table is None:
        return "holds", f"no call was recorded: there is no table escapes.{case.linked.kind}"
    return "holds", f"escapes.{case.linked.kind} counts no call"


GENERAL: dict[str, tuple[str, Callable[[Case], Finding]]] = {
    "library-mapped": ("The element's library is part of the application", _library_mapped),
    "text-shared": ("All applications share one copy of the library's text", _text_shared),
    "data-private": ("The library's data belong to this application alone", _data_private),
    "own-namespaces": ("The application is in namespaces of its own", _own_namespaces),
    "program-unchanged": ("The program's file is the same as outside", _program_unchanged),
    "simultaneous": ("Several instances of the element run at the same time", _simultaneous),
    "no-escapes": ("No call went past the element", _no_escapes),
}
OF_ANY = ("own-namespaces", "program-unchanged", "simultaneous")
"""Those of `GENERAL` that say something of an element that is no library, too."""
SPECIFIC: dict[str, tuple[str, Callable[[Case], Finding | None]]] = {
    "own-arena": ("The instance's state is in memory of this application alone", _own_arena),
    "no-kernel-socket": ("The kernel has no IP socket of this application", _no_kernel_socket),
    "own-kernel-stack": (
        "The kernel's own stack serves the application in a namespace with one address",
        _own_kernel_stack,
    ),
    "packet-ring": (
        "Packets pass through mapped memory, picked by the instance's filter in the kernel",
        _packet_ring,
    ),
}


def check(subject: Subject, others: list[Subject]) -> list[Claim]:
    """All claims on all elements of one application."""
    found = []
    for linked in subject.linked:
        same = [other for other in others if any(one.name == linked.name for one in other.linked)]
        case = Case(subject, linked, same)
        wanted: dict[str, tuple[str, Callable[[Case], Finding | None]]] = {
            name: claim for name, claim in GENERAL.items() if name in OF_ANY or not linked.by_kernel
        }
        for name in linked.bound.element.manifest.evidence:
            wanted.setdefault(name, SPECIFIC.get(name, (name, _not_known)))
        for name, (title, examine) in wanted.items():
            finding = examine(case)
            if finding is None:  # says nothing about an instance with these settings
                continue
            verdict, observation = finding
            found.append(
                Claim(
                    claim=name,
                    title=title,
                    observation=observation,
                    verdict=verdict,
                    element=linked.name,
                )
            )
    return found


def _not_known(case: Case) -> Finding:
    return "unknown", "this agent has no check of this name"


def _arenas(pids: list[int]) -> set[tuple[str, int]]:
    return {
        one.file for pid in pids for one in proc.mappings(pid) or [] if one.path.startswith(ARENA)
    }


def _list(pids: list[int]) -> str:
    shown = ",".join(map(str, pids[:8]))
    return shown + (",…" if len(pids) > 8 else "")
