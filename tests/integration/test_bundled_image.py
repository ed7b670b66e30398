"""cse/bundled (images/bundled): an element that is part of an image, linked without any preload."""

from __future__ import annotations

import json
import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from app.domain.application import ApplicationSpec
from app.domain.element import Element, ElementManifest
from app.domain.launch import BoundElement, Launch
from app.runtimes.docker import DockerRuntime
from tests.conftest import ELEMENTS

pytestmark = [pytest.mark.docker, pytest.mark.native]
IMAGE = "cse/bundled"


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[DockerRuntime]:
    if subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True).returncode:
        pytest.skip(f"no image {IMAGE}; `make images` builds it")
    made = DockerRuntime(tmp_path / "state", f"test-{uuid.uuid4().hex}")
    yield made
    for observed in made.observe():
        made.remove(observed.name)
    made.close()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "tree.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        entry = tarfile.TarInfo("hello.txt")
        entry.size = 5
        tar.addfile(entry, BytesIO(b"hello"))
    path.chmod(0o644)
    return path


def test_the_program_brings_its_element_along(runtime: DockerRuntime, archive: Path) -> None:
    manifest = ElementManifest.model_validate_json(
        (ELEMENTS / "filesystem/element.json").read_text()
    )
    element = Element(manifest=manifest, directory=str(ELEMENTS / "filesystem"))
    mounts = [{"path": "/srv/packed", "source": "archive", "from": str(archive)}]
    name = f"t{uuid.uuid4().hex[:8]}"
    spec = ApplicationSpec.model_validate(
        {"name": name, "command": ["sleep", "60"], "runtime": "docker", "image": IMAGE}
    )
    bound = BoundElement(element=element, settings={"mounts": mounts}, link="bundled")
    runtime.create(
        Launch(id=uuid.uuid4().hex, spec=spec, elements=[bound], network=None, mounts=[])
    )
    runtime.start(name)

    shown = json.loads(subprocess.check_output(["docker", "inspect", f"cse-{name}"]))[0]
    assert not [entry for entry in shown["Config"]["Env"] if entry.startswith("LD_")]
    packed = "/srv/packed/hello.txt"
    assert runtime.exec(name, ["/opt/bundled/cat", packed]).stdout == "hello"
    # Its neighbour, the same program without the entry, finds nothing there.
    assert runtime.exec(name, ["cat", packed]).exit_code == 1
    linked = runtime.exec(name, ["/opt/bundled/cat", "/proc/self/maps"]).stdout
    assert "/opt/bundled/lib/libcse-fs.so" in linked
