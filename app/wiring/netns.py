"""Network namespaces with the kernel's own stack, for `fallback: kernel`. Called by `wiring`.

A namespace is kept alive by a bind mount on a file of the application's directory, so that it
outlives the agent and every restart of the program.

Why not pyroute2, which the host's side (`netlink`) is left to: its `netns` starts a process to make
a namespace or a socket in one, and turns the directory into a shared mount; and four requests
in a new namespace would add 0.6 ms to every such application's start to write them, or 2 with a
pyroute2 socket opened there, against 0.1 for the same bytes packed here and sent at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from pathlib import Path
from typing import TypeVar

from app.domain.errors import HostLacks, RuntimeFailure
from app.wiring import rtmessages
from app.wiring.netlink import index_of

_CLONE_NEWNET = 0x40000000
_MS_BIND, _MNT_DETACH = 4096, 2
_SETTINGS = (
    ("ipv4/ip_unprivileged_port_start", "0"),
    ("ipv4/ping_group_range", "0 2147483647"),
    ("ipv6/conf/all/disable_ipv6", "1"),
    ("ipv6/conf/default/disable_ipv6", "1"),
)
"""Programs have no capabilities: in a namespace of their own they may use any port all the same.
IPv6 is switched on by `furnish6`, where the network has it."""
_SETTINGS6 = (
    ("{}/accept_ra", "0"),
    ("{}/accept_dad", "0"),
    ("lo/disable_ipv6", "0"),
    ("{}/disable_ipv6", "0"),
)
_libc = ctypes.CDLL(None, use_errno=True)
_Result = TypeVar("_Result")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int | None]:
    """A descriptor of the namespace that a file stands for; None where there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


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


def inside(namespace_fd: int, work: Callable[[], _Result]) -> _Result:
    """What `work` gives in the namespace; programs that it starts are in there as well."""

    def enter_and_work() -> _Result:
        _enter(namespace_fd)
        return work()

    return _in_thread(enter_and_work)


def has_interface(namespace_fd: int, name: str) -> bool:
    """One of that name is in the namespace."""
    return inside(namespace_fd, lambda: index_of(name) is not None)


def in_new_namespace(work: Callable[[], _Result]) -> tuple[int, _Result]:
    """A descriptor of a new namespace that no place holds, and what `work` gave there."""

    def unshare_and_work() -> tuple[int, _Result]:
        _check(_libc.unshare(_CLONE_NEWNET), "a new network namespace")
        own = f"/proc/self/task/{threading.get_native_id()}/ns/net"
        namespace = os.open(own, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return namespace, work()
        except BaseException:
            os.close(namespace)
            raise

    return _in_thread(unshare_and_work)


def bring_up(namespace_fd: int, name: str) -> None:
    """One interface of a namespace, without an address. Raises RuntimeFailure."""

    def enter_and_send() -> None:
        _enter(namespace_fd)
        index = index_of(name)
        if index is None:
            raise RuntimeFailure(f"interface {name} disappeared from a namespace")
        rtmessages.send([rtmessages.link_up(index)])

    try:
        _in_thread(enter_and_send)
    except OSError as error:
        raise RuntimeFailure(f"setting up a network namespace: {error.strerror}") from error


def furnish(namespace_fd: int, name: str, address: IPv4Interface, gateway: IPv4Address) -> None:
    """Loopback and the namespace's only interface: up, with its address and a default route;
    ports below 1,024 become free to use. Raises RuntimeFailure."""

    def enter_and_send() -> None:
        _enter(namespace_fd)
        for setting, value in _SETTINGS:
            with contextlib.suppress(OSError):
                (Path("/proc/sys/net") / setting).write_text(value)  # of this thread's namespace
        index = index_of(name)
        if index is None:
            raise RuntimeFailure(f"interface {name} disappeared from a namespace")
        rtmessages.send(
            [
                rtmessages.link_up(rtmessages.LOOPBACK),
                rtmessages.link_up(index),
                rtmessages.new_address(index, address),
                rtmessages.new_default_route(gateway),
            ]
        )

    try:
        _in_thread(enter_and_send)
    except OSError as error:
        raise RuntimeFailure(f"setting up a network namespace: {error.strerror}") from error


def furnish6(namespace_fd: int, name: str, address: IPv6Interface, gateway: IPv6Address) -> None:
    """The same for IPv6, after `furnish`; nothing where this host's kernel has none."""

    def enter_and_send() -> None:
        _enter(namespace_fd)
        index = index_of(name)
        if index is None:
            raise RuntimeFailure(f"interface {name} disappeared from a namespace")
        try:
            for setting, value in _SETTINGS6:
                (Path("/proc/sys/net/ipv6/conf") / setting.format(name)).write_text(value)
        except OSError:
            return
        requests = [rtmessages.new_address(index, address), rtmessages.new_default_route(gateway)]
        rtmessages.send(requests)

    try:
        _in_thread(enter_and_send)
    except OSError as error:
        raise RuntimeFailure(f"IPv6 in a network namespace: {error.strerror}") from error


def _enter(namespace_fd: int) -> None:
    _check(_libc.setns(namespace_fd, _CLONE_NEWNET), "entering a network namespace")


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
