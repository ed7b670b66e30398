"""The programs of the fake runtime: a few words of shell, run in a thread.

Enough of `sh -c` for one contract suite to mean the same here and on a real host: output on both
streams, exit status, signals, traps, time. Called by `app/runtimes/fake.py`.
"""

from __future__ import annotations

import re
import shlex
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath

SERVERS = frozenset({"nginx", "redis-server", "python3", "memcached", "cat", "node", "socat"})
"""Programs that run until they are signalled."""
_SIMPLE = frozenset({"true", "false", "echo", "sleep", "sh", "env", "pwd", "id", "stty"})


class Ended(Exception):
    """The program has ended with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def exists(command: list[str]) -> bool:
    """Whether the fake host has this program."""
    return PurePosixPath(command[0]).name in SERVERS | _SIMPLE


class Program:
    """One run of one program; `run` in a thread, `kill` from any other."""

    def __init__(
        self,
        command: list[str],
        environment: Mapping[str, str],
        directory: str,
        write: Callable[[str, str], None],
    ) -> None:
        self._command = command
        self._environment = environment
        self._directory = directory
        self._write = write
        self._signals = threading.Condition()
        self._pending: list[int] = []
        self._traps: dict[int, str] = {}
        self.size = (0, 0)
        """Rows and columns of its terminal, where it has one."""

    def kill(self, number: int) -> None:
        """Deliver a signal."""
        with self._signals:
            self._pending.append(number)
            self._signals.notify_all()

    def run(self) -> int:
        """To its end; returns the exit status, 128 + N after signal N."""
        try:
            self._execute(self._command)
        except Ended as end:
            return end.status
        return 0

    def _execute(self, words: list[str], stream: str = "stdout") -> None:
        name, arguments = PurePosixPath(words[0]).name, words[1:]
        match name:
            case "true":
                return
            case "false":
                raise Ended(1)
            case "echo":
                self._write(stream, " ".join(arguments))
            case "pwd":
                self._write(stream, self._directory)
            case "stty":
                self._write(stream, "{} {}".format(*self.size))
            case "env":
                for key, value in sorted(self._environment.items()):
                    self._write(stream, f"{key}={value}")
            case "sleep":
                self._sleep(None if arguments[0] == "infinity" else float(arguments[0]))
            case "exit":
                raise Ended(int(arguments[0]) if arguments else 0)
            case "kill":
                self.kill(_signal_number(arguments[0].lstrip("-")))
                self._sleep(0)
            case "trap":
                self._traps[_signal_number(arguments[1])] = arguments[0]
            case "sh":
                self._script(arguments[1])
            case _ if name in SERVERS:
                self._sleep(None)
            case _:
                self._write("stderr", f"sh: {name}: not found")
                raise Ended(127)

    def _script(self, script: str) -> None:
        for part in _split(script):
            stream = "stdout"
            if part.endswith(">&2"):
                stream, part = "stderr", part.removesuffix(">&2")
            expanded = re.sub(r"\$(\w+)", lambda match: self._environment.get(match[1], ""), part)
            words = shlex.split(expanded)
            if words and words[0] == "exec":
                words = words[1:]
            if words:
                self._execute(words, stream)

    def _sleep(self, seconds: float | None) -> None:
        with self._signals:
            while True:
                while self._pending:
                    self._take(self._pending.pop(0))
                if seconds == 0 or not self._signals.wait(timeout=seconds):
                    return

    def _take(self, number: int) -> None:
        action = self._traps.get(number)
        if action is None and number == signal.SIGWINCH:
            return
        if action is None or number == signal.SIGKILL:
            raise Ended(128 + number)
        if action:
            self._script(action)


def _split(script: str) -> list[str]:
    """At the semicolons and newlines that stand outside of quotes."""
    lexer = shlex.shlex(script, posix=False, punctuation_chars=";\n")
    lexer.whitespace = " \t"
    lexer.whitespace_split = True
    lexer.commenters = ""
    parts: list[list[str]] = [[]]
    for token in lexer:
        if set(token) <= {";", "\n"}:
            parts.append([])
        else:
            parts[-1].append(token)
    return [" ".join(words) for words in parts if words]


def _signal_number(text: str) -> int:
    if text.isdigit():
        return int(text)
    return int(signal.Signals[text if text.startswith("SIG") else f"SIG{text}"])
