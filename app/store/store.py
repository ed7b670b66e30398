"""The store's front: transactions over applications, networks, volumes and events.

Called by `api` (desired state), `reconcile` (what to converge to) and `cli run` (addresses).
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Generic, NamedTuple, TypeVar

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from app.domain.access import ProjectSpec
from app.domain.errors import Conflict, HostLacks, NotFound
from app.domain.explain import did_you_mean
from app.domain.network import NetworkSpec
from app.domain.volume import VolumeSpec
from app.store import tables
from app.store.access import Audit, Projects, Tokens
from app.store.applications import Applications, network_of
from app.store.clock import now
from app.store.database import Database
from app.store.events import Events
from app.store.faults import Faults
from app.store.operations import Answers, Operations
from app.store.records import ApplicationRecord

log = logging.getLogger(__name__)

T = TypeVar("T")

_SHARED_S = 1.0
"""So long another server's change may stay unseen in lists."""
_BOOKKEEPING_S = 0.02
"""At most so long bookkeeping waits for more, and for the answer that it would compete with."""
_LULL_S = 0.004
"""It begins earlier where so long no more has come."""
_FLUSH_AGAIN_S = 1.0
_ALL_NETWORKS = select(tables.networks.c.spec).order_by(tables.networks.c.name)
_FIND_NETWORK = select(tables.networks.c.spec).where(tables.networks.c.name == bindparam("wanted"))
_ALL_VOLUMES = select(tables.volumes.c.spec).order_by(tables.volumes.c.name)


def _overlap6(one: NetworkSpec, other: NetworkSpec) -> bool:
    return (
        one.subnet6 is not None
        and other.subnet6 is not None
        and one.subnet6.overlaps(other.subnet6)
    )


class Networks:
    """The networks, by name."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.touched = False

    def all(self) -> list[NetworkSpec]:
        """By name."""
        rows = self._connection.execute(_ALL_NETWORKS)
        return [NetworkSpec.model_validate_json(row[0]) for row in rows]

    def find(self, name: str) -> NetworkSpec | None:
        """None where there is none of this name."""
        row = self._connection.execute(_FIND_NETWORK, {"wanted": name}).first()
        return network_of(row[0]) if row else None

    def get(self, name: str) -> NetworkSpec:
        """Raises `NotFound`."""
        if found := self.find(name):
            return found
        names = [network.name for network in self.all()]
        raise NotFound(f"there is no network '{name}'", remedy=did_you_mean(name, names))

    def put(self, spec: NetworkSpec) -> bool:
        """Add or change; false where nothing changed. Raises `Conflict` on overlapping subnets."""
        present = self.find(spec.name)
        if present == spec:
            return False
        for other in self.all():
            if other.name != spec.name and other.subnet.overlaps(spec.subnet):
                raise Conflict(
                    f"subnet {spec.subnet} overlaps {other.subnet} of network '{other.name}'",
                    pointer="/subnet",
                    remedy="choose another subnet",
                )
            if other.name != spec.name and _overlap6(other, spec):
                raise Conflict(
                    f"subnet6 {spec.subnet6} overlaps {other.subnet6} of network '{other.name}'",
                    pointer="/subnet6",
                    remedy="choose another one, or leave 'subnet6' out",
                )
        table = tables.networks
        self.touched = True
        if present is None:
            self._connection.execute(
                insert(table).values(name=spec.name, spec=spec.model_dump_json(), created=now())
            )
        else:
            moved = present.subnet != spec.subnet
            if (moved or present.subnet6 != spec.subnet6) and self.holders(spec.name):
                raise Conflict(
                    f"network '{spec.name}' has applications; its subnets cannot change",
                    pointer="/subnet" if moved else "/subnet6",
                    remedy="remove them first: " + ", ".join(self.holders(spec.name)),
                )
            self._connection.execute(
                update(table).where(table.c.name == spec.name).values(spec=spec.model_dump_json())
            )
        if present is None or present.subnet != spec.subnet:
            Applications(self._connection).prepare_network(spec)
        return True

    def remove(self, name: str) -> None:
        """Raises `Conflict` while applications use it."""
        self.get(name)
        if holders := self.holders(name):
            raise Conflict(
                f"network '{name}' is used by " + ", ".join(f"'{holder}'" for holder in holders),
                remedy="remove these applications first",
            )
        table = tables.addresses
        self.touched = True
        self._connection.execute(delete(table).where(table.c.network == name))
        self._connection.execute(delete(tables.networks).where(tables.networks.c.name == name))

    def holders(self, name: str) -> list[str]:
        """Applications with an address of this network."""
        table = tables.addresses
        query = select(table.c.holder).where(table.c.network == name, table.c.holder.is_not(None))
        return sorted(row[0] for row in self._connection.execute(query))


class Volumes:
    """The volumes, by name."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def all(self) -> list[VolumeSpec]:
        """By name."""
        rows = self._connection.execute(_ALL_VOLUMES)
        return [VolumeSpec.model_validate_json(row[0]) for row in rows]

    def get(self, name: str) -> VolumeSpec:
        """Raises `NotFound`."""
        for volume in self.all():
            if volume.name == name:
                return volume
        names = [volume.name for volume in self.all()]
        raise NotFound(f"there is no volume '{name}'", remedy=did_you_mean(name, names))

    def put(self, spec: VolumeSpec) -> bool:
        """Add or change; false where nothing changed."""
        present = {volume.name: volume for volume in self.all()}.get(spec.name)
        if present == spec:
            return False
        table, text = tables.volumes, spec.model_dump_json()
        if present is None:
            change = insert(table).values(name=spec.name, spec=text, created=now())
            self._connection.execute(change)
        else:
            self._connection.execute(
                update(table).where(table.c.name == spec.name).values(spec=text)
            )
        return True

    def remove(self, name: str) -> None:
        """Raises `Conflict` while applications mount it."""
        self.get(name)
        users = [
            record.name
            for record in Applications(self._connection).all()
            if any(mount.volume == name for mount in record.spec.mounts)
        ]
        if users:
            raise Conflict(
                f"volume '{name}' is mounted by " + ", ".join(f"'{user}'" for user in users),
                remedy="remove these applications first",
            )
        self._connection.execute(delete(tables.volumes).where(tables.volumes.c.name == name))


