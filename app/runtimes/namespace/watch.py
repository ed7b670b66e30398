"""One thread that hears of every change of every application: no polling.

A shim replaces its status file (inotify tells), or is itself killed (its pidfd becomes readable).
Started by `runtime`; calls back with the application's name.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from pathlib import Path

from app.runtimes.namespace import status
from app.runtimes.namespace.inotify import OVERFLOWN, Inotify
from app.runtimes.readable import readable


class Watcher:
    """`changed(name)` is called in the watcher's thread."""

    def __init__(self, changed: Callable[[str], None]) -> None:
        self._changed = changed
        self._inotify = Inotify()
        self._epoll = select.epoll()
        self._lock = threading.Lock()
        self._names: dict[int, str] = {}
        self._watches: dict[str, int] = {}
        self._shims: dict[int, tuple[str, int]] = {}
        self._watched: dict[tuple[str, int], int] = {}
        """The same the other way round."""
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._inotify.fd, select.EPOLLIN)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._thread = threading.Thread(target=self._run, name="cse-watch", daemon=True)
        self._thread.start()

    def add(self, name: str, directory: Path) -> None:
        """From now on, changes of this application are reported."""
        number = self._inotify.watch(directory)
        with self._lock:
            self._names[number] = name
            self._watches[name] = number

    def forget(self, name: str) -> None:
        """The application is being removed; its watch goes with its directory."""
        with self._lock:
            number = self._watches.pop(name, None)
            if number is not None:
                self._names.pop(number, None)

    def add_shim(self, name: str, found: status.Status) -> None:
        """Report also when this supervisor process ends, however it does."""
        fd = status.open_shim(found)
        if fd is None:
            self._changed(name)
            return
        with self._lock:
            if (name, found.shim_pid) in self._watched:
                os.close(fd)
                return
            self._shims[fd] = (name, found.shim_pid)
            self._watched[name, found.shim_pid] = fd
            self._epoll.register(fd, select.EPOLLIN)

    def take_shim(self, name: str, pid: int) -> int | None:
        """The descriptor of this supervisor, for who ends it: its end is not reported then."""
        with self._lock:
            fd = self._watched.pop((name, pid), None)
            if fd is not None:
                del self._shims[fd]
                self._epoll.unregister(fd)
            return fd

    def has_shim(self, name: str, pid: int) -> bool:
        """The end of this supervisor process will be reported."""
        return (name, pid) in self._watched

    def close(self) -> None:
        """Ends the thread; applications are not affected."""
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        for fd in [*self._shims, self._wake, self._inotify.fd]:
            os.close(fd)
        self._epoll.close()

    def _run(self) -> None:
        while True:
            for fd, _ in self._epoll.poll():
                if fd == self._wake:
                    return
                if fd == self._inotify.fd:
                    self._status_changed()
                else:
                    self._shim_ended(fd)

    def _status_changed(self) -> None:
        with self._lock:
            events = self._inotify.read()
            names = {
                self._names[number]
                for number, file in events
                if file == "status" and number in self._names
            }
            if any(number == OVERFLOWN for number, _ in events):
                names = set(self._watches)
        for name in names:
            self._changed(name)

    def _shim_ended(self, fd: int) -> None:
        with self._lock:
            if fd not in self._shims or not readable(fd, 0):
                return  # taken meanwhile, and the number perhaps another shim's now
            name, pid = self._shims.pop(fd)
            self._watched.pop((name, pid), None)
            self._epoll.unregister(fd)
        os.close(fd)
        self._changed(name)
