"""`cse sockets`: the sockets of a private stack, in the manner of ss."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from app.cli.client import Api, AsJson, Client
from app.cli.output import show_json, show_table


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
    items = Client(api).get(f"/v1/applications/{name}/sockets")["items"]
    if tcp != udp:
        items = [item for item in items if item["kind"] == ("tcp" if tcp else "udp")]
    if listening:
        items = [item for item in items if item["state"] in ("LISTEN", "UNCONN")]
    if as_json:
        show_json(items)
        return
    headings = ["NETID", "STATE", "RECV-Q", "SEND-Q", "LOCAL", "PEER", "PROCESS"]
    show_table([*headings, "INFO"] if info else headings, [_row(item, info) for item in items])


def _row(item: dict[str, Any], info: bool) -> tuple[object, ...]:
    process = f"{item.get('program', '')},pid={item['pid']}" if item.get("pid") else ""
    row = (
        item["kind"],
        item["state"],
        item["recvq"],
        item["sendq"],
        item["local"],
        item["peer"],
        process,
    )
    if not info:
        return row
    return (*row, " ".join(f"{key}:{value}" for key, value in item["details"].items()))
