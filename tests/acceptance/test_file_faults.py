"""Faults of files to order, through REST: what a running program meets, in both runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.acceptance.test_faults import add, events, faults
from tests.acceptance.world import World, until

WRITER = """
import errno, os, time
fd = os.open("/srv/data/log.db", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
while True:
    try:
        os.write(fd, b"x" * 100); os.fsync(fd); said = "ok"
    except OSError as error:
        said = errno.errorcode[error.errno]
    print(said, flush=True)
    time.sleep(0.02)
"""


def writer(world: World, name: str, top: Path) -> None:
    lower = top / "lower"
    lower.mkdir()
    (lower / "old.db").write_text("old")
    mount = {"path": "/srv/data", "source": "cow", "from": str(lower)}
    elements: dict[str, Any] = {"filesystem": {"settings": {"mounts": [mount]}}}
    world.run(name, ["python3", "-c", WRITER], elements=elements)
    until(lambda: "ok" in last(world, name))


def last(world: World, name: str) -> str:
    answer = world.api.get(f"/v1/applications/{name}/logs", params={"tail": 1})
    return str(answer.text.strip().splitlines()[-1]) if answer.text.strip() else ""


def test_a_running_program_meets_it_until_its_time_is_over(world: World, tmp_path: Path) -> None:
    name = f"disk-{world.runtime}"  # events of a removed application stay
    writer(world, name, tmp_path)
    spec = {"path": "/srv/**/*.db", "op": "fsync", "errno": "EIO"}
    made = add(world, name, file=spec, **{"for": "2s"})
    assert 0 < made["remaining"] <= 2 and made["spec"]["file"]["op"] == ["fsync"]
    until(lambda: "EIO" in last(world, name), 2)
    (shown,) = faults(world, name)
    assert shown["id"] == made["id"] and shown["counters"]["failed"] >= 1
    until(lambda: "ok" in last(world, name))
    until(lambda: "fault-ended" in events(world, name))
    add(world, name, file={"path": "/srv/data/*", "full_after": "1k"})
    until(lambda: "ENOSPC" in last(world, name))
    assert "bytes_written" in faults(world, name)[0]["counters"]
    # Beside the application too, and after a restart.
    add(world, name, file={"path": "/srv/data/old.db", "op": ["open"], "errno": "EACCES"})
    assert "Permission denied" in world.exec(name, "cat", "/srv/data/old.db").stderr
    assert world.api.post(f"/v1/applications/{name}/restart").status_code == 200
    until(lambda: "ENOSPC" in last(world, name))
    for one in faults(world, name):
        path = f"/v1/applications/{name}/faults/{one['id']}"
        assert world.api.delete(path).status_code == 204
    until(lambda: "ok" in last(world, name))
    assert world.exec(name, "cat", "/srv/data/old.db").stdout == "old"


def test_fields_are_named_and_who_has_no_files_is_told(world: World) -> None:
    world.run("bare", ["sleep", "300"])
    path = "/v1/applications/bare/faults"
    for spec, pointer in (
        ({"file": {"path": "srv", "errno": "EIO"}}, "/file/path"),
        ({"file": {"path": "/srv", "errno": "EOI"}}, "/file/errno"),
        ({"file": {"path": "/srv", "op": "wriet", "errno": "EIO"}}, "/file/op/0"),
        ({"file": {"path": "/srv", "errno": "EIO", "rate": "110%"}}, "/file/rate"),
        ({"file": {"errno": "EIO"}}, "/file/path"),
        ({"file": "/srv/**"}, ""),
        ({"file": "/srv/**", "loss": "5%", "delay": "5ms"}, ""),
    ):
        answer = world.api.post(path, json=spec)
        assert answer.status_code == 422, (spec, answer.text)
        assert answer.json()["errors"][0]["pointer"] == pointer, (spec, answer.text)
    answer = world.api.post(path, json={"file": "/srv/**", "delay": "5ms"})
    assert answer.status_code == 409 and "no file system of its own" in answer.text
