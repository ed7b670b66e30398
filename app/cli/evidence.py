"""`cse evidence`: what shows that an application's services are its own."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from app.cli.client import Api, AsJson, Client
from app.cli.failures import ExitStatus, Failed
from app.cli.output import show_json, show_table


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
    client = Client(api)
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
        items = client.get("/v1/applications")["items"]
        names = [item["name"] for item in items if item["status"]["state"] == "running"]
    return [
        {"application": name, **claim}
        for name in names
        for claim in client.get(f"/v1/applications/{name}/evidence")["items"]
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
