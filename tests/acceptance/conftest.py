"""One control plane for all acceptance tests; each test runs once in each runtime."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.acceptance.world import IMAGE, World, control_plane


def docker_lacks() -> str | None:
    """Why the docker runtime cannot be tested here, or None."""
    try:
        info = subprocess.run(["docker", "info"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "no docker client on this machine"
    if info.returncode != 0:
        return "no Docker daemon answers; `make docker` starts one"
    image = subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True, check=False)
    return None if image.returncode == 0 else f"no image {IMAGE}; `make images` builds it"


@pytest.fixture(scope="package")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The REST interface of a control plane of our own, gone before other tests take its subnet."""
    if os.geteuid() != 0 or not Path("/dev/net/tun").exists():
        pytest.skip("private network stacks need root and /dev/net/tun")
    with control_plane(tmp_path_factory.mktemp("s")) as client:
        yield client


@pytest.fixture(params=["namespace", pytest.param("docker", marks=pytest.mark.docker)])
def world(api: httpx.Client, request: pytest.FixtureRequest) -> Iterator[World]:
    """Applications of one runtime, removed after the test."""
    if request.param == "docker" and (reason := docker_lacks()):
        pytest.skip(reason)
    world = World(api, request.param)
    yield world
    world.remove_all()
