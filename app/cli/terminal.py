"""`cse exec -t`: this terminal becomes the keyboard and screen of a command in an application."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlencode

from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import ClientConnection

from app.client import Client
from app.client.errors import error_of
from app.client.transport import quoted
from app.domain.errors import AgentUnavailable

_KEYBOARD = 0
_BLOCK = 4096
_END = b"\x04"
_END_AGAIN_S, _END_SELDOM_S = 0.2, 2.0


def run(client: Client, name: str, command: list[str]) -> int:
    """The command's exit code. Raises `ProblemError`, `AgentUnavailable`."""
    size = shutil.get_terminal_size()
    query = [("command", word) for word in command]
    query += [("rows", str(size.lines)), ("columns", str(size.columns))]
    try:
        connection = client.socket(f"/v1/applications/{quoted(name)}/exec", urlencode(query))
    except (OSError, InvalidHandshake) as error:
        raise AgentUnavailable(f"the server at {client.url} takes no terminal: {error}") from error
    with connection, _raw_keyboard(), _told_of_resizing(connection):
        over = threading.Event()
        threading.Thread(target=_type, args=(connection, over), daemon=True).start()
        try:
            return _show(connection)
        finally:
            over.set()


def _show(connection: ClientConnection) -> int:
    try:
        for message in connection:
            if isinstance(message, bytes):
                sys.stdout.buffer.write(message)
                sys.stdout.buffer.flush()
                continue
            told: dict[str, Any] = json.loads(message)
            if "problem" in told:
                raise error_of(int(told["problem"]["status"]), told["problem"], "the terminal", {})
            if "exit_code" in told:
                return int(told["exit_code"])
    except ConnectionClosed as error:
        raise AgentUnavailable(f"the server has gone away: {error}") from error
    raise AgentUnavailable("the server closed the terminal before the command's end")


def _type(connection: ClientConnection, over: threading.Event) -> None:
    """What is typed; at its end (a pipe's or a file's) Ctrl-D, again and again until all is over.

    One is not enough: after half a line it only ends that, for a program in the midst of something
    it is lost when a shell takes the terminal back in another mode, and a shell within a shell
    leaves the outer one to be ended. Whoever reads from now on is to find the end.
    """
    pause = _END_AGAIN_S
    with suppress(ConnectionClosed):
        while data := os.read(_KEYBOARD, _BLOCK):
            connection.send(data)
        connection.send(_END)
        while not over.wait(pause):
            connection.send(_END)
            pause = min(pause * 1.5, _END_SELDOM_S)


@contextmanager
def _raw_keyboard() -> Iterator[None]:
    """Every key goes to the command, Ctrl-C too; as before afterwards."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setraw(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


@contextmanager
def _told_of_resizing(connection: ClientConnection) -> Iterator[None]:
    def tell(*_: object) -> None:
        size = shutil.get_terminal_size()
        told = {"resize": {"rows": size.lines, "columns": size.columns}}
        # Not in the handler: it may have interrupted a send that holds the connection's lock.
        threading.Thread(target=_send, args=(connection, json.dumps(told)), daemon=True).start()

    before = signal.signal(signal.SIGWINCH, tell)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


def _send(connection: ClientConnection, text: str) -> None:
    with suppress(ConnectionClosed):
        connection.send(text)
