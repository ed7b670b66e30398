"""A small laboratory for the network element: a bridge, taps, and the real broker.

Used by test_net_*.py. Each `Host` is an application as a runtime would start it: an empty network
namespace, a run directory with settings and a broker socket, the overlay preloaded. The machine
that runs the tests is a peer on the bridge, with the kernel's own stack.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import shutil
import signal
import struct
import subprocess
import tempfile
import time
from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path

import pytest

from app.broker.broker import Broker
from app.domain.network import NetworkBinding, NetworkSpec, PeerAddresses
from app.wiring.netlink import LinkRequest, Netlink, index_of
from app.wiring.packets import open_packet_socket

_TUNSETIFF = 0x400454CA
_TAP_FLAGS = 0x0002 | 0x1000  # IFF_TAP | IFF_NO_PI
_IFF_VNET_HDR = 0x4000
MTU = 65520


def need(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"no {program} here")
    return path


def ip(*words: str) -> None:
    """iproute2's `ip`; where it fails, the error is what it said."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr.strip()}"


def _bridge_is_filtered() -> bool:
    """Bridged frames pass the rules that Docker makes with iptables, where there is one."""
    switch = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    filtered = switch.exists() and switch.read_text().strip() == "1"
    return filtered and shutil.which("iptables") is not None


class Lab:
    """Bridge and hosts of one test session; `close` removes all of it."""

    def __init__(self, libraries: Path, environment: dict[str, str] | None = None) -> None:
        self.libraries = libraries
        self.environment = environment or {}
        self.bridge = f"nt{os.getpid() % 100000}"
        base = f"10.{211 + os.getpid() % 39}.{os.getpid() // 39 % 16 * 16}.0/20"
        self.subnet = IPv4Network(base)
        self.prefix = self.subnet.prefixlen
        self.gateway = self.address(1)
        self.network6 = f"fd{os.getpid() % 250:02x}:c5e:{os.getpid() // 250 % 65536:x}::"
        self.gateway6 = f"{self.network6}1"
        subnets = {"subnet": base, "subnet6": f"{self.network6}/64"}
        self.spec = NetworkSpec.model_validate({"name": "lab", **subnets})
        self.directory = Path(tempfile.mkdtemp(prefix="cse-net-"))
        self.broker = Broker()
        self.hosts: dict[str, Host] = {}
        self._numbers = itertools.count(2)
        ip("link", "add", self.bridge, "mtu", str(MTU), "type", "bridge")
        ip("addr", "add", f"{self.gateway}/{self.prefix}", "dev", self.bridge)
        ip("addr", "add", f"{self.gateway6}/64", "dev", self.bridge, "nodad")
        ip("link", "set", self.bridge, "up")
        self._filtered = _bridge_is_filtered()
        self._forward("-I")

    def _forward(self, action: str) -> None:
        """Docker's firewall drops what it does not know, on every bridge of the machine."""
        if self._filtered:
            words = ["iptables", "-w", action, "FORWARD", "-i", self.bridge, "-o", self.bridge]
            subprocess.run([*words, "-j", "ACCEPT"], check=action == "-I", capture_output=True)

    def address(self, number: int) -> str:
        return str(self.subnet[number])

    def take_number(self) -> int:
        """One that no other host of this session has had: addresses and names follow from it."""
        return next(self._numbers)

    def host(self, name: str = "") -> Host:
        number = self.take_number()
        return Host(self, name or f"host{number}", number)

    def find(self, name: str) -> PeerAddresses | None:
        host = self.hosts.get(name)
        if host is None:
            return None
        return PeerAddresses(IPv4Address(host.address), IPv6Address(host.address6))

    def restart_broker(self) -> None:
        """The next one, after `broker.close()`: libraries find it again by themselves."""
        self.broker = Broker()
        for host in self.hosts.values():
            host.serve()

    def close_hosts(self, keep: Collection[str] = ()) -> None:
        """All but those with the names to keep, with everything that runs in them."""
        for host in [host for name, host in self.hosts.items() if name not in keep]:
            host.close()

    def close(self) -> None:
        self.close_hosts()
        self.broker.close()
        self._forward("-D")
        subprocess.run(["ip", "link", "del", self.bridge], capture_output=True, check=False)
        shutil.rmtree(self.directory, ignore_errors=True)


