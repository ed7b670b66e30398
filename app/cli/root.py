"""Puts the commands together, and turns every error into one message and an exit status.

Called by the entry point (`app/cli/__init__.py`).
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from app.cli import (
    agent,
    apply,
    backup,
    capture,
    convert,
    destroy,
    doctor,
    elements,
    events,
    evidence,
    exec_,
    fault,
    fs,
    gc,
    graph,
    instances,
    lifecycle,
    logs,
    networks,
    operation,
    plan,
    project,
    ps,
    rm,
    secret,
    serve,
    set_,
    sockets,
    token,
    top,
    up,
    version,
    volumes,
)
from app.cli import (
    run as run_command,
)
from app.cli.client import Api
from app.cli.failures import ExitStatus, Failed, report
from app.domain.errors import CseError

_EPILOG = (
    "Exit status: 0 done; 1 failed; 2 usage or invalid input; 3 no such resource; 4 the server or "
    "agent does not answer; 5 conflict; 6 the host lacks something; 7 no right to it. 'run' and "
    "'exec' end with the program's own status, and with 125 where it could not be started."
)

commands = typer.Typer(
    name="cse",
    help="Private TCP/IP stacks, file systems and clocks for unmodified programs.",
    epilog=_EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
_ClickError: type[Exception] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)
"""Newer versions of typer bring a click of their own: found by name in either case."""


def _show_version(wanted: bool) -> None:
    if wanted:
        version.version()
        raise typer.Exit


@commands.callback()
def options(
    api: Api = None,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version; then end."
        ),
    ] = False,
) -> None:
    """Private TCP/IP stacks, file systems and clocks for unmodified programs."""
    if api is not None:
        os.environ["CSE_API"] = api


for module in (
    run_command,
    up,
    serve,
    agent,
    apply,
    plan,
    destroy,
    ps,
    logs,
    exec_,
    lifecycle,
    rm,
    evidence,
    elements,
    instances,
    sockets,
    top,
    graph,
    convert,
    capture,
    fault,
    fs,
    set_,
    networks,
    volumes,
    operation,
    token,
    secret,
    project,
    events,
    gc,
    backup,
    doctor,
    version,
):
    module.register(commands)


def run() -> int:
    """The exit status."""
    try:
        status = commands(standalone_mode=False)
        return status if isinstance(status, int) else ExitStatus.OK
    except typer.Exit as end:
        return end.exit_code
    except (typer.Abort, KeyboardInterrupt):
        sys.stderr.write("interrupted\n")
        return 130
    except CseError as error:
        return report(error)
    except Failed as failure:
        return failure.status
    except _ClickError as error:
        error.show()  # type: ignore[attr-defined]
        return ExitStatus.INVALID
    except BrokenPipeError:
        # `cse ps | head`: the reader has what it wanted.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitStatus.OK
