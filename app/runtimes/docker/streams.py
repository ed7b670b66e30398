"""What a container writes: its log, and the output of commands executed in it.

Called by `runtime`. The framing is `output`'s; here are the calls to Docker around it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

from app.domain.errors import TimedOut
from app.domain.observed import ExecResult, LogLine
from app.runtimes.docker import output
from app.runtimes.docker.engine import Engine

_EXEC_COMPLAINT = b"OCI runtime exec failed"
"""How Docker begins what it writes where it cannot execute a command in a container."""


def log(
    engine: Engine,
    identity: str,
    tail: int | None,
    *,
    follow_until: Callable[[], bool] | None = None,
) -> Iterator[LogLine]:
    """Oldest first. With `follow_until`, asked at each end of the program whether it was the last.

    Docker ends the stream at each end of the program, also when it starts it again.
    """
    params: dict[str, Any] = {
        "stdout": 1,
        "stderr": 1,
        "timestamps": 1,
        "follow": int(follow_until is not None),
    }
    if tail is not None:
        params["tail"] = tail
    while True:
        with engine.doing("read a container's log"):
            answer = engine.get(f"/containers/{identity}/logs", params)
            try:
                for stamp, line in output.log_lines(answer.raw.read):
                    params = {**params, "tail": "all", "since": output.after(stamp)}
                    yield line
            finally:
                answer.close()
        if follow_until is None or follow_until():
            return
        time.sleep(0.05)


def execute(
    engine: Engine, identity: str, name: str, command: list[str], timeout_s: float
) -> ExecResult:
    """Run a command to its end; Docker gives it the container's environment and user."""
    api = engine()
    with engine.doing(f"execute '{command[0]}' in '{name}'"):
        exec_id = api.exec_create(identity, command)["Id"]
        connection = api.exec_start(exec_id, socket=True)
        try:
            stdout, stderr = output.read_both(connection, timeout_s)
        except TimedOut as error:
            end_command(int(api.exec_inspect(exec_id).get("Pid") or 0))
            raise TimedOut(f"'{command[0]}' did not end within {timeout_s:g} s") from error
        finally:
            connection.close()
        status = int(api.exec_inspect(exec_id)["ExitCode"] or 0)
    if status == 126 and stdout.startswith(_EXEC_COMPLAINT):
        # Docker's own words, in the place of the command's: there is no such program
        status, stdout, stderr = 127, b"", stdout.replace(b"\r\n", b"\n")
    return ExecResult(
        exit_code=status,
        stdout=stdout.decode(errors="replace"),
        stderr=stderr.decode(errors="replace"),
    )


def end_command(pid: int) -> None:
    """Docker has no call that ends an exec'ed command."""
    if pid:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
