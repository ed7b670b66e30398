"""Applications through REST, as users start them, and what a measurement needs of the machine.

Used by places.py and by the measurements that need more than a server and its clients.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

from tests.acceptance.world import World, control_plane, until
from tests.bench.harness import CannotMeasure


def need_root() -> None:
    """Taps and namespaces cannot be made without."""
    if os.geteuid() != 0:
        raise CannotMeasure("needs root")
    if not Path("/dev/net/tun").exists():
        raise CannotMeasure("needs /dev/net/tun")


def need_programs(*names: str) -> None:
    """Programs of Debian packages that a figure is measured with."""
    for name in names:
        if not any(Path(folder, name).exists() for folder in os.get_exec_path()):
            raise CannotMeasure(f"no {name} on this machine; `make setup` installs it")


def docker_lacks() -> str | None:
    """Why the docker runtime cannot be measured here, or None."""
    try:
        shown = subprocess.run(
            ["docker", "image", "inspect", "cse/example"], capture_output=True, check=False
        )
    except FileNotFoundError:
        return "no docker client"
    return None if shown.returncode == 0 else "no daemon or no image; `make images` brings both"


@contextlib.contextmanager
def ours(runtime: str = "namespace") -> Iterator[World]:
    """A control plane of its own, and applications on its test network."""
    need_root()
    with tempfile.TemporaryDirectory(prefix="cse-bench-") as state, contextlib.ExitStack() as stack:
        try:
            api: httpx.Client = stack.enter_context(control_plane(Path(state)))
        except AssertionError as error:
            raise CannotMeasure(f"the control plane does not start: {error}") from error
        world = World(api, runtime)
        stack.callback(world.remove_all)
        yield world


def call_in(world: World, name: str, *command: str) -> str:
    """Standard output of a client beside an application, on that application's private stack."""
    done = world.exec(name, *command)
    if done.returncode != 0:
        raise CannotMeasure(f"{' '.join(command)} in {name}: {done.stderr.strip()}")
    return str(done.stdout)


def ready(attempt: Callable[[], object], seconds: float = 10) -> None:
    """Wait until a first call to a fresh server succeeds."""

    def once() -> bool:
        try:
            attempt()
        except CannotMeasure as error:
            raise LookupError(str(error)) from error
        return True

    try:
        until(once, seconds)
    except AssertionError as error:
        raise CannotMeasure(f"no answer from the server: {error}") from error
