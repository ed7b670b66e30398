"""The run directory: settings files, host paths, environment; all on a real directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.domain.application import ApplicationSpec
from app.domain.element import Element, ElementManifest
from app.domain.errors import HostLacks, InvalidSpecification
from app.domain.launch import BoundElement, Launch
from app.domain.network import NetworkBinding, NetworkSpec, mac_for
from app.runtimes import conf, rundir

TARGET = "glibc-x86_64"


def element(tmp_path: Path, name: str, kind: str, **more: Any) -> Element:
    """An element on disk whose library is an empty file: `build` only looks whether it is there."""
    home = tmp_path / "elements" / name
    (home / "lib" / TARGET).mkdir(parents=True)
    (home / "lib" / TARGET / f"lib{name}.so").touch()
    manifest = ElementManifest.model_validate(
        {
            "name": name,
            "kind": kind,
            "version": "1.0.0",
            "summary": "for tests",
            "license": "Apache-2.0",
            "libraries": {TARGET: {"preload": [f"lib{name}.so"]}},
            **more,
        }
    )
    return Element(manifest=manifest, directory=str(home))


def launch(bound: list[BoundElement], network: NetworkBinding | None = None) -> Launch:
    spec = ApplicationSpec(name="web-a", command=["/bin/true"])
    return Launch(id="id-1", spec=spec, elements=bound, network=network, mounts=[])


def test_nested_settings_become_lines_and_bytes_that_break_lines_are_escaped() -> None:
    values = conf.flatten(
        {"mounts": [{"path": "/srv", "sources": ["a", "b"]}], "on": True, "off": None, "n": 3}
    )
    assert values == {
        "mounts.0.path": "/srv",
        "mounts.0.sources.0": "a",
        "mounts.0.sources.1": "b",
        "on": "true",
        "n": "3",
    }
    assert conf.to_lines({"k": "100%\nx\0"}) == "k=100%25%0Ax%00\n"


def test_network_conf_holds_the_binding_and_files_are_bound(tmp_path: Path) -> None:
    archive = tmp_path / "site.tar.gz"
    archive.write_bytes(b"x")
    schema = {
        "type": "object",
        "properties": {
            "mounts": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "path": {"type": "string"},
                        "source": {"anyOf": [{"$ref": "#/$defs/input"}, {"type": "null"}]},
                    },
                },
            }
        },
        "$defs": {"input": {"type": "string", "format": "host-path"}},
    }
    net = BoundElement(element=element(tmp_path, "net", "network"), settings={"ttl": 64})
    files = BoundElement(
        element=element(
            tmp_path, "fs", "filesystem", settings=schema, environment={"FS": "{mounts.0.path}"}
        ),
        settings={"mounts": [{"path": "/srv", "source": str(archive)}]},
    )
    network = NetworkSpec.model_validate(
        {"name": "n1", "subnet": "10.9.0.0/24", "subnet6": "fd00:9::/64", "dns": ["9.9.9.9"]}
    )
    address = network.subnet[5]
    binding = NetworkBinding(network=network, address=address, mac=mac_for(address))

    made = rundir.build(tmp_path / "state", launch([net, files], binding), TARGET)

    text = (made.path / "run" / "network.conf").read_text()
    assert text == (
        "ttl=64\nname=web-a\naddress=10.9.0.5\nprefix=24\ngateway=10.9.0.1\n"
        "address6=fd00:9::5\nprefix6=64\ngateway6=fd00:9::1\n"
        "mac=02:c5:0a:09:00:05\nmtu=65520\nnetwork_mtu=65520\ndns.0=9.9.9.9\n"
    )
    assert "mounts.0.source=/run/cse/files/0\n" in (made.path / "run/filesystem.conf").read_text()
    assert rundir.Bind(str(archive), "/run/cse/files/0", True) in made.binds
    assert made.environment == {
        "FS": "/srv",
        "LD_PRELOAD": "/run/cse/lib/net/libnet.so:/run/cse/lib/fs/libfs.so",
    }
    for bind in made.binds[1:]:  # each mount point is there: /run/cse itself is read-only
        assert (made.path / "run" / Path(bind.target).relative_to("/run/cse")).exists()


def test_variable_without_its_setting_is_not_set(tmp_path: Path) -> None:
    clock = element(tmp_path, "clock", "clock", environment={"FAKETIME": "{offset}", "ALWAYS": "1"})
    state = tmp_path / "state"
    bare = rundir.build(state, launch([BoundElement(element=clock, settings={})]), TARGET)
    assert "FAKETIME" not in bare.environment and bare.environment["ALWAYS"] == "1"
    bound = BoundElement(element=clock, settings={"offset": "-30d"})
    assert rundir.build(state, launch([bound]), TARGET).environment["FAKETIME"] == "-30d"


def test_missing_library_and_missing_path_name_what_to_do(tmp_path: Path) -> None:
    clock = BoundElement(element=element(tmp_path, "clock", "clock"), settings={})
    with pytest.raises(HostLacks, match="no libraries for musl-x86_64"):
        rundir.build(tmp_path / "state", launch([clock]), "musl-x86_64")
    with pytest.raises(HostLacks, match="make native"):
        debug = clock.model_copy(update={"variant": "debug"})
        rundir.build(tmp_path / "state", launch([debug]), TARGET)
    schema = {"properties": {"archive": {"type": "string", "format": "host-path"}}}
    fs = element(tmp_path, "fs", "filesystem", settings=schema)
    with pytest.raises(InvalidSpecification) as caught:
        missing = BoundElement(element=fs, settings={"archive": "/no/such.zip"})
        rundir.build(tmp_path / "state", launch([missing]), TARGET)
    assert caught.value.pointer == "/elements/fs/settings/archive"


def test_only_sealed_applications_exist(tmp_path: Path) -> None:
    one = launch([])
    made = rundir.build(tmp_path, one, TARGET)
    assert list(rundir.sealed(tmp_path)) == []
    rundir.seal(made.path, one)
    assert list(rundir.sealed(tmp_path)) == [one]
    rundir.remove(tmp_path, "web-a")
    assert not made.path.exists() and list(rundir.sealed(tmp_path)) == []
