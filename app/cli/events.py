"""`cse events`: what happened."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from app.cli.client import Api, AsJson, Client
from app.cli.output import say


def register(commands: typer.Typer) -> None:
    """Add the command."""
    commands.command("events")(events)


def events(
    name: Annotated[str | None, typer.Argument(help="Only of this application.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more.")] = False,
    limit: Annotated[int, typer.Option(help="The last so many.", min=1, max=1000)] = 50,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Show events, oldest first; one JSON object per line with --json."""
    client = Client(api)
    latest = client.get("/v1/events", application=name, limit=limit)["items"]
    for event in latest:
        _show(event, as_json)
    if follow:
        after = latest[-1]["id"] if latest else 0
        for event in client.lines("/v1/events", follow=True, application=name, after=after):
            _show(event, as_json)


def _show(event: dict[str, object], as_json: bool) -> None:
    if as_json:
        say(json.dumps(event, ensure_ascii=False))
        return
    name = event.get("application") or "-"
    say(f"{event['time']}  {name:<16}  {event['kind']:<14}  {event['message']}")
