"""Sizes and durations as people write them (`256M`, `1.5s`), held as bytes and seconds."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, Field

_BYTE_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_SECOND_UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_bytes(text: object) -> object:
    """`"256M"` → 268435456. Units are powers of 1024 (k, M, G, T, an ending B or iB allowed)."""
    if not isinstance(text, str):
        return text
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\s*", text.lower())
    if not match:
        raise ValueError(f"'{text}' is not a size; write for example 256M or 1G")
    return int(float(match[1]) * _BYTE_UNITS[match[2]])


def parse_seconds(text: object) -> object:
    """`"1.5s"` → 1.5. Units: ms, s (the default), m, h, d."""
    if not isinstance(text, str):
        return text
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)\s*", text.lower())
    if not match:
        raise ValueError(f"'{text}' is not a duration; write for example 500ms, 10s or 2m")
    return float(match[1]) * _SECOND_UNITS[match[2]]


def parse_percent(text: object) -> object:
    """`"5%"` → 5.0."""
    if not isinstance(text, str):
        return text
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%?\s*", text)
    if not match:
        raise ValueError(f"'{text}' is not a share; write for example 5% or 0.1%")
    return float(match[1])


Bytes = Annotated[
    int,
    BeforeValidator(parse_bytes, json_schema_input_type=int | str),
    Field(ge=0, description="Bytes, or a string such as 256M."),
]
Seconds = Annotated[
    float,
    BeforeValidator(parse_seconds, json_schema_input_type=float | str),
    Field(ge=0, description="Seconds, or a string such as 500ms or 2m."),
]
