"""Secrets: values that specifications name and never hold.

`SecretRef` stands in a specification, `SecretSpec` is what a client sends once, `Secret` what
anybody can read of it. The values are with the agent (`app/runtimes/secrets.py`), in no answer,
event, log, plan or backup.
"""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from app.domain.model import Model, Name

MAX_BYTES = 2**16


class SecretRef(Model):
    """The value of this secret."""

    secret: Name


class SecretSpec(Model):
    """A secret to be kept; `value` can be written, never read."""

    model_config = ConfigDict(hide_input_in_errors=True)

    name: Name
    value: str = Field(repr=False, json_schema_extra={"writeOnly": True})
    """At most 64 KiB."""
    encoding: Literal["text", "base64"] = "text"
    """Of `value`: as it is, or for what is no text."""
    project: Name = "default"
    """Only applications of this project may use it."""

    @field_validator("value", mode="before")
    @classmethod
    def _is_text(cls, value: object) -> object:
        # Said here, not by pydantic, whose messages show what was given.
        if not isinstance(value, str):
            raise ValueError("a secret's value is a text")
        if len(value.encode("utf-8", "surrogatepass")) > MAX_BYTES * 4 // 3 + 4:
            raise ValueError(f"a secret has at most {MAX_BYTES} bytes")
        return value

    @model_validator(mode="after")
    def _can_be_read(self) -> SecretSpec:
        try:
            size = len(self.content)
        except (binascii.Error, UnicodeError) as error:
            raise ValueError(f"'value' is no {self.encoding}") from error
        if not 0 < size <= MAX_BYTES:
            raise ValueError(f"a secret has 1 to {MAX_BYTES} bytes")
        return self

    @property
    def content(self) -> bytes:
        """What programs get."""
        if self.encoding == "base64":
            return base64.b64decode(self.value, validate=True)
        return self.value.encode()


class Secret(Model):
    """A secret without its value, which nobody can read again."""

    name: str
    project: str
    updated: datetime
    used_by: list[str] = []
    """Applications that name it."""
