"""Changes of nested settings: what is merged, what differs, what is taken over."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from app.domain.places import differences, find, merge, replaced

KEYS = st.sampled_from("abc")
LEAVES = st.integers(0, 2) | st.lists(st.integers(0, 1), max_size=2)
TREES: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    KEYS, st.recursive(LEAVES, lambda below: st.dictionaries(KEYS, below, min_size=1), max_leaves=5)
)


def test_a_change_names_what_it_changes() -> None:
    before = {"ttl": 64, "keepalive": {"idle": 10, "probes": 3}, "rules": [1, 2]}
    after = merge(before, {"keepalive": {"idle": 20}, "rules": [3], "ttl": None})
    assert after == {"keepalive": {"idle": 20, "probes": 3}, "rules": [3]}
    assert before["keepalive"] == {"idle": 10, "probes": 3}
    assert list(differences(before, after)) == [("keepalive", "idle"), ("rules",), ("ttl",)]


def test_nothing_differs_from_itself() -> None:
    assert list(differences({"a": {"b": 1}}, {"a": {"b": 1}})) == []
    assert list(differences({}, {"a": {}})) == [("a",)]


@given(TREES, TREES)
def test_what_differs_is_all_that_differs(one: dict[str, Any], other: dict[str, Any]) -> None:
    differing = list(differences(one, other))
    made = replaced(one, other, differing)
    assert [place for place in differences(made, other) if find(other, place) is not None] == []
    assert all(find(one, place) != find(other, place) for place in differing)
    assert (differing == []) == (one == other)
