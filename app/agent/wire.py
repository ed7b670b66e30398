"""The messages between `server` and `remote`: the methods of `app.domain.ports.Agent`, typed.

One frame is four bytes of length and a JSON object. A request names a method and its arguments;
the answer is one `result`, or a `begin`, `item` frames and an `end`, or an `error`. The types of
all of them are those of the interface's own signatures, so that it is written down once.
"""

from __future__ import annotations

import inspect
import json
import socket
import struct
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from app.domain import errors
from app.domain.errors import AgentUnavailable, CseError, InvalidSpecification
from app.domain.ports import Agent

MAX_FRAME = 64 * 2**20
_HEAD = struct.Struct("!I")


@dataclass(frozen=True)
class Method:
    """One method of the interface."""

    name: str
    arguments: dict[str, TypeAdapter[Any]]
    result: TypeAdapter[Any]
    streams: bool
    """It returns an iterator: its items are sent as they come."""

    def dump(self, values: dict[str, Any]) -> dict[str, Any]:
        """Arguments as JSON."""
        return {key: self.arguments[key].dump_python(v, mode="json") for key, v in values.items()}

    def load(self, values: dict[str, Any]) -> dict[str, Any]:
        """Arguments from JSON. Raises InvalidSpecification."""
        try:
            return {key: self.arguments[key].validate_python(v) for key, v in values.items()}
        except (KeyError, ValidationError) as error:
            raise InvalidSpecification(f"{self.name}: arguments do not fit: {error}") from error


@cache
def methods() -> dict[str, Method]:
    """By name, from the interface."""
    found = {}
    for name, function in inspect.getmembers(Agent, inspect.isfunction):
        if name.startswith("_"):
            continue
        hints = typing.get_type_hints(function)
        result = hints.pop("return")
        streams = typing.get_origin(result) is Iterator
        item = typing.get_args(result)[0] if streams else result
        arguments: dict[str, TypeAdapter[Any]] = {key: TypeAdapter(h) for key, h in hints.items()}
        found[name] = Method(name, arguments, TypeAdapter(item), streams)
    return found


def bind(name: str, positional: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
    """Call arguments by name, as the method's signature says."""
    signature = inspect.signature(getattr(Agent, name))
    bound = signature.bind(None, *positional, **named)
    return {key: value for key, value in bound.arguments.items() if key != "self"}


def send(connection: socket.socket, frame: dict[str, Any]) -> None:
    """Raises OSError."""
    data = json.dumps(frame, separators=(",", ":")).encode()
    connection.sendall(_HEAD.pack(len(data)) + data)


def receive(connection: socket.socket) -> dict[str, Any] | None:
    """One frame; None at the end of the connection. Raises OSError, AgentUnavailable."""
    head = _exactly(connection, _HEAD.size)
    if head is None:
        return None
    (length,) = _HEAD.unpack(head)
    if length > MAX_FRAME:
        raise AgentUnavailable(f"a frame of {length} bytes is not of this protocol")
    body = _exactly(connection, length)
    try:
        frame = json.loads(body) if body is not None else None
    except ValueError as error:
        raise AgentUnavailable("a frame that is not JSON is not of this protocol") from error
    return frame if isinstance(frame, dict) else None


def dump_error(error: CseError) -> dict[str, Any]:
    """As it goes over the wire."""
    return {
        "type": type(error).__name__,
        "detail": error.detail,
        "pointer": error.pointer,
        "remedy": error.remedy,
    }


def load_error(frame: dict[str, Any]) -> CseError:
    """The same error, of the same class where this side knows it."""
    known = getattr(errors, str(frame.get("type")), CseError)
    kind = known if isinstance(known, type) and issubclass(known, CseError) else CseError
    return kind(
        str(frame.get("detail", "")), pointer=frame.get("pointer"), remedy=frame.get("remedy")
    )


def _exactly(connection: socket.socket, length: int) -> bytes | None:
    data = bytearray()
    while len(data) < length:
        block = connection.recv(min(1 << 16, length - len(data)))
        if not block:
            return None
        data += block
    return bytes(data)
