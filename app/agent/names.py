"""Names of applications on their networks, for the broker's `resolve`.

An application is found by its name and its aliases, by peers of the same network only.
"""

from __future__ import annotations

import threading

from app.domain.launch import Launch
from app.domain.network import PeerAddresses


class Names:
    """Filled by the agent as applications come and go; asked by the broker's thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._networks: dict[str, dict[str, dict[str, PeerAddresses]]] = {}

    def add(self, launch: Launch) -> None:
        """Known from now on."""
        if launch.network is None:
            return
        addresses = PeerAddresses(launch.network.address, launch.network.address6)
        with self._lock:
            names = self._networks.setdefault(launch.network.network.name, {})
            for name in (launch.name, *launch.network.aliases):
                names.setdefault(name, {})[launch.name] = addresses

    def forget(self, launch: Launch) -> None:
        """No longer found."""
        if launch.network is None:
            return
        with self._lock:
            names = self._networks.get(launch.network.network.name, {})
            for name in (launch.name, *launch.network.aliases):
                owners = names.get(name, {})
                owners.pop(launch.name, None)
                if not owners:
                    names.pop(name, None)

    def table(self, network: str) -> list[tuple[str, str]]:
        """(address, name) of all, names that several applications have with each of them."""
        with self._lock:
            return [
                (str(address), name)
                for name, owners in sorted(self._networks.get(network, {}).items())
                for both in owners.values()
                for address in both
                if address is not None
            ]

    def find(self, network: str, name: str) -> PeerAddresses | None:
        """Addresses of the first application of that name; of an alias several may have one."""
        with self._lock:
            owners = self._networks.get(network, {}).get(name.rstrip(".").lower(), {})
            return next(iter(owners.values()), None)
