"""Keeps the faults: tells the agent what holds, and records when one has ended.

The instance ends a fault at its deadline by itself; this thread only makes the store say so. What
the agent could not be told is told again when it answers. When the wall clock is set, the deadlines
move with it, also where that happened while no control plane ran: a fault lasts as long as was
asked for. Made by the composition root; `apply` is called by the API after a change and by
`converge.py` when an application has been created.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from ipaddress import ip_address

from app.domain.errors import Conflict, CseError, NotFound
from app.domain.fault import Counters, Fault, FaultOrder
from app.domain.network import link_local, mac_for
from app.domain.ports import Agent
from app.reconcile.clock import Clock
from app.store.clock import StoredClock
from app.store.store import Store, Transaction

log = logging.getLogger(__name__)

_RETRY_S = 2.0
_NOBODY = "0.0.0.0/32"
"""The peer of a fault whose named application is not there: no packet has this address."""


class FaultKeeper:
    """Implements `app.domain.fault.FaultKeeping`."""

    def __init__(self, store: Store, agent: Agent, clock: Clock) -> None:
        self._store = store
        self._agent = agent
        self._clock = clock
        self._end_watch: Callable[[], None] = lambda: None
        self._changed = threading.Condition()
        self._untold: set[str] = set()
        self._concerned: set[str] = set()
        """Names in faults: most applications start without one, and without a look here."""
        self._stopping = False
        self._telling = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="faults", daemon=True)

    def start(self) -> None:
        """Begin; what holds is told to the agent, which may have been away."""
        self._end_watch = self._clock.watch(self._look)
        self._follow_clock()
        with self._store.read() as transaction:
            faults = transaction.faults.all()
        self._untold |= {fault.application for fault in faults}
        self._concerned = set().union(*map(_names, faults))
        self._thread.start()

    def stop(self) -> None:
        """End; faults go on, and end by themselves."""
        self._end_watch()
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def apply(self, application: str, once: Fault | None = None) -> dict[str, Counters]:
        """See `FaultKeeping`."""
        try:
            with self._telling:  # of two calls, the older would undo the newer
                with self._store.read() as transaction:
                    everything = transaction.faults.all()
                    self._concerned = set().union(*map(_names, everything))
                    faults = [one for one in everything if one.application == application]
                    faults += [once] if once is not None else []
                    orders = [_order(transaction, fault) for fault in faults]
                return self._agent.set_faults(application, orders)
        except NotFound:
            return {}  # not on the host yet: told when it is created
        except Conflict as error:
            log.warning("faults of '%s': %s", application, error)
            return {}
        except CseError as error:
            log.warning("faults of '%s': %s", application, error)
            with self._changed:
                self._untold.add(application)
            return {}
        finally:
            with self._changed:
                self._changed.notify_all()

    def made(self, application: str) -> None:
        """It has just been created on the host, perhaps with another address than before."""
        if application not in self._concerned:
            return
        with self._store.read() as transaction:
            faults = transaction.faults.all()
        for name in {fault.application for fault in faults if application in _names(fault)}:
            self.apply(name)

    def _look(self) -> None:
        """The clock was set."""
        with self._changed:
            self._changed.notify_all()

    def _follow_clock(self) -> None:
        """Move the deadlines by as much as the wall clock was moved since the store was told."""
        present = StoredClock.of(self._clock)
        with self._store.read() as transaction:
            moved = present.set_since(transaction.faults.clock())
        if moved is None:
            return
        with self._store.write() as transaction:
            transaction.faults.set_clock(present)
            concerned = transaction.faults.postpone(moved) if moved else set()
        if moved:
            seconds = moved.total_seconds()
            log.warning("the clock was set by %+.1f s: %d faults move", seconds, len(concerned))
        with self._changed:
            self._untold |= concerned

    def _run(self) -> None:
        pause: float | None = 0.0
        while True:
            with self._changed:
                if not self._stopping:
                    self._changed.wait(pause)
                if self._stopping:
                    return
            self._follow_clock()
            with self._changed:
                untold, self._untold = self._untold, set()
            for application in untold:
                self.apply(application)
            pause = self._expire()
            with self._changed:
                if self._untold:
                    pause = _RETRY_S if pause is None else min(pause, _RETRY_S)

    def _expire(self) -> float | None:
        """Seconds until the next end."""
        now = self._clock.now()
        with self._store.read() as transaction:
            ending = [fault for fault in transaction.faults.all() if fault.ends is not None]
        due = [fault for fault in ending if fault.ends is not None and fault.ends <= now]
        if due:
            with self._store.write() as transaction:
                for fault in due:
                    transaction.faults.remove(fault.id)
                    transaction.events.add(
                        "fault-ended", fault.application, f"{fault.id}: ended after its time"
                    )
        left = [(fault.ends - now).total_seconds() for fault in ending if fault.ends is not None]
        return min((seconds for seconds in left if seconds > 0), default=None)


def _names(fault: Fault) -> set[str]:
    return {name for name in (fault.application, fault.spec.to, fault.spec.cut) if name}


def _order(transaction: Transaction, fault: Fault) -> FaultOrder:
    name = fault.spec.cut or fault.spec.to
    return FaultOrder(
        id=fault.id,
        spec=fault.spec,
        seed=fault.seed,
        peers=[] if name is None else _peers(transaction, name),
        ends=fault.ends,
    )


def _peers(transaction: Transaction, name: str) -> list[str]:
    """Subnets: the one given, or every address that the application has now."""
    try:
        address, slash, _ = name.partition("/")
        parsed = ip_address(address)
        return [name if slash else f"{parsed}/{parsed.max_prefixlen}"]
    except ValueError:
        record = transaction.applications.find(name)
    if record is None or record.address is None:
        return [_NOBODY]
    routed = record.network.address6(record.address) if record.network is not None else None
    own = [record.address, routed, link_local(mac_for(record.address))]
    return [f"{one}/{one.max_prefixlen}" for one in own if one is not None]
