"""Preflight on this host's real programs, and on files made to deceive it."""

from __future__ import annotations

import io
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from app.domain.application import ApplicationSpec
from app.domain.element import Element, ElementManifest
from app.domain.errors import PreflightRefused
from app.domain.launch import BoundElement, BoundMount, Launch
from app.runtimes import elf, preflight
from app.runtimes.namespace.view import HostView

MACHINE = os.uname().machine


def element(kind: str) -> BoundElement:
    manifest = ElementManifest.model_validate(
        {
            "name": f"test-{kind}",
            "kind": kind,
            "version": "1.0.0",
            "summary": "for tests",
            "license": "Apache-2.0",
            "libraries": {f"glibc-{MACHINE}": {"preload": ["x.so"]}},
        }
    )
    return BoundElement(element=Element(manifest=manifest, directory="/none"), settings={})


def kernel_network() -> BoundElement:
    manifest = element("network").element.manifest.model_copy(
        update={"name": "test-kernel", "provided_by": "kernel", "libraries": {}}
    )
    return BoundElement(element=Element(manifest=manifest, directory="/none"), settings={})


def launch(*command: str, kinds: tuple[str, ...] = ("network",), **spec: Any) -> Launch:
    mounts = spec.pop("bound", [])
    made = ApplicationSpec.model_validate({"name": "a", "command": list(command), **spec})
    elements = [element(kind) for kind in kinds]
    return Launch(id="i", spec=made, elements=elements, network=None, mounts=mounts)


def coverage(one: Launch, hidden: tuple[str, ...] = ()) -> Any:
    program = preflight.examine(one.spec.command[0], HostView(one, list(hidden)))
    return preflight.judge(one, program)


def compiled(tmp_path: Path, *flags: str) -> Path:
    """A program of this host's compiler."""
    compiler = shutil.which("cc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler on this host")
    source = tmp_path / "main.c"
    source.write_text("int main(void) { return 0; }\n")
    subprocess.run([compiler, *flags, str(source), "-o", str(tmp_path / "program")], check=True)
    return tmp_path / "program"


def place(path: Path) -> list[BoundMount]:
    """The temporary directory, seen inside at /opt: /tmp itself is empty there."""
    return [BoundMount(source=str(path), target="/opt", read_only=True)]


def test_a_dynamic_program_is_found_in_path_and_linked() -> None:
    found = coverage(launch("sh"))
    assert (found.verdict, found.libc, found.machine) == ("private", "glibc", MACHINE)
    assert found.program.endswith("sh") or "dash" in found.program or "bash" in found.program
    assert found.interpreter.startswith("/lib") and len(found.sha256) == 64


@pytest.mark.skipif(not Path("/bin/busybox").exists(), reason="busybox-static is not installed")
def test_a_static_program_is_refused_or_put_on_the_kernel() -> None:
    refused = coverage(launch("/bin/busybox"))
    assert refused.static and refused.verdict == "refused" and "statically" in refused.reason
    with pytest.raises(PreflightRefused) as caught:
        preflight.require(refused)
    assert caught.value.pointer == "/command/0" and "fallback" in (caught.value.remedy or "")
    kernel = coverage(launch("/bin/busybox", fallback="kernel"))
    assert kernel.verdict == "kernel" and "network namespace of its own" in kernel.reason
    both = launch("/bin/busybox", kinds=("network", "filesystem"), fallback="kernel")
    assert coverage(both).verdict == "refused" and "filesystem" in coverage(both).reason
    assert coverage(launch("/bin/busybox", kinds=())).verdict == "private"


@pytest.mark.skipif(not Path("/bin/busybox").exists(), reason="busybox-static is not installed")
def test_an_element_of_the_kernel_takes_any_program() -> None:
    static = launch("/bin/busybox", kinds=())
    static = static.model_copy(update={"elements": [kernel_network()]})
    assert coverage(static).verdict == "kernel" and "test-kernel" in coverage(static).reason
    assert static.on_the_kernel().elements == static.elements
    both = static.model_copy(update={"elements": [kernel_network(), element("filesystem")]})
    assert coverage(both).verdict == "refused"
    assert coverage(launch("sh", kinds=("filesystem",))).verdict == "private"


def test_a_manifest_says_who_provides_the_element() -> None:
    body = element("network").element.manifest.model_dump(exclude={"libraries"})
    with pytest.raises(ValueError, match="needs 'libraries'"):
        ElementManifest.model_validate(body)
    assert ElementManifest.model_validate({**body, "provided_by": "kernel"}).libraries == {}
    with pytest.raises(ValueError, match="of kind network"):
        ElementManifest.model_validate({**body, "provided_by": "kernel", "kind": "clock"})


def test_static_pie_has_no_loader(tmp_path: Path) -> None:
    compiled(tmp_path, "-static-pie")
    found = coverage(launch("/opt/program", bound=place(tmp_path)))
    assert found.static and found.verdict == "refused"


