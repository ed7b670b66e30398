"""`cse rm`: remove applications, by name or all of a stack file."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import typer

from app.cli import stackfile
from app.cli.client import Api, connect
from app.cli.failures import Failed, report
from app.cli.output import say
from app.client import Client
from app.domain.errors import CseError, InvalidSpecification


def register(commands: typer.Typer) -> None:
    """Add the command."""
    commands.command("rm")(rm)


def rm(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...")] = None,
    file: Annotated[
        str | None, typer.Option("--file", "-f", help="All applications of this stack file.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All applications.")] = False,
    api: Api = None,
) -> None:
    """End programs and remove everything made for them. Volumes and networks stay."""
    client = connect(api)
    wanted = list(names or [])
    if file is not None:
        listed = stackfile.read(file).stack.get("applications") or {}
        present = {item.name for item in client.each_application()}
        wanted += [name for name in reversed(list(listed)) if name in present]
    if everything:
        wanted += [item.name for item in client.each_application()]
    if not wanted and file is None and not everything:
        raise InvalidSpecification("nothing to remove", remedy="give names, --file or --all")
    if worst := remove(client, wanted):
        raise Failed(worst)


def remove(client: Client, names: list[str]) -> int:
    """Remove each, several at the same time; the worst exit status."""

    def one(name: str) -> int:
        try:
            client.delete_application(name, wait=60)
        except CseError as error:
            return report(error)
        say(f"{name}: removed")
        return 0

    with ThreadPoolExecutor(8) as pool:
        return max(pool.map(one, names), default=0)
