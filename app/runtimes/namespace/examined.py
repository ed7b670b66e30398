"""What preflight read of programs of this host, kept for as long as no file of it changes.

A start examines its program three times (admission, the agent's own check, the runtime), and most
starts are of programs that were started before. What an examination finds follows from the files
it looked at alone: while each of these is the same, so is the result. Called by `runtime`.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Hashable

from app.domain.launch import Launch
from app.runtimes import preflight
from app.runtimes.namespace.view import HostView

_MAX_KEPT = 1000
Identity = tuple[int, ...] | None
"""None: there is no such file."""


class Examined:
    """Remembers; safe from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[Hashable, tuple[dict[str, Identity], preflight.Program]] = {}

    def examine(self, launch: Launch, hidden: list[str]) -> preflight.Program:
        """As `preflight.examine`, in the application's own file tree."""
        spec = launch.spec
        path, directory = spec.path, spec.working_directory or "/"
        view = HostView(launch, hidden)
        key = (spec.command[0], path, directory, view.places)
        kept = self._kept.get(key)
        if kept is not None and all(identity(file) == was for file, was in kept[0].items()):
            return kept[1]
        seen = _Seen(view)
        program = preflight.examine(spec.command[0], seen, path=path, directory=directory)
        with self._lock:
            if len(self._kept) >= _MAX_KEPT:
                self._kept.clear()
            self._kept[key] = (seen.files, program)
        return program


class _Seen:
    """Implements `preflight.Files`; notes what is looked at before it is looked at."""

    def __init__(self, view: HostView) -> None:
        self._view = view
        self.files: dict[str, Identity] = {}

    def find(self, path: str) -> preflight.ProgramFile | None:
        return self._view.find(path, self._note)

    def _note(self, path: str) -> None:
        if path not in self.files:
            self.files[path] = identity(path)


def identity(path: str) -> Identity:
    """Differs after every change that an examination could notice; links are not followed."""
    try:
        info = os.lstat(path)
    except OSError:
        return None
    if stat.S_ISDIR(info.st_mode):  # its entries are looked at one by one
        return (info.st_dev, info.st_ino, info.st_mode)
    return (
        info.st_dev,
        info.st_ino,
        info.st_mode,
        info.st_size,
        info.st_mtime_ns,
        info.st_ctime_ns,
    )
