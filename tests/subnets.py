"""Subnets for tests that make networks: of this process, and free on this host when asked for."""

from __future__ import annotations

import json
import os
import subprocess
from ipaddress import IPv4Network, ip_network


def free() -> str:
    """A /24 of 10.130.0.0/15 that no interface's subnet overlaps, so that another run, or what a
    killed one has left, is not in the way."""
    try:
        asked = subprocess.run(["ip", "-j", "-4", "address"], capture_output=True, check=True)
        shown = asked.stdout
    except FileNotFoundError:  # nor is there a test then that makes a network
        shown = b"[]"
    taken = [
        ip_network(f"{address['local']}/{address['prefixlen']}", strict=False)
        for link in json.loads(shown)
        for address in link["addr_info"]
    ]
    for number in range(512):
        at = (os.getpid() * 7 + number) % 512
        subnet = IPv4Network(f"10.{130 + at // 256}.{at % 256}.0/24")
        if not any(subnet.overlaps(other) for other in taken):
            return str(subnet)
    raise AssertionError("this host has no free subnet for tests in 10.130.0.0/15")
