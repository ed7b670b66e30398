"""What every test directory shares: skips with their reason, and which build of the libraries.

A marked test runs wherever what it needs is there; where it is not, the skip says what is missing
and what brings it. `pytest -ra` (the default here) lists the reasons at the end.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import stores

ROOT = Path(__file__).resolve().parents[1]
ELEMENTS = ROOT / "build/elements"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--variant",
        choices=("release", "debug", "asan"),
        default="release",
        help="build of the elements' libraries that native tests load (make native VARIANT=…)",
    )
    parser.addoption(
        "--store",
        choices=("sqlite", "postgresql"),
        default="sqlite",
        help="database of the control planes and stores that tests make",
    )


def pytest_configure(config: pytest.Config) -> None:
    stores.kind = config.getoption("--store")


def target() -> str:
    """The build target of this machine, as images/Makefile names it."""
    return f"glibc-{platform.machine()}"


@functools.cache
def _lacks_native(variant: str) -> str | None:
    suffix = "" if variant == "release" else f"-{variant}"
    if any(ELEMENTS.glob(f"*/lib/{target()}{suffix}/*.so*")):
        return None
    return f"no {variant} libraries for {target()}; run `make native VARIANT={variant}`"


@functools.cache
def _lacks_root() -> str | None:
    if os.geteuid() != 0:
        return "needs root: taps, bridges and namespaces are made"
    if not Path("/dev/net/tun").exists():
        return "needs /dev/net/tun; load the kernel module tun"
    return None


@functools.cache
def _lacks_docker() -> str | None:
    try:
        # A daemon that hangs is as good as none.
        info = subprocess.run(["docker", "info"], capture_output=True, timeout=20, check=False)
    except FileNotFoundError:
        return "no docker client; `images/docker.sh` as root installs one"
    except subprocess.TimeoutExpired:
        return "the Docker daemon does not answer within 20 s"
    if info.returncode != 0:
        return "no Docker daemon answers; `images/docker.sh` as root starts one"
    return None


@functools.cache
def _lacks_browser() -> str | None:
    if importlib.util.find_spec("playwright") is None:
        return "no browser to drive: the Python package playwright is not installed"
    if shutil.which("chromium") is None:
        return "no browser to drive: `make setup` as root installs Debian's chromium"
    if not (ROOT / "build/dashboard/index.html").is_file():
        return "the dashboard is not built; run `make dashboard`"
    return None


def pytest_runtest_setup(item: pytest.Item) -> None:
    variant: str = item.config.getoption("--variant")
    needs: dict[str, Callable[[], str | None]] = {
        "native": lambda: _lacks_native(variant),
        "root": _lacks_root,
        "docker": _lacks_docker,
        "browser": _lacks_browser,
    }
    for mark, lacks in needs.items():
        if item.get_closest_marker(mark) and (reason := lacks()):
            pytest.skip(reason)


@pytest.fixture(scope="session")
def variant(request: pytest.FixtureRequest) -> str:
    """The build of the libraries that this run tests: release, debug or asan."""
    chosen: str = request.config.getoption("--variant")
    return chosen


@pytest.fixture(scope="session")
def libdir(variant: str) -> Callable[[str], Path]:
    """`libdir("filesystem")` is the directory of that element's libraries for this machine."""
    suffix = "" if variant == "release" else f"-{variant}"

    def of(element: str) -> Path:
        return ELEMENTS / element / "lib" / f"{target()}{suffix}"

    return of
