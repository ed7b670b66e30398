"""`cse elements`: the catalogue."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.client import Api, AsJson, connect
from app.cli.output import say, show_json, show_table
from app.domain.resources import ElementResource


def register(commands: typer.Typer) -> None:
    """Add the command."""
    commands.command("elements")(elements)


def elements(
    name: Annotated[str | None, typer.Argument(help="Show this one with its settings.")] = None,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """List the elements, or show one with its settings."""
    client = connect(api)
    if name is not None:
        element = client.get_element(name)
        if as_json:
            show_json(element)
        else:
            _show(element)
        return
    items = list(client.each_element())
    if as_json:
        show_json(items)
        return
    show_table(
        ["NAME", "KIND", "VERSION", "LIBRARIES", "SUMMARY"],
        [
            (
                item.name,
                item.kind,
                item.version,
                ", ".join(item.targets),
                item.summary,
            )
            for item in items
        ],
    )


def _show(element: ElementResource) -> None:
    say(f"{element.name} {element.version} ({element.kind}, {element.license})")
    say(f"{element.summary}\n")
    if element.description:
        say(f"{element.description}\n")
    settings = element.settings.get("properties", {})
    if not settings:
        say("It has no settings.")
        return
    show_table(
        ["SETTING", "TYPE", "DEFAULT", "UNIT", "MEANING"],
        [
            (
                name,
                schema.get("type", "/".join(map(str, schema.get("enum", [])))),
                schema.get("default"),
                schema.get("unit"),
                schema.get("description"),
            )
            for name, schema in settings.items()
        ],
    )
