"""`cse doctor`: what this host has and lacks. Looks only; makes nothing."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from app.agent import limits
from app.domain.errors import CseError, HostLacks
from app.domain.observed import Finding
from app.runtimes.namespace.cgroups import ControlGroups
from app.runtimes.namespace.runtime import SHIM
from app.runtimes.namespace.sandbox import find_bubblewrap
from app.wiring import nft
from app.wiring.forwarding import default_route6, kernel_has_ipv6

_MIN_FREE_BYTES = 256 * 2**20
_CAP_NET_ADMIN, _CAP_SYS_ADMIN = 12, 21


def examine_host(state: Path) -> list[Finding]:
    """Each check once, in the order in which one would repair."""
    checks: list[Callable[[], Finding]] = [
        _kernel,
        _privilege,
        _bubblewrap,
        _supervisor,
        _user_namespaces,
        _tun,
        _nft,
        _ipv6,
        _control_groups,
        lambda: _docker(state),
        lambda: _disk(state),
    ]
    return [*(check() for check in checks), *limits.examine()]


def _kernel() -> Finding:
    version = tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2])
    ok = version >= (5, 6)
    return Finding(
        check="kernel",
        ok=ok,
        observation=f"Linux {platform.release()} on {platform.machine()}",
        remedy="" if ok else "published ports and pidfds need Linux 5.6 or later",
    )


def _privilege() -> Finding:
    status = Path("/proc/self/status").read_text()
    effective = int(next(line for line in status.splitlines() if "CapEff" in line).split()[1], 16)
    capable = all(effective >> number & 1 for number in (_CAP_NET_ADMIN, _CAP_SYS_ADMIN))
    observation = (
        f"user id {os.geteuid()}, NET_ADMIN and SYS_ADMIN {'held' if capable else 'not held'}"
    )
    return Finding(
        check="privilege",
        ok=capable,
        observation=observation,
        remedy="" if capable else "elements of kind network need root; others work without",
    )


def _bubblewrap() -> Finding:
    try:
        program = find_bubblewrap()
    except HostLacks as error:
        return _lacking("bubblewrap", error)
    done = subprocess.run([program, "--version"], capture_output=True, text=True)
    words = [*done.stdout.split(), "0"]
    return Finding(check="bubblewrap", ok=True, observation=f"{program}, version {words[1]}")


def _supervisor() -> Finding:
    ok = os.access(SHIM, os.X_OK)
    return Finding(
        check="supervisor",
        ok=ok,
        observation=str(SHIM) if ok else f"{SHIM} is not built",
        remedy="" if ok else "build it: make native",
    )


def _user_namespaces() -> Finding:
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "true"], capture_output=True, text=True
    )
    ok = done.returncode == 0 or os.geteuid() == 0
    return Finding(
        check="user namespaces",
        ok=ok,
        observation="can be made" if done.returncode == 0 else done.stderr.strip(),
        remedy=""
        if ok
        else "sysctl kernel.unprivileged_userns_clone=1, or the distribution's "
        "AppArmor setting kernel.apparmor_restrict_unprivileged_userns=0",
    )


def _tun() -> Finding:
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return Finding(
            check="tap devices",
            ok=False,
            observation=f"/dev/net/tun: {error.strerror}",
            remedy="modprobe tun, and run the agent as root: elements of kind network need it",
        )
    return Finding(check="tap devices", ok=True, observation="/dev/net/tun can be opened")


def _nft() -> Finding:
    try:
        count = nft.run("list tables").count("table ")
    except CseError as error:
        return _lacking("packet filter", error)
    return Finding(check="packet filter", ok=True, observation=f"nftables answers, {count} tables")


def _ipv6() -> Finding:
    if not kernel_has_ipv6():
        return Finding(
            check="IPv6",
            ok=False,
            observation="switched off in this kernel",
            remedy="sysctl net.ipv6.conf.all.disable_ipv6=0: without it applications have IPv6 "
            "among themselves only, and not with this host",
        )
    outside = default_route6()
    return Finding(
        check="IPv6",
        ok=True,
        observation=f"leads outside by {outside}"
        if outside
        else "no default route: applications reach each other and this host over it, no others",
    )


def _control_groups() -> Finding:
    kind = ControlGroups("doctor").kind()
    root = os.geteuid() == 0
    return Finding(
        check="control groups",
        ok=bool(kind) and root,
        observation=f"version {kind[1:]}" if kind else "no controller of memory is mounted",
        remedy="" if kind and root else "'limits' need mounted control groups, and root",
    )


def _docker(state: Path) -> Finding:
    try:
        from app.runtimes.docker import DockerRuntime
    except ImportError as error:
        return Finding(
            check="docker", ok=False, observation=str(error), remedy="pip install docker"
        )
    runtime = DockerRuntime(state, "doctor")
    try:
        return runtime.doctor()[0]
    finally:
        runtime.close()


def _disk(state: Path) -> Finding:
    place = state
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    writable = os.access(place, os.W_OK)
    ok = writable and free >= _MIN_FREE_BYTES
    return Finding(
        check="state directory",
        ok=ok,
        observation=f"{state}: {free // 2**20} MiB free" + ("" if writable else ", not writable"),
        remedy="" if ok else "make room, or choose another one with CSE_STATE_DIR",
    )


def _lacking(check: str, error: CseError) -> Finding:
    return Finding(check=check, ok=False, observation=error.detail, remedy=error.remedy or "")
