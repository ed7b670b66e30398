"""Settings written as `16M` or `40ms` become numbers in the unit of their schema."""

from __future__ import annotations

from typing import Any

import pytest

from app.catalog.schema import SettingsSchema

SCHEMA = SettingsSchema(
    {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "buffer": {"$ref": "#/$defs/buffer"},
            "wait": {"type": "integer", "unit": "ms", "minimum": 5},
            "limit": {"type": "number", "unit": "seconds"},
            "count": {"type": "integer"},
            "mounts": {
                "type": "array",
                "items": {
                    "oneOf": [
                        {
                            "type": "object",
                            "properties": {
                                "source": {"const": "memory"},
                                "size": {"type": "integer", "unit": "bytes"},
                            },
                        },
                        {
                            "type": "object",
                            "properties": {
                                "source": {"const": "named"},
                                "size": {"type": "string"},
                            },
                        },
                    ]
                },
            },
        },
        "$defs": {"buffer": {"type": "integer", "unit": "byte", "maximum": 16777216}},
    }
)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ({"buffer": "4M"}, {"buffer": 4194304}),
        ({"buffer": 4096, "count": 3}, {"buffer": 4096, "count": 3}),
        ({"wait": "40ms"}, {"wait": 40}),
        ({"wait": "0.2s"}, {"wait": 200}),
        ({"limit": "1.5s"}, {"limit": 1.5}),
        ({"mounts": [{"source": "memory", "size": "16M"}]}, None),
        (
            {"mounts": [{"source": "named", "size": "16M"}]},
            {"mounts": [{"source": "named", "size": "16M"}]},
        ),
        # No quantity, no unit, not a whole number of the unit: said by the check.
        ({"count": "3k"}, {"count": "3k"}),
        ({"wait": "40"}, {"wait": "40"}),
        ({"wait": "0.5ms"}, {"wait": "0.5ms"}),
        ({"buffer": "much"}, {"buffer": "much"}),
    ],
    ids=str,
)
def test_in_numbers(written: dict[str, Any], meant: dict[str, Any] | None) -> None:
    meant = meant or {"mounts": [{"source": "memory", "size": 16777216}]}
    before = repr(written)
    assert SCHEMA.in_numbers(written) == meant
    assert repr(written) == before


def test_bounds_are_of_the_number() -> None:
    errors = SCHEMA.check(SCHEMA.in_numbers({"buffer": "1G", "wait": "1ms"}))
    assert [(error.pointer, error.remedy) for error in errors] == [
        ("/buffer", "write at most 16777216"),
        ("/wait", "write at least 5"),
    ]


def test_what_is_no_quantity_is_told_how() -> None:
    errors = SCHEMA.check(SCHEMA.in_numbers({"buffer": "much", "wait": "soon"}))
    assert [error.remedy for error in errors] == [
        "write a number of bytes, or for example 16M",
        "write a number of ms, or for example 20ms",
    ]
