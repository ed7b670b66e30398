"""Every bound of every element's settings is kept: one step outside is an error of that field."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.catalog.schema import SettingsSchema

IMAGES = Path(__file__).resolve().parents[2] / "images"
Schema = dict[str, Any]


def bounds(schema: Schema, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], int]]:
    """(setting, value just outside) below objects."""
    for name, part in schema.get("properties", {}).items():
        place = (*path, name)
        if "minimum" in part:
            yield place, part["minimum"] - 1
        if "maximum" in part:
            yield place, part["maximum"] + 1
        if part.get("type") == "object":
            yield from bounds(part, place)


def cases() -> Iterator[Any]:
    for manifest in sorted(IMAGES.glob("*/element.json")):
        schema = json.loads(manifest.read_text()).get("settings", {})
        for place, value in bounds(schema):
            name = f"{manifest.parent.name}.{'.'.join(place)}={value}"
            yield pytest.param(schema, place, value, id=name)


@pytest.mark.parametrize(("schema", "place", "value"), list(cases()))
def test_one_step_outside_is_that_fields_error(
    schema: Schema, place: tuple[str, ...], value: int
) -> None:
    given: Any = value
    for name in reversed(place):
        given = {name: given}
    (error,) = SettingsSchema(schema).check(given)
    assert error.pointer == "/" + "/".join(place)
    assert str(value) in error.detail


def test_there_are_bounds() -> None:
    assert len(list(cases())) >= 20
