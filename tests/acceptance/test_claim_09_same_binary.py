"""Claim 9: a function overlay leads to the element; the application's binary is the same file."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from tests.acceptance.world import World, maps


def test_same_file_same_hash_with_and_without(world: World) -> None:
    program = ["python3", "-c", "import socket, time; socket.socket(); time.sleep(300)"]
    world.run("with", program, elements={"network-lwip": {}})
    world.run("without", program)
    hashes = {}
    for name in ("with", "without"):
        inside = world.exec(name, "sh", "-c", "sha256sum $(readlink -f $(command -v python3))")
        assert inside.returncode == 0, inside.stderr
        hashes[name] = inside.stdout.split()[0]
    assert hashes["with"] == hashes["without"]

    pid = world.pids("with")[0]
    running = hashlib.sha256(Path(f"/proc/{pid}/exe").read_bytes()).hexdigest()
    assert running == hashes["with"]
    if world.runtime == "namespace":
        outside = Path(shutil.which("python3", path="/usr/bin:/bin") or "").resolve()
        assert running == hashlib.sha256(outside.read_bytes()).hexdigest()

    assert any("/libcse-net.so" in row[3] for row in maps(pid))
    assert {verdict for verdict, _ in world.verdicts("with")["program-unchanged"]} == {"holds"}
