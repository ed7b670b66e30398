"""`cse networks`: list, create and remove networks."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.client import Api, AsJson, connect
from app.cli.output import say, show_json, show_table

group = typer.Typer(help="List, create and remove networks.", invoke_without_command=True)


def register(commands: typer.Typer) -> None:
    """Add the group."""
    commands.add_typer(group, name="networks")


@group.callback()
def networks(context: typer.Context, api: Api = None, as_json: AsJson = False) -> None:
    """List the networks."""
    if context.invoked_subcommand is not None:
        return
    items = list(connect(api).each_network())
    if as_json:
        show_json(items)
        return
    show_table(
        ["NAME", "SUBNET", "SUBNET6", "NAT", "MTU"],
        [
            (
                item.name,
                item.subnet,
                item.subnet6 or "none",
                "yes" if item.nat else "no",
                item.mtu,
            )
            for item in items
        ],
    )


@group.command("create")
def create(
    name: str,
    subnet: Annotated[str, typer.Option(help="As in 10.220.0.0/24.")],
    nat: Annotated[bool, typer.Option(help="Let applications reach other hosts.")] = True,
    mtu: Annotated[int, typer.Option(help="Bytes of one IP packet.")] = 65520,
    subnet6: Annotated[
        str, typer.Option(help="As in fd00:1::/64; 'none' for no IPv6; absent: chosen.")
    ] = "",
    api: Api = None,
) -> None:
    """Make a network."""
    body: dict[str, object] = {"name": name, "subnet": subnet, "nat": nat, "mtu": mtu}
    if subnet6:
        body["subnet6"] = None if subnet6 == "none" else subnet6
    connect(api).create_network(body)
    say(f"{name}: created")


@group.command("rm")
def remove(names: Annotated[list[str], typer.Argument()], api: Api = None) -> None:
    """Remove networks that no application uses."""
    client = connect(api)
    for name in names:
        client.delete_network(name)
        say(f"{name}: removed")
