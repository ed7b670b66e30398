"""Gives containers with a kernel stack their interface again after Docker restarted them.

Docker makes a new network namespace at every start; the program in it waits for its interface
(images/_hold). Made by `local` when the first such container is created or found; the namespace
runtime needs none of this, its namespaces outlive restarts.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from app.domain.errors import CseError
from app.domain.network import NetworkBinding
from app.domain.observed import Observed
from app.evidence import proc
from app.runtimes.changes import Changes
from app.wiring.wiring import Wiring

_log = logging.getLogger(__name__)
_CHECK_S = 30.0


class Replugger:
    """One thread, woken by the host's change counter."""

    def __init__(
        self,
        changes: Changes,
        wiring: Wiring,
        observe: Callable[[], list[Observed]],
        prepare: Callable[[str, int], None],
    ) -> None:
        """`prepare` gets name and process before the interface is there: no packet passes yet."""
        self._prepare = prepare
        self._changes = changes
        self._wiring = wiring
        self._observe = observe
        self._bindings: dict[str, NetworkBinding] = {}
        self._plugged: dict[str, tuple[int, str]] = {}
        self._lock = threading.Lock()
        self._closed = False
        threading.Thread(target=self._run, name="cse-replug", daemon=True).start()

    def add(self, name: str, binding: NetworkBinding) -> None:
        """From now on, every start of this container is given its interface."""
        with self._lock:
            self._bindings[name] = binding

    def forget(self, name: str) -> None:
        """The application is being removed."""
        with self._lock:
            self._bindings.pop(name, None)
            self._plugged.pop(name, None)

    def close(self) -> None:
        """Ends the thread soon."""
        self._closed = True
        self._changes.bump()

    def plug(self, observed: Observed) -> None:
        """The interface for the present start, if it has none yet."""
        with self._lock:
            binding = self._bindings.get(observed.name)
            if binding is None or observed.pid is None:
                return
            namespace = proc.namespace(observed.pid, "net")
            # The kernel gives a new namespace the number of one that has just gone.
            present = (observed.pid, str(namespace))
            if namespace is None or self._plugged.get(observed.name) == present:
                return
            self._prepare(observed.name, observed.pid)
            self._wiring.plug_process(observed.name, binding, observed.pid)
            self._plugged[observed.name] = present

    def _run(self) -> None:
        seen = -1
        while not self._closed:
            seen = self._changes.wait(seen, _CHECK_S)
            with self._lock:
                idle = not self._bindings
            if idle:
                continue
            try:
                for observed in self._observe():
                    self._plug_in_turn(observed)
            except CseError as error:
                _log.warning("no kernel interface was given: %s", error)

    def _plug_in_turn(self, observed: Observed) -> None:
        try:
            self.plug(observed)
        except CseError as error:  # the program waits for it; the next round tries again
            _log.warning("%s was given no kernel interface: %s", observed.name, error)
