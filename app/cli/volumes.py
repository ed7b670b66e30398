"""`cse volumes`: list, create and remove volumes."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.client import Api, AsJson, connect
from app.cli.output import say, show_json, show_table

group = typer.Typer(help="List, create and remove volumes.", invoke_without_command=True)


def register(commands: typer.Typer) -> None:
    """Add the group."""
    commands.add_typer(group, name="volumes")


@group.callback()
def volumes(context: typer.Context, api: Api = None, as_json: AsJson = False) -> None:
    """List the volumes."""
    if context.invoked_subcommand is not None:
        return
    items = list(connect(api).each_volume())
    if as_json:
        show_json(items)
        return
    rows = [
        (item.name, ", ".join(f"{key}={value}" for key, value in item.labels.items()))
        for item in items
    ]
    show_table(["NAME", "LABELS"], rows)


@group.command("create")
def create(name: str, api: Api = None) -> None:
    """Make an empty volume."""
    connect(api).create_volume({"name": name})
    say(f"{name}: created")


@group.command("rm")
def remove(names: Annotated[list[str], typer.Argument()], api: Api = None) -> None:
    """Delete volumes that no application mounts, with what is in them."""
    client = connect(api)
    for name in names:
        client.delete_volume(name)
        say(f"{name}: removed")
