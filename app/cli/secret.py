"""`cse secret`: values that specifications name and never hold."""

from __future__ import annotations

import base64
import getpass
import sys
from typing import Annotated, Any

import typer

from app.cli.client import Api, AsJson, connect
from app.cli.output import age, say, show_json, show_table

Name = Annotated[str, typer.Argument(help="The secret's name.")]


def register(commands: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Secrets: named in specifications, never shown.", no_args_is_help=True)
    group.command("set")(put)
    group.command("ls")(list_all)
    group.command("rm")(remove)
    commands.add_typer(group, name="secret")


def put(
    name: Name,
    project: Annotated[str, typer.Option(help="Whose applications may use it.")] = "default",
    api: Api = None,
) -> None:
    """Keep what standard input holds; a terminal is asked without showing it."""
    if sys.stdin.isatty():
        content = getpass.getpass(f"{name}: ").encode()
    else:
        content = sys.stdin.buffer.read()
    body: dict[str, Any] = {"name": name, "project": project, "encoding": "base64"}
    body["value"] = base64.b64encode(content).decode()
    connect(api).put_secret(name, body)
    say(f"secret {name}: set")


def list_all(api: Api = None, as_json: AsJson = False) -> None:
    """List secrets without their values, and who uses them."""
    items = list(connect(api).each_secret())
    if as_json:
        show_json(items)
        return
    rows = [(item.name, item.project, age(item.updated), ", ".join(item.used_by)) for item in items]
    show_table(["NAME", "PROJECT", "AGE", "USED BY"], rows)


def remove(names: Annotated[list[str], typer.Argument()], api: Api = None) -> None:
    """Forget secrets that no application uses."""
    client = connect(api)
    for name in names:
        client.delete_secret(name)
        say(f"secret {name}: removed")
