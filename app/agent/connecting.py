"""Connects an application to this host, and takes it off again: its broker socket, its name, its
bridge port, its published ports, the faults that hold for it.

Called by `local` when an application is created, found again after a restart, or removed; what is
made is the same each time.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path

from app.agent import configuring, file_faults, instrumenting
from app.agent.host import Host
from app.agent.names import Names
from app.domain.application import RuntimeName
from app.domain.errors import Conflict, HostLacks
from app.domain.fault import FaultOrder
from app.domain.launch import Launch
from app.runtimes import hosts
from app.wiring import kernel_faults, netns

_FULL = (
    "the bridge of network '{network}' has no port left (a bridge has 1,023): other applications "
    "of this host are reached by wires, this host and the outside are not; use another network"
)


class Connector:
    """Safe from several threads, for different applications."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._names = Names()
        self._readers: dict[str, str] = {}
        """The networks of applications that read their peers' names from a file, by name."""
        self._telling = threading.Lock()

    def connect(self, launch: Launch, *, tell: bool = True) -> None:
        """All of it, or an error; nothing where it is connected already. `tell`: its peers of its
        name; without, `tell_names` follows."""
        binding = launch.network
        directory = self._host.directory(launch.name)
        if binding is not None:  # the filter first: no device may exist without it
            self._host.wiring.plug(launch.name, binding, launch.spec.ports)
            self._names.add(launch)
            if launch.on_kernel_stack:
                self._readers[launch.name] = binding.network.name
            if tell:
                self._tell_names(binding.network.name)
        if binding is not None and launch.on_kernel_stack:
            if launch.spec.runtime is RuntimeName.NAMESPACE:
                self._host.wiring.make_kernel_stack(launch.name, binding, directory / "netns")
            else:
                self._host.kernel_containers.add(launch.name, binding)
            if orders := instrumenting.read_faults(directory, files=False):
                self.hold_in_kernel(launch, orders, set())
        if file_faults.concerned(launch):
            file_faults.hold(directory, instrumenting.read_faults(directory))
        if launch.linked:
            self._host.broker.serve(
                launch.name,
                directory / "run",
                self._device_maker(launch),
                lambda name: self._names.find(binding.network.name, name) if binding else None,
                binding,
                configuring.missed(launch),
                self._host.wiring.discard if binding is not None else None,
            )
            if orders := instrumenting.read_faults(directory, files=False):
                self._host.broker.instruments(launch.name).set_faults(orders)

    def disconnect(self, launch: Launch) -> None:
        """What `connect` made, as far as it came."""
        self._names.forget(launch)
        self._readers.pop(launch.name, None)
        self._host.forget(launch.name)
        if launch.network is not None:
            with contextlib.suppress(HostLacks):
                self._host.wiring.unplug(launch.name, launch.network, launch.spec.ports)
            netns.remove(self._host.directory(launch.name) / "netns")
            self._tell_names(launch.network.network.name)

    def hold_in_kernel(self, launch: Launch, orders: list[FaultOrder], new: set[str]) -> None:
        """These faults for an application on the kernel's stack; `new`: ids that begin now."""
        with self.kernel_namespace(launch) as place:
            if place is not None:
                kernel_faults.hold(place, orders, new)

    def kernel_namespace(self, launch: Launch) -> contextlib.AbstractContextManager[int | None]:
        """A descriptor of an application's network namespace; None while it has none."""
        if launch.spec.runtime is RuntimeName.NAMESPACE:
            path = self._host.directory(launch.name) / "netns"
        else:
            running = self._host.observe()
            pid = next((one.pid for one in running if one.name == launch.name), None)
            path = Path(f"/proc/{pid}/ns/net")
        return netns.opened(path)

    def tell_names(self) -> None:
        """Of all networks, after several applications were connected at once."""
        for network in set(self._readers.values()):
            self._tell_names(network)

    def _tell_names(self, network: str) -> None:
        """To the applications on it that read them from a file."""
        with self._telling:  # of two calls, the older would undo the newer
            if network in list(self._readers.values()):
                hosts.write(self._host.state, network, self._names.table(network))

    def _device_maker(self, launch: Launch) -> Callable[[bool], int]:
        """For the broker's thread, which must never wait for the host's lock: whoever has that
        may be waiting for the broker."""
        wiring = self._host.wiring if launch.network is not None else None

        def by_packet_socket() -> bool:
            present = self._host.launches.get(launch.name, launch)  # may be configured since
            return any(
                bound.settings.get("transport") == "packet"
                for bound in present.elements
                if bound.element.manifest.kind == "network"
            )

        def make(vnet_hdr: bool) -> int:
            if wiring is None or launch.network is None:
                raise Conflict(f"'{launch.name}' is on no network")
            if by_packet_socket():
                return wiring.open_packet_socket(launch.name, launch.network)
            device = wiring.open_tap(launch.name, launch.network, vnet_hdr=vnet_hdr)
            if not device.plugged_in:
                self._host.tell(launch.name, _FULL.format(network=launch.network.network.name))
            return device.fd

        return make
