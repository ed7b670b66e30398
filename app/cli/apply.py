"""`cse apply`: make everything in a stack file so, and wait until it runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from app.cli import stackfile
from app.cli.client import Api, AsJson, connect
from app.cli.failures import ExitStatus, Failed, report
from app.cli.output import plain, say, show_json, state, urls
from app.client import Client
from app.domain.application import RuntimeName
from app.domain.errors import CseError
from app.domain.resources import ApplicationStatus, StackResult

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
    client = connect(api, timeout_s=600)
    with prepared(client, file, var, runtime) as stack:
        result = put(client, stack, prune, plan)
    followed = follow(client, result, timeout if wait else 0.0, quiet=as_json)
    if as_json:
        shown = plain(result)
        for change in shown["changes"]:
            if change["kind"] == "application" and change["name"] in followed.statuses:
                change["status"] = plain(followed.statuses[change["name"]])
        show_json(shown)
    if followed.failed:
        raise Failed(ExitStatus.FAILED)


@dataclass
class Followed:
    """What became of the applications of a stack."""

    statuses: dict[str, ApplicationStatus]
    failed: bool


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
) -> StackResult:
    """Have the server check and record it."""
    name = str(stack.get("name", "default"))
    return client.apply_stack(name, stack, prune=prune, if_match=f'"{plan}"' if plan else None)


def schemas(client: Client) -> dict[str, dict[str, Any]]:
    """Element name → schema of its settings."""
    return {item.name: item.settings for item in client.each_element()}


def follow(client: Client, result: StackResult, wait: float, *, quiet: bool = False) -> Followed:
    """Tell how it goes, application by application, until all run or have failed to, and what is
    removed is gone."""
    deadline = time.monotonic() + wait
    found = Followed({}, failed=False)
    for change in sorted(result.changes, key=lambda change: change.change == "removed"):
        kind, name, verb = change.kind, change.name, change.change
        if kind != "application" or verb == "removed" or not wait:
            if kind == "application" and wait and result.operation:
                left = max(0.1, min(60.0, deadline - time.monotonic()))
                client.get_operation(result.operation, wait=left)
            if not quiet:
                say(f"{kind} {name}: {verb}")
            continue
        left = max(0.1, min(60.0, deadline - time.monotonic()))
        resource = client.get_application(name, wait=left)
        while resource.status.state in ("starting", "waiting"):
            if time.monotonic() > deadline:
                break
            resource = client.get_application(name, wait=10)
        status = resource.status
        found.statuses[name] = status
        bad = status.state in ("failed", "starting", "waiting") or (
            status.state == "exited" and status.exit_code != 0
        )
        found.failed = found.failed or bad
        if not quiet:
            _tell(name, verb, status)
    return found


def _tell(name: str, verb: str, status: ApplicationStatus) -> None:
    words = [f"application {name}: {verb}, {state(status)}"]
    words += [str(status.address)] if status.address else []
    words += urls(status)
    say("  ".join(words))
    if status.reason:
        say(f"  {status.reason}")
        if status.remedy:
            say(f"  → {status.remedy}")
    if status.coverage is not None and status.coverage.verdict == "kernel":
        say(f"  on the kernel's own service: {status.coverage.reason}")
