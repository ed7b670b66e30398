"""Label selectors, requirement by requirement."""

from __future__ import annotations

import pytest

from app.domain import selector
from app.domain.errors import InvalidSpecification

LABELS = {"tier": "web", "env": "prod", "cse.stack": "s", "empty": ""}


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("tier", True),
        ("!tier", False),
        ("owner", False),
        ("!owner", True),
        ("tier=web", True),
        ("tier==web", True),
        ("tier = db", False),
        ("tier!=db", True),
        ("owner!=x", True),
        ("empty=", True),
        ("tier in (db, web)", True),
        ("tier in (db)", False),
        ("tier notin (db,x)", True),
        ("owner in (x)", False),
        ("tier=web,env=prod", True),
        ("tier in (a,web),env=test", False),
        ("cse.stack=s", True),
    ],
)
def test_selectors(text: str, fits: bool) -> None:
    assert selector.parse([text])(LABELS) is fits


def test_several_have_to_fit_all() -> None:
    assert selector.parse(["tier=web", "env=prod"])(LABELS)
    assert not selector.parse(["tier=web", "env=test"])(LABELS)
    assert selector.parse(None)({})


@pytest.mark.parametrize("text", ["", "a=b=c", "=x", "a in b", "a in (b", "-a", "a,,b", "!a=b"])
def test_what_is_none_names_the_remedy(text: str) -> None:
    with pytest.raises(InvalidSpecification, match="no label selector") as caught:
        selector.parse([text])
    assert "KEY=VALUE" in str(caught.value.remedy)
