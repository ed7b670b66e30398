"""What applications share on this host: networks and volumes; and what nobody needs any more.

Called by `local`. Nothing that an application uses is removed.
"""

from __future__ import annotations

import os
from collections.abc import Collection

from app.agent import leftovers
from app.agent.host import Host
from app.agent.networks import Networks
from app.agent.volumes import Volumes
from app.domain.errors import Conflict
from app.domain.launch import Launch
from app.domain.leftover import Leftover
from app.domain.network import NetworkSpec
from app.runtimes import rundir, sharing


class Shared:
    """`making`: names of applications that are being created, which own what is there already."""

    def __init__(self, host: Host, making: Collection[str]) -> None:
        self._host = host
        self._making = making
        self._networks = Networks(host.state)
        self._volumes = Volumes(host.state)

    def current(self, launch: Launch) -> Launch:
        """The application with its network as that is now."""
        return self._networks.current(launch)

    def ensure_network(self, network: NetworkSpec) -> None:
        """See `Agent.ensure_network`."""
        self._host.open()
        self._networks.remember(network)
        self._host.wiring.ensure_network(network)
        self._host.broker.change_network(network)

    def remove_network(self, name: str) -> None:
        """See `Agent.remove_network`; Conflict while an application is on it."""
        self._host.open()
        users = [
            launch.name
            for launch in self._host.launches.copy().values()
            if launch.network is not None and launch.network.network.name == name
        ]
        if users:
            raise Conflict(
                f"network '{name}' is used by {', '.join(users)}", remedy="remove these first"
            )
        self._host.wiring.remove_network(name)
        self._networks.forget(name)

    def ensure_volume(self, name: str) -> str:
        """See `Agent.ensure_volume`."""
        return str(self._volumes.ensure(name))

    def remove_volume(self, name: str) -> None:
        """See `Agent.remove_volume`; Conflict while an application mounts it."""
        self._host.open()
        place = str(self._volumes.path(name))
        users = [
            launch.name
            for launch in self._host.launches.copy().values()
            if any(mount.source == place for mount in launch.mounts)
        ]
        if users:
            raise Conflict(
                f"volume '{name}' is mounted by {', '.join(users)}", remedy="remove these first"
            )
        self._volumes.remove(name)

    def leftovers(self) -> list[Leftover]:
        """See `Agent.leftovers`."""
        self._host.open()
        bridges = self._host.wiring.networks() if os.geteuid() == 0 else []
        launches, making = self._host.launches.copy(), list(self._making)
        groups = self._host.namespace.groups()
        return list(leftovers.find(self._host.state, launches, making, bridges, groups))

    def discard(self, leftover: Leftover) -> None:
        """See `Agent.discard`."""
        if leftover.name not in [one.name for one in self.leftovers() if one.kind == leftover.kind]:
            return
        if leftover.kind == "half-made":
            rundir.remove(self._host.state, leftover.name)
        elif leftover.kind == "network":
            self.remove_network(leftover.name)
        elif leftover.kind == "control-group":
            self._host.namespace.remove_group(leftover.name)
        elif leftover.kind == "shared-contents":
            sharing.remove(self._host.state, leftover.name)
        elif leftover.kind == "volume":
            self.remove_volume(leftover.name)
