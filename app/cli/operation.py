"""`cse operation`: what is under way, waiting for it, calling it off."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.client import Api, AsJson, connect
from app.cli.failures import Failed
from app.cli.output import age, say, show_json, show_table
from app.domain.operation import Operation

Identity = Annotated[str, typer.Argument(metavar="OPERATION", help="As 'ls' shows it.")]


def register(commands: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Operations: what is under way.", no_args_is_help=True)
    group.command("ls")(list_all)
    group.command("show")(show)
    group.command("wait")(wait)
    group.command("cancel")(cancel)
    commands.add_typer(group, name="operation")


def list_all(
    limit: Annotated[int, typer.Option(help="The last so many.", min=1, max=1000)] = 20,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """List operations, the newest first."""
    items = connect(api).list_operations(limit=limit).items
    if as_json:
        show_json(items)
        return
    rows = [
        (
            item.id,
            item.kind,
            item.state,
            f"{item.done}/{item.total}",
            age(item.created),
            item.principal,
        )
        for item in items
    ]
    show_table(["OPERATION", "KIND", "STATE", "DONE", "AGE", "WHO"], rows)


def show(operation: Identity, api: Api = None, as_json: AsJson = False) -> None:
    """Show one operation and each of its applications."""
    _tell(connect(api).get_operation(operation), as_json)


def wait(
    operation: Identity,
    timeout: Annotated[float, typer.Option(help="Seconds.", min=0, max=600)] = 120.0,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Wait until an operation is over; the status is 0 only where it succeeded."""
    found = connect(api).get_operation(operation, wait=timeout)
    _tell(found, as_json)
    if found.state != "succeeded":
        raise Failed()


def cancel(operation: Identity, api: Api = None, as_json: AsJson = False) -> None:
    """Call an operation off: what is new and does not run yet is removed, the rest stopped."""
    _tell(connect(api).cancel_operation(operation), as_json)


def _tell(found: Operation, as_json: bool) -> None:
    if as_json:
        show_json(found)
        return
    say(f"{found.id} {found.kind}: {found.state}, {found.done}/{found.total}")
    for target in found.targets:
        reason = f": {target.reason}" if target.reason else ""
        say(f"  {target.application}: {target.state}{reason}")
