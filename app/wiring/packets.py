"""Packet sockets: the other way from a private stack to its bridge, for `transport: packet`.

A veth pair has one end on the bridge; the other is alone in a namespace that is kept alive by the
packet socket in it and by nothing else, so that with the socket's last descriptor the pair is gone,
as a tap is. The library binds the socket to the interface when its rings and its filter are
ready. Called by `wiring` for the broker.
"""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import replace
from pathlib import Path

from app.domain.errors import RuntimeFailure
from app.wiring import netns
from app.wiring.netlink import LinkRequest, Netlink, index_of, silence_ipv6

INSIDE = "eth0"
"""The name that the library binds to."""
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_BUFFER_BYTES = 8 << 20
"""More than the send ring holds, so that no frame in it ever waits for the socket's memory."""


def open_packet_socket(netlink: Netlink, request: LinkRequest) -> int:
    """A descriptor of a new packet socket behind a bridge port that is as `request` says."""
    namespace, opened = netns.in_new_namespace(_open)
    try:
        stale = index_of(request.name)
        if stale is not None:  # of an instance that has just died
            netlink.delete(stale)
        bare = LinkRequest(request.name, mtu=request.mtu, group=request.group, up=False)
        netlink.create("veth", bare, LinkRequest(INSIDE, mtu=request.mtu, netns_fd=namespace))
        netns.bring_up(namespace, INSIDE)
        silence_ipv6(request.name)
        netlink.change(replace(request, mtu=None, group=None))
        return opened.detach()
    except BaseException:
        opened.close()
        raise
    finally:
        os.close(namespace)


def _open() -> socket.socket:
    """In the new namespace. Protocol 0: nothing comes in before it is bound."""
    for scope in ("all", "default"):
        with contextlib.suppress(OSError):
            Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6").write_text("1")
    try:
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        for option in (_SO_SNDBUFFORCE, _SO_RCVBUFFORCE):
            opened.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
    except OSError as error:
        raise RuntimeFailure(f"making a packet socket: {error.strerror}") from error
    return opened
