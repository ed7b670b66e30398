"""Containers that an agent looks at images and files with: whose they are, not how old, decides."""

from __future__ import annotations

from typing import Any

from app.runtimes.docker.engine import Engine
from app.runtimes.docker.imagefiles import reader_labels, remove_leftover_readers


class Daemon:
    """As much of Docker's client as is asked here; `labels`: of its containers, by id."""

    def __init__(self, labels: dict[str, dict[str, str]]) -> None:
        self.labels = labels

    def containers(self, *, all: bool, filters: dict[str, list[str]]) -> list[dict[str, Any]]:
        assert all and [*filters] == ["label"]
        wanted = dict(one.split("=", 1) for one in filters["label"])
        return [
            {"Id": identity, "Labels": labels, "Created": 0}
            for identity, labels in self.labels.items()
            if wanted.items() <= labels.items()
        ]

    def remove_container(self, identity: str, *, force: bool, v: bool) -> None:
        assert force and v
        del self.labels[identity]


def test_what_another_agent_left_is_removed_and_what_is_used_is_not() -> None:
    own, other = reader_labels("mine"), reader_labels("another's")
    left = {key: "of a killed agent" if key.endswith(".agent") else own[key] for key in own}
    older = {key: value for key, value in own.items() if not key.endswith(".agent")}
    daemon = Daemon({"used": own, "left": left, "older": older, "foreign": other, "none": {}})
    engine = Engine()
    engine._api = daemon
    remove_leftover_readers(engine, "mine")
    assert [*daemon.labels] == ["used", "foreign", "none"]
