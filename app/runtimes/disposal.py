"""Takes away the directories of removed applications, many at once and with nobody waiting.

Why: to delete one took a third of a removal. Each of its dozen files and directories is a system
call, and on a disk that discards what is freed some of these wait for the disk. So a directory is
moved into `STATE/removed` by one call, and what lies there is deleted by a program (`rm`), which
does not need Python's lock, and gives way to what is still being removed. What a killed agent has
not come to, the next one sweeps at its start.

Called by `rundir.remove` and, when it takes and leaves a state directory, by the agent.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import subprocess
import threading
from pathlib import Path

_AT_ONCE = 200
_GATHER_S = 0.2
"""So long a deletion waits for more of them: to start the program costs as much as five."""
_RM = ("nice", "-n", "19", "rm", "-rf", "--one-file-system", "--")
_log = logging.getLogger(__name__)
_changed = threading.Condition()
_sweeping: set[Path] = set()
"""State directories that a thread of this process looks after; it ends when all is gone."""
_urgent: set[Path] = set()
"""Those of them whose end somebody waits for."""


def take_away(state: Path, directory: Path) -> None:
    """`directory`, which lies in `state`, is not there any more when this returns."""
    place = state / "removed"
    try:
        with contextlib.suppress(FileExistsError):
            place.mkdir(mode=0o700)
        directory.rename(place / f"{directory.name}.{secrets.token_hex(4)}")
    except FileNotFoundError:
        return
    except OSError:  # a full disk may have no room for the new name
        (directory / "launch.json").unlink(missing_ok=True)  # without it, it is no application
        shutil.rmtree(directory, ignore_errors=True)
        return
    sweep(state)


def sweep(state: Path) -> None:
    """Begin to delete what was moved away, by whomever."""
    with _changed:
        if state in _sweeping or not _waiting(state):
            return
        _sweeping.add(state)
    threading.Thread(target=_run, args=(state,), name="cse-sweeping", daemon=True).start()


def finish(state: Path) -> None:
    """Wait until all of it is gone."""
    with _changed:
        _urgent.add(state)
        _changed.notify_all()
        _changed.wait_for(lambda: state not in _sweeping)
        _urgent.discard(state)


def _run(state: Path) -> None:
    failed = False
    while True:
        with _changed:
            _changed.wait_for(lambda: state in _urgent, _GATHER_S)
            found = _waiting(state)
            if failed or not found:  # what fails is tried again with the next removal
                _sweeping.discard(state)
                _changed.notify_all()
                return
        failed = not _delete(found[:_AT_ONCE])


def _delete(paths: list[str]) -> bool:
    try:
        # Ours are all closed on exec; to close thousands one after another takes longer than rm.
        done = subprocess.run(
            [*_RM, *paths], capture_output=True, text=True, check=False, close_fds=False
        )
    except OSError as error:
        _log.warning("removed applications' files cannot be deleted: %s", error)
        return False
    if done.returncode != 0:
        _log.warning("removed applications' files stay: %s", done.stderr.strip()[:500])
    return done.returncode == 0


def _waiting(state: Path) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        return [f"{state}/removed/{name}" for name in os.listdir(state / "removed")]
    return []