@pytest.mark.skipif(
    not Path(f"/lib/ld-musl-{MACHINE}.so.1").exists(), reason="musl is not installed"
)
def test_the_wrong_libc_is_refused_naming_what_the_element_has(tmp_path: Path) -> None:
    compiled(tmp_path, f"-Wl,--dynamic-linker=/lib/ld-musl-{MACHINE}.so.1")
    found = coverage(launch("/opt/program", bound=place(tmp_path)))
    assert found.libc == "musl" and found.verdict == "refused"
    assert f"glibc-{MACHINE}" in found.reason


def test_a_missing_loader_is_named(tmp_path: Path) -> None:
    compiled(tmp_path, "-Wl,--dynamic-linker=/lib/ld-linux-nowhere.so.2")
    found = coverage(launch("/opt/program", bound=place(tmp_path)))
    assert found.verdict == "refused" and "ld-linux-nowhere" in found.reason


def test_set_id_bits_are_reported_and_harmless(tmp_path: Path) -> None:
    compiled(tmp_path).chmod(0o6755)
    found = coverage(launch("/opt/program", bound=place(tmp_path)))
    assert found.set_id and found.verdict == "private"


@pytest.mark.root
def test_file_capabilities_are_refused_with_the_command_that_removes_them(tmp_path: Path) -> None:
    program = compiled(tmp_path)
    version_2 = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)  # cap_net_raw+ep
    os.setxattr(program, "security.capability", version_2)
    found = coverage(launch("/opt/program", bound=place(tmp_path)))
    assert found.file_capabilities and found.verdict == "refused"
    assert "setcap -r /opt/program" in found.remedy


def test_scripts_are_followed_to_their_interpreter(tmp_path: Path) -> None:
    for name, line in (
        ("plain", "#!/bin/sh\n"),
        ("env", "#!/usr/bin/env sh\n"),
        ("nested", "#!/opt/plain -x\n"),
        ("broken", "#!/no/such/interpreter\n"),
        ("neither", "just text\n"),
    ):
        (tmp_path / name).write_text(line)
        (tmp_path / name).chmod(0o755)
    bound = place(tmp_path)
    for name in ("plain", "env", "nested"):
        found = coverage(launch(f"/opt/{name}", bound=bound))
        assert (found.verdict, found.program, found.libc) == ("private", f"/opt/{name}", "glibc")
    broken = coverage(launch("/opt/broken", bound=bound))
    assert broken.verdict == "refused" and "/no/such/interpreter" in broken.reason
    neither = coverage(launch("/opt/neither", bound=bound))
    assert neither.verdict == "refused" and "neither an ELF program" in neither.reason


def test_what_the_application_cannot_see_is_not_there(tmp_path: Path) -> None:
    program = compiled(tmp_path)
    assert "no such program" in coverage(launch(str(program))).reason  # /tmp is empty inside
    assert "PATH" in coverage(launch("no-such-program")).reason
    data = tmp_path / "data"
    data.write_text("x")
    found = coverage(launch("/opt/data", bound=place(tmp_path)))
    assert "not executable" in found.reason and found.remedy.startswith("chmod")
    assert coverage(launch("/usr/bin/env"), hidden=("/usr",)).verdict == "refused"


def test_links_are_followed_inside_the_applications_tree(tmp_path: Path) -> None:
    compiled(tmp_path)
    (tmp_path / "absolute").symlink_to("/opt/program")
    (tmp_path / "relative").symlink_to("../opt/./program")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "outside").symlink_to(tmp_path / "program")  # a path of the host only
    bound = place(tmp_path)
    for name in ("absolute", "relative"):
        assert coverage(launch(f"/opt/{name}", bound=bound)).program == "/opt/program"
    for name in ("loop", "outside"):
        assert coverage(launch(f"/opt/{name}", bound=bound)).verdict == "refused"


def test_a_go_note_is_seen() -> None:
    note = struct.pack("<III", 4, 4, 4) + b"Go\0\0" + b"abcd"
    header = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    program_header = struct.pack("<IIQQQQQQ", 4, 4, 120, 0, 0, len(note), len(note), 4)
    found = elf.read(io.BytesIO(header + program_header + note))
    assert found.go and found.machine == "x86_64" and found.interpreter is None


@pytest.mark.parametrize("length", [0, 3, 4, 5, 20, 63, 64, 100, 200])
def test_damaged_files_are_refused_not_crashed_on(length: int) -> None:
    whole = Path("/bin/sh").read_bytes()
    for data in (whole[:length], whole[:40] + b"\xff" * 24 + whole[64:length]):
        try:
            elf.read(io.BytesIO(data))
        except elf.NotElf:
            continue


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    program = compiled(tmp_path)
    before = preflight.read_file(str(program))
    assert preflight.read_file(str(program)) is before
    with program.open("ab") as file:
        file.write(b"x")
    assert preflight.read_file(str(program)).sha256 != before.sha256
