"""Contents that applications share: what nobody uses goes, least recently used first."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from app.runtimes import sharing

MIB = 1 << 20


def _made(state: Path, name: str, used: float, mebibytes: int = 2) -> Path:
    directory = state / "shared/default-0" / name
    (directory / "tree").mkdir(parents=True)
    (directory / "tree/f").write_bytes(os.urandom(mebibytes * MIB))
    (directory / "users").touch()
    os.utime(directory / "users", (used, used))
    return directory


def _names(state: Path) -> list[str]:
    return sorted(path.name for path in (state / "shared/default-0").iterdir())


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    for name, used in (("a", 30.0), ("b", 10.0), ("c", 20.0)):
        _made(tmp_path, name, used)
    sharing.evict(tmp_path, 7 * MIB)
    assert _names(tmp_path) == ["a", "b", "c"]
    sharing.evict(tmp_path, 5 * MIB)
    assert _names(tmp_path) == ["a", "c"]
    sharing.evict(tmp_path, 0)
    assert _names(tmp_path) == []


def test_what_a_process_uses_stays(tmp_path: Path) -> None:
    held = os.open(_made(tmp_path, "a", 1.0) / "users", os.O_RDONLY)
    _made(tmp_path, "b", 2.0)
    fcntl.flock(held, fcntl.LOCK_SH)
    assert [one.name for one in sharing.idle(tmp_path)] == ["default-0/b"]
    sharing.evict(tmp_path, 0)
    assert _names(tmp_path) == ["a"]
    assert not sharing.remove(tmp_path, "default-0/a")
    os.close(held)
    assert sharing.remove(tmp_path, "default-0/a")
    assert _names(tmp_path) == []


def test_what_the_applications_put_there_leads_nowhere(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("kept")
    directory = _made(tmp_path, "a", 1.0)
    (directory / "tree/link").symlink_to(outside)
    (directory.parent / "link").symlink_to(outside)
    (directory / "users").unlink()
    (directory / "users").symlink_to(outside / "file")
    fifo = _made(tmp_path, "b", 2.0)
    (fifo / "users").unlink()
    os.mkfifo(fifo / "users")
    sharing.evict(tmp_path, 0)
    assert (outside / "file").read_text() == "kept"


def test_without_any_there_is_nothing_to_do(tmp_path: Path) -> None:
    sharing.evict(tmp_path, 0)
    assert list(sharing.idle(tmp_path)) == []
