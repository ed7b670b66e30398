"""Backup while a server runs; restore while none does, to the state of the backup."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.agent.fake import FakeAgent
from app.domain.errors import Conflict, InvalidSpecification
from app.store import backup
from tests.integration.planes import Plane, until


def test_what_was_there_at_the_backup_is_there_again(tmp_path: Path) -> None:
    agent, saved = FakeAgent(), tmp_path / "saved.sqlite"
    first = Plane(tmp_path, agent)
    url = first.plane.settings.database_url
    first.create("kept")
    before = first.http.get("/v1/applications/kept").json()
    backup.save(url, saved)
    assert saved.stat().st_mode & 0o777 == 0o600
    first.create("later")
    first.http.delete("/v1/applications/kept")
    with pytest.raises(Conflict, match="a server uses"):
        backup.put_back(url, saved)
    assert first.names() == ["later"]
    first.stop()

    backup.put_back(url, saved)
    second = Plane(tmp_path, agent)
    until(lambda: second.plane.reconciler.view.synced)
    second.until_state("kept", "running")
    assert second.names() == ["kept"]
    after = second.http.get("/v1/applications/kept").json()
    assert (after["id"], after["spec"]) == (before["id"], before["spec"])
    until(lambda: [one.name for one in agent.observe()] == ["kept"])  # nobody asks for the other
    second.stop()


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + b"x" * 4096])
def test_what_is_no_backup_is_refused_and_changes_nothing(tmp_path: Path, content: bytes) -> None:
    plane = Plane(tmp_path, FakeAgent())
    plane.create("a")
    url = plane.plane.settings.database_url
    plane.stop()
    bad = tmp_path / "bad"
    bad.write_bytes(content)
    with pytest.raises(InvalidSpecification):
        backup.put_back(url, bad)
    again = Plane(tmp_path, FakeAgent())
    assert again.names() == ["a"]
    again.stop()


def test_another_database_is_refused_with_the_remedy() -> None:
    with pytest.raises(InvalidSpecification, match="not SQLite") as caught:
        backup.save("postgresql://host/name", Path("x"))
    assert "pg_dump" in str(caught.value.remedy)
