"""IPv6, datagrams, groups and echoes say what the kernel's say: net/families.c, run both ways."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.native.net.lab import Host, Lab

SOURCE = Path(__file__).parent / "net/families.c"
CASES = re.findall(r"CASE\((\w+)\)", SOURCE.read_text().split("#define CASE(name)")[1])

pytestmark = [pytest.mark.native, pytest.mark.root]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("families") / "families"
    subprocess.run(["gcc", "-O1", "-w", str(SOURCE), "-o", str(built)], check=True)
    return built


def bare(host: Host, program: Path, case: str) -> str:
    """On the kernel's stack, with the same two interfaces and addresses."""
    setup = (
        "set -e; for i in all default; do echo 0 > /proc/sys/net/ipv6/conf/$i/accept_dad; done;"
        f"ip link set lo up; ip link add eth0 index 2 address {host.mac} "
        "type veth peer name far index 3;"
        "ip link set far up; ip link set eth0 up;"
        f"ip addr add {host.address}/{host.lab.prefix} brd + dev eth0;"
        "ip route add default dev eth0;"
        f"ip addr add {host.address6}/64 dev eth0 nodad;"
        # The kernel takes its own new address for a neighbour's until it has seen the link.
        f"until ip -6 route get {host.address6} | grep -q 'dev lo'; do sleep 0.02; done;"
        "echo 0 0 > /proc/sys/net/ipv4/ping_group_range;"
    )
    variables = f"FAMILIES_4={host.address} FAMILIES_6={host.address6}"
    return subprocess.run(
        ["unshare", "-n", "sh", "-c", f"{setup} {variables} exec {program} {case}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout


@pytest.mark.parametrize("case", CASES)
def test_same_as_the_kernel(lab: Lab, program: Path, case: str) -> None:
    host = lab.host()
    expected = bare(host, program, case)
    assert expected
    variables = [f"FAMILIES_4={host.address}", f"FAMILIES_6={host.address6}"]
    assert host.check("env", *variables, str(program), case) == expected
