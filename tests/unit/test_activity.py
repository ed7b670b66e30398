"""What an instance is busy with is shown while it lasts, and no longer."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from app.domain.observed import Report
from app.reconcile import view as module
from app.reconcile.view import View


def told(text: str) -> str | None:
    return Report(
        number=1, time=datetime.now(UTC), application="a", application_id="i", pid=1, text=text
    ).activity


def test_the_words_of_the_library() -> None:
    busy = "/srv: its archive is being indexed: 10 % of 471.4 MB"
    assert told(busy) == busy
    assert told("/srv: its archive is indexed: 60301 entries, in 9.4 s") == ""
    assert told("/srv: is damaged") is None


def test_an_activity_ends_when_it_is_told_or_grows_old(monkeypatch: pytest.MonkeyPatch) -> None:
    view = View()
    view.doing("a", "indexing")
    assert view.status("a").activity == "indexing"
    view.doing("a", "")
    assert view.status("a").activity is None
    view.doing("a", "indexing")
    monkeypatch.setattr(module, "_ACTIVITY_S", -1.0)
    assert view.status("a").activity is None
