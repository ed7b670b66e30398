"""`cse destroy`: remove all that a stack made, applications first, then what they used."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli import stackfile
from app.cli.apply import Var
from app.cli.client import Api, Client
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
    client = Client(api)
    listed = client.get("/v1/applications", label=f"{_LABEL}={name}", limit=10_000)["items"]
    worst = remove(client, [item["name"] for item in listed])
    kinds = ["networks", *(["volumes"] if volumes else [])]
    for kind in kinds:
        for item in client.get(f"/v1/{kind}")["items"]:
            if item["labels"].get(_LABEL) == name and item["name"] != DEFAULT_NETWORK:
                worst = max(worst, _delete(client, kind, item["name"]))
    if worst:
        raise Failed(worst)


def _delete(client: Client, kind: str, name: str) -> int:
    try:
        client.call("DELETE", f"/v1/{kind}/{name}")
    except CseError as error:
        return report(error)
    say(f"{kind.removesuffix('s')} {name}: removed")
    return 0
