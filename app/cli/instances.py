"""`cse instances`: the running copies of elements."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from app.cli.client import Api, AsJson, connect
from app.cli.output import show_json, show_table


def register(commands: typer.Typer) -> None:
    """Add the command."""
    commands.command("instances")(instances)


def instances(
    name: Annotated[str | None, typer.Argument(help="Only of this application.")] = None,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """List element instances: which process holds which."""
    client = connect(api)
    if name:
        items = client.list_instances_of_application(name).items
    else:
        items = list(client.each_instance())
    if as_json:
        show_json(items)
        return
    show_table(
        ["APPLICATION", "ELEMENT", "KIND", "STARTED", "PROCESSES", "DETAILS"],
        [
            (
                item.application,
                item.element,
                item.kind,
                "yes" if item.started else "not yet",
                " ".join(map(str, item.pids)),
                _brief(item.details),
            )
            for item in items
        ],
    )


def _brief(details: dict[str, Any]) -> str:
    """Plain values, and numbers that are not zero; --json shows the rest."""
    words = [
        f"{key}={value}"
        for key, value in details.items()
        if isinstance(value, str | int) and not isinstance(value, bool) and value
    ]
    for group in ("counters", "escapes"):
        inner = details.get(group)
        if isinstance(inner, dict):
            words += [f"{key}={value}" for key, value in inner.items() if value]
    return " ".join(words)
