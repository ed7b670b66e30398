"""The containers of one installation: found by name or label, remembered, removed.

Called by `runtime` for everything that is not about one step of an application's life. Nothing
without the installation's label is ever given out or touched.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.domain.errors import Conflict, NotFound
from app.domain.launch import Launch
from app.runtimes import rundir
from app.runtimes.docker import container
from app.runtimes.docker.engine import Engine, Refused
from app.runtimes.docker.imagefiles import remove_leftover_readers
from app.runtimes.docker.watch import Watch

_GONE_WAIT_S = 10.0


class Containers:
    """`changed` is called after every change of one of them; None: nobody wants to know."""

    def __init__(
        self,
        engine: Engine,
        state: Path,
        installation: str,
        changed: Callable[[], None] | None,
    ) -> None:
        self._engine = engine
        self._state = state
        self._installation = installation
        self._changed = changed
        self._lock = threading.Lock()
        self._opened = False
        self._watch: Watch | None = None
        self._ids: dict[str, str] = {}

    def close(self) -> None:
        """Stop following events."""
        if self._watch is not None:
            self._watch.close()

    def has(self, launch: Launch) -> bool:
        """Whether it was created before; Conflict where the name is somebody else's."""
        self.open()
        name = container.container_name(launch.name)
        try:
            found = self.inspect(name)
        except NotFound:
            return False
        labels = found["Config"]["Labels"] or {}
        if labels.get(container.INSTALLATION_LABEL) != self._installation:
            raise Conflict(
                f"a container named {name} is there already, and it is not of this installation",
                remedy="remove it with 'docker rm', or choose another name",
            )
        if labels.get(container.ID_LABEL) != launch.id:
            raise Conflict(f"'{launch.name}' exists already on this host", remedy="remove it first")
        return True

    def id_of(self, name: str) -> str:
        """The container's id; NotFound where this installation has no such application."""
        self.open()
        with self._lock:
            known = self._ids.get(name)
        if known is not None:
            return known
        missing = NotFound(f"there is no application '{name}' on this host")
        try:
            found = self.inspect(container.container_name(name))
        except NotFound:
            raise missing from None
        labels = found["Config"]["Labels"] or {}
        if labels.get(container.INSTALLATION_LABEL) != self._installation:
            raise missing
        with self._lock:
            self._ids[name] = str(found["Id"])
        return str(found["Id"])

    def look_again(self, name: str) -> None:
        """Another process may have removed the container and made one of the same name."""
        with self._lock:
            self._ids.pop(name, None)

    def inspect(self, identity: str) -> dict[str, Any]:
        """What Docker says of one container right now."""
        ticket = self._watch.ticket() if self._watch is not None else 0
        with self._engine.doing("find a container"):
            try:
                found: dict[str, Any] = self._engine().inspect_container(identity)
            except Exception:
                self._forget_id(identity)
                raise
        if self._watch is not None:
            found["State"]["OOMKilled"] |= self._watch.was_over_limit(found["Id"])
            self._watch.remember(str(found["Id"]), found, ticket)
        return found

    def all(self) -> list[dict[str, Any]]:
        """The answer of `inspect` for each, asked for only where it may have changed."""
        self.open()
        found = []
        for row in self._rows():
            if row.get("State") == "removing":
                continue
            known = self._watch.known(row["Id"]) if self._watch else None
            if known is None or known["State"]["Status"] != row.get("State"):
                try:
                    known = self.inspect(str(row["Id"]))
                except NotFound:
                    continue  # removed since the list was made
            found.append(known)
        return found

    def remove(self, name: str) -> None:
        """NotFound where there is none."""
        identity = self.id_of(name)
        self._remove(identity, name)
        self._forget_id(identity)

    def forget(self, identity: str) -> None:
        """Before a step that changes it: its event may come later than the next question."""
        if self._watch is not None:
            self._watch.forget(identity)

    def open(self) -> None:
        """Once: remove what an agent that was killed has left half-made, then follow events.

        Not before the first use, so that a host without Docker is quiet.
        """
        with self._lock:
            if self._opened:
                return
            for row in self._rows():
                name = str(row["Labels"].get(container.NAME_LABEL))
                if rundir.load(self._state, name) is None:
                    self._remove(str(row["Id"]), name)
                    rundir.remove(self._state, name)
            remove_leftover_readers(self._engine, self._installation)
            if self._changed is not None:
                self._watch = Watch(self._engine, self._installation, self._changed)
            self._opened = True

    def _rows(self) -> list[dict[str, Any]]:
        label = f"{container.INSTALLATION_LABEL}={self._installation}"
        with self._engine.doing("list its containers"):
            rows: list[dict[str, Any]] = self._engine().containers(
                all=True, filters={"label": [label]}
            )
        return rows

    def _forget_id(self, identity: str) -> None:
        with self._lock:
            self._ids = {name: one for name, one in self._ids.items() if one != identity}

    def _remove(self, identity: str, name: str) -> None:
        self.forget(identity)
        deadline = time.monotonic() + _GONE_WAIT_S
        while True:
            try:
                with self._engine.doing(f"remove '{name}'"):
                    self._engine().remove_container(identity, force=True, v=True)
            except NotFound:
                return
            except Refused as error:
                # 409: another call is removing it already
                if error.status != 409 or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
