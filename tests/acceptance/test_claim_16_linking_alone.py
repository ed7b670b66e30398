"""Claim 16: linking alone makes the element part of the application, also by DT_NEEDED."""

from __future__ import annotations

import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from tests.acceptance.world import ROOT, World


@pytest.fixture
def linked_cat(tmp_path: Path) -> Path:
    """A copy of `cat` whose dynamic section names the file-system element."""
    tmp_path.chmod(0o755)
    library = next((ROOT / "build/elements/filesystem/lib").glob("glibc-*/libcse-fs.so"))
    program = tmp_path / "cat"
    program.write_bytes(Path("/bin/cat").read_bytes())
    program.chmod(0o755)
    subprocess.run(["patchelf", "--add-needed", library.name, str(program)], check=True)
    return program


def test_needed_library_serves_without_preload(
    world: World, linked_cat: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "tree.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        entry = tarfile.TarInfo("hello.txt")
        entry.size = 5
        tar.addfile(entry, BytesIO(b"hello"))
    mounts = [{"path": "/srv/packed", "source": "archive", "from": str(archive)}]
    bundled = {"link": "bundled", "settings": {"mounts": mounts}}
    world.run(
        "linked",
        ["sleep", "300"],
        mounts=[{"from": str(linked_cat), "path": "/opt/cat"}],
        environment={"LD_LIBRARY_PATH": "/run/cse/lib/filesystem"},
        elements={"filesystem": bundled},
    )
    shown = world.exec(
        "linked", "sh", "-c", "echo ${LD_PRELOAD-none}; /opt/cat /srv/packed/hello.txt"
    )
    assert shown.stdout == "none\nhello", shown.stderr
    # The same program without the entry finds nothing there.
    assert world.exec("linked", "cat", "/srv/packed/hello.txt").returncode != 0
