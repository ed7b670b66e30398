"""A command with a terminal of its own beside a running application: its size, and what it writes.

`TerminalSession` is what a runtime opens; the agent hands its parts on (`app/agent/terminals.py`).
"""

from __future__ import annotations

from typing import Annotated, Protocol

from pydantic import ConfigDict, Field

from app.domain.model import Model

Cells = Annotated[int, Field(ge=1, le=10_000)]


class TerminalSize(Model):
    """In characters."""

    rows: Cells = 24
    columns: Cells = 80


class TerminalPart(Model):
    """What the command has written; the last part has its exit code, an empty one says nothing."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    session: str
    """Names the terminal for input and resizing, as long as its parts are being read."""
    data: bytes = b""
    exit_code: int | None = None
    """0 to 255; 128 + N when a signal N ended it."""


class TerminalInput(Model):
    """Bytes as the keyboard would send them."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    data: bytes


class TerminalSession(Protocol):
    """One terminal with the command that runs in it; `read` by one thread, the rest by any."""

    def read(self, timeout_s: float) -> bytes | None:
        """What was written, empty where nothing was in time; None when the command has ended."""

    def write(self, data: bytes) -> None:
        """As if it was typed."""

    def resize(self, size: TerminalSize) -> None:
        """The command is told by SIGWINCH."""

    def close(self) -> int:
        """End the command where it still runs; its exit code. Does nothing the second time."""
