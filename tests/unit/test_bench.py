"""What the benches make of their values: ratios, targets, the picture."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from tests.bench.__main__ import known
from tests.bench.harness import Figure
from tests.bench.plot import svg


@pytest.mark.parametrize(
    ("unit", "ours", "target", "met", "times", "wanted"),
    [
        ("µs", 2.0, {"at_most": 1 / 6}, False, 5.0, 6.0),
        ("requests/s", 40.0, {"at_least": 4.0}, True, 4.0, 4.0),
        ("MiB", 0.5, {"ours_at_most": 1.0}, True, 2.0, 1.0),
    ],
)
def test_targets_follow_the_unit(
    unit: str, ours: float, target: dict[str, float], met: bool, times: float, wanted: float
) -> None:
    figure = Figure.compare("one", unit, [ours, 0.0, 99.0], [10.0], "peer", **target)
    assert figure.met is met
    assert figure.times_better == pytest.approx(times, rel=1e-3)
    assert figure.times_wanted == pytest.approx(wanted)


def test_only_a_value_of_ours_that_is_missing_counts_as_missed() -> None:
    assert Figure.absent("one", "µs", "peer", "no such program").met is False
    assert Figure.absent("one", "µs", "peer", "no such program", ours=1.0).met is None


def test_picture_has_a_bar_for_each_value_and_a_stroke_for_each_target() -> None:
    figures = [
        Figure.compare("a < b", "µs", [1.0], [4.0], "kernel", at_most=1 / 6),
        Figure.compare("plain", "requests/s", [1.0], [4.0], "gVisor"),
        Figure.absent("missing", "µs", "kernel", "no such program"),
    ]
    picture = ElementTree.fromstring(svg("title", figures))
    kinds = [element.get("class") for element in picture.iter()]
    assert kinds.count("missed") == 1 and kinds.count("plain") == 1
    assert kinds.count("target") == 1


def test_single_figures_can_be_chosen() -> None:
    modules = known()
    assert modules["network.redis"] == ["network.redis"]
    assert set(modules["network"]) < set(modules)
