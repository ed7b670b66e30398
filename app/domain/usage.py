"""What applications use, and the sockets of their private stacks."""

from __future__ import annotations

from typing import Literal

from app.domain.model import Model


class Usage(Model):
    """Totals of one running application; rates are differences of two."""

    application: str
    counters: dict[str, int] = {}
    """Of its network instance; empty while it has none."""
    files: dict[str, int] = {}
    """Of its file-system instance, since the application was made: operations in its mounts
    (`opens`, `stats`, `lists`, `changes`), files copied up and filled with their bytes, faults met.
    `index_done` of `index_total` bytes while the index of an archive is made."""
    wires: list[str] = []
    """Applications to which it has a wire."""
    memory: int
    """Resident bytes of all its processes; pages that they share count for each."""
    cpu: float
    """Processor seconds of the processes that run."""


class SocketEntry(Model):
    """One socket, or one connection that outlives its socket, of a private stack."""

    kind: Literal["tcp", "udp"]
    state: str
    """As `ss` names it: LISTEN, ESTAB, TIME-WAIT, UNCONN, …"""
    recvq: int
    """Bytes the program has not read; connections to be accepted where it listens."""
    sendq: int
    """Bytes the peer has not acknowledged; the backlog where it listens."""
    local: str
    peer: str
    pid: int | None = None
    """Of the process that has it, as the application sees it."""
    program: str | None = None
    details: dict[str, int | float] = {}
    """`rtt_ms`, `cwnd`, `mss`, `retransmits` and others, for TCP connections."""
