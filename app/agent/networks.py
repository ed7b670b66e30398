"""The networks of this host as they were last asked for; kept in files, for an agent that starts
again. What an application was launched with may be older: its network's policy can change.

Used by `local`.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from app.domain.errors import HostLacks
from app.domain.launch import Launch
from app.domain.network import NetworkSpec
from app.runtimes import hosts


class Networks:
    """`state` is the agent's state directory; nothing is written before `remember`."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._directory = state / "networks"
        self._known: dict[str, NetworkSpec] = {}

    def remember(self, network: NetworkSpec) -> None:
        """From now on, also after a restart."""
        if self._find(network.name) == network:
            return
        place = self._path(network.name)
        fresh = place.with_suffix(".new")
        try:
            place.parent.mkdir(mode=0o700, exist_ok=True)
            fresh.write_text(network.model_dump_json())
            fresh.replace(place)
        except OSError as error:
            raise HostLacks(
                f"{place} cannot be written: {error.strerror}", remedy="make room on its disk"
            ) from error
        self._known[network.name] = network

    def forget(self, name: str) -> None:
        """It was removed."""
        self._known.pop(name, None)
        self._path(name).unlink(missing_ok=True)
        hosts.remove(self._state, name)

    def current(self, launch: Launch) -> Launch:
        """The application with its network as that is now."""
        network = self._find(launch.network.network.name) if launch.network else None
        if launch.network is None or network is None:
            return launch
        binding = launch.network.model_copy(update={"network": network})
        return launch.model_copy(update={"network": binding})

    def _find(self, name: str) -> NetworkSpec | None:
        if name not in self._known:
            with contextlib.suppress(OSError, ValueError):
                text = self._path(name).read_text()
                self._known[name] = NetworkSpec.model_validate_json(text)
        return self._known.get(name)

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.json"
