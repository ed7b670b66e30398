"""Settings with a unit as people write them: `size: 16M`, `delayed_ack: 40ms`.

An element's schema says a number and its `unit`, and its library reads that number. What a user
writes as text with a unit becomes that number before anything is checked or stored, as sizes and
durations elsewhere in a specification do. Called by `schema.py`.
"""

from __future__ import annotations

import re
from typing import Any

from app.domain.quantities import parse_bytes, parse_seconds

_BYTES = ("byte", "bytes")
_PER_SECOND = {"us": 1e6, "ms": 1e3, "s": 1, "seconds": 1}
_WITH_UNIT = re.compile(r".*[a-zA-Z]\s*")


def number(schema: dict[str, Any], value: Any) -> Any:
    """The value in the schema's unit; as it is where it is no quantity, or not a whole one."""
    unit, kind = schema.get("unit"), schema.get("type")
    if not isinstance(value, str) or kind not in ("integer", "number"):
        return value
    try:
        if unit in _BYTES:
            return parse_bytes(value)
        if unit in _PER_SECOND and _WITH_UNIT.fullmatch(value):
            amount = float(str(parse_seconds(value))) * _PER_SECOND[unit]
            whole = round(amount)
            if abs(amount - whole) < 1e-6:
                return whole
            return amount if kind == "number" else value
    except ValueError:
        pass
    return value


def example(schema: dict[str, Any]) -> str | None:
    """How such a setting may be written, for an error."""
    unit = schema.get("unit")
    if unit in _BYTES:
        return f"write a number of {_BYTES[1]}, or for example 16M"
    if unit in _PER_SECOND:
        return f"write a number of {unit}, or for example 20ms" if unit != "seconds" else None
    return None