class Host:
    """One application: what `Popen` starts here shares one instance."""

    def __init__(self, lab: Lab, name: str, number: int) -> None:
        self.lab = lab
        self.name = name
        self.address = lab.address(number)
        self.address6 = f"{lab.network6}{number:x}"
        self.mac = f"02:c5:00:00:{number // 256:02x}:{number % 256:02x}"
        self.run = lab.directory / name
        (self.run / "data").mkdir(parents=True)
        self.trace = self.run / "trace"
        self.tap = f"{lab.bridge}.{number}"
        self.virtio_headers = True
        self.transport = "tap"
        self.processes: list[subprocess.Popen[str]] = []
        (self.run / "network.conf").write_text(
            f"name={name}\naddress={self.address}\nprefix={lab.prefix}\ngateway={lab.gateway}\n"
            f"address6={self.address6}\nprefix6=64\ngateway6={lab.gateway6}\n"
            f"mac={self.mac}\nmtu={MTU}\n"
            f"dns.0={lab.gateway}\n"
        )
        self.namespace = self.tap.replace(".", "-")
        ip("netns", "add", self.namespace)
        lab.hosts[name] = self
        self.serve()

    def serve(self) -> None:
        """Let the laboratory's broker know this application; again after a restart of it."""
        binding = NetworkBinding.model_validate(
            {"network": self.lab.spec, "address": self.address, "mac": "02:c5:00:00:00:01"}
        )
        self.lab.broker.serve(self.name, self.run, self._make_device, self.lab.find, binding)

    def counters(self) -> dict[str, int]:
        """What the instance last told the broker."""
        found = self.lab.broker.details(self.name)["counters"]
        assert isinstance(found, dict)
        return found

    def _make_device(self, _headers: bool) -> int:
        return self._make_tap(True) if self.transport == "tap" else self._make_packet_socket()

    def _make_packet_socket(self) -> int:
        with contextlib.closing(Netlink()) as netlink:
            bridge = index_of(self.lab.bridge)
            return open_packet_socket(netlink, LinkRequest(self.tap, mtu=MTU, master=bridge))

    def _make_tap(self, _headers: bool) -> int:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        flags = _TAP_FLAGS | (_IFF_VNET_HDR if self.virtio_headers else 0)
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", self.tap.encode(), flags))
        ip("link", "set", self.tap, "mtu", str(MTU), "master", self.lab.bridge, "up")
        return fd

    def command(self, *words: str) -> list[str]:
        """The words as a command line that runs them as this application."""
        preload = str(self.lab.libraries / "libcse-net.so")
        variables = {
            **self.lab.environment,
            "CSE_RUN_DIR": str(self.run),
            "LD_PRELOAD": f"{self.lab.environment.get('LD_PRELOAD', '')} {preload}".strip(),
        }
        if "CSE_TEST_TRACE" in os.environ:
            variables["CSE_TRACE"] = str(self.trace)
        pairs = [f"{key}={value}" for key, value in variables.items()]
        return ["nsenter", f"--net=/run/netns/{self.namespace}", "env", *pairs, *words]

    def start(self, *words: str, cwd: Path | None = None) -> subprocess.Popen[str]:
        """A server; ended with the laboratory if not before."""
        log = (self.run / "log").open("a")
        process = subprocess.Popen(
            self.command(*words),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            text=True,
            cwd=cwd,
        )
        self.processes.append(process)
        return process

    def check(self, *words: str, timeout: float = 30, given: str | None = None) -> str:
        """A program that ends by itself with status 0; its output."""
        done = subprocess.run(
            self.command(*words),
            input=given,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, f"{words[0]}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def pids(self) -> list[int]:
        """Every process of this application."""
        words = ["ip", "netns", "pids", self.namespace]
        out = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        return [int(word) for word in out.split()]

    def log(self) -> str:
        return (self.run / "log").read_text(errors="replace") if (self.run / "log").exists() else ""

    def stop(self, process: subprocess.Popen[str], grace: float = 5) -> int:
        process.terminate()
        try:
            return process.wait(grace)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def kill(self) -> None:
        """Every process of this application, at once: no last word of theirs gets out."""
        listed = subprocess.run(
            ["ip", "netns", "pids", self.namespace], capture_output=True, text=True, check=True
        )
        for pid in listed.stdout.split():
            os.kill(int(pid), signal.SIGKILL)

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                self.stop(process)
        for pid in self.pids():  # daemons, and children whose parent was killed
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.lab.broker.forget(self.name)
        del self.lab.hosts[self.name]
        ip("netns", "del", self.namespace)
        shutil.rmtree(self.run, ignore_errors=True)


def retry(check: object, seconds: float = 30) -> object:
    """Calls `check` until it gives a true value or its last error stands."""
    end = time.monotonic() + seconds
    while True:
        try:
            value = check()  # type: ignore[operator]
        except (AssertionError, OSError, subprocess.SubprocessError):
            if time.monotonic() > end:
                raise
        else:
            if value or time.monotonic() > end:
                return value
        time.sleep(0.05)