class Transaction:
    """All resources, within one transaction."""

    def __init__(self, connection: Connection) -> None:
        self.applications = Applications(connection)
        self.networks = Networks(connection)
        self.volumes = Volumes(connection)
        self.events = Events(connection)
        self.faults = Faults(connection)
        self.tokens = Tokens(connection)
        self.projects = Projects(connection)
        self.audit = Audit(connection)
        self.operations = Operations(connection)
        self.answers = Answers(connection)


class _Snapshot(NamedTuple):
    state: object
    taken: float
    records: Mapping[str, ApplicationRecord]


class _Kept(Generic[T]):
    """What was read by name and is still so, because nothing of its kind was written since."""

    def __init__(self, *, keeps: bool) -> None:
        """Not `keeps`: somebody else may write unseen."""
        self._keeps = keeps
        self._values: dict[str, T] = {}

    def get(self, name: str, read: Callable[[], T | None]) -> T | None:
        """From here, or by `read`; what is not there is looked for each time."""
        values = self._values  # before it is read: a change meanwhile makes it another one
        if name in values:
            return values[name]
        value = read()
        if value is not None and self._keeps:
            values[name] = value
        return value

    def changed(self) -> None:
        """Read all of it anew."""
        self._values = {}


class Store:
    """The store. `installation` is part of every application's id: the store's own mark."""

    def __init__(self, url: str, *, event_history: int = 10_000) -> None:
        self._database = Database(url)
        self._event_history = event_history
        self._state = object()
        """Another one after each commit that concerns applications: what was read before is old
        then. (Of numbers counted by several threads, one could come back.)"""
        self._known: _Snapshot | None = None
        self._newest: tuple[object, ApplicationRecord] | None = None
        """State of the store → the application that it was reached by."""
        self._networks: _Kept[NetworkSpec] = _Kept(keeps=not self._database.is_shared)
        self._projects: _Kept[ProjectSpec] = _Kept(keeps=not self._database.is_shared)
        self._listeners: list[Callable[[], object]] = []
        self._listeners_lock = threading.Lock()
        self._bookkeeping: list[tuple[str | None, Callable[[Transaction], object]]] = []
        """What `later` has put off, with the application that it is about."""
        self._flushing = threading.Lock()
        self._flush_again_at = float("-inf")
        self._some, self._no_more = threading.Event(), threading.Event()
        self._bookkeeper: threading.Thread | None = None
        self._closing = threading.Event()
        self.installation = self._installation()

    @property
    def is_shared(self) -> bool:
        """Whether other hosts may have it, too."""
        return self._database.is_shared

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """All of it or none; listeners of events are called after the commit."""
        self.flush()
        with self._write() as transaction:
            yield transaction

    @contextmanager
    def _write(self) -> Iterator[Transaction]:
        with self._database.write() as connection:
            transaction = Transaction(connection)
            yield transaction
            if transaction.events.added:
                transaction.events.trim(self._event_history)
            self._forget_changed(transaction)  # for whoever writes next; after the commit for all
        self._forget_changed(transaction)
        if transaction.events.added:
            with self._listeners_lock:
                listeners = list(self._listeners)
            for listener in listeners:
                listener()

    def _forget_changed(self, transaction: Transaction) -> None:
        if transaction.networks.touched:
            self._networks.changed()
        if transaction.projects.touched:
            self._projects.changed()
        if transaction.applications.touched or transaction.networks.touched:
            self._state = state = object()
            inserted = transaction.applications.inserted
            if inserted is not None and not self._database.is_shared:
                self._newest = (state, inserted)

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """A consistent view."""
        self.flush()
        with self._database.read() as connection:
            yield Transaction(connection)

    def application(self, name: str) -> ApplicationRecord | None:
        """One as it is now; what was put off of others need not be written for that."""
        if any(other == name for other, _ in self._bookkeeping.copy()):
            self.flush()
        if (newest := self._newest) is not None:
            state, record = newest
            if state is self._state and record.name == name:
                return record
        with self._database.read() as connection:
            return Applications(connection).find(name)

    def network(self, name: str) -> NetworkSpec | None:
        """None where there is none of this name."""

        def find() -> NetworkSpec | None:
            with self._database.read() as connection:
                return Networks(connection).find(name)

        return self._networks.get(name, find)

    def project(self, transaction: Transaction, name: str) -> ProjectSpec | None:
        """None where there is none of this name."""
        return self._projects.get(name, lambda: transaction.projects.find(name))

    def applications(self) -> Mapping[str, ApplicationRecord]:
        """All of them by name, read anew only after a change: the same objects until then."""
        self.flush()
        state, known = self._state, self._known
        if known is not None and self._is_current(known):
            return known.records
        with self.read() as transaction:
            records = {record.name: record for record in transaction.applications.all()}
        self._known = _Snapshot(state, time.monotonic(), records)
        return records

    def application_at_hand(self, name: str) -> ApplicationRecord | None:
        """One of `applications` where that needs no look into the database; None: look there."""
        known = self._known
        if known is None or self._bookkeeping or not self._is_current(known):
            return None
        return known.records.get(name)

    def _is_current(self, known: _Snapshot) -> bool:
        """Another server of the same database may write unseen; of SQLite there is one."""
        fresh = not self._database.is_shared or time.monotonic() - known.taken < _SHARED_S
        return known.state is self._state and fresh

    def later(
        self,
        act: Callable[[Transaction], object],
        *,
        of: str | None = None,
        at_once: bool = False,
    ) -> None:
        """Write what nobody waits for in another thread, so that an answer may go out first.

        Every transaction that begins after this call finds it done. A kill within
        `_BOOKKEEPING_S` loses it. `of`: the application that it is about. `at_once`: do not wait
        for more.
        """
        with self._listeners_lock:
            self._bookkeeping.append((of, act))
            if self._bookkeeper is None:
                self._bookkeeper = threading.Thread(
                    target=self._keep_books, name="bookkeeper", daemon=True
                )
                self._bookkeeper.start()
        if at_once:
            self._no_more.set()
        self._some.set()

    def flush(self) -> None:
        """Write now what `later` has put off; returns when it is written, by whomever.

        Where the database is full or away it is kept, and tried again a second later.
        """
        if not self._bookkeeping or time.monotonic() < self._flush_again_at:
            return
        with self._flushing:
            acts = self._bookkeeping.copy()
            try:
                if acts:
                    with self._write() as transaction:
                        for _, act in acts:
                            act(transaction)
            except HostLacks as error:
                log.warning("bookkeeping waits: %s", error)
                self._flush_again_at = time.monotonic() + _FLUSH_AGAIN_S
                return
            except Exception:
                log.exception("bookkeeping was not written")
            with self._listeners_lock:  # not before: who finds the list empty takes it for written
                del self._bookkeeping[: len(acts)]

    def record_event(self, kind: str, application: str | None, message: str) -> None:
        """An event in a transaction of its own."""
        with self.write() as transaction:
            transaction.events.add(kind, application, message)

    def subscribe(self, listener: Callable[[], object]) -> Callable[[], None]:
        """Call `listener` after each commit with events; returns what ends that."""
        with self._listeners_lock:
            self._listeners.append(listener)

        def unsubscribe() -> None:
            with self._listeners_lock:
                self._listeners.remove(listener)

        return unsubscribe

    def close(self) -> None:
        """Give back the database."""
        self._closing.set()
        self._no_more.set()
        self._some.set()
        if self._bookkeeper is not None:
            self._bookkeeper.join()
        self.flush()
        self._database.close()

    def _keep_books(self) -> None:
        while not self._closing.is_set():
            self._some.wait()
            until, seen = time.monotonic() + _BOOKKEEPING_S, -1
            while len(self._bookkeeping) != seen and time.monotonic() < until:
                seen = len(self._bookkeeping)
                if self._no_more.wait(_LULL_S):
                    break
            self._some.clear()
            self._no_more.clear()
            self.flush()

    def _installation(self) -> str:
        table = tables.meta
        query = select(table.c.value).where(table.c.key == "installation")
        with self._database.read() as connection:
            if row := connection.execute(query).first():
                return str(row[0])
        with self._database.write() as connection:
            if row := connection.execute(query).first():
                return str(row[0])
            value = secrets.token_hex(4)
            connection.execute(insert(table).values(key="installation", value=value))
            return value
