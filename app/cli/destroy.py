"""`cse destroy`: remove all that a stack made, applications first, then what they used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from app.cli import stackfile
from app.cli.apply import Var
from app.cli.client import Api, connect
from app.cli.failures import Failed, report
from app.cli.output import say
from app.cli.rm import remove
from app.domain.errors import CseError, InvalidSpecification
from app.domain.network import DEFAULT_NETWORK

_LABEL = "cse.stack"


def register(commands: typer.Typer) -> None:
    """Add the command."""
    commands.command("destroy")(destroy)


def destroy(
    name: Annotated[str | None, typer.Argument(help="The stack's name.")] = None,
    file: Annotated[str | None, typer.Option("--file", "-f", help="Or its file.")] = None,
    var: Var = None,
    volumes: Annotated[
        bool, typer.Option("--volumes", help="Its volumes too, with what is in them.")
    ] = False,
    api: Api = None,
) -> None:
    """Remove the applications and networks that a stack made; its volumes only on request."""
    if (name is None) == (file is None):
        raise InvalidSpecification("which stack?", remedy="give its name, or --file")
    if file is not None:
        name = str(stackfile.read(file, var or []).stack.get("name", "default"))
    client = connect(api)
    label = [f"{_LABEL}={name}"]
    worst = remove(client, [one.name for one in client.each_application(label=label)])
    for network in list(client.each_network(label=label)):
        if network.name != DEFAULT_NETWORK:
            worst = max(worst, _delete("network", network.name, client.delete_network))
    for volume in list(client.each_volume(label=label)) if volumes else ():
        worst = max(worst, _delete("volume", volume.name, client.delete_volume))
    if worst:
        raise Failed(worst)


def _delete(kind: str, name: str, delete: Callable[[str], None]) -> int:
    try:
        delete(name)
    except CseError as error:
        return report(error)
    say(f"{kind} {name}: removed")
    return 0
