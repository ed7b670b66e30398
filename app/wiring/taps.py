"""TAP devices: made when an instance first asks, plugged in, and deleted by the kernel when the
last descriptor is closed. Called by `wiring` for the broker.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from dataclasses import replace
from typing import NamedTuple

from app.domain.errors import HostLacks, RuntimeFailure
from app.wiring import rtmessages
from app.wiring.netlink import LinkRequest, index_of, silence_ipv6

_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_BUSY_PATIENCE_S = 2.0
"""The device of an instance that has just died exists until its last descriptor is closed."""


class Device(NamedTuple):
    """What an instance sends and receives by."""

    fd: int
    plugged_in: bool
    """False where the bridge has as many ports as a bridge can have (1,023)."""


def open_tap(request: LinkRequest, *, vnet_hdr: bool) -> Device:
    """A new TAP device that is as `request` says. Raises HostLacks."""
    try:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise HostLacks(
            f"/dev/net/tun cannot be opened: {error.strerror}",
            remedy="run the agent as root, and load the kernel module 'tun'",
        ) from error
    try:
        _attach(fd, request.name, _IFF_TAP | _IFF_NO_PI | (_IFF_VNET_HDR if vnet_hdr else 0))
        silence_ipv6(request.name)
        return Device(fd, _is_plugged_in(request))
    except BaseException:
        os.close(fd)
        raise


def _is_plugged_in(request: LinkRequest) -> bool:
    """Everything the request names; without a bridge where its bridge has no port left."""
    index = index_of(request.name)
    if index is None:
        raise RuntimeFailure(f"TAP device {request.name} disappeared as soon as it was made")
    try:
        rtmessages.send([rtmessages.changed_link(index, request)])
    except OSError as error:
        if error.errno != errno.EXFULL:
            raise RuntimeFailure(f"changing interface {request.name}: {error.strerror}") from error
        rtmessages.send([rtmessages.changed_link(index, replace(request, master=None))])
        return False
    return True


def _attach(fd: int, name: str, flags: int) -> None:
    request = struct.pack("16sH22x", name.encode(), flags)
    deadline = time.monotonic() + _BUSY_PATIENCE_S
    while True:
        try:
            fcntl.ioctl(fd, _TUNSETIFF, request)
            return
        except OSError as error:
            if error.errno == errno.EBUSY and time.monotonic() < deadline:
                time.sleep(0.01)
                continue
            if error.errno == errno.EPERM:
                raise HostLacks(
                    "making a TAP device is not permitted",
                    remedy="run the agent as root, or with the capability NET_ADMIN",
                ) from error
            raise RuntimeFailure(f"making TAP device {name}: {error.strerror}") from error
