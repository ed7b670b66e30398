"""One agent for each state directory: a lock that ends with its process. Called by `host`."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from app.domain.errors import Conflict, HostLacks

_TAKE_OVER_S = 1.0


def take(state: Path) -> int:
    """The descriptor that holds the directory, which is made. Raises Conflict where another agent
    has it, HostLacks where it cannot be used."""
    try:
        state.mkdir(mode=0o711, parents=True, exist_ok=True)
        fd = os.open(state / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HostLacks(
            f"the state directory {state} cannot be used: {error.strerror}",
            remedy="choose another one with CSE_STATE_DIR",
        ) from error
    if not _locked(fd):
        os.close(fd)
        raise Conflict(
            f"another agent works in {state}",
            remedy="stop it, or choose another state directory with CSE_STATE_DIR",
        )
    return fd


def _locked(fd: int) -> bool:
    """A child that a killed agent was just about to execute has its lock for some moments yet."""
    deadline = time.monotonic() + _TAKE_OVER_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
