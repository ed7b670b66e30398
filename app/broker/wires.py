"""Wires: circuits between two instances of this host, brokered on first use.

Used by `broker`, under its lock. A wire is a sealed memory object with two rings that both
instances map, and the write ends of each other's bells. The broker checks that the address is an
application's, that the network's policy permits the two, that both live; it makes the object,
hands it to both ends and keeps no descriptor of it: established wires need no broker.

Each wire has an id of its own. An instance that hears late of a peer's end lets go of that wire,
not of the one that it, or another instance at the same address, has by then. Messages of two
programs have no order between them: what one says may be older than what the broker has told it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import time
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol

from app.broker.messages import BadMessage, Message, pack
from app.broker.session import Connection, HeldWire, Session

RING_BYTES = 1 << 20
"""Of one direction; WIRE_RING_BYTES of images/network-lwip/lwip/ring.h."""
CONTROL_BYTES = 65536
MAX_WIRES = 200
"""Of one instance, so that `register wires=` fits into one message; further peers use the tap."""
VERBS = frozenset({"wire", "unwire", "lead"})
_RATE_PER_S = 50.0
_BURST = 256.0
_log = logging.getLogger(__name__)


class Send(Protocol):
    """Of the broker; False where the peer is gone or deaf."""

    def __call__(
        self, connection: Connection, data: bytes, fds: list[int] | None = None
    ) -> bool: ...


class Wires:
    """`sessions` is the broker's own table."""

    def __init__(self, sessions: Mapping[str, Session], send: Send) -> None:
        self._sessions = sessions
        self._send = send
        self._addresses: dict[tuple[str, str], Session] = {}
        """Network and address, of either family → whose it is."""
        self._claimed = False
        """Some instance has said that it has a wire which this broker did not make."""

    def add(self, session: Session) -> None:
        """It may be asked for from now on."""
        for place in _places(session):
            self._addresses[place] = session

    def forget(self, session: Session) -> None:
        """The application is being removed."""
        for place in _places(session):
            if self._addresses.get(place) is session:
                del self._addresses[place]

    def hear(self, session: Session, connection: Connection, message: Message) -> None:
        """One of VERBS, from a program. Raises BadMessage."""
        if not connection.registered:
            raise BadMessage("not registered")
        if message.verb == "wire":
            self.request(session, connection, message)
        elif message.verb == "unwire":
            self.drop(session, message.fields.get("address", ""), message.fields.get("id", ""))
        else:
            self.register(session, connection, message)

    def request(self, session: Session, connection: Connection, message: Message) -> None:
        """`wire address=A`: both ends are told, or the asker is refused."""
        asked = message.fields.get("address", "")
        peer = self._peer(session, asked)
        if peer is not None and _own(peer) in session.wires and _own(session) in peer.wires:
            return  # the two asked at once: both have been told
        if peer is None or not _affordable(session) or not self._connect(session, connection, peer):
            self._send(connection, pack("wire", {"address": asked, "none": 1}))

    def register(self, session: Session, connection: Connection, message: Message) -> None:
        """`wires=A,B`: those that an instance has from an earlier broker or leader; all others
        are no more, but for those that this program was told of, perhaps after it said so."""
        claimed = {word for word in message.fields.get("wires", "").split(",")[:MAX_WIRES] if word}
        for address, held in list(session.wires.items()):
            if address not in claimed and held.granted_to is not connection:
                self.drop(session, address)
        for address in claimed - session.wires.keys():
            peer = self._owner(session, address)
            session.wires[address] = HeldWire()
            if peer is not None and not _permitted(session, peer):
                self.drop(session, address)
                self._unwire(session, address)
            elif peer is not None and peer.leader is not None:
                self._confirm(session, peer)
            self._claimed = True
        for other in self._sessions.values() if self._claimed else ():
            if _own(session) in other.wires and self._owner(other, _own(session)) is session:
                self._confirm(other, session)

    def peers(self, session: Session) -> list[str]:
        """Names of the applications at the other ends."""
        owners = (self._owner(session, address) for address in session.wires)
        return sorted(owner.name for owner in owners if owner is not None)

    def drop(self, session: Session, address: str, wire: str = "") -> None:
        """The session's instance has let go of one wire, or lost it: the other end is told."""
        lost = session.wires.get(address, HeldWire(wire))
        if not _same(lost, wire):
            return
        peer = self._owner(session, address)
        session.wires.pop(address, None)
        if peer is not None and _same(peer.wires.get(_own(session)), lost.id):
            self._unwire(peer, _own(session))

    def gone(self, session: Session) -> None:
        """The instance is no more: its peers reset their connections to it."""
        for address, ours in list(session.wires.items()):
            peer = self._owner(session, address)
            if peer is None:
                continue
            theirs = peer.wires.get(_own(session))
            if theirs is None and not peer.instance:
                continue  # the bell has told of it
            if _same(theirs or HeldWire(), ours.id):
                self._unwire(peer, _own(session), ours.id)
        session.wires.clear()

    def judge(self, network: str) -> None:
        """The network's policy has changed: wires that it forbids now end at once."""
        for session in self._sessions.values():
            if session.binding is None or session.binding.network.name != network:
                continue
            for address in list(session.wires):
                peer = self._owner(session, address)
                if peer is not None and not _permitted(session, peer):
                    self._unwire(session, address)
                    self._unwire(peer, _own(session))

    def _confirm(self, session: Session, peer: Session) -> None:
        """Both have said what they have: a wire that `session` alone has leads nowhere."""
        if _own(session) not in peer.wires:
            self._unwire(session, _own(peer))

    def _connect(self, session: Session, connection: Connection, peer: Session) -> bool:
        """Memory made, both told. False where the peer is deaf, or descriptors have run out."""
        listener = peer.speaker()
        if listener is None:
            return False
        wire = secrets.token_hex(8)
        mine: list[int] = []
        theirs: list[int] = []
        try:
            rings = _make_rings()
            mine.append(rings)
            theirs.append(os.dup(rings))
            for bell in session.bells:
                theirs.append(_write_end(bell))
            for bell in peer.bells:
                mine.append(_write_end(bell))
            if not self._send(listener, _grant(session, wire, side=1), theirs):
                return False
            peer.wires[_own(session)] = HeldWire(wire, listener)
            if self._send(connection, _grant(peer, wire, side=0), mine):
                session.wires[_own(peer)] = HeldWire(wire, connection)
            else:
                self._unwire(peer, _own(session))
        except OSError as error:
            _log.warning("no wire from %s to %s: %s", session.name, peer.name, error)
            return False
        finally:
            for fd in mine + theirs:
                os.close(fd)
        return True

    def _unwire(self, session: Session, address: str, wire: str = "") -> None:
        wire = session.wires.pop(address, HeldWire(wire)).id
        listener = session.speaker()
        if listener is not None:
            self._send(
                listener, pack("unwire", {"address": address} | ({"id": wire} if wire else {}))
            )

    def _peer(self, session: Session, address: str) -> Session | None:
        """Whom `session` may have a wire to at this address."""
        peer = self._owner(session, address)
        if peer is None or not session.instance or not peer.instance:
            return None
        if not session.bells or not peer.bells or not _permitted(session, peer):
            return None
        room = len(session.wires) < MAX_WIRES and len(peer.wires) < MAX_WIRES
        return peer if room else None

    def _owner(self, session: Session, address: str) -> Session | None:
        """The application at an address of either family."""
        try:
            canonical = str(ip_address(address))
        except ValueError:
            return None
        if session.binding is None:
            return None
        found = self._addresses.get((session.binding.network.name, canonical))
        return found if found is not session else None


