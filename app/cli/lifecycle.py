"""`cse start`, `cse stop`, `cse restart`."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.client import Api, AsJson, connect
from app.cli.failures import Failed, report
from app.cli.output import say, show_json, state
from app.domain.errors import CseError
from app.domain.resources import Application

Names = Annotated[list[str], typer.Argument(metavar="NAME...")]


def register(commands: typer.Typer) -> None:
    """Add the commands."""
    commands.command("start")(start)
    commands.command("stop")(stop)
    commands.command("restart")(restart)


def start(names: Names, api: Api = None, as_json: AsJson = False) -> None:
    """Start applications that do not run."""
    _each("start", names, api, as_json)


def stop(names: Names, api: Api = None, as_json: AsJson = False) -> None:
    """End programs by their stop rule; the applications stay."""
    _each("stop", names, api, as_json)


def restart(names: Names, api: Api = None, as_json: AsJson = False) -> None:
    """End programs and start them anew."""
    _each("restart", names, api, as_json)


def _each(verb: str, names: list[str], api: str | None, as_json: bool) -> None:
    client, worst = connect(api), 0
    results: list[Application] = []
    calls = {
        "start": client.start_application,
        "stop": client.stop_application,
        "restart": client.restart_application,
    }
    for name in names:
        try:
            resource = calls[verb](name, wait=60)
        except CseError as error:
            worst = max(worst, report(error))
            continue
        results.append(resource)
        status = resource.status
        ended = status.state in ("stopped", "exited")
        if status.state == "failed" or (verb == "stop" and not ended):
            worst = max(worst, 1)
        if not as_json:
            reason = f": {status.reason}" if status.reason else ""
            say(f"{name}: {state(status)}{reason}")
    if as_json:
        show_json(results)
    if worst:
        raise Failed(worst)
