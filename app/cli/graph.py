"""`cse graph`: applications, their networks and what waits for what, as mermaid or dot."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any

import typer

from app.cli.client import Api, Client
from app.cli.output import say


class Format(StrEnum):
    """Languages that other programs draw."""

    MERMAID = "mermaid"
    DOT = "dot"


def register(commands: typer.Typer) -> None:
    """Add the command."""
    commands.command("graph")(graph)


def graph(
    form: Annotated[Format, typer.Option("--format", help="What to write.")] = Format.MERMAID,
    label: Annotated[
        list[str] | None, typer.Option(help="Selector, as in cse.stack=demo; may be repeated.")
    ] = None,
    api: Api = None,
) -> None:
    """Draw who is on which network and who depends on whom: 'cse graph --format dot | dot -Tsvg'.

    Lines are places on a network, arrows lead from an application to what it waits for.
    """
    client = Client(api)
    items = client.get("/v1/applications", label=label, limit=10_000)["items"]
    for line in _mermaid(items) if form is Format.MERMAID else _dot(items):
        say(line)


def _mermaid(items: list[dict[str, Any]]) -> Iterator[str]:
    yield "graph LR"
    for network in _networks(items):
        yield f'  net_{_word(network)}(["{network}"])'
    for item in items:
        name, status = item["name"], item["status"]
        detail = "<br/>".join(filter(None, [name, status["state"], status.get("address")]))
        yield f'  {_word(name)}["{detail}"]'
        if status.get("address"):
            yield f"  {_word(name)} --- net_{_word(_network(item))}"
        for other, condition in _dependencies(item):
            yield f"  {_word(name)} -->|{condition}| {_word(other)}"


def _dot(items: list[dict[str, Any]]) -> Iterator[str]:
    yield "digraph cse {"
    yield "  rankdir=LR; node [shape=box];"
    for network in _networks(items):
        yield f'  "net {network}" [label="{network}", shape=ellipse];'
    for item in items:
        name, status = item["name"], item["status"]
        detail = "\\n".join(filter(None, [name, status["state"], status.get("address")]))
        yield f'  "{name}" [label="{detail}"];'
        if status.get("address"):
            yield f'  "{name}" -> "net {_network(item)}" [dir=none];'
        for other, condition in _dependencies(item):
            yield f'  "{name}" -> "{other}" [label="{condition}"];'
    yield "}"


def _networks(items: list[dict[str, Any]]) -> list[str]:
    return sorted({_network(item) for item in items if item["status"].get("address")})


def _network(item: dict[str, Any]) -> str:
    return str(item["spec"]["network"]["name"])


def _dependencies(item: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for word in item["spec"]["depends_on"]:
        other, _, condition = word.partition(":")
        yield other, condition or "started"


def _word(name: str) -> str:
    """Mermaid takes a hyphen in a name for the begin of a line."""
    return name.replace("-", "_")
