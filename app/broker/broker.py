"""The broker: one thread that serves the sockets of all applications of this host.

Called by the agent: `serve` when an application is created or found again, `forget` when it is
removed, `push` to change a setting of a running instance. The protocol is in ARCHITECTURE.md.

Peers are strangers. A message that is too long, malformed, unknown or over the rate is counted
and dropped, a peer that goes on so or does not read is disconnected; nothing a peer sends reaches
another application.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from app.broker import wires
from app.broker.instruments import Instruments
from app.broker.messages import MAX_BYTES, MAX_FDS, BadMessage, Message, pack, parse, shown
from app.broker.session import MAX_CONNECTIONS, Connection, Session
from app.broker.wires import Wires, checked_bells
from app.domain.errors import Conflict, CseError, HostLacks
from app.domain.network import NetworkBinding, NetworkSpec, PeerAddresses

SOCKET = "broker.sock"
_RATE_PER_S = 500.0
_BURST = 1000.0
_MAX_BAD = 1000
_UCRED = struct.Struct("iII")
_log = logging.getLogger(__name__)


class Broker:
    """Both are called in the broker's thread: `changed` when an instance appears or ends,
    `reported` (application, pid, text) for each event that an instance tells."""

    def __init__(
        self,
        changed: Callable[[], None] = lambda: None,
        reported: Callable[[str, int, str], None] = lambda *_: None,
    ) -> None:
        self._changed = changed
        self._reported = reported
        self._lock = threading.RLock()
        self._sessions: dict[str, Session] = {}
        self._instruments: dict[str, Instruments] = {}
        self._wires = Wires(self._sessions, self._send)
        self._listeners: dict[int, tuple[Session, socket.socket]] = {}
        self._peers: dict[int, tuple[Session, Connection, socket.socket]] = {}
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._thread = threading.Thread(target=self._run, name="cse-broker", daemon=True)
        self._thread.start()

    def serve(
        self,
        name: str,
        directory: Path,
        make_device: Callable[[bool], int],
        find: Callable[[str], PeerAddresses | None],
        binding: NetworkBinding | None = None,
        settings: Mapping[str, Mapping[str, str]] | None = None,
        discard: Callable[[Sequence[int]], None] | None = None,
    ) -> None:
        """Listen on `directory/broker.sock`; libraries that lost a former broker come back.

        Applications with a `binding` to one network get wires to each other. `settings`: kind →
        what was changed while the program ran, and they may have missed. `discard` closes what
        this broker held of an instance that has ended, without making it wait for that.
        """
        with self._lock:
            if name in self._sessions:
                return
            listener = _listen(directory)
            session = Session(name, make_device, find, binding, listener=listener.fileno())
            if discard is not None:
                session.discard = discard
            session.settings = {kind: dict(values) for kind, values in (settings or {}).items()}
            self._sessions[name] = session
            self._wires.add(session)
            self._instruments[name] = Instruments(session, self._send, self._lock)
            self._listeners[listener.fileno()] = (session, listener)
            self._epoll.register(listener.fileno(), select.EPOLLIN)

    def forget(self, name: str) -> None:
        """Close the application's socket and connections."""
        with self._lock:
            session = self._sessions.pop(name, None)
            if session is None:
                return
            self._wires.gone(session)
            self._wires.forget(session)
            for connection in list(session.connections.values()):
                self._drop(connection.fd)
            session.drop_instance()
            self._instruments.pop(name).close()
            _, listener = self._listeners.pop(session.listener)
            self._epoll.unregister(listener.fileno())
            listener.close()

    def change_network(self, network: NetworkSpec) -> None:
        """A new policy: wires that it forbids end, new ones follow it."""
        with self._lock:
            for session in self._sessions.values():
                binding = session.binding
                if binding is not None and binding.network.name == network.name:
                    session.binding = binding.model_copy(update={"network": network})
            self._wires.judge(network.name)

    def push(self, name: str, kind: str, values: Mapping[str, str]) -> int:
        """`set` to the application's instance of this kind, and to programs that register later;
        returns how many programs got it now."""
        with self._lock:
            session = self._sessions.get(name)
            if session is None:
                return 0
            session.settings.setdefault(kind, {}).update(values)
            return sum(self._set(one, values) for one in session.listeners(kind))

    def instruments(self, name: str) -> Instruments:
        """Of an application that is served. Raises `Conflict`."""
        with self._lock:
            found = self._instruments.get(name)
            if found is None:
                raise Conflict(f"'{name}' has no element that could be asked")
            return found

    def details(self, name: str) -> dict[str, Any]:
        """What the application's instance reported; `live` says whether one is registered."""
        with self._lock:
            session = self._sessions.get(name)
            if session is None:
                return {}
            return {"live": bool(session.instance), **session.details()}

    def wires(self, name: str) -> list[str]:
        """Applications to which this one's instance has a wire."""
        with self._lock:
            session = self._sessions.get(name)
            return self._wires.peers(session) if session is not None else []

    def close(self) -> None:
        """Ends the thread; instances go on and reconnect to the next broker."""
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        with self._lock:
            for session in self._sessions.values():
                session.wires.clear()  # they stay, and are told to the next broker
            for name in list(self._sessions):
                self.forget(name)
            self._epoll.close()
            os.close(self._wake)

    def _run(self) -> None:
        while True:
            for fd, _ in self._epoll.poll():
                if fd == self._wake:
                    return
                try:
                    with self._lock:
                        self._ready(fd)
                except Exception:  # noqa: BLE001 - one peer must not end the broker for all
                    _log.exception("broker: connection dropped")
                    with self._lock:
                        self._drop(fd)

    def _ready(self, fd: int) -> None:
        if fd in self._listeners:
            self._accept(*self._listeners[fd])
        elif fd in self._peers:
            session, connection, peer = self._peers[fd]
            if not self._take(session, connection, peer):
                self._drop(fd)

    def _accept(self, session: Session, listener: socket.socket) -> None:
        try:
            peer, _ = listener.accept()
        except OSError:
            return
        if len(session.connections) >= MAX_CONNECTIONS:
            session.refused += 1
            peer.close()
            return
        peer.setblocking(False)
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        pid, uid, _ = _UCRED.unpack(credentials)
        connection = Connection(peer.fileno(), pid, uid, budget=_BURST, budget_at=time.monotonic())
        session.connections[connection.fd] = connection
        self._peers[connection.fd] = (session, connection, peer)
        self._epoll.register(connection.fd, select.EPOLLIN | select.EPOLLRDHUP)

    def _take(self, session: Session, connection: Connection, peer: socket.socket) -> bool:
        """One packet; False when the connection is over."""
        try:
            data, fds, flags, _ = socket.recv_fds(
                peer, MAX_BYTES + 1, MAX_FDS, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not data:
            _close(fds)
            return False
        try:
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                raise BadMessage("too long")
            _spend(connection)
            self._handle(session, connection, parse(data), fds)
        except BadMessage:
            session.refused += 1
            connection.bad += 1
        finally:
            _close(fds)
        return connection.bad < _MAX_BAD

    def _handle(
        self, session: Session, connection: Connection, message: Message, fds: list[int]
    ) -> None:
        if message.verb == "hello":
            self._hello(session, connection, message)
        elif message.verb == "register":
            self._register(session, connection, message, fds)
        elif message.verb == "resolve":
            number = message.number("id")
            found = session.find(message.fields.get("name", ""))
            known = found._asdict() if found is not None else {}
            answer = {"id": number} | {key: one for key, one in known.items() if one is not None}
            self._send(connection, pack("resolved", answer))
        elif message.verb == "lead":
            if not connection.registered:
                raise BadMessage("not registered")
            session.leader = connection
            self._wires.hear(session, connection, message)
            self._instruments[session.name].hear(connection, message)
            self._set(connection, session.settings.get(connection.kind, {}))
        elif message.verb in wires.VERBS:
            self._wires.hear(session, connection, message)
        elif message.verb == "event":
            if (event := session.report(connection, message.text)) is not None:
                self._reported(session.name, event.pid, event.text)
        elif message.verb == "counters":
            session.count(message.fields)
        elif message.verb == "reported":
            self._instruments[session.name].hear(connection, message)
        else:
            raise BadMessage(message.verb)

    def _hello(self, session: Session, connection: Connection, message: Message) -> None:
        connection.program = shown(message.fields.get("program", ""))
        connection.kind = message.fields.get("kind", "")
        if message.fields.get("reattach") == "1":
            return  # `register` follows
        if session.creator is connection or connection in session.waiting:
            raise BadMessage("hello twice")
        connection.vnet_hdr = message.fields.get("vnet_hdr") == "1"
        if session.instance:
            self._attach(session, connection)
        elif session.creator is not None:
            session.waiting.append(connection)
        elif message.fields.get("attach") == "1":
            self._send(connection, pack("refused", {"reason": "no instance lives"}))
        else:
            self._create(session, connection)

    def _create(self, session: Session, connection: Connection) -> None:
        try:
            tap = session.make_device(connection.vnet_hdr)
        except CseError as error:
            _log.warning("application %s: no device: %s", session.name, error)
            self._send(connection, pack("refused", {"reason": str(error)[:500]}))
            return
        session.creator = connection
        instruments = self._instruments[session.name]
        fields = {"vnet_hdr": 1} if connection.vnet_hdr else {}
        if instruments.orders:
            fields["orders"] = len(instruments.orders)
        self._send(connection, pack("create", fields), [tap])
        instruments.greet(connection)
        os.close(tap)

    def _register(
        self, session: Session, connection: Connection, message: Message, fds: list[int]
    ) -> None:
        if len(fds) != 4:
            raise BadMessage("register carries arena, tap and two bells")
        bells = checked_bells(fds[2:])
        session.register(connection, [os.dup(fds[0]), os.dup(fds[1]), *bells])
        self._set(connection, session.settings.get(connection.kind, {}))
        for other in session.waiting:
            self._attach(session, other)
        session.waiting.clear()
        self._changed()

    def _attach(self, session: Session, connection: Connection) -> None:
        connection.attached = True
        self._send(connection, pack("attach"), list(session.instance))  # it registers then

    def _set(self, connection: Connection, values: Mapping[str, str]) -> bool:
        """In as many messages as it takes."""
        parts: list[dict[str, str]] = [{}]
        for key, value in values.items():
            if len(pack("set", {**parts[-1], key: value})) > MAX_BYTES:
                parts.append({})
            parts[-1][key] = value
        return all(self._send(connection, pack("set", part)) for part in parts if part)

    def _send(self, connection: Connection, data: bytes, fds: list[int] | None = None) -> bool:
        """False where the peer is gone or does not read: then its end is noticed by epoll."""
        entry = self._peers.get(connection.fd)
        if entry is None:
            return False
        peer = entry[2]
        try:
            socket.send_fds(peer, [data], fds or [], socket.MSG_NOSIGNAL)
        except OSError:
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
            return False
        return True

    def _drop(self, fd: int) -> None:
        entry = self._peers.pop(fd, None)
        if entry is None:
            return
        session, connection, peer = entry
        was_live = bool(session.instance)
        was_creator = session.creator is connection
        session.forget(connection)
        if was_live and not session.instance:
            self._wires.gone(session)
        if session.name in self._instruments:
            self._instruments[session.name].gone(connection)
        self._epoll.unregister(fd)
        peer.close()
        if was_creator and session.waiting:  # the next in line makes the instance
            self._create(session, session.waiting.pop(0))
        if was_live and not session.instance:
            self._changed()


def _listen(directory: Path) -> socket.socket:
    """Bound through the directory's descriptor: its path may be longer than a socket's may."""
    place = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(SOCKET, dir_fd=place)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        listener.setblocking(False)
        listener.bind(f"/proc/self/fd/{place}/{SOCKET}")
        os.chmod(SOCKET, 0o666, dir_fd=place)  # who may reach it is said by who sees it
        listener.listen(128)
        return listener
    except OSError as error:
        raise HostLacks(
            f"the broker socket in {directory} cannot be made: {error.strerror}"
        ) from error
    finally:
        os.close(place)


def _spend(connection: Connection) -> None:
    """A token bucket for each connection."""
    now = time.monotonic()
    gained = (now - connection.budget_at) * _RATE_PER_S
    connection.budget = min(_BURST, connection.budget + gained)
    connection.budget_at = now
    if connection.budget < 1.0:
        raise BadMessage("over the rate")
    connection.budget -= 1.0


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
