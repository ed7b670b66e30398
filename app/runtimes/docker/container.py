"""From a launch to the body of Docker's "create a container" call: pure, no I/O.

Called by `runtime`. The body is the Engine API's own (v1.41), so what is asked of Docker can be
read here word for word.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from app.domain.errors import InvalidSpecification
from app.domain.launch import Launch
from app.runtimes.rundir import Bind, Memory, RunDirectory

INSTALLATION_LABEL = "cse.installation"
ID_LABEL = "cse.id"
NAME_LABEL = "cse.name"

_LOG = {"Type": "json-file", "Config": {"max-size": "32m", "max-file": "3"}}
_OWN_DELAY_S = 0.1
_HOLD_INSIDE = "/run/cse/hold"


def container_name(application: str) -> str:
    """The container's name on this Docker daemon."""
    return f"cse-{application}"


def check(launch: Launch) -> None:
    """What Docker cannot do, said before anything is made."""
    if launch.spec.restart.policy != "no" and launch.spec.restart.delay != _OWN_DELAY_S:
        raise InvalidSpecification(
            "Docker restarts by itself, first after 100 ms; 'delay' cannot be set",
            pointer="/restart/delay",
            remedy="leave it out, or use 'runtime: namespace'",
        )


def body(
    launch: Launch,
    directory: RunDirectory,
    installation: str,
    owner: tuple[int, int],
    hold: str | None = None,
) -> dict[str, Any]:
    """The whole request; `directory` is what the libraries get (see `app.runtimes.rundir`).

    `owner` (uid, gid) is whom the program runs as.

    `hold` is the path on the host of images/_hold's program, where the application gets a kernel
    interface that is moved in after the start.
    """
    spec = launch.spec
    command = [_HOLD_INSIDE, *spec.command] if hold else spec.command
    program, *arguments = command
    binds = [Bind(mount.source, mount.target, mount.read_only) for mount in launch.mounts]
    binds += directory.binds
    if hold:
        binds.append(Bind(hold, _HOLD_INSIDE, True))
    environment = {**directory.given, **directory.environment}
    # The owner is given, since the mode becomes that of the directory below where there is one.
    tmpfs = f"rw,exec,nosuid,nodev,mode=1777,uid={owner[0]},gid={owner[1]}"
    return {
        "Image": spec.image,
        "Hostname": spec.name,
        # Both are given, so that neither comes from the image.
        "Entrypoint": [program],
        "Cmd": arguments,
        "Env": [f"{name}={value}" for name, value in environment.items()],
        "User": spec.user or "",
        "WorkingDir": spec.working_directory or "",
        "Labels": {
            **{f"cse.label.{key}": value for key, value in spec.labels.items()},
            INSTALLATION_LABEL: installation,
            ID_LABEL: launch.id,
            NAME_LABEL: spec.name,
        },
        "StopSignal": spec.stop.signal,
        "StopTimeout": math.ceil(spec.stop.grace),
        "HostConfig": {
            **_host(launch),
            "Mounts": _mounts(binds),
            "Tmpfs": {
                memory.target: tmpfs if memory.size is None else f"{tmpfs},size={memory.size}"
                for memory in [*map(Memory, spec.tmpfs), *directory.tmpfs]
            },
        },
    }


def _host(launch: Launch) -> dict[str, Any]:
    spec = launch.spec
    host: dict[str, Any] = {
        "NetworkMode": "none" if launch.network is not None else "host",
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        # Process 1 ignores every signal that it does not handle and inherits orphans; few
        # programs are written for that. Docker's init is, and passes signals and status on.
        "Init": True,
        "LogConfig": _LOG,
        "RestartPolicy": _restart(launch),
    }
    if spec.limits.memory is not None:
        host["Memory"] = host["MemorySwap"] = spec.limits.memory
    if spec.limits.cpus is not None:
        host["NanoCpus"] = round(spec.limits.cpus * 1e9)
    if spec.limits.pids is not None:
        host["PidsLimit"] = spec.limits.pids + 1  # Docker's init is not the application's
    return host


def _mounts(binds: Sequence[Bind]) -> list[dict[str, Any]]:
    """Unlike `Binds`, these fail where the source is missing instead of making a directory."""
    return [
        {"Type": "bind", "Source": one.source, "Target": one.target, "ReadOnly": one.read_only}
        for one in binds
    ]


def _restart(launch: Launch) -> dict[str, Any]:
    """Docker's own policy: it works while the control plane is down.

    `unless-stopped`, since Docker's `always` would start a stopped application again when its
    daemon starts.
    """
    rule = launch.spec.restart
    if rule.policy == "always":
        return {"Name": "unless-stopped"}
    if rule.policy == "on-failure":
        return {"Name": "on-failure", "MaximumRetryCount": rule.max_retries or 0}
    return {"Name": "no"}
