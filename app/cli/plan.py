"""`cse plan` and `cse diff`: what applying a stack file would change; nothing is done.

`apply` carries a plan out where its version is given; `destroy` is in `destroy.py`.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
import yaml

from app.cli.apply import File, Var, prepared
from app.cli.client import Api, AsJson, connect
from app.cli.failures import ExitStatus, Failed
from app.cli.output import say, show_json
from app.client import Client
from app.domain.application import RuntimeName
from app.domain.change import Plan, ResourceChange

_SIGNS = {"create": "+", "change": "~", "remove": "-", "unchanged": " "}
_SAID = {
    "none": "not noticed",
    "later": "for what is created from now on",
    "live": "while it runs",
    "restart": "its program is restarted",
    "recreate": "it is made anew",
}
Runtime = Annotated[RuntimeName | None, typer.Option(help="For every application of the file.")]
Prune = Annotated[bool, typer.Option("--prune", help="Also remove what the file no longer lists.")]


def register(commands: typer.Typer) -> None:
    """Add the commands."""
    commands.command("plan")(plan)
    commands.command("diff")(diff)


def plan(
    file: File,
    var: Var = None,
    runtime: Runtime = None,
    prune: Prune = False,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Show what 'cse apply' would change, field by field: live, by a restart, or made anew.

    'cse apply --plan VERSION' carries it out, or refuses where anything has changed since.
    """
    found = ask(connect(api, timeout_s=600), file, var, runtime, prune)
    if as_json:
        show_json(found)
        return
    for change in found.changes:
        _show(change)
    changing = [change for change in found.changes if change.action != "unchanged"]
    if not changing:
        say("nothing to do")
        return
    options = "".join(f" --var '{word}'" for word in var or []) + (" --prune" if prune else "")
    say(f"\nversion {found.version}")
    say(f"  → cse apply -f {file}{options} --plan {found.version}")


def diff(
    file: File,
    var: Var = None,
    runtime: Runtime = None,
    prune: Prune = False,
    api: Api = None,
) -> None:
    """Show the fields that differ as a patch; the exit status is 1 where any does."""
    found = ask(connect(api, timeout_s=600), file, var, runtime, prune)
    differs = False
    for change in found.changes:
        if change.action == "unchanged":
            continue
        differs = True
        say(f"@@ {change.kind} {change.name}: {change.action} @@")
        for field in change.fields:
            _lines("-", field.pointer, field.before)
            _lines("+", field.pointer, field.after)
    if differs:
        raise Failed(ExitStatus.FAILED)


def ask(
    client: Client, file: str, var: list[str] | None, runtime: RuntimeName | None, prune: bool
) -> Plan:
    """The server's plan for this file."""
    with prepared(client, file, var, runtime) as stack:
        return client.plan_stack(str(stack.get("name", "default")), stack, prune=prune)


def _show(change: ResourceChange) -> None:
    what = f"{_SIGNS[change.action]} {change.kind} {change.name}"
    effect = change.effect
    if change.action == "change":
        what += f": {effect} ({_SAID[effect]})"
    elif change.action != "unchanged":
        what += f": {change.action}"
    say(what)
    for field in change.fields:
        before, after = _short(field.before), _short(field.after)
        say(f"    {field.pointer}: {before} → {after}  [{field.effect}]")
    if change.disrupts:
        say(f"    disrupts {', '.join(change.disrupts)}")


def _short(value: Any) -> str:
    return "(absent)" if value is None else _yaml(value).strip().replace("\n", " ")


def _lines(sign: str, pointer: str, value: Any) -> None:
    if value is not None:
        for line in f"{pointer}: {_yaml(value)}".rstrip().splitlines():
            say(f"{sign}{line}")


def _yaml(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000)
    return text.replace("\n...\n", "\n")
