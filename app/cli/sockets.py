"""`cse sockets`: the sockets of a private stack, in the manner of ss."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.client import Api, AsJson, connect
from app.cli.output import show_json, show_table
from app.domain.usage import SocketEntry


def register(commands: typer.Typer) -> None:
    """Add the command."""
    commands.command("sockets")(sockets)


def sockets(
    name: str,
    tcp: Annotated[bool, typer.Option("--tcp", "-t", help="Only TCP.")] = False,
    udp: Annotated[bool, typer.Option("--udp", "-u", help="Only UDP.")] = False,
    listening: Annotated[bool, typer.Option("--listening", "-l", help="Only listening.")] = False,
    everything: Annotated[bool, typer.Option("--all", "-a", help="Listening and others.")] = False,
    numeric: Annotated[bool, typer.Option("--numeric", "-n", help="Always so.")] = True,
    info: Annotated[bool, typer.Option("--info", "-i", help="What TCP knows.")] = False,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """List the sockets of one application's private stack."""
    items = connect(api).list_sockets(name).items
    if tcp != udp:
        items = [item for item in items if item.kind == ("tcp" if tcp else "udp")]
    if listening:
        items = [item for item in items if item.state in ("LISTEN", "UNCONN")]
    if as_json:
        show_json(items)
        return
    headings = ["NETID", "STATE", "RECV-Q", "SEND-Q", "LOCAL", "PEER", "PROCESS"]
    show_table([*headings, "INFO"] if info else headings, [_row(item, info) for item in items])


def _row(item: SocketEntry, info: bool) -> tuple[object, ...]:
    process = f"{item.program or ''},pid={item.pid}" if item.pid else ""
    row = (
        item.kind,
        item.state,
        item.recvq,
        item.sendq,
        item.local,
        item.peer,
        process,
    )
    if not info:
        return row
    return (*row, " ".join(f"{key}:{value}" for key, value in item.details.items()))
