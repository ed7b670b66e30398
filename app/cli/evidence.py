"""`cse evidence`: what shows that an application's services are its own."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from app.cli.client import Api, AsJson, connect
from app.cli.failures import ExitStatus, Failed
from app.cli.output import plain, show_json, show_table
from app.client import Client


def register(commands: typer.Typer) -> None:
    """Add the command."""
    commands.command("evidence")(evidence)


def evidence(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="All, where none is given.")
    ] = None,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Check each claim of privacy now against what the kernel shows; status 1 where one fails."""
    client = connect(api)
    claims = collect(client, names or [])
    if as_json:
        show_json(claims)
    else:
        show(claims)
    if any(claim["verdict"] == "fails" for claim in claims):
        raise Failed(ExitStatus.FAILED)


def collect(client: Client, names: list[str]) -> list[dict[str, Any]]:
    """The claims about these applications, or about all that run."""
    if not names:
        listed = client.each_application()
        names = [one.name for one in listed if one.status.state == "running"]
    return [
        {"application": name, **plain(claim)}
        for name in names
        for claim in client.read_evidence(name).items
    ]


def show(claims: list[dict[str, Any]]) -> None:
    """As a table."""
    show_table(
        ["APPLICATION", "ELEMENT", "CLAIM", "VERDICT", "OBSERVATION"],
        [
            (
                claim["application"],
                claim.get("element"),
                claim["title"],
                claim["verdict"],
                claim["observation"],
            )
            for claim in claims
        ],
    )
