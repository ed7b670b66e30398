"""The catalogue: a folder is an element, settings are checked with place and remedy."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from app.catalog import resolve
from app.catalog.catalog import Catalog
from app.catalog.schema import SettingsSchema
from app.domain.application import ApplicationSpec
from app.domain.errors import InvalidSpecification, NotFound
from tests.integration.planes import write_elements

SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "level": {"type": "integer", "minimum": 1, "maximum": 9, "default": 3},
        "window": {"$ref": "#/$defs/window", "default": {}},
        "mounts": {"type": "array", "items": {"$ref": "#/$defs/mount"}, "default": []},
    },
    "$defs": {
        "window": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"size": {"type": "integer", "default": 65535}},
        },
        "mount": {
            "oneOf": [
                {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["source", "from"],
                    "properties": {
                        "source": {"const": "archive"},
                        "from": {"type": "string", "format": "host-path"},
                        "limit": {"type": "integer", "default": 100},
                    },
                },
                {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["source"],
                    "properties": {
                        "source": {"const": "union"},
                        "directories": {
                            "type": "array",
                            "items": {"type": "string", "format": "host-path"},
                        },
                    },
                },
            ]
        },
    },
}


def test_defaults_are_filled_at_every_depth() -> None:
    value = {"mounts": [{"source": "archive", "from": "/a.zip"}]}
    filled = SettingsSchema(SCHEMA).with_defaults(value)
    assert filled == {
        "level": 3,
        "window": {"size": 65535},
        "mounts": [{"source": "archive", "from": "/a.zip", "limit": 100}],
    }
    assert value == {"mounts": [{"source": "archive", "from": "/a.zip"}]}, "changed its argument"


def test_host_paths_are_found_in_every_branch() -> None:
    value = {
        "mounts": [
            {"source": "archive", "from": "/a.zip"},
            {"source": "union", "directories": ["/x", "/y"]},
        ]
    }
    assert list(SettingsSchema(SCHEMA).host_paths(value)) == [
        (("mounts", 0, "from"), "/a.zip"),
        (("mounts", 1, "directories", 0), "/x"),
        (("mounts", 1, "directories", 1), "/y"),
    ]


@pytest.mark.parametrize(
    ("value", "pointer", "remedy"),
    [
        ({"levle": 1}, "/levle", "did you mean 'level'?"),
        ({"level": 10}, "/level", "write at most 9"),
        ({"level": "3"}, "/level", "write an integer"),
        ({"window": {"size": 1.5}}, "/window/size", "write an integer"),
        ({"mounts": [{"source": "archive"}]}, "/mounts/0/from", "add it"),
        (
            {"mounts": [{"source": "archive", "form": "/a", "from": "/b"}]},
            "/mounts/0/form",
            "did you mean 'from'?",
        ),
        (
            {"mounts": [{"source": "union", "directories": [1]}]},
            "/mounts/0/directories/0",
            "write a string",
        ),
    ],
)
def test_faults_have_place_and_remedy(value: dict[str, Any], pointer: str, remedy: str) -> None:
    errors = SettingsSchema(SCHEMA).check(value)
    assert (pointer, remedy) in [(error.pointer, error.remedy) for error in errors]


def test_a_new_folder_is_a_new_element(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    assert catalog.elements() == []
    with pytest.raises(NotFound, match="make native"):
        catalog.entry("net-a")
    write_elements(tmp_path)
    assert [element.manifest.name for element in catalog.elements()] == ["files", "net-a", "net-b"]
    with pytest.raises(NotFound, match="did you mean 'files'"):
        catalog.entry("filse")
    (tmp_path / "net-b" / "element.json").unlink()
    assert [element.manifest.name for element in catalog.elements()] == ["files", "net-a"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "other"}, "the manifest says 'other'"),
        ({"kind": "magic"}, "/kind"),
        ({"settings": {"type": "objekt"}}, "/settings"),
        ({"colour": "red"}, "/colour"),
    ],
)
def test_a_broken_manifest_is_told_and_harms_no_other(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    write_elements(tmp_path)
    path = tmp_path / "net-a" / "element.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    catalog = Catalog(tmp_path)
    assert said in catalog.faults()["net-a"]
    assert [element.manifest.name for element in catalog.elements()] == ["files", "net-b"]
    with pytest.raises(InvalidSpecification, match="broken"):
        catalog.entry("net-a")
    path.write_text("{")
    os.utime(path, (1, 1))
    assert "net-a" in catalog.faults()


def test_a_launch_has_nothing_left_to_look_up(tmp_path: Path) -> None:
    (tmp_path / "site.zip").write_text("")
    write_elements(tmp_path / "elements")
    catalog = Catalog(tmp_path / "elements")
    mounts = [{"path": "/srv", "from": str(tmp_path / "site.zip")}]
    spec = ApplicationSpec.model_validate(
        {
            "name": "a",
            "command": ["nginx"],
            "elements": {"net-a": None, "files": {"settings": {"mounts": mounts}}},
            "mounts": [{"path": "/data", "volume": "v", "read_only": False}],
        }
    )
    assert resolve.check(spec, catalog) == []
    launch = resolve.launch("id-1", spec, catalog, None, {"v": "/var/lib/cse/volumes/v"})
    assert [bound.element.manifest.name for bound in launch.elements] == ["net-a", "files"]
    assert launch.elements[0].settings == {"mss": 1460, "ttl": 64, "congestion": "cubic"}
    assert launch.elements[1].settings["mounts"][0]["depth"] == 3
    assert launch.mounts[0].source == "/var/lib/cse/volumes/v"


ARCHIVES: dict[str, Any] = json.loads(Path("images/filesystem/element.json").read_text())[
    "settings"
]


def _archive(path: str, inside: str) -> dict[str, Any]:
    return {"path": path, "source": "archive", "inside": inside}


@pytest.mark.parametrize(
    ("mounts", "wrong"),
    [
        ([_archive("/a", "/b/x.zip"), _archive("/b", "/a/y.zip")], [0, 1]),
        ([_archive("/a", "/a/x.zip")], [0]),
        ([_archive("/a", "/b/../a/x.zip")], [0]),
        ([_archive("/a", "/b/x"), _archive("/b", "/c/x"), _archive("/c", "/a//x")], [0, 1, 2]),
        ([_archive("/a", "/b/x"), _archive("/b", "/c/x"), _archive("/c", "/etc/x")], []),
        ([_archive("/a", "/ab/x"), _archive("/ab", "/abc/x")], []),
        ([_archive("/a", "/a/b/x"), _archive("/a/b", "/c/x")], []),
    ],
)
def test_archives_inside_each_other_are_refused(
    mounts: list[dict[str, Any]], wrong: list[int]
) -> None:
    errors = SettingsSchema(ARCHIVES).check({"mounts": mounts}, "/settings")
    assert [error.pointer for error in errors] == [f"/settings/mounts/{i}/inside" for i in wrong]
    assert all(error.remedy for error in errors)


@pytest.mark.parametrize("source", ["cow", "encrypted"])
@pytest.mark.parametrize("sync", [{}, {"sync": "always"}, {"sync": "batch"}])
def test_a_batch_without_batches_is_refused(source: str, sync: dict[str, str]) -> None:
    kind = {"cow": {"from": "/srv"}, "encrypted": {"store": "/s", "key_file": "/k"}}[source]
    mount = {"path": "/a", "source": source, **kind, "batch_ms": 50, **sync}
    errors = SettingsSchema(ARCHIVES).check({"mounts": [mount]}, "/settings")
    if sync == {"sync": "batch"}:
        assert errors == []
        return
    (error,) = errors
    assert error.pointer == "/settings/mounts/0/batch_ms"
    assert error.detail == "'batch_ms' has no effect without sync: batch"
    assert error.remedy == "leave it out, or write sync: batch"


def test_layers_inside_their_own_mount_are_refused() -> None:
    layers = [{"source": "archive", "inside": "/a/x.zip"}, {"from": "/srv"}]
    mounts = [{"path": "/a", "source": "union", "layers": layers}]
    (error,) = SettingsSchema(ARCHIVES).check({"mounts": mounts})
    assert error.pointer == "/mounts/0/layers/0/inside"
    assert error.detail == "/a/x.zip lies in this mount itself"


def test_the_manifests_of_this_project_are_sound() -> None:
    images = Path(__file__).resolve().parents[2] / "images"
    catalog = Catalog(images)
    assert catalog.faults() == {}
    for element in catalog.elements():
        schema = SettingsSchema(element.manifest.settings)
        filled = schema.with_defaults({})
        missing = {f"/{name}" for name in element.manifest.settings.get("required", [])}
        faults = {error.pointer for error in schema.check(filled)}
        assert faults <= missing, element.manifest.name
        known = set(element.manifest.settings.get("properties", {}))
        for text in element.manifest.environment.values():
            names = {part.split("}")[0] for part in text.split("{")[1:]}
            assert names <= known, f"{element.manifest.name}: {names - known}"
