"""The file tree as an application of the namespace runtime sees it.

It is the host's, read-only, with some directories replaced by empty ones and the specification's
mounts on top. `sandbox.py` makes the same true with bubblewrap; preflight asks this class where
the program's file is.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from app.domain.launch import Launch
from app.runtimes.preflight import ProgramFile

EMPTY = ("/tmp", "/run", "/var/tmp")
"""Replaced by empty, writable directories in memory."""
_MAX_LINKS = 40


class HostView:
    """Implements `preflight.Files`."""

    def __init__(self, launch: Launch, hidden: list[str]) -> None:
        empty = [*EMPTY, *hidden, *launch.spec.tmpfs]
        self.places: tuple[tuple[str, str | None], ...] = (
            *((path.rstrip("/"), None) for path in empty),
            *((mount.target.rstrip("/"), mount.source) for mount in launch.mounts),
        )
        """Where it differs from the host's: directory → the host's that is seen there, or none."""

    def host_path(self, path: str) -> str | None:
        """Where the host has it, links not followed; None where only an empty directory is."""
        best: tuple[str, str | None] = ("", "/")
        for place in self.places:  # the deepest place wins, of equal ones the last
            within = path == place[0] or path.startswith(place[0] + "/")
            if within and len(place[0]) >= len(best[0]):
                best = place
        target, source = best
        if source is None:
            return None
        return f"{source.rstrip('/')}/{path[len(target) :].lstrip('/')}".rstrip("/") or "/"

    def find(self, path: str, note: Callable[[str], object] = lambda _: None) -> ProgramFile | None:
        """See `preflight.Files`; `note` hears of each path of the host before it is looked at."""
        parts = [part for part in path.split("/") if part not in ("", ".")]
        done: list[str] = []
        links = 0
        while parts:
            part = parts.pop(0)
            if part == "..":
                done = done[:-1]
                continue
            host = self.host_path("/" + "/".join([*done, part]))
            try:
                if host is not None:
                    note(host)
                if host is not None and stat.S_ISLNK(os.lstat(host).st_mode):
                    links += 1
                    target = str(Path(host).readlink())
                    if links > _MAX_LINKS:
                        return None
                    if target.startswith("/"):
                        done = []
                    parts = [piece for piece in target.split("/") if piece not in ("", ".")] + parts
                    continue
            except OSError:
                return None
            done.append(part)
        found = "/" + "/".join(done)
        host = self.host_path(found)
        if host is None or not Path(host).is_file():
            return None
        try:
            capable = bool(os.getxattr(host, "security.capability"))
        except OSError:
            capable = False
        return ProgramFile(found, host, capable)
