"""Settings given by hand are judged as the control plane judges them, and named where wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.native.net.lab import Host, Lab

ELEMENT = Path(__file__).resolve().parents[2] / "images/network-lwip/element.json"
SCHEMA = json.loads(ELEMENT.read_text())["settings"]
SOCKETS = """
import errno, os, socket, sys
for variable in sys.argv[1:]:
    if os.fork() == 0:
        os.environ.update([variable.split("=")])
        try:
            answer = str(socket.socket().fileno() >= 0)
        except OSError as error:
            answer = errno.errorcode[error.errno]
        print(answer, flush=True)
        os._exit(0)
    os.wait()
"""
"""A process with a stack of its own for each variable."""

pytestmark = [pytest.mark.native, pytest.mark.root]


def bounds(schema: dict[str, Any], above: str = "") -> Iterator[tuple[str, int, int]]:
    """Each number's key, least and most."""
    for name, part in schema["properties"].items():
        if part["type"] == "object":
            yield from bounds(part, f"{above}{name}.")
        if part["type"] == "integer":
            # The binding gives the network's own MTU, which may be smaller.
            least = 576 if name == "mtu" else part["minimum"]
            yield f"{above}{name}", least, part["maximum"]


WRONG = {"mode": "fast", "congestion": "bbr", "spin": "much", "mac": "02:c5", "address": "10.0.0"}


def sockets(host: Host, settings: list[tuple[str, object]]) -> list[str]:
    variables = [f"CSE_NETWORK_{key.upper().replace('.', '_')}={value}" for key, value in settings]
    return host.check(sys.executable, "-c", SOCKETS, *variables).split()


def test_one_step_outside_is_named(lab: Lab) -> None:
    host = lab.host()
    outside: list[tuple[str, object]] = [
        (key, value) for key, a, b in bounds(SCHEMA) for value in (a - 1, b + 1)
    ]
    settings = [*outside, *WRONG.items()]
    assert sockets(host, settings) == ["ENETDOWN"] * len(settings)
    lines = (host.run / "data/network.errors").read_text().splitlines()
    for (key, value), line in zip(settings, lines, strict=True):
        assert line.startswith(f"network: setting {key} (CSE_NETWORK_{key.upper()[:3]}"), line
        assert f") is '{value}', must be " in line


def test_the_bounds_themselves_are_taken(lab: Lab) -> None:
    host = lab.host()
    settings: list[tuple[str, object]] = [
        (key, value) for key, least, most in bounds(SCHEMA) for value in (least, most)
    ]
    assert sockets(host, settings) == ["True"] * len(settings)
    assert not (host.run / "data/network.errors").exists()
