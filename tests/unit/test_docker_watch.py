"""What Docker's event stream tells that no later question does."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from app.runtimes.docker.engine import Engine
from app.runtimes.docker.watch import Watch
from tests.acceptance.world import until


class Events:
    """An engine whose daemon says what the test says."""

    def __init__(self) -> None:
        self._said: queue.Queue[dict[str, str] | None] = queue.Queue()

    def say(self, action: str, container: str = "c") -> None:
        self._said.put({"Action": action, "id": container})

    def __call__(self) -> Events:
        return self

    def doing(self, _what: str) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def events(self, **_: Any) -> Events:
        return self

    def __iter__(self) -> Iterator[dict[str, str]]:
        return iter(cast(Callable[[], dict[str, str]], self._said.get), None)

    def close(self) -> None:
        self._said.put(None)


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def watch(events: Events) -> Iterator[Watch]:
    made = Watch(cast(Engine, events), "here", lambda: None)
    yield made
    made.close()


def test_an_end_over_the_memory_limit_is_known_until_the_next_start(
    events: Events, watch: Watch
) -> None:
    assert not watch.was_over_limit("c")
    events.say("die")
    events.say("oom")
    until(lambda: watch.was_over_limit("c"), 10)
    assert not watch.was_over_limit("other")
    events.say("start")
    until(lambda: not watch.was_over_limit("c"), 10)
    events.say("oom")
    until(lambda: watch.was_over_limit("c"), 10)
    events.say("destroy")
    until(lambda: not watch.was_over_limit("c"), 10)
