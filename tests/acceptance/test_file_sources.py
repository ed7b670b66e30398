"""Sources of the file-system element that a runtime takes part in, through REST."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.acceptance.world import World, until

MIB = 1 << 20


def test_memory_with_a_limit_and_a_computed_file(world: World) -> None:
    mounts = [
        {"path": "/srv/scratch", "source": "memory", "size": 4 * MIB},
        {"path": "/srv/more", "source": "memory", "size": 8 * MIB},
        {"path": "/srv/host", "source": "computed", "command": ["hostname"]},
    ]
    elements = {"filesystem": {"settings": {"mounts": mounts}}}
    world.run("sources", ["sleep", "infinity"], elements=elements)
    sizes = world.exec("sources", "df", "-B1", "--output=size", "/srv/scratch", "/srv/more")
    assert sizes.stdout.split()[1:] == [str(4 * MIB), str(8 * MIB)]
    full = world.exec("sources", "sh", "-c", "head -c 5000000 /dev/zero > /srv/scratch/big")
    assert "No space left on device" in full.stderr
    assert world.exec("sources", "cat", "/srv/host").stdout == "sources\n"
    assert {"host", "more", "scratch"} <= set(world.exec("sources", "ls", "/srv").stdout.split())


def test_applications_share_the_contents_of_an_archive(world: World, tmp_path: Path) -> None:
    """The same file for both, in memory once; not for others; gone when unused."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/big").write_bytes(os.urandom(32 * MIB))
    subprocess.run(["tar", "-czf", tmp_path / "t.tgz", "-C", tmp_path / "tree", "."], check=True)
    mount = {"path": "/srv/t", "source": "archive", "from": str(tmp_path / "t.tgz")}
    hold = "import mmap, os, time; m = mmap.mmap(os.open('/srv/t/big', 0), 0, prot=1); "
    hold += "print(sum(m[::4096])); time.sleep(1e6)"
    command = ["python3", "-c", hold] if world.runtime == "namespace" else ["sleep", "infinity"]
    inodes = {}
    for name, shared in (("one", True), ("other", True), ("alone", False)):
        settings = {"mounts": [{**mount, "shared": shared}]}
        world.run(name, command, elements={"filesystem": {"settings": settings}})
        inodes[name] = world.exec(name, "stat", "-c", "%d %i", "/srv/t/big").stdout
        assert world.exec(name, "sh", "-c", "wc -c < /srv/t/big").stdout == f"{32 * MIB}\n"
    assert inodes["one"] == inodes["other"] != inodes["alone"]
    if world.runtime == "namespace":
        until(lambda: max(map(_share, [*world.pids("one"), *world.pids("other")])) <= 17 * MIB)
        assert _share(world.pids("alone")[0]) == 32 * MIB
    for name in ("one", "other"):
        world.remove(name)
    for wanted in (True, False):
        found = world.api.post("/v1/gc").json()["items"]
        assert wanted is any(one["kind"] == "shared-contents" for one in found)


def _share(pid: int) -> int:
    """Bytes of the archive's file that count for this process; 64 MiB before it is mapped."""
    lines = Path(f"/proc/{pid}/smaps").read_text().splitlines()
    found = [i for i, line in enumerate(lines) if line.endswith("/tree/big")]
    rest = lines[found[0] :] if found else []
    sizes = [int(line.split()[1]) << 10 for line in rest if line.startswith("Pss:")]
    return sizes[0] if sizes and sizes[0] > 0 else 64 * MIB
