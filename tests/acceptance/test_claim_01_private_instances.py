"""Claim 1: unmodified applications at once, each with its own unshared instance of an element."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

from tests.acceptance.world import World, curl, free_port, maps, until

SERVER = ["python3", "-m", "http.server", "80", "--bind", "0.0.0.0"]
TREE = {"path": "/srv/tree", "source": "cow"}


def _element_files(pid: int) -> set[tuple[str, int]]:
    return {(dev, inode) for _, dev, inode, path in maps(pid) if "/libcse-net" in path}


def _arenas(pid: int) -> set[tuple[str, int]]:
    return {(dev, inode) for _, dev, inode, path in maps(pid) if path.startswith("/memfd:cse-net")}


def _serve(world: World, name: str, tree: Path) -> None:
    tree.mkdir()
    (tree / "who").write_text(name)
    tree.chmod(0o755)
    mounts = [{**TREE, "from": str(tree)}]
    world.run(
        name,
        SERVER,
        working_directory="/",
        elements={"network-lwip": {}, "filesystem": {"settings": {"mounts": mounts}}},
    )


def test_same_port_own_stack_own_files(world: World, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    _serve(world, "one", tmp_path / "one")
    _serve(world, "two", tmp_path / "two")

    # Both listen on port 80 at the same time and answer with their own files.
    for name in ("one", "two"):
        url = f"http://{world.address(name)}/srv/tree/who"
        assert until(partial(curl, url)) == name

    # State set in one is never seen in the other, nor in the directory they came from.
    assert world.exec("one", "sh", "-c", "echo mine > /srv/tree/note").returncode == 0
    assert curl(f"http://{world.address('one')}/srv/tree/note") == "mine\n"
    seen = world.exec("two", "cat", "/srv/tree/note")
    assert seen.returncode != 0, seen.stdout
    assert not (tmp_path / "one" / "note").exists()

    # One library file, two arenas.
    first, second = world.pids("one")[0], world.pids("two")[0]
    assert _element_files(first) and _element_files(first) == _element_files(second)
    assert _arenas(first) and _arenas(second) and not _arenas(first) & _arenas(second)


def test_a_third_uses_the_kernels_own_service(world: World, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    _serve(world, "private", tmp_path / "private")
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"],
        cwd=tmp_path / "private",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={k: v for k, v in os.environ.items() if k != "LD_PRELOAD"},
    ) as third:
        try:
            assert until(lambda: curl(f"http://127.0.0.1:{port}/who")) == "private"
            assert not _element_files(third.pid) and not _arenas(third.pid)
            url = f"http://{world.address('private')}/srv/tree/who"
            assert until(lambda: curl(url)) == "private"
        finally:
            third.terminate()
