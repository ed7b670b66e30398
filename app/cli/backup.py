"""`cse backup` and `cse restore`: the store as one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.cli.output import say
from app.settings import load

File = Annotated[Path, typer.Argument(help="The backup.")]


def register(commands: typer.Typer) -> None:
    """Add the commands."""
    commands.command("backup")(backup)
    commands.command("restore")(restore)


def backup(file: File) -> None:
    """Copy the store of this machine to a file, also while the server runs.

    Specifications, networks, tokens (hashed), events, the audit log; not what is in volumes.
    """
    from app.store.backup import save

    save(load().database_url, file)
    say(f"{file}: {file.stat().st_size} bytes")


def restore(file: File) -> None:
    """Put a backup in the place of the store; the server must be stopped.

    The present store is kept beside it. At its start the server brings about what the backup says.
    """
    from app.store.backup import put_back

    put_back(load().database_url, file)
    say("restored; start the server: cse serve")
