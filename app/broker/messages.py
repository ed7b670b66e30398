"""Messages between broker and library: words, `key=value`, percent-encoded (ARCHITECTURE.md).

What arrives is written by a stranger: `parse` never raises anything but BadMessage.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote

MAX_BYTES = 4095
"""CSE_BROKER_MESSAGE_MAX of images/_core/core.h, less the NUL."""
MAX_FDS = 8
"""CSE_BROKER_FDS_MAX there."""
_KEPT = "/:.,-_@+*"
_KEY = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class BadMessage(ValueError):
    """Not a message of the protocol."""


@dataclass(frozen=True)
class Message:
    """`text` is what follows the verb, as it came, for verbs whose rest is free text."""

    verb: str
    fields: dict[str, str]
    text: str

    def number(self, key: str) -> int:
        """A field that must be a decimal number."""
        value = self.fields.get(key, "")
        if not re.fullmatch(r"\d{1,18}", value, re.ASCII):
            raise BadMessage(f"{self.verb}: {key} is not a number")
        return int(value)


def parse(data: bytes) -> Message:
    """One packet. Raises BadMessage."""
    if not data or len(data) > MAX_BYTES:
        raise BadMessage("empty or too long")
    text = data.rstrip(b"\0").decode(errors="replace")  # names of files are any bytes
    verb, _, rest = text.partition(" ")
    if not re.fullmatch(r"[a-z]{1,16}", verb):
        raise BadMessage("no verb")
    fields = {}
    for word in rest.split(" "):
        key, equals, value = word.partition("=")
        if equals and _KEY.fullmatch(key):
            fields[key] = unquote(value, errors="replace")
    return Message(verb, fields, rest)


def shown(text: str) -> str:
    """What a stranger wrote, for a terminal: no control characters."""
    return "".join(one if one.isprintable() else "?" for one in text)


def pack(verb: str, fields: Mapping[str, object] | None = None) -> bytes:
    """The packet for a library."""
    words = [f"{key}={quote(str(value), safe=_KEPT)}" for key, value in (fields or {}).items()]
    return " ".join([verb, *words]).encode()
