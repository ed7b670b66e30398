"""`cse graph`: applications, their networks and what waits for what, as mermaid, dot or SVG."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

import typer

from app.cli.client import Api, connect
from app.cli.output import say
from app.domain.errors import HostLacks
from app.domain.resources import Application


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
    items = list(connect(api).each_application(label=label))
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


def _mermaid(items: list[Application]) -> Iterator[str]:
    yield "graph LR"
    for network in _networks(items):
        yield f'  net_{_word(network)}(["{network}"])'
    for item in items:
        name, status = item.name, item.status
        detail = "<br/>".join(filter(None, [name, status.state, str(status.address or "")]))
        yield f'  {_word(name)}["{detail}"]'
        if status.address:
            yield f"  {_word(name)} --- net_{_word(_network(item))}"
        for other, condition in _dependencies(item):
            yield f"  {_word(name)} -->|{condition}| {_word(other)}"


def _dot(items: list[Application]) -> Iterator[str]:
    yield "digraph cse {"
    yield "  rankdir=LR; node [shape=box];"
    for network in _networks(items):
        yield f'  "net {network}" [label="{network}", shape=ellipse];'
    for item in items:
        name, status = item.name, item.status
        detail = "\\n".join(filter(None, [name, status.state, str(status.address or "")]))
        yield f'  "{name}" [label="{detail}"];'
        if status.address:
            yield f'  "{name}" -> "net {_network(item)}" [dir=none];'
        for other, condition in _dependencies(item):
            yield f'  "{name}" -> "{other}" [label="{condition}"];'
    yield "}"


def _networks(items: list[Application]) -> list[str]:
    return sorted({_network(item) for item in items if item.status.address})


def _network(item: Application) -> str:
    return item.spec.network.name


def _dependencies(item: Application) -> Iterator[tuple[str, str]]:
    yield from item.spec.dependencies.items()


def _word(name: str) -> str:
    """Mermaid takes a hyphen in a name for the begin of a line."""
    return name.replace("-", "_")
