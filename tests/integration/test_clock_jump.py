"""The wall clock is set, forwards and backwards: faults last as long as was asked for, whether or
not a control plane ran at that moment, what runs is not disturbed, and what a request was answered
is known for a day."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.agent import file_faults
from app.agent.fake import FakeAgent
from app.domain.fault import FaultOrder, FaultSpec
from app.reconcile.clock import Clock
from tests.integration.planes import Plane, until
from tests.integration.test_api_faults import NET, add, held

HOUR = 3600.0


class SetClock(Clock):
    """This host's, `ahead` seconds before it, after `passed` seconds more."""

    def __init__(self, ahead: float = 0.0, boot: str = "one") -> None:
        self.ahead, self.passed, self._boot = ahead, 0.0, boot
        self._changed: list[Callable[[], None]] = []

    def offset(self) -> float:
        return super().offset() + self.ahead

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self.ahead + self.passed)

    def boot(self) -> str:
        return self._boot

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        self._changed.append(changed)
        return lambda: None

    def jump(self, seconds: float) -> None:
        self.ahead += seconds
        for changed in self._changed:
            changed()


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def plane(tmp_path: Path, clock: SetClock) -> Iterator[Plane]:
    made = Plane(tmp_path, FakeAgent(), clock)
    yield made
    made.stop()


@pytest.mark.parametrize("seconds", [HOUR, -HOUR])
def test_a_fault_lasts_as_long_as_was_asked_for(
    plane: Plane, clock: SetClock, seconds: float
) -> None:
    before = plane.create("web", **NET)["status"]
    stays = add(plane, "web", loss=1)
    began = time.monotonic()
    made = add(plane, "web", delay="5ms", **{"for": "3s"})
    ends = plane.agent.faults["web"][1].ends
    assert ends is not None
    clock.jump(seconds)
    moved = ends + timedelta(seconds=seconds)

    def told() -> bool:
        now = plane.agent.faults["web"][1].ends
        return now is not None and abs(now - moved) < timedelta(seconds=0.2)

    until(told)  # who compares with the clock ends it at the right moment
    until(lambda: "fault-ended" in plane.events(), 60)
    assert 2.9 < time.monotonic() - began < 60  # and not an hour
    assert made["id"] not in plane.http.get("/v1/applications/web/faults").text
    assert stays["id"] in held(plane, "web")
    after = plane.status("web")
    assert (after["pid"], after["restarts"]) == (before["pid"], before["restarts"])
    assert not {"exited", "lost", "failed"} & {*plane.events()}


@pytest.mark.parametrize(("boot", "moves"), [("one", True), ("another", False)])
def test_the_clock_is_set_while_no_control_plane_runs(
    tmp_path: Path, boot: str, moves: bool
) -> None:
    agent = FakeAgent()
    first = Plane(tmp_path, agent, SetClock())
    first.create("web", **NET)
    made = add(first, "web", delay="5ms", **{"for": "600s"})
    first.stop()
    second = Plane(tmp_path, agent, SetClock(HOUR, boot))
    try:
        if moves:
            until(lambda: (ends := agent.faults["web"][0].ends) and ends > now_plus(HOUR))
            assert made["id"] in second.http.get("/v1/applications/web/faults").text
        else:  # after another boot the clock is all there is to go by
            until(lambda: "fault-ended" in second.events())
    finally:
        second.stop()


def _asks(plane: Plane, key: str) -> bool:
    """A request with an Idempotency-Key; whether its answer was known."""
    body = {"name": f"net-{key}", "subnet": f"10.77.{key}.0/24"}
    answer = plane.http.post("/v1/networks", json=body, headers={"Idempotency-Key": key})
    return "idempotency-replayed" in answer.headers


@pytest.mark.parametrize("seconds", [48 * HOUR, -48 * HOUR])
def test_an_answer_is_known_for_a_day_however_the_clock_is_set(
    plane: Plane, clock: SetClock, seconds: float
) -> None:
    assert not _asks(plane, "1")
    clock.jump(seconds)
    assert not _asks(plane, "2")  # the old ones are forgotten now
    assert _asks(plane, "1")
    clock.passed = 23.9 * HOUR
    assert not _asks(plane, "3")
    assert _asks(plane, "1") and _asks(plane, "2")
    clock.passed = 24.1 * HOUR
    assert not _asks(plane, "4")
    assert _asks(plane, "3")
    assert not _asks(plane, "1") and not _asks(plane, "2")


@pytest.mark.parametrize(("boot", "known"), [("one", True), ("another", False)])
def test_answers_when_the_clock_is_set_while_no_control_plane_runs(
    tmp_path: Path, boot: str, known: bool
) -> None:
    agent = FakeAgent()
    for clock, key in ((SetClock(), "1"), (SetClock(48 * HOUR, boot), "2")):
        made = Plane(tmp_path, agent, clock)
        assert not _asks(made, key)
        if key == "2":
            assert _asks(made, "1") is known
        made.stop()


def now_plus(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


@pytest.mark.root
def test_the_kernel_tells_that_the_clock_was_set() -> None:
    told = threading.Event()
    end = Clock().watch(told.set)
    try:
        assert not told.wait(0.2)
        for _ in range(2):  # by nothing, as far as it can be
            try:
                time.clock_settime_ns(time.CLOCK_REALTIME, time.time_ns())
            except PermissionError:
                pytest.skip("this host's clock may not be set")
            assert told.wait(5)
            told.clear()
    finally:
        end()
    assert "clock" not in [thread.name for thread in threading.enumerate()]


def test_the_end_of_a_fault_of_files_is_told_anew(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    spec = FaultSpec.model_validate({"file": {"path": "/x", "errno": "EIO"}})
    ends = datetime.now(UTC) + timedelta(seconds=60)
    for moved in (ends, ends + timedelta(seconds=HOUR)):
        order = FaultOrder(id="f", spec=spec, seed=1, ends=moved)
        file_faults.hold(tmp_path, [order])
        content = (tmp_path / "run/filesystem.faults").read_bytes()
        row = content[64:]  # struct fs_fault of images/filesystem/faults.h, until_ms at 56
        assert int.from_bytes(row[56:64], "little") == round(moved.timestamp() * 1000)
        assert row[64:66] == b"/x" and int.from_bytes(row[:8], "little") > 1
