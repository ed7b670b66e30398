"""Tracked files name nothing of the machine they were written on, and no place to fetch from."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Hosts that a build file may name: none is ever fetched from (licences, schemas, documentation).
DOCUMENTATION = {
    *("localhost", "json-schema.org", "www.apache.org", "semver.org"),
    *("example.com", "example.org", "example.net"),
}
BUILD_FILE = re.compile(
    r"(^|/)(Makefile|Dockerfile\S*|\S+\.mk|\S+\.sh|\S+\.lock|pyproject\.toml|compose\S*\.yaml|"
    r"sources\.json|fetch\.py|run)$"
)


@cache
def tracked() -> dict[str, str]:
    """Path → text of every tracked text file."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    texts = {}
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if name and path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            if b"\0" not in content:
                texts[name] = content.decode(errors="replace")
    return texts


def mirrors_of_this_machine() -> Iterator[str]:
    """Hosts that apt and pip are configured with here."""
    apt = [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")]
    for path in apt:
        if path.is_file():
            for uri in re.findall(r"\bhttps?://\S+", path.read_text(errors="replace")):
                yield urlsplit(uri).hostname or ""
    for file in (Path("/etc/pip.conf"), Path.home() / ".config/pip/pip.conf"):
        configuration = configparser.RawConfigParser()
        configuration.read(file)
        for section in configuration.sections():
            for value in configuration[section].values():
                for uri in re.findall(r"\bhttps?://\S+", value):
                    yield urlsplit(uri).hostname or ""
    for name, value in os.environ.items():
        if name.startswith("PIP_") and value.startswith("http"):
            yield urlsplit(value).hostname or ""


def test_no_mirror_of_this_machine_is_named() -> None:
    hosts = {host for host in mirrors_of_this_machine() if host} - DOCUMENTATION
    found = [
        f"{name}: {host}"
        for name, text in tracked().items()
        for host in hosts
        if re.search(rf"(?<![\w.-]){re.escape(host)}(?![\w-])", text)
    ]
    assert found == []


def test_build_files_name_no_host_to_fetch_from() -> None:
    found = []
    for name, text in tracked().items():
        if BUILD_FILE.search(name):
            for uri in re.findall(r"\b(?:https?|ftp|git)://[^\s\"'`)>]+", text):
                host = urlsplit(uri).hostname or ""
                written_at_run_time = not host or re.search(r"[${%]", host)
                # Loopback and private addresses; a name without a dot is a service of compose.yaml.
                private = re.match(r"127\.|10\.|192\.168\.|172\.|[\w-]+$", host)
                if host not in DOCUMENTATION and not written_at_run_time and not private:
                    found.append(f"{name}: {uri}")
    assert found == []


def test_no_path_of_this_machine_is_named() -> None:
    # A checkout at a short, common path (/src) would match ordinary text; its parts do not matter.
    paths = [path for path in {str(ROOT), str(ROOT.parent)} if path.count("/") > 1]
    found = [
        f"{name}: {path}"
        for name, text in tracked().items()
        for path in paths
        if re.search(rf"{re.escape(path)}(?![\w-])", text)
    ]
    assert found == []


def test_every_source_is_pinned_by_hash() -> None:
    locks = {name: text for name, text in tracked().items() if name.endswith(".lock")}
    assert len(locks) >= 2
    for name, text in locks.items():
        for requirement in re.findall(r"^(\S+)==.*?(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL):
            block = text.split(f"{requirement}==", 1)[1].split("\n", 2)
            assert "--hash=sha256:" in block[1], f"{name}: {requirement} has no hash"
