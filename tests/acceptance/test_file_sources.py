"""Sources of the file-system element that a runtime takes part in, through REST."""

from __future__ import annotations

from tests.acceptance.world import World

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
    assert world.exec("sources", "ls", "/srv").stdout.split() == ["host", "more", "scratch"]
