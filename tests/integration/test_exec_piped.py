"""`cse exec -t` with a pipe for a keyboard: whoever reads finds its end, whatever state the
terminal was in when it came."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.world import World, control_plane

CSE = str(Path(sys.executable).with_name("cse"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with control_plane(tmp_path_factory.mktemp("state")) as api:
        made = World(api, "namespace")
        made.run("a", ["sleep", "9999"])
        yield made
        made.remove_all()


def piped(world: World, text: str, *command: str) -> tuple[int, str]:
    done = subprocess.run(
        [CSE, "exec", "-t", "a", "--", *command],
        input=text.encode(),
        stdout=subprocess.PIPE,
        env={**os.environ, "CSE_API": str(world.api.base_url)},
        timeout=40,
    )
    return done.returncode, done.stdout.decode(errors="replace")


@pytest.mark.root
@pytest.mark.native
@pytest.mark.parametrize(
    ("text", "command", "shown"),
    [
        # The end comes while the shell waits for a program, in the terminal's other mode.
        ("sleep 1\necho do''ne\n", ("bash", "--norc", "-i"), "done"),
        ("bash --norc -i\necho in''ner\nsleep 1\n", ("bash", "--norc", "-i"), "inner"),
        # Ctrl-D after half a line only ends that.
        ("half a line", ("cat",), "half a line"),
        ("", ("sh", "-c", "cat; cat; echo both"), "both"),
        ("whole\n", ("sh", "-c", "read x; sleep 1; cat; echo got $x"), "got whole"),
    ],
)
def test_a_pipe_ends(world: World, text: str, command: tuple[str, ...], shown: str) -> None:
    status, output = piped(world, text, *command)
    assert shown in output and status == 0, output
