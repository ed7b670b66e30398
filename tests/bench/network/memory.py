"""Memory that an idle instance has for itself.

That is the dirty pages of an idle server with the network element (its arena, and what its
libraries wrote) beyond those of the same program without any element.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

from tests.acceptance.world import World
from tests.bench.harness import CannotMeasure, Figure, program
from tests.bench.worlds import ours

INSTANCES = 10
PORT = 27000


def dirty_kib(pid: int) -> int:
    """Pages that only a write can have made: private ones, and this process's part of shared ones
    (the arena). Kernels before 6.0 lack Pss_Dirty; then of shared memory all is counted."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    values = {key: int(kib) for key, kib in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
    if "Pss_Dirty" in values:
        return values["Pss_Dirty"]
    return values["Private_Dirty"] + values["Shared_Dirty"]


def tree(pid: int) -> list[int]:
    """A process and all below it: an instance may have helpers of its own."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(below for child in children for below in tree(int(child)))]


def program_pid(world: World, name: str) -> int:
    status = world.get(name)["status"]
    if status["state"] != "running":
        raise CannotMeasure(f"{name} does not run: {status}")
    return int(status["pid"])


def idle(world: World, prefix: str, elements: dict[str, object]) -> list[float]:
    """MiB of each of several idle servers, all of them running at the same time."""
    tcp = program("tcp")
    names = [f"{prefix}-{number}" for number in range(INSTANCES)]
    for number, name in enumerate(names):
        # Without the element they share the host's ports.
        world.run(name, [tcp, "server", str(PORT + number)], elements=elements)
    time.sleep(2)  # until lazy starts, gratuitous ARP and the first timers are over
    pids = [program_pid(world, name) for name in names]
    amounts = [sum(map(dirty_kib, tree(pid))) / 1024 for pid in pids]
    for name in names:
        world.remove(name)
    return amounts


def measure() -> list[Figure]:
    with ours() as world:
        bare = idle(world, "bench-bare", {})
        linked = idle(world, "bench-linked", {"network-lwip": {}})
    base = sorted(bare)[len(bare) // 2]
    private = [amount - base for amount in linked]
    title = f"private memory of an idle instance, {INSTANCES} at once"
    peer = "the same program without element"
    return [Figure.compare(title, "MiB", private, bare, peer, ours_at_most=1.0)]
