"""Network namespaces with the kernel's own stack, for `fallback: kernel`. Called by `wiring`.

A namespace is kept alive by a bind mount on a file of the application's directory, so that it
outlives the agent and every restart of the program.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from app.domain.errors import HostLacks
from app.wiring.netlink import Netlink

_CLONE_NEWNET = 0x40000000
_MS_BIND, _MNT_DETACH = 4096, 2
_SETTINGS = (
    ("ipv4/ip_unprivileged_port_start", "0"),
    ("ipv4/ping_group_range", "0 2147483647"),
    ("ipv6/conf/all/disable_ipv6", "1"),
    ("ipv6/conf/default/disable_ipv6", "1"),
)
"""Programs have no capabilities: in a namespace of their own they may use any port all the same.
Our segments do not speak IPv6."""
_libc = ctypes.CDLL(None, use_errno=True)
_Result = TypeVar("_Result")


def make(place: Path) -> None:
    """A new, empty namespace, mounted on the file `place`; nothing where one is there."""
    if _is_mounted(place):
        return
    place.touch()

    def unshare_and_mount() -> None:
        _check(_libc.unshare(_CLONE_NEWNET), "a new network namespace")
        own = f"/proc/self/task/{threading.get_native_id()}/ns/net".encode()
        _check(_libc.mount(own, os.fsencode(place), None, _MS_BIND, None), f"mounting on {place}")

    _in_thread(unshare_and_mount)


def remove(place: Path) -> None:
    """The namespace ends with its last process; the veth in it goes with it."""
    while _is_mounted(place):
        _check(_libc.umount2(os.fsencode(place), _MNT_DETACH), f"unmounting {place}")
    with contextlib.suppress(OSError):
        place.unlink()


def netlink_in(namespace_fd: int) -> Netlink:
    """A netlink socket of that namespace, usable from any thread; its ports become free to use."""

    def enter_and_open() -> Netlink:
        _check(_libc.setns(namespace_fd, _CLONE_NEWNET), "entering a network namespace")
        for name, value in _SETTINGS:
            with contextlib.suppress(OSError):
                (Path("/proc/sys/net") / name).write_text(value)  # of this thread's namespace
        return Netlink()

    return _in_thread(enter_and_open)


def _is_mounted(place: Path) -> bool:
    try:
        return place.stat().st_dev != place.parent.stat().st_dev
    except FileNotFoundError:
        return False


def _in_thread(work: Callable[[], _Result]) -> _Result:
    """Run where the change of namespace ends with the thread."""
    results: list[_Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - handed to the caller below
            errors.append(error)

    thread = threading.Thread(target=run, name="cse-netns")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise HostLacks(
            f"{what}: {os.strerror(number)}",
            remedy="run the agent as root, or with the capability SYS_ADMIN",
        )
