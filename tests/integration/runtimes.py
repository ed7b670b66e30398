"""Runtimes as tests have them: what was made with one is removed at the test's end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from app.runtimes.docker import DockerRuntime
from app.runtimes.namespace import NamespaceRuntime

Made = TypeVar("Made", NamespaceRuntime, DockerRuntime)


def removed_at_the_end(made: Made) -> Iterator[Made]:
    """For a fixture."""
    yield made
    for observed in made.observe():
        made.remove(observed.name)
    made.close()
