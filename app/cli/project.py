"""`cse project`: parts of this host's applications, with bounds."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from app.cli.client import Api, AsJson, connect
from app.cli.output import say, show_json, show_table
from app.client import Client

_FIELDS = ("applications", "memory", "cpus", "pids")
Name = Annotated[str, typer.Argument(help="The project's name.")]


def register(commands: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Projects and their quotas.", no_args_is_help=True)
    group.command("set")(put)
    group.command("ls")(list_all)
    group.command("rm")(remove)
    commands.add_typer(group, name="project")


def put(
    name: Name,
    applications: Annotated[int | None, typer.Option(help="At most so many.")] = None,
    memory: Annotated[str | None, typer.Option(help="All their limits together: 4G.")] = None,
    cpus: Annotated[float | None, typer.Option(help="All their limits together.")] = None,
    pids: Annotated[int | None, typer.Option(help="All their limits together.")] = None,
    api: Api = None,
) -> None:
    """Make a project, or change its quotas: those that are not given are no bounds."""
    given = {"applications": applications, "memory": memory, "cpus": cpus, "pids": pids}
    quotas = {key: value for key, value in given.items() if value is not None}
    body = {"name": name, "quotas": quotas}
    client = connect(api)
    if _exists(client, name):
        client.replace_project(name, body, if_match="*")
    else:
        client.replace_project(name, body, if_none_match="*")
    say(f"project {name}: set")


def list_all(api: Api = None, as_json: AsJson = False) -> None:
    """List projects with their quotas and how many applications each has."""
    client = connect(api)
    items = list(client.each_project())
    if as_json:
        show_json(items)
        return
    rows: list[list[Any]] = []
    for item in items:
        there = sum(1 for _ in client.each_application(project=item.name))
        rows.append([item.name, there, *(getattr(item.quotas, field) for field in _FIELDS)])
    show_table(["NAME", "HAS", *(f"MAX {field.upper()}" for field in _FIELDS)], rows)


def remove(name: Name, api: Api = None) -> None:
    """Remove an empty project."""
    connect(api).delete_project(name)
    say(f"project {name}: removed")


def _exists(client: Client, name: str) -> bool:
    return any(item.name == name for item in client.each_project())
