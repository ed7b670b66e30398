"""What was read of a program is kept only while every file that it followed from is the same."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from app.runtimes import preflight
from app.runtimes.namespace.examined import Examined
from app.runtimes.namespace.view import HostView
from tests.unit.test_preflight import compiled, launch


def replace_by_script(place: Path) -> None:
    (place / "bin/program").unlink()
    (place / "bin/program").write_text("#!/bin/sh\n")
    (place / "bin/program").chmod(0o755)


def overwrite(place: Path) -> None:
    with (place / "bin/program").open("r+b") as file:
        file.write(b"#!/bin/sh\n")


def take_the_permission(place: Path) -> None:
    (place / "bin/program").chmod(0o644)


def remove(place: Path) -> None:
    (place / "bin/program").unlink()


def earlier_in_path(place: Path) -> None:
    shutil.copy("/bin/sleep", place / "first/program")


def turn_the_link(place: Path) -> None:
    (place / "link").unlink()
    (place / "link").symlink_to("first")


CHANGES = [
    replace_by_script,
    overwrite,
    take_the_permission,
    remove,
    earlier_in_path,
    turn_the_link,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_every_change_is_noticed(change: Callable[[Path], None], tmp_path: Path) -> None:
    place = tmp_path / "seen"
    for folder in ("first", "bin"):
        (place / folder).mkdir(parents=True)
    shutil.copy(compiled(tmp_path), place / "bin/program")
    (place / "link").symlink_to("bin")
    path = "/srv/first:/srv/link"
    mount = {"source": str(place), "target": "/srv", "read_only": True}
    one = launch("program", environment={"PATH": path}, bound=[mount])
    examined = Examined()

    def afresh() -> preflight.Program:
        return preflight.examine("program", HostView(one, []), path=path)

    before = examined.examine(one, [])
    assert before == afresh() and not before.problem
    assert examined.examine(one, []) is before
    change(place)
    assert examined.examine(one, []) == afresh() != before


def test_other_mounts_are_another_question(tmp_path: Path) -> None:
    shutil.copy(compiled(tmp_path), tmp_path / "other")
    mount = {"source": str(tmp_path), "target": "/srv", "read_only": True}
    examined = Examined()
    bare = launch("/srv/other")
    mounted = bare.model_copy(update={"mounts": launch("x", bound=[mount]).mounts})
    assert examined.examine(bare, []).problem
    assert not examined.examine(mounted, []).problem
    assert examined.examine(bare, []).problem
