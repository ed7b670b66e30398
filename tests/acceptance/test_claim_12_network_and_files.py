"""Claim 12: elements exist for network protocols and for file management."""

from __future__ import annotations

import tarfile
from io import BytesIO
from pathlib import Path

from tests.acceptance.world import World, curl, until


def test_catalogue_names_both_kinds(world: World) -> None:
    elements = world.api.get("/v1/elements").json()
    items = elements["items"] if isinstance(elements, dict) else elements
    assert {"network", "filesystem"} <= {item["kind"] for item in items}


def test_one_application_uses_both(world: World, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    archive = tmp_path / "tree.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        entry = tarfile.TarInfo("deep/hello.txt")
        entry.size = 5
        tar.addfile(entry, BytesIO(b"hello"))
    mounts = [{"path": "/srv/packed", "source": "archive", "from": str(archive)}]
    world.run(
        "both",
        ["python3", "-m", "http.server", "80", "--directory", "/srv/packed"],
        elements={"network-lwip": {}, "filesystem": {"settings": {"mounts": mounts}}},
    )
    url = f"http://{world.address('both')}/deep/hello.txt"
    assert until(lambda: curl(url)) == "hello"
    kinds = {item["kind"] for item in _items(world.get("both", "instances"))}
    assert kinds == {"network", "filesystem"}


def _items(answer: object) -> list[dict[str, object]]:
    return answer["items"] if isinstance(answer, dict) else answer  # type: ignore[return-value]
