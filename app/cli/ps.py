"""`cse ps`: the applications."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.client import Api, AsJson, connect
from app.cli.output import age, ports, show_json, show_table, state


def register(commands: typer.Typer) -> None:
    """Add the command."""
    commands.command("ps")(ps)


def ps(
    api: Api = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", "-l", help="KEY or KEY=VALUE.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the applications."""
    items = list(connect(api).each_application(label=label))
    if as_json:
        show_json(items)
        return
    show_table(
        ["NAME", "STATE", "ADDRESS", "PORTS", "RUNTIME", "ELEMENTS", "RESTARTS", "STARTED", ""],
        [
            (
                item.name,
                state(item.status),
                item.status.address,
                ports(item.status),
                item.spec.runtime,
                ", ".join(item.spec.elements),
                item.status.restarts or "",
                age(item.status.started_at),
                item.status.reason,
            )
            for item in items
        ],
    )
