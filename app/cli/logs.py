"""`cse logs`: what a program has written."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from app.cli.client import Api, AsJson, connect
from app.cli.output import line_of, say


def register(commands: typer.Typer) -> None:
    """Add the command."""
    commands.command("logs")(logs)


def logs(
    name: str,
    api: Api = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the program ends.")] = False,
    tail: Annotated[int | None, typer.Option(min=0, help="Only the last lines.")] = None,
    timestamps: Annotated[bool, typer.Option("--timestamps", "-t")] = False,
    as_json: AsJson = False,
) -> None:
    """Show a program's output; its standard error goes to standard error."""
    for line in connect(api).read_logs(name, follow=follow, tail=tail):
        if as_json:
            say(line_of(line))
            continue
        stream = sys.stderr if line.stream == "stderr" else sys.stdout
        stream.write((f"{line.time.isoformat()} " if timestamps else "") + line.text + "\n")
        stream.flush()