def checked_bells(fds: list[int]) -> list[int]:
    """The bells of a `register`, as later programs get them: opened for both directions, so that
    they never hang up. Raises BadMessage unless they are pipes.

    Their mode becomes 0: who is handed a write end cannot open the other one through /proc.
    """
    opened: list[int] = []
    try:
        for fd in fds:
            if not str(Path(f"/proc/self/fd/{fd}").readlink()).startswith("pipe:["):
                raise BadMessage("a bell is a pipe without a name")
            os.fchmod(fd, 0)
            opened.append(_reopen(fd, os.O_RDWR))
    except (OSError, BadMessage) as error:
        for fd in opened:
            os.close(fd)
        raise BadMessage(str(error)) from error
    return opened


def _write_end(bell: int) -> int:
    """An open file of its own: what one peer does to its flags concerns no other."""
    return _reopen(bell, os.O_WRONLY)


def _reopen(fd: int, mode: int) -> int:
    return os.open(f"/proc/self/fd/{fd}", mode | os.O_NONBLOCK | os.O_CLOEXEC)


def _make_rings() -> int:
    """Sealed, so that no end can take the pages away under the other."""
    fd = os.memfd_create("cse-wire", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, CONTROL_BYTES + 2 * RING_BYTES)
        fcntl.fcntl(
            fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        )
    except OSError:
        os.close(fd)
        raise
    return fd


def _same(one: HeldWire | None, other: str) -> bool:
    """Of two wires between the same addresses; None: there is none, "": it is not known which."""
    return one is not None and (not one.id or not other or one.id == other)


def _grant(peer: Session, wire: str, *, side: int) -> bytes:
    fields: dict[str, object] = {"address": _own(peer), "name": peer.name, "side": side, "id": wire}
    if _own6(peer):
        fields["address6"] = _own6(peer)
    return pack("wire", fields)


def _own(session: Session) -> str:
    return str(session.binding.address) if session.binding is not None else ""


def _own6(session: Session) -> str:
    address = session.binding.address6 if session.binding is not None else None
    return str(address) if address is not None else ""


def _places(session: Session) -> list[tuple[str, str]]:
    if session.binding is None:
        return []
    network = session.binding.network.name
    return [(network, address) for address in (_own(session), _own6(session)) if address]


def _permitted(session: Session, peer: Session) -> bool:
    binding = session.binding
    return binding is not None and binding.network.policy.permits(session.name, peer.name)


def _affordable(session: Session) -> bool:
    """A token bucket for each application: the other end is made to work too."""
    now = time.monotonic()
    gained = (now - session.wire_budget_at) * _RATE_PER_S if session.wire_budget_at else _BURST
    session.wire_budget = min(_BURST, session.wire_budget + gained)
    session.wire_budget_at = now
    if session.wire_budget < 1.0:
        return False
    session.wire_budget -= 1.0
    return True
