"""`cse token` and `cse audit`: who may use the server, and who did what."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from app.cli.client import Api, AsJson, connect
from app.cli.output import age, say, show_json, show_table
from app.domain.access import NewToken, Scope, TokenSpec
from app.domain.errors import InvalidSpecification
from app.domain.quantities import parse_seconds
from app.settings import load

Name = Annotated[str, typer.Argument(help="The token's name.")]


def register(commands: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Tokens: who may use the server.", no_args_is_help=True)
    group.command("create")(create)
    group.command("ls")(list_all)
    group.command("revoke")(revoke)
    commands.add_typer(group, name="token")
    commands.command("audit")(audit)


def create(
    name: Name,
    scope: Annotated[Scope, typer.Option(help="Each includes the ones before.")] = Scope.READ,
    project: Annotated[str | None, typer.Option(help="Confined to this project.")] = None,
    expires: Annotated[str | None, typer.Option(help="After this time, as in 30d.")] = None,
    offline: Annotated[
        bool,
        typer.Option("--offline", help="Write to the store of this machine, without a server."),
    ] = False,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Make a token and show it: this once, it is kept as a hash only."""
    body: dict[str, Any] = {"name": name, "scope": scope.value, "project": project}
    if expires is not None:
        body["expires_in"] = _seconds(expires)
    made = _write(body) if offline else connect(api).create_token(body)
    if as_json:
        show_json(made)
    else:
        say(made.token)


def list_all(api: Api = None, as_json: AsJson = False) -> None:
    """List tokens, without their secrets."""
    items = list(connect(api).each_token())
    if as_json:
        show_json(items)
        return
    rows = [
        (
            item.name,
            item.id,
            item.scope,
            item.project,
            "revoked" if item.revoked else item.expires or "never",
            age(item.last_used),
        )
        for item in items
    ]
    show_table(["NAME", "ID", "SCOPE", "PROJECT", "EXPIRES", "USED"], rows)


def revoke(name: Name, api: Api = None) -> None:
    """Refuse a token, named by name or id, from now on."""
    revoked = connect(api).revoke_token(name)
    say(f"{revoked.name}: revoked")


def audit(
    limit: Annotated[int, typer.Option(help="The last so many.", min=1, max=1000)] = 50,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Show who changed what, and who was refused, oldest first."""
    items = connect(api).list_audit(limit=limit).items
    if as_json:
        show_json(items)
        return
    rows = [(item.time, item.principal, item.method, item.path, item.status) for item in items]
    show_table(["TIME", "WHO", "METHOD", "PATH", "STATUS"], rows)


def _seconds(text: str) -> object:
    try:
        return parse_seconds(text)
    except ValueError as error:
        raise InvalidSpecification(f"--expires: {error}") from error


def _write(body: dict[str, Any]) -> NewToken:
    """The first token of a server that listens for others: whoever owns its store may make one."""
    from app.main import open_store

    store = open_store(load())
    try:
        with store.write() as transaction:
            if body["project"] is not None:
                transaction.projects.get(body["project"])
            return transaction.tokens.create(TokenSpec.model_validate(body))
    finally:
        store.close()
