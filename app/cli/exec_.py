"""`cse exec`: a command beside a running application. (`exec` is a name of Python's own.)"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from app.cli.client import Api, AsJson, connect
from app.cli.failures import ExitStatus, Failed, report
from app.cli.output import show_json
from app.domain.errors import CseError


def register(commands: typer.Typer) -> None:
    """Add the command."""
    commands.command(
        "exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
    )(execute)


def execute(
    name: str,
    command: Annotated[list[str], typer.Argument(help="Program and arguments.")],
    api: Api = None,
    terminal: Annotated[
        bool, typer.Option("--terminal", "-t", help="In a terminal of its own, as a shell wants.")
    ] = False,
    timeout: Annotated[float, typer.Option(help="Seconds; then it is killed.")] = 60.0,
    as_json: AsJson = False,
) -> None:
    """Run a command in a running application's surroundings, with its elements linked."""
    words = command[1:] if command[0] == "--" else command
    try:
        if terminal:
            from app.cli.terminal import run

            raise Failed(run(connect(api), name, words))
        result = connect(api).exec_in_application(name, {"command": words, "timeout": timeout})
    except CseError as error:
        report(error)
        raise Failed(ExitStatus.NOT_STARTED) from error
    if as_json:
        show_json(result)
    else:
        sys.stdout.write(result.stdout)
        sys.stderr.write(result.stderr)
    raise Failed(result.exit_code)
