"""What a fault of files is: which operations on which paths, and what becomes of them.

Part of `FaultSpec` (`fault.py`), whose delay, duration and seed it shares. The operations and their
order are those of images/filesystem/faults.h.
"""

from __future__ import annotations

import errno as numbers
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, field_validator, model_validator

from app.domain.explain import did_you_mean
from app.domain.model import Model
from app.domain.quantities import Bytes, parse_percent

FileOperation = Literal[
    "open",
    "read",
    "write",
    "fsync",
    "close",
    "stat",
    "readdir",
    "mkdir",
    "rename",
    "link",
    "unlink",
    "truncate",
    "attributes",
]
FILE_OPERATIONS: tuple[FileOperation, ...] = get_args(FileOperation)
MAX_PATTERN = 447
"""Bytes: FS_FAULT_PATTERN of images/filesystem/faults.h, without its last."""
_MOVING = ("read", "write")


def _words(value: object) -> object:
    """`"write,fsync"` → `["write", "fsync"]`."""
    if isinstance(value, str):
        return [word.strip() for word in value.split(",") if word.strip()]
    return value


class FileFault(Model):
    """Operations on files meet this fault by the path that the application names."""

    path: Annotated[
        str,
        Field(
            min_length=2,
            description="Absolute path or pattern: * and ? within a name, ** across directories, "
            "[a-z]; a backslash takes the next character as it is.",
            examples=["/srv/**/*.db"],
        ),
    ]
    op: Annotated[
        list[FileOperation],
        BeforeValidator(_words, json_schema_input_type=list[FileOperation] | str),
        Field(
            description="Operations, as a list or as in write,fsync; "
            "none: all that the effect is possible for."
        ),
    ] = []
    errno: str | None = Field(default=None, examples=["EIO"])
    """Name of the error that they fail with."""
    rate: Annotated[
        float,
        BeforeValidator(parse_percent, json_schema_input_type=float | str),
        Field(ge=0, le=100, description="Share of the operations, as a number or as in 10%."),
    ] = 100.0
    short: bool = False
    """Reads and writes move fewer bytes than they were asked to."""
    full_after: Bytes | None = None
    """After so many bytes written to these files, writes fail with ENOSPC."""

    @field_validator("path")
    @classmethod
    def _is_a_pattern(cls, value: str) -> str:
        if not value.startswith("/"):
            raise ValueError(f"'{value}' is not absolute; write for example /srv/**/{value}")
        if "\0" in value or len(value.encode()) > MAX_PATTERN:
            raise ValueError(f"a pattern has at most {MAX_PATTERN} bytes, and no NUL")
        if {"", ".", ".."} & set(value[1:].split("/")):
            raise ValueError(f"'{value}' has an empty name or a dot in it: no path matches that")
        if _open_bracket(value):
            raise ValueError(f"'{value}' has a [ without its ]; write \\[ for the character")
        return value

    @field_validator("errno")
    @classmethod
    def _is_an_error(cls, value: str | None) -> str | None:
        known = numbers.errorcode.values()
        if value is not None and value not in known:
            raise ValueError(f"'{value}' is no error; {did_you_mean(value, known)}")
        return value

    @model_validator(mode="after")
    def _is_possible(self) -> FileFault:
        given = self.operations
        if self.short and not set(given) & set(_MOVING):
            raise ValueError("'short' is about read and write; put one of them into 'op'")
        if self.full_after is not None and "write" not in given:
            raise ValueError("'full_after' is about write; put it into 'op'")
        if self.errno is not None and self.full_after is not None:
            raise ValueError("'errno' and 'full_after' are two faults; order one after the other")
        return self

    @property
    def operations(self) -> list[FileOperation]:
        """Those meant: what is not given follows from the effect."""
        if self.op:
            return self.op
        if self.errno is None and self.full_after is not None:
            return ["write"]
        if self.errno is None and self.short:
            return ["read", "write"]
        return list(FILE_OPERATIONS)

    @property
    def error_number(self) -> int:
        """0: none."""
        return 0 if self.errno is None else int(getattr(numbers, self.errno))


def path_alone(value: Any) -> Any:
    """`"/srv/**"` → `{"path": "/srv/**"}`."""
    return {"path": value} if isinstance(value, str) else value


def _open_bracket(pattern: str) -> bool:
    at = 0
    while at < len(pattern):
        if pattern[at] == "\\":
            at += 1
        elif pattern[at] == "[":
            begin = at + 2 if pattern[at + 1 : at + 2] in ("!", "^") else at + 1
            end = pattern.find("]", begin + 1)
            if end < 0:
                return True
            at = end
        at += 1
    return False
