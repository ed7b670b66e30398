"""What is said of bad input: the field, what is wrong with it, what to do."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from app.domain.explain import explain
from app.domain.stack import Stack

SLEEP = {"command": ["sleep", "9"]}


@pytest.mark.parametrize(
    ("application", "pointer", "detail", "remedy"),
    [
        # Our own validators say what to do themselves.
        (
            {**SLEEP, "replicas": 2, "ports": ["80:80"]},
            "",
            "'a': copies cannot publish the same port",
            "remove 'ports'",
        ),
        (
            {**SLEEP, "ports": ["http"]},
            "/applications/a/ports/0",
            "'http' is not a published port",
            "write HOST:PORT, as in 8081:80",
        ),
        # What a whole object is for is no remedy for what is wrong in it.
        (
            {**SLEEP, "mounts": [{"path": "/a"}]},
            "/applications/a/mounts/0",
            "give exactly one of 'from' (a path of the host) and 'volume'",
            None,
        ),
        (SLEEP | {"comand": []}, "/applications/a/comand", "'comand' is not a field here", "…"),
    ],
    ids=["copies", "port", "mount", "unknown field"],
)
def test_field_errors(
    application: dict[str, Any], pointer: str, detail: str, remedy: str | None
) -> None:
    with pytest.raises(ValidationError) as caught:
        Stack.model_validate({"applications": {"a": application}})
    errors = explain(caught.value.errors(), Stack)
    assert [(error.pointer, error.detail) for error in errors] == [(pointer, detail)]
    if remedy == "…":
        assert "'command'" in str(errors[0].remedy)
    else:
        assert errors[0].remedy == remedy
