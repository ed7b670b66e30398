"""`cse events`: what happened."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.client import Api, AsJson, connect
from app.cli.output import line_of, say
from app.domain.resources import Event


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
    client = connect(api)
    latest = client.list_events(application=name, limit=limit).items
    for event in latest:
        _show(event, as_json)
    if follow:
        after = latest[-1].id if latest else None
        for event in client.events(after, application=name):
            _show(event, as_json)


def _show(event: Event, as_json: bool) -> None:
    if as_json:
        say(line_of(event))
        return
    name = event.application or "-"
    say(f"{event.time.isoformat()}  {name:<16}  {event.kind:<14}  {event.message}")
