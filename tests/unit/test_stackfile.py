"""Stack files: lines for errors, relative paths, one application alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.cli import stackfile
from app.domain.errors import InvalidSpecification
from app.domain.quantities import parse_bytes, parse_seconds
from app.domain.stack import Stack
from tests.integration.planes import ELEMENTS

TEXT = """\
name: two
applications:
  web:
    command: [nginx]
    elements:
      net-a:
      files:
        settings:
          mounts:
            - {path: /srv, from: site.zip}
    mounts:
      - from: ../conf
        path: /etc/web
    restart: no
  job:
    command: ["true"]
"""


def schemas() -> dict[str, dict[str, Any]]:
    return {name: rest.get("settings", {}) for name, rest in ELEMENTS.items()}


def written(folder: Path, text: str) -> stackfile.StackFile:
    (folder / "stack.yaml").write_text(text)
    return stackfile.read(str(folder / "stack.yaml"))


def test_every_field_has_its_line(tmp_path: Path) -> None:
    lines = written(tmp_path, TEXT).lines
    assert lines["/applications/web/command"] == 4
    assert lines["/applications/web/elements/files/settings/mounts/0/from"] == 10
    assert lines["/applications/web/mounts/0/path"] == 13
    assert lines["/applications/job"] == 15


def test_relative_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    source = written(tmp_path, TEXT)
    source.resolve_paths(schemas)
    stack = Stack.model_validate(source.stack)
    web = stack.applications["web"]
    assert web.mounts[0].source == str(tmp_path.parent / "conf")
    assert web.elements["files"].settings["mounts"][0]["from"] == str(tmp_path / "site.zip")
    assert web.restart.policy == "no"


def test_one_application_alone_is_a_stack(tmp_path: Path) -> None:
    source = written(tmp_path, "name: nap\ncommand: [sleep, '9']\n")
    assert source.is_single
    stack = Stack.model_validate(source.stack)
    assert (stack.name, list(stack.applications)) == ("nap", ["nap"])


def test_overriding_the_runtime(tmp_path: Path) -> None:
    source = written(tmp_path, TEXT)
    source.override(runtime="docker", image=None)
    assert {spec["runtime"] for spec in source.stack["applications"].values()} == {"docker"}
    assert "image" not in source.stack["applications"]["web"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1\nb: 2", ":2: not YAML"),
        ("a: 1\na: 2\n", "'a' is there twice"),
        ("- 1\n", "not a stack"),
        ("", "not a stack"),
        ("a: !!python/object:os.system x", "not YAML"),
        ("a: \tb\n\t- c", "not YAML"),
    ],
)
def test_what_is_no_stack_is_refused_with_the_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidSpecification) as caught:
        written(tmp_path, text)
    assert said in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpecification, match="No such file"):
        stackfile.read(str(tmp_path / "none.yaml"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidSpecification, match="not UTF-8"):
        stackfile.read(str(tmp_path / "binary"))


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [("0", 0), ("1k", 1024), ("1.5M", 1572864), ("2GiB", 2**31), ("3 MB", 3 * 2**20), (7, 7)],
)
def test_sizes(text: object, bytes_: int) -> None:
    assert parse_bytes(text) == bytes_


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("2", 2.0), ("1.5s", 1.5), ("2m", 120.0), ("1d", 86400.0)]
)
def test_durations(text: object, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "1x", "-1", "1e3", "0x10"])
def test_what_is_neither(text: str) -> None:
    with pytest.raises(ValueError, match="write for example"):
        parse_bytes(text)
    with pytest.raises(ValueError, match="write for example"):
        parse_seconds(text)
