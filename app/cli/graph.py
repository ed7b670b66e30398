"""`cse graph`: applications, their networks and what waits for what, as mermaid, dot or SVG."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any

import typer

from app.cli.client import Api, Client
from app.cli.output import say
from app.domain.errors import HostLacks


class Format(StrEnum):
    """Two languages that other programs draw, and a drawing (by graphviz)."""

    MERMAID = "mermaid"
    DOT = "dot"
    SVG = "svg"


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
    """Draw who is on which network and who depends on whom: 'cse graph --format svg > all.svg'.

    Lines are places on a network, arrows lead from an application to what it waits for.
    """
    client = Client(api)
    items = client.get("/v1/applications", label=label, limit=10_000)["items"]
    text = "\n".join(_mermaid(items) if form is Format.MERMAID else _dot(items))
    say(_drawn(text) if form is Format.SVG else text)


def _drawn(text: str) -> str:
    """The SVG of a dot text. Raises `HostLacks` where graphviz is missing."""
    try:
        done = subprocess.run(["dot", "-Tsvg"], input=text, capture_output=True, text=True)
    except FileNotFoundError as error:
        remedy = "install graphviz, or take --format dot or mermaid elsewhere"
        raise HostLacks("graphviz, which draws SVG, is not installed", remedy=remedy) from error
    if done.returncode:
        raise HostLacks(f"graphviz: {done.stderr.strip()}", remedy="take --format dot")
    return done.stdout.rstrip()


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
