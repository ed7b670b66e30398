"""`cse run --debugger`: the program under a debugger that is not itself linked with the elements.

Called by `run`.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from app.domain.errors import InvalidSpecification
from app.domain.launch import Launch

# The debugger is a program of the host; only what it starts gets the libraries. A debugger would
# show the instance's signals and threads like any other's: nothing else is needed.
_GDB = (
    'preload=$LD_PRELOAD; unset LD_PRELOAD; debugger=$1; shift; exec "$debugger"'
    ' -iex "set environment LD_PRELOAD $preload" -iex "set debuginfod enabled off" "$@"'
)


def under(debugger: str, launch: Launch) -> Launch:
    """The launch, begun by the debugger; others than gdb get the program as their arguments."""
    try:
        words = shlex.split(debugger)
    except ValueError as error:
        raise InvalidSpecification(f"--debugger {debugger}: {error}") from error
    if not words:
        raise InvalidSpecification("--debugger names no program")
    program = launch.spec.command
    if Path(words[0]).name.startswith("gdb"):
        command = ["sh", "-c", _GDB, "sh", *words, "--args", *program]
    else:
        command = [*words, *program]
    return launch.model_copy(update={"spec": launch.spec.model_copy(update={"command": command})})
