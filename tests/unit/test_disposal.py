"""Directories of removed applications: gone at once, deleted soon, swept after a kill."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from app.agent.local import LocalAgent
from app.runtimes import disposal, rundir
from app.runtimes.namespace import pidfd


def made(state: Path, name: str) -> Path:
    top = rundir.application_directory(state, name)
    (top / "data/deep").mkdir(parents=True)
    (top / "data/deep/file").write_text("x")
    (top / "launch.json").write_text("{}")
    return top


def test_a_removed_directory_is_gone_at_once_and_nothing_of_it_stays(tmp_path: Path) -> None:
    tops = [made(tmp_path, f"a{number}") for number in range(250)]
    for number, top in enumerate(tops):
        rundir.remove(tmp_path, f"a{number}")
        assert not top.exists()
    made(tmp_path, "a0")  # the name is free again
    disposal.finish(tmp_path)
    assert list((tmp_path / "removed").iterdir()) == []
    assert [one.name for one in (tmp_path / "apps").iterdir()] == ["a0"]
    rundir.remove(tmp_path, "never-there")


def test_where_it_cannot_be_moved_it_is_deleted_in_place(tmp_path: Path) -> None:
    top = made(tmp_path, "a")
    (tmp_path / "removed").write_text("in the way")
    rundir.remove(tmp_path, "a")
    assert not top.exists()


def test_what_a_killed_agent_left_is_swept_by_the_next(tmp_path: Path) -> None:
    made(tmp_path, "a").rename(tmp_path / "moved")
    (tmp_path / "removed").mkdir()
    (tmp_path / "moved").rename(tmp_path / "removed/a.0123")
    agent = LocalAgent(tmp_path)
    agent.observe()
    agent.close()
    assert list((tmp_path / "removed").iterdir()) == []


def test_a_signal_reaches_the_process_and_only_while_it_lives() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        fd = os.pidfd_open(process.pid)
        pidfd.send_signal(fd, 15)
        assert process.wait() == -15
        with pytest.raises(ProcessLookupError):
            pidfd.send_signal(fd, 15)
        os.close(fd)
