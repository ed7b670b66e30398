"""From what Docker's `inspect` says to `Observed`: pure, no I/O. Called by `runtime`."""

from __future__ import annotations

from typing import Any

from app.domain.observed import Observed, State
from app.runtimes.docker import container
from app.runtimes.docker.output import parse_time

_STATES = {
    "created": State.CREATED,
    "running": State.RUNNING,
    "paused": State.RUNNING,
    "restarting": State.RESTARTING,
}
INIT_COMPLAINT = "[FATAL tini"
"""How Docker's init begins its last words when it cannot execute the program."""


def over(inspected: dict[str, Any]) -> bool:
    """Ended for good, or never started."""
    state = inspected["State"]
    return not state["Running"] and not state.get("Restarting")


def may_not_have_executed(inspected: dict[str, Any]) -> bool:
    """Whether the exit status is one that init uses for a program it cannot execute."""
    return over(inspected) and inspected["State"].get("ExitCode") in (126, 127)


def observed(
    inspected: dict[str, Any], *, pid: int | None = None, complaint: str | None = None
) -> Observed:
    """`pid` is the program's own; `complaint` is init's, where it could not execute it."""
    labels = inspected["Config"]["Labels"]
    state = inspected["State"]
    shown = _STATES.get(state["Status"], State.EXITED)
    reason = state.get("Error") or None
    ended = shown in (State.EXITED, State.RESTARTING)
    if complaint is not None:
        shown, reason = State.FAILED, complaint
    elif reason and shown in (State.CREATED, State.EXITED):
        shown, ended = State.FAILED, False
    elif state.get("OOMKilled") and ended:
        reason = "killed by the kernel: over its memory limit"
    started = parse_time(state.get("StartedAt", ""))
    finished = parse_time(state.get("FinishedAt", "")) if not state["Running"] else None
    if started and finished and ended:
        started = min(started, finished)  # Docker notes a short life's start after its end
    return Observed(
        id=labels[container.ID_LABEL],
        name=labels[container.NAME_LABEL],
        runtime="docker",
        state=shown,
        pid=pid if shown is State.RUNNING else None,
        exit_code=state.get("ExitCode") if ended else None,
        started_at=started,
        finished_at=finished,
        restarts=int(inspected.get("RestartCount", 0)),
        reason=reason,
    )
