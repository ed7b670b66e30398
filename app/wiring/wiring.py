"""What private stacks plug into: the only room that changes this host's network.

Called by the agent (networks, applications) and, through it, by the broker (taps). Keeps no state
of its own: bridges are found by the mark in their alias, the packet filter by its table's name.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path

from app.domain.application import PublishedPort
from app.domain.errors import Conflict, HostLacks
from app.domain.network import NetworkBinding, NetworkSpec, Policy, mac_for
from app.wiring import naming, netns, packets, taps
from app.wiring.disposal import Disposal
from app.wiring.filters import Filters, Gateway
from app.wiring.forwarding import forward_ipv6
from app.wiring.netlink import (
    Link,
    LinkRequest,
    Netlink,
    allow_ipv6,
    index_of,
    silence_ipv6,
)
from app.wiring.ports import HostPorts

_LOCKS = Path("/run")
_PROC_NET = Path("/proc/sys/net/ipv4")


class Wiring:
    """`installation` is the mark of everything made here."""

    def __init__(self, installation: str) -> None:
        self._installation = installation
        self._lock = threading.RLock()
        self._netlink = Netlink()
        self._filters: Filters | None = None
        self._ports = HostPorts()
        self._group = naming.group_of(installation)
        self._bridges: dict[str, Link] = {}
        self._disposal = Disposal(naming.ending_group_of(installation))
        self._held: Path | None = None  # the lock between agents, by the thread that has ours

    def ensure_network(self, network: NetworkSpec) -> str:
        """Make or adjust the bridge, its address, NAT and filters; returns the bridge's name."""
        with self._shared_lock() as lock:
            try:
                return self._ensure_network(network)
            except BaseException:
                if not self._our_bridges():
                    lock.unlink()
                raise

    def _ensure_network(self, network: NetworkSpec) -> str:
        bridge = self._find_bridge(network.name)
        if bridge is None:
            self._forget_filters()  # they went with it if another agent removed it
            bridge = self._make_bridge(network)
        alias = naming.network_alias(self._installation, network.name)
        if bridge.mtu != network.mtu or not bridge.up or bridge.alias != alias:
            self._netlink.change(LinkRequest(bridge.name, mtu=network.mtu, alias=alias))
        present = [address for index, address in self._netlink.addresses()
                   if index == bridge.index]  # fmt: skip
        for address in present:
            if address != network.gateway:
                self._netlink.delete_address(bridge.index, address)
        if network.gateway not in present:
            self._netlink.add_address(bridge.index, network.gateway)
        self._ensure_ipv6(network, bridge)
        self._ensure_anchor(network, bridge)
        _set_sysctl("ip_forward", "1")
        _set_sysctl(f"conf/{bridge.name}/route_localnet", "1")
        filters = self._ensured_filters()
        gateways: list[Gateway] = [network.gateway]
        if network.gateway6 is not None:
            gateways.append(network.gateway6)
        filters.add_network(bridge.name, bridge.mac, gateways, nat=network.nat)
        pairs = self._permitted_ports(network.policy)
        filters.set_policy(network.subnet, pairs)
        self._bridges[network.name] = bridge
        return bridge.name

    def remove_network(self, name: str) -> None:
        """What `ensure_network` made; with the last network, the filter tables too."""
        with self._shared_lock() as lock:
            self._bridges.pop(name, None)
            bridge = self._find_bridge(name)
            if bridge is not None:
                gateways: list[Gateway] = [
                    address for index, address in self._netlink.addresses()
                    if index == bridge.index
                ]  # fmt: skip
                gateways += [
                    address for index, address in self._netlink.addresses6()
                    if index == bridge.index
                ]  # fmt: skip
                self._ensured_filters().remove_network(bridge.name, bridge.mac, gateways)
                self._netlink.delete(bridge.index)
            self._remove_anchor(name)
            if not self._our_bridges():
                self._remove_filters()
                lock.unlink()

    def networks(self) -> list[str]:
        """Names of those whose bridges are there."""
        prefix = naming.network_alias(self._installation, "")
        with self._lock:
            return sorted(link.alias.removeprefix(prefix) for link in self._our_bridges())

    def remove_idle_networks(self) -> None:
        """All of this mark, if no application of any agent is plugged in."""
        with self._shared_lock() as path:
            if not self._our_bridges():  # another agent was quicker
                path.unlink()
            elif not self._ensured_filters().has_applications():
                self._remove_everything(path)

    def plug(self, application: str, binding: NetworkBinding, ports: list[PublishedPort]) -> None:
        """Let the application's bridge port send as its address only, and publish its ports.

        Raises Conflict where a port of the host is taken; then nothing was changed.
        """
        with self._shared_lock():
            self._ports.keep(application, ports)
            try:
                self._live_bridge(binding.network)
                port = naming.port_name(self._installation, application)
                self._ensured_filters().add_application(port, binding, ports)
            except BaseException:
                self._ports.release(application)
                raise

    def unplug(
        self, application: str, binding: NetworkBinding | None, ports: list[PublishedPort]
    ) -> None:
        """What `plug` made; the application's device, if it is still there, is gone soon after."""
        with self._lock:
            self._ports.release(application)
            if binding is None:
                return
            port = naming.port_name(self._installation, application)
            if self._filters is not None or self._our_bridges():
                filters = self._ensured_filters()
                filters.remove_application(port, binding, ports)
            self._disposal.remove(port)

    def discard(self, descriptors: Sequence[int]) -> None:
        """Close what was held of an instance that has ended, without the caller's waiting."""
        self._disposal.close_later(descriptors)

    def open_tap(self, application: str, binding: NetworkBinding, *, vnet_hdr: bool) -> taps.Device:
        """A new TAP device on the application's bridge; its filter was set by `plug`."""
        request = self._port_request(application, binding)
        return taps.open_tap(request, vnet_hdr=vnet_hdr)

    def open_packet_socket(self, application: str, binding: NetworkBinding) -> int:
        """The same with a packet socket (`transport: packet`); it goes with its last descriptor."""
        request = self._port_request(application, binding)
        return packets.open_packet_socket(self._netlink, request)

    def make_kernel_stack(self, application: str, binding: NetworkBinding, place: Path) -> None:
        """For `fallback: kernel`: a namespace at `place` with an interface on the same bridge."""
        with self._lock:
            netns.make(place)
            fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
            try:
                self._plug_namespace(application, binding, fd)
            finally:
                os.close(fd)

    def plug_process(self, application: str, binding: NetworkBinding, pid: int) -> None:
        """The same for the network namespace of a process that another runtime has made."""
        with self._lock:
            try:
                fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise Conflict(f"process {pid} of '{application}' is gone") from error
            try:
                self._plug_namespace(application, binding, fd)
            finally:
                os.close(fd)

    def delivered_packets(self, application: str) -> int | None:
        """Packets that the bridge gave to the application's device; None while it has none."""
        port = naming.port_name(self._installation, application)
        try:
            return int(Path(f"/sys/class/net/{port}/statistics/tx_packets").read_text())
        except OSError:
            return None

    def refused_packets(self) -> int | None:
        """Packets dropped because their source was not their sender's."""
        return self._filters.refused_packets() if self._filters else None

    def remove_all(self) -> None:
        """Every interface and filter with this installation's mark."""
        with self._shared_lock() as path:
            self._remove_everything(path)

    def _remove_everything(self, lock: Path) -> None:
        """With the lock held, which goes last."""
        self._disposal.finish()
        for link in self._netlink.links():
            if naming.is_ours(self._installation, link):
                self._netlink.delete(link.index)
        self._bridges.clear()
        self._remove_filters()
        lock.unlink()

    def close(self) -> None:
        """Nothing goes away that is not going already."""
        self._disposal.close()
        self._netlink.close()
        if self._filters is not None:
            self._filters.close()

    def _plug_namespace(self, application: str, binding: NetworkBinding, fd: int) -> None:
        if not netns.has_interface(fd, "eth0"):
            own = self._port_request(application, binding)
            stale = index_of(own.name)
            if stale is not None:
                self._netlink.delete(stale)
            mtu = binding.network.mtu
            bare = LinkRequest(own.name, mtu=mtu, group=self._group, up=False)
            peer = LinkRequest("eth0", mtu=mtu, mac=binding.mac, netns_fd=fd)
            self._netlink.create("veth", bare, peer)
            silence_ipv6(own.name)
            self._netlink.change(replace(own, mtu=None, group=None))
        network = binding.network
        netns.furnish(fd, "eth0", IPv4Interface((binding.address, network.subnet.prefixlen)),
                      network.gateway.ip)  # fmt: skip
        if binding.address6 is not None and network.gateway6 is not None:
            own6 = IPv6Interface((binding.address6, network.gateway6.network.prefixlen))
            netns.furnish6(fd, "eth0", own6, network.gateway6.ip)

    def _permitted_ports(self, policy: Policy) -> set[tuple[str, str]] | None:
        """Pairs of bridge ports; None where all may talk to each other."""
        if policy.default == "allow":
            return None
        named = [
            [naming.port_name(self._installation, one) for one in pair] for pair in policy.allow
        ]
        return {(one, other) for one, other in named}

    def _port_request(self, application: str, binding: NetworkBinding) -> LinkRequest:
        bridge = self._live_bridge(binding.network)
        return LinkRequest(
            name=naming.port_name(self._installation, application),
            mtu=binding.network.mtu,
            alias=naming.application_alias(self._installation, application),
            group=self._group,
            master=bridge.index,
        )

    def _live_bridge(self, network: NetworkSpec) -> Link:
        """The network's bridge, made again if somebody has removed it meanwhile."""
        with self._lock:
            known = self._bridges.get(network.name)
            if known is None or index_of(known.name) != known.index:
                self._forget_filters()
                self.ensure_network(network)
            return self._bridges[network.name]

    @contextlib.contextmanager
    def _shared_lock(self) -> Iterator[Path]:
        """Between the agents that share this mark: making networks, plugging in, and removing what
        is idle. The file is there as long as networks are; whoever holds it may remove it."""
        with self._lock:
            if self._held is not None:
                yield self._held
                return
            path = _LOCKS / f"cse-{self._installation}.lock"
            try:
                fd = _locked(path)
            except OSError as error:
                raise HostLacks(
                    f"{path}: {error.strerror}",
                    remedy="private stacks need an agent that runs as root; other elements do not",
                ) from error
            self._held = path
            try:
                yield path
            finally:
                self._held = None
                os.close(fd)

    def _our_bridges(self) -> list[Link]:
        prefix = naming.network_alias(self._installation, "")
        return [
            link
            for link in self._netlink.links("bridge")
            if link.alias.startswith(prefix) and not link.alias.endswith(" anchor")
        ]

    def _find_bridge(self, network: str) -> Link | None:
        alias = naming.network_alias(self._installation, network)
        half_made = {
            naming.bridge_name(self._installation, network, taken=t) for t in (True, False)
        }
        for link in self._netlink.links("bridge"):
            unmarked = link.name in half_made and naming.is_ours(self._installation, link)
            if link.alias == alias or (unmarked and not link.alias):
                return link
        return None

    def _make_bridge(self, network: NetworkSpec) -> Link:
        self._refuse_overlap(network)
        self._refuse_overlap6(network)
        taken = index_of(naming.DEFAULT_BRIDGE) is not None
        name = naming.bridge_name(self._installation, network.name, taken=taken)
        request = LinkRequest(
            name=name,
            mtu=network.mtu,
            group=self._group,
            mac=mac_for(network.gateway.ip),
        )
        self._netlink.create("bridge", request)
        silence_ipv6(name)
        made = self._netlink.link(name)
        if made is None:
            raise HostLacks(f"bridge {name} disappeared as soon as it was made")
        return made

    def _ensure_ipv6(self, network: NetworkSpec, bridge: Link) -> None:
        """The bridge's own IPv6 address; none where the network or this host has no IPv6."""
        wanted = network.gateway6
        if wanted is None:
            silence_ipv6(bridge.name)
            return
        if not allow_ipv6(bridge.name):
            return
        present = [one for index, one in self._netlink.addresses6() if index == bridge.index]
        for address in present:
            if address != wanted:
                self._netlink.delete_address(bridge.index, address)
        if wanted not in present:
            self._netlink.add_address(bridge.index, wanted)
        forward_ipv6()

    def _ensure_anchor(self, network: NetworkSpec, bridge: Link) -> None:
        """A port that is always up: one end of a veth pair whose other end stays silent.

        A bridge without one has no carrier, and its first packets after the first tap appears
        are lost until the kernel has noticed (up to a second).
        """
        name = naming.anchor_name(self._installation, network.name)
        alias = naming.network_alias(self._installation, network.name) + " anchor"
        ends = [
            LinkRequest(
                name=end,
                mtu=network.mtu,
                alias=alias,
                group=self._group,
                master=master,
                up=up,
                mute=not up,
            )
            for end, master, up in ((name, bridge.index, True), (f"{name}p", None, False))
        ]
        anchor = self._netlink.link(name)
        if anchor is None:
            self._netlink.create("veth", ends[0], ends[1])
        elif (anchor.master, anchor.alias, anchor.mtu) == (bridge.index, alias, network.mtu):
            return
        for end in ends:
            silence_ipv6(end.name)
            self._netlink.change(replace(end, up=True))

    def _remove_anchor(self, network: str) -> None:
        anchor = self._netlink.link(naming.anchor_name(self._installation, network))
        if anchor is not None and naming.is_ours(self._installation, anchor):
            self._netlink.delete(anchor.index)

    def _refuse_overlap(self, network: NetworkSpec) -> None:
        for index, address in self._netlink.addresses():
            if address.network.overlaps(network.subnet):
                links = {link.index: link for link in self._netlink.links()}
                link = links.get(index)
                other = link is not None and link.alias.startswith("cse ")
                name = link.name if link is not None else f"number {index}"
                raise Conflict(
                    f"subnet {network.subnet} of network '{network.name}' overlaps with "
                    f"{address} of interface {name}"
                    + (", which another state directory's agent made" if other else ""),
                    pointer="/subnet",
                    remedy="give the network another subnet"
                    + (f", or if that agent is gone: ip link delete {name}" if other else ""),
                )

    def _refuse_overlap6(self, network: NetworkSpec) -> None:
        for _, address in self._netlink.addresses6() if network.subnet6 is not None else []:
            if network.subnet6 is not None and address.network.overlaps(network.subnet6):
                raise Conflict(
                    f"subnet6 {network.subnet6} of network '{network.name}' overlaps with "
                    f"{address} of this host",
                    pointer="/subnet6",
                    remedy="give the network another one, or null for none",
                )

    def _ensured_filters(self) -> Filters:
        if self._filters is None:
            filters = Filters(self._installation)
            filters.ensure()
            self._filters = filters
        return self._filters

    def _forget_filters(self) -> None:
        """Whether they are still there is looked at anew."""
        if self._filters is not None:
            self._filters.close()
        self._filters = None

    def _remove_filters(self) -> None:
        filters = self._filters or Filters(self._installation)
        with contextlib.suppress(HostLacks):
            filters.remove()
        filters.close()
        self._filters = None


def _locked(path: Path) -> int:
    """Of the file that has this name while the lock is held: another may have been removed."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), path.stat()):
                return fd
        os.close(fd)


def _set_sysctl(name: str, value: str) -> None:
    path = _PROC_NET / name
    try:
        if path.read_text().strip() != value:
            path.write_text(value)
    except OSError as error:
        raise HostLacks(
            f"{path} cannot be set to {value}: {error.strerror}",
            remedy=f"set it on the host: sysctl net.ipv4.{name.replace('/', '.')}={value}",
        ) from error
