"""`cse gc`: remove what this installation made on the host and nobody needs any more."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.client import Api, AsJson, connect
from app.cli.output import say, show_json


def register(commands: typer.Typer) -> None:
    """Add the command."""
    commands.command("gc")(collect)


def collect(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List only.")] = False,
    volumes: Annotated[
        bool, typer.Option("--volumes", help="Also volumes without a record, with their content.")
    ] = False,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Find what is owned and unneeded: half-made applications, idle bridges, old addresses."""
    found = connect(api).collect_garbage(dry_run=dry_run, volumes=volumes).items
    if as_json:
        show_json(found)
        return
    for one in found:
        verb = "removed" if one.removed else "unneeded"
        say(f"{one.kind} {one.name}: {verb} ({one.detail})")
    if not found:
        say("nothing is left over")
