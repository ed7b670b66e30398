"""`cse apply`: make everything in a stack file so, and wait until it runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from app.cli import stackfile
from app.cli.client import Api, AsJson, Client
from app.cli.failures import ExitStatus, Failed, report
from app.cli.output import say, show_json, state, urls
from app.domain.application import RuntimeName
from app.domain.errors import CseError

File = Annotated[str, typer.Option("--file", "-f", help="The stack file; '-' is standard input.")]

Var = Annotated[
    list[str] | None,
    typer.Option("--var", metavar="NAME=VALUE", help="A variable of the file; may be repeated."),
]


def register(commands: typer.Typer) -> None:
    """Add the command."""
    commands.command("apply")(apply)


def apply(
    file: File,
    var: Var = None,
    plan: Annotated[
        str | None, typer.Option(help="Version that 'cse plan' showed: refused where it is stale.")
    ] = None,
    api: Api = None,
    runtime: Annotated[
        RuntimeName | None, typer.Option(help="For every application of the file.")
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove applications the file no longer lists.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Until every application runs.")
    ] = True,
    timeout: Annotated[float, typer.Option(help="Seconds to wait.")] = 120.0,
    as_json: AsJson = False,
) -> None:
    """Make networks, volumes and applications as a file says.

    What is so already is left alone, what differs is changed as gently as it allows ('cse plan'
    tells); where anything cannot be accepted, nothing is changed.
    """
    client = Client(api)
    with prepared(client, file, var, runtime) as stack:
        result = put(client, stack, prune, plan)
    failed = follow(client, result, timeout if wait else 0.0, quiet=as_json)
    if as_json:
        show_json(result)
    if failed:
        raise Failed(ExitStatus.FAILED)


@contextmanager
def prepared(
    client: Client, file: str, var: list[str] | None, runtime: RuntimeName | None
) -> Iterator[dict[str, Any]]:
    """The file's stack as the server takes it; errors are shown with the file's lines."""
    source = stackfile.read(file, var or [])
    with explained(source):
        yield ready(client, source, runtime)


@contextmanager
def explained(source: stackfile.StackFile) -> Iterator[None]:
    """What the server says of the stack is shown with the file's lines."""
    try:
        yield
    except CseError as error:
        raise Failed(report(source.explain(error), places=source.places)) from error


def ready(
    client: Client, source: stackfile.StackFile, runtime: RuntimeName | None
) -> dict[str, Any]:
    """Paths absolute, `--runtime` applied."""
    source.resolve_paths(lambda: schemas(client))
    source.override(runtime=runtime.value if runtime else None)
    return source.stack


def put(
    client: Client, stack: dict[str, Any], prune: bool = False, plan: str | None = None
) -> dict[str, Any]:
    """Have the server check and record it."""
    path = f"/v1/stacks/{stack.get('name', 'default')}"
    headers = {"If-Match": f'"{plan}"'} if plan else None
    query = {"prune": prune}
    result: dict[str, Any] = client.call(
        "PUT", path, stack, query=query, headers=headers, timeout_s=600
    )
    return result


def schemas(client: Client) -> dict[str, dict[str, Any]]:
    """Element name → schema of its settings."""
    return {item["name"]: item["settings"] for item in client.get("/v1/elements")["items"]}


def follow(client: Client, result: dict[str, Any], wait: float, *, quiet: bool = False) -> bool:
    """Tell how it goes, application by application; whether any of them failed."""
    deadline = time.monotonic() + wait
    failed = False
    for change in result["changes"]:
        kind, name, verb = change["kind"], change["name"], change["change"]
        if kind != "application" or verb == "removed" or not wait:
            if not quiet:
                say(f"{kind} {name}: {verb}")
            continue
        left = max(0.1, min(60.0, deadline - time.monotonic()))
        resource = client.get(f"/v1/applications/{name}", wait=left)
        while resource["status"]["state"] in ("starting", "waiting"):
            if time.monotonic() > deadline:
                break
            resource = client.get(f"/v1/applications/{name}", wait=10)
        status = resource["status"]
        change["status"] = status
        bad = status["state"] in ("failed", "starting", "waiting") or (
            status["state"] == "exited" and status.get("exit_code") != 0
        )
        failed = failed or bad
        if not quiet:
            _tell(name, verb, status)
    return failed


def _tell(name: str, verb: str, status: dict[str, Any]) -> None:
    words = [f"application {name}: {verb}, {state(status)}"]
    words += [str(status["address"])] if status.get("address") else []
    words += urls(status)
    say("  ".join(words))
    if status.get("reason"):
        say(f"  {status['reason']}")
        if status.get("remedy"):
            say(f"  → {status['remedy']}")
    coverage = status.get("coverage") or {}
    if coverage.get("verdict") == "kernel":
        say(f"  on the kernel's own service: {coverage['reason']}")
