"""What a conversion gives: a document, and notes of what could not be carried over.

A conversion never leaves anything out silently: each field is either carried over, known to mean
nothing here, or noted. Called by the converters beside this file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.domain.explain import FieldError, InvalidFields, pointer_to

_LONGEST_NAME = 40


@dataclass(frozen=True)
class Note:
    """One field that is not, or not exactly, what it was."""

    pointer: str
    """JSON pointer into the file that was read."""
    detail: str


@dataclass
class Converted:
    """The document so far; converters fill it."""

    document: dict[str, Any] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    errors: list[FieldError] = field(default_factory=list)

    def note(self, place: list[str | int], detail: str) -> None:
        """Something was left out or became something else."""
        self.notes.append(Note(pointer_to(place), detail))

    def refuse(self, place: list[str | int], detail: str, remedy: str) -> None:
        """Something cannot be guessed: there is no document until the user has said it."""
        self.errors.append(FieldError(pointer=pointer_to(place), detail=detail, remedy=remedy))

    def leave_out(
        self, place: list[str | int], body: dict[str, Any], known: set[str], why: dict[str, str]
    ) -> None:
        """Note every field of `body` that is not in `known`; `why` has reasons by field."""
        for key in body:
            if key not in known and not key.startswith("x-"):
                self.note([*place, key], f"left out: {why.get(key, 'CSE has nothing like it')}")

    def take(self, other: Converted, prefix: str, fields: Mapping[str, str]) -> None:
        """Notes and refusals of a part that was read as something else.

        `fields`: what the fields below the pointer `prefix` are called in the file.
        """

        def mended(pointer: str) -> str:
            field_name, slash, rest = pointer.removeprefix(f"{prefix}/").partition("/")
            return f"{prefix}/{fields.get(field_name, field_name)}{slash}{rest}"

        self.notes += [Note(mended(note.pointer), note.detail) for note in other.notes]
        self.errors += [
            error.model_copy(update={"pointer": mended(error.pointer)}) for error in other.errors
        ]

    def finished(self) -> Converted:
        """Itself. Raises `InvalidFields` where something was refused."""
        if self.errors:
            raise InvalidFields(self.errors)
        return self


def as_name(text: str) -> str:
    """The nearest name that a resource here may have: `My_db` → `my-db`; empty if there is none."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:_LONGEST_NAME].strip("-")


def mapping(value: object) -> dict[str, Any]:
    """The map, with keys as text; empty for null and for what is none."""
    return {str(key): item for key, item in value.items()} if isinstance(value, dict) else {}
