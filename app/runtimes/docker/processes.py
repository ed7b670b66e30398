"""Which processes of this host belong to a container: read from /proc, nothing asked of Docker.

Called by `runtime` for `Observed.pid` and `pids`. Works where the agent sees the host's processes
(on the host itself, or in a container with `pid: host`); elsewhere nothing is found and the
caller falls back to what Docker says.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path


def program_of(init: int, timeout_s: float = 1.0) -> int | None:
    """The pid of the program below Docker's init, as soon as it has been executed.

    Between fork and exec the child still shows init's own file. None where init has ended, or
    cannot be seen.
    """
    deadline = time.monotonic() + timeout_s
    pause = 0.0005
    while True:
        try:
            children = Path(f"/proc/{init}/task/{init}/children").read_text().split()
            own = Path(f"/proc/{init}/exe").readlink()
        except OSError:
            return None
        # The first is the program itself: orphans that init inherits come behind it.
        if children:
            with contextlib.suppress(OSError):
                if Path(f"/proc/{children[0]}/exe").readlink() != own:
                    return int(children[0])
        if time.monotonic() > deadline:
            return None
        time.sleep(pause)
        pause = min(pause * 2, 0.02)


def has_ended(pid: int) -> bool:
    """Also where nobody has asked for its status yet: such a process has no file any more."""
    try:
        Path(f"/proc/{pid}/exe").readlink()
    except (FileNotFoundError, ProcessLookupError):
        return True
    except OSError:
        return False  # somebody else's: it is there, and that is all we may know
    return False


def all_of(init: int) -> list[int]:
    """Every process in init's process namespace, init itself left out; also exec'ed ones."""
    try:
        namespace = Path(f"/proc/{init}/ns/pid").readlink()
    except OSError:
        return []
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == init:
            continue
        with contextlib.suppress(OSError):
            if (entry / "ns/pid").readlink() == namespace:
                found.append(int(entry.name))
    return sorted(found)
