"""`cse version`."""

from __future__ import annotations

import typer

from app.cli.client import AsJson
from app.cli.output import say, show_json
from app.settings import product_version


def register(commands: typer.Typer) -> None:
    """Add the command."""
    commands.command("version")(version)


def version(as_json: AsJson = False) -> None:
    """Show the version of this command."""
    if as_json:
        show_json({"version": product_version()})
    else:
        say(f"cse {product_version()}")
