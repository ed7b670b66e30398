"""What limits this host is named, and where there is little room, so is the remedy."""

from __future__ import annotations

from app.agent import limits


def test_each_limit_of_this_host_is_shown_with_its_room() -> None:
    found = {one.check: one for one in limits.examine()}
    wanted = {"bridge ports", "processes", "descriptors", "inotify", "memory"}
    assert {f"room: {name}" for name in wanted} <= set(found)
    assert all(one.observation.startswith("about ") for one in found.values())
    assert found["room: bridge ports"].observation.startswith("about 1,022 applications")


def test_where_there_is_little_room_the_remedy_is_told() -> None:
    limit = limits._Limit("processes", 4000, "4,000 tasks, 5 for each", 5, "sysctl kernel.pid_max")
    found = limits._finding(limit)
    assert (found.ok, found.remedy) == (False, "sysctl kernel.pid_max")
    assert "about 800 applications" in found.observation
    assert limits._finding(limits._Limit("processes", 5000, "", 5, "x")).remedy == ""
