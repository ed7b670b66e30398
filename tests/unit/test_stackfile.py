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


VARIABLES = """\
variables: {port: 8081, image: null, name: web}
applications:
  web:
    command: [sh, -c, "echo ${name}:${port} $${HOME} $x"]
    ports: [{host_port: "${port}", container_port: 80}]
    environment: {IMAGE: "${image}"}
"""


def test_variables_keep_their_type_where_they_stand_alone(tmp_path: Path) -> None:
    (tmp_path / "stack.yaml").write_text(VARIABLES)
    source = stackfile.read(str(tmp_path / "stack.yaml"), ["image=nginx", "port=9000"])
    web = Stack.model_validate(source.stack).applications["web"]
    assert web.command[2] == "echo web:9000 ${HOME} $x"
    assert web.ports[0].host_port == 9000 and web.environment == {"IMAGE": "nginx"}


@pytest.mark.parametrize(
    ("text", "given", "said"),
    [
        (VARIABLES, [], "--var image=VALUE"),
        (VARIABLES, ["image"], "NAME=VALUE"),
        ("variables: {a: 1}\napplications: {b: {command: ['${c}']}}", [], "no variable 'c'"),
        ("variables: [a]\napplications: {}", [], "not a map"),
    ],
)
def test_bad_variables_name_the_remedy(
    tmp_path: Path, text: str, given: list[str], said: str
) -> None:
    (tmp_path / "stack.yaml").write_text(text)
    with pytest.raises(InvalidSpecification) as caught:
        stackfile.read(str(tmp_path / "stack.yaml"), given)
    assert said in str(caught.value)


def test_a_file_without_variables_keeps_the_shells(tmp_path: Path) -> None:
    source = written(tmp_path, "applications: {a: {command: [sh, -c, 'echo ${HOME}']}}")
    assert source.stack["applications"]["a"]["command"][2] == "echo ${HOME}"


def test_included_files_bring_their_own_paths_variables_and_lines(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "db.yaml").write_text(
        "variables: {tier: db}\n"
        "networks: {inner: {subnet: 10.9.0.0/24}}\n"
        "applications:\n"
        "  db:\n"
        "    command: [redis-server]\n"
        "    labels: {tier: '${tier}'}\n"
        "    mounts: [{from: conf, path: /c}]\n"
    )
    text = "variables: {tier: store}\ninclude: parts/db.yaml\napplications: {web: {command: [x]}}\n"
    source = written(tmp_path, text)
    source.resolve_paths(schemas)
    stack = Stack.model_validate(source.stack)
    assert sorted(stack.applications) == ["db", "web"] and "inner" in stack.networks
    assert stack.applications["db"].mounts[0].source == str(tmp_path / "parts" / "conf")
    assert stack.applications["db"].labels == {"tier": "store"}
    assert source.places["/applications/db/command"].endswith("parts/db.yaml:5")
    assert source.places["/applications/web"].endswith("stack.yaml:3")


@pytest.mark.parametrize(
    ("included", "said"),
    [
        ("include: stack.yaml\napplications: {}", "includes itself"),
        ("applications: {web: {command: [y]}}", "'web' is in"),
    ],
)
def test_included_files_that_cannot_be(tmp_path: Path, included: str, said: str) -> None:
    (tmp_path / "part.yaml").write_text(included)
    with pytest.raises(InvalidSpecification) as caught:
        written(tmp_path, "include: [part.yaml]\napplications: {web: {command: [x]}}\n")
    assert said in str(caught.value)


def test_a_missing_include_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpecification, match=r"none\.yaml: No such file"):
        written(tmp_path, "include: none.yaml\n")
