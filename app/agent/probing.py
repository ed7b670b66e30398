"""Asks a program whether it does its work, from this host. Called by `local`.

TCP and HTTP go to the application's own address on its bridge, where it has one, as a client on
this host would; else to loopback, where the kernel's stack serves it.
"""

from __future__ import annotations

import http.client
import socket
from collections.abc import Callable

from app.domain.errors import CseError, TimedOut
from app.domain.health import HttpProbe, Probe, Probed
from app.domain.launch import Launch
from app.domain.observed import ExecResult

_LONGEST = 200

Exec = Callable[[list[str], float], ExecResult]


def ask(launch: Launch, probe: Probe, execute: Exec) -> Probed:
    """Never raises: what keeps the question from being asked is a failure, too."""
    address = str(launch.network.address) if launch.network is not None else "127.0.0.1"
    try:
        if probe.command is not None:
            result = execute(probe.command, probe.timeout)
            said = (result.stderr or result.stdout).strip()[:_LONGEST]
            return Probed(ok=result.exit_code == 0, detail=said or f"status {result.exit_code}")
        if probe.tcp is not None:
            with socket.create_connection((address, probe.tcp.port), probe.timeout):
                return Probed(ok=True, detail=f"port {probe.tcp.port} takes connections")
        assert probe.http is not None
        return _get(address, probe.http, launch.name, probe.timeout)
    except TimeoutError:
        return Probed(ok=False, detail=f"no answer within {probe.timeout:g} s")
    except TimedOut as error:
        return Probed(ok=False, detail=error.detail)
    except (CseError, OSError, http.client.HTTPException) as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return Probed(ok=False, detail=text[:_LONGEST])


def _get(address: str, probe: HttpProbe, name: str, timeout_s: float) -> Probed:
    connection = http.client.HTTPConnection(address, probe.port, timeout=timeout_s)
    try:
        connection.request("GET", probe.path, headers={"Host": probe.host or name})
        answer = connection.getresponse()
        return Probed(ok=answer.status < 400, detail=f"{answer.status} {answer.reason}")
    finally:
        connection.close()
