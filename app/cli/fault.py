"""`cse fault`: make packets or files of an application meet loss, delay, errors and the like."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from app.cli.client import Api, AsJson, connect
from app.cli.output import say, show_json, show_table
from app.domain.fault import Fault, FaultSpec

group = typer.Typer(
    help="Loss, delay, errors of disks and the like, to order.", no_args_is_help=True
)

Text = str | None


def register(commands: typer.Typer) -> None:
    """Add the group."""
    commands.add_typer(group, name="fault")


@group.command("add")
def add(
    name: Annotated[str, typer.Argument(help="The application that meets it.")],
    loss: Annotated[Text, typer.Option(help="Share of the packets, as in 5%.")] = None,
    delay: Annotated[Text, typer.Option(help="As in 20ms.")] = None,
    jitter: Annotated[Text, typer.Option(help="The delay varies by so much.")] = None,
    reorder: Annotated[Text, typer.Option(help="Share that lets the next one pass.")] = None,
    duplicate: Annotated[Text, typer.Option(help="Share that arrives twice.")] = None,
    corrupt: Annotated[Text, typer.Option(help="Share with a wrong bit.")] = None,
    rate: Annotated[
        Text, typer.Option(help="Of the line, as in 10mbit; with --file a share, as in 10%.")
    ] = None,
    cut: Annotated[Text, typer.Option(help="Nothing passes to or from this application.")] = None,
    refuse: Annotated[int | None, typer.Option(help="Refuse connects to this port.")] = None,
    reset: Annotated[int | None, typer.Option(help="Reset connections of this port, now.")] = None,
    direction: Annotated[str, typer.Option(help="in, out or both.")] = "both",
    to: Annotated[Text, typer.Option(help="Only this address, subnet or application.")] = None,
    file: Annotated[
        Text, typer.Option(help="Files meet it: a path or pattern, as in '/srv/**/*.db'.")
    ] = None,
    op: Annotated[Text, typer.Option(help="Of files: only these, as in write,fsync.")] = None,
    errno: Annotated[Text, typer.Option(help="Of files: the error, as in EIO.")] = None,
    short: Annotated[bool, typer.Option("--short", help="Of files: short reads, writes.")] = False,
    full_after: Annotated[
        Text, typer.Option(help="Of files: ENOSPC after so many bytes written, as in 10M.")
    ] = None,
    duration: Annotated[Text, typer.Option("--for", help="Revert after, as in 30s.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed, the same fate.")] = None,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Begin a fault now; the application's own library ends it after --for."""
    given: dict[str, Any] = {
        "loss": loss,
        "delay": delay,
        "jitter": jitter,
        "reorder": reorder,
        "duplicate": duplicate,
        "corrupt": corrupt,
        "rate": None if file is not None else rate,
        "cut": cut,
        "refuse": refuse,
        "reset": reset,
        "direction": direction,
        "to": to,
        "file": _file(
            file,
            {
                "op": op,
                "errno": errno,
                "short": short or None,
                "full_after": full_after,
                "rate": rate if file is not None else None,
            },
        ),
        "for": duration,
        "seed": seed,
    }
    body = {key: value for key, value in given.items() if value is not None}
    made = connect(api).add_fault(name, body)
    if as_json:
        show_json(made)
        return
    say(f"{made.id}: {_effects(made.spec)}, seed {made.seed}{_until(made)}")


@group.command("ls")
def ls(
    names: Annotated[list[str] | None, typer.Argument(help="Applications; all if none.")] = None,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """List the faults that hold, with what each has done so far."""
    client = connect(api)
    wanted = names or [one.name for one in client.each_application()]
    items = [fault for name in wanted for fault in client.each_fault(name)]
    if as_json:
        show_json(items)
        return
    show_table(
        ["ID", "APPLICATION", "EFFECTS", "SEED", "LEFT", "COUNTED"],
        [
            (
                item.id,
                item.application,
                _effects(item.spec),
                item.seed,
                f"{item.remaining:.0f}s" if item.remaining is not None else "",
                " ".join(f"{key}={value}" for key, value in item.counters.items() if value),
            )
            for item in items
        ],
    )


@group.command("rm")
def remove(
    name: Annotated[str, typer.Argument(help="The application.")],
    ids: Annotated[list[str] | None, typer.Argument(help="Faults; all of it if none.")] = None,
    api: Api = None,
) -> None:
    """End faults now."""
    client = connect(api)
    for fault in ids or [one.id for one in client.each_fault(name)]:
        client.remove_fault(name, fault)
        say(f"{fault}: removed")


def _file(path: str | None, rest: dict[str, Any]) -> dict[str, Any] | None:
    given = {key: value for key, value in rest.items() if value is not None}
    if path is not None:
        return {"path": path, **given}
    if given:
        option = next(iter(given)).replace("_", "-")
        raise typer.BadParameter(
            f"--{option} is about files: say which, as in --file '/srv/**'", param_hint="--file"
        )
    return None


def _file_effects(file: dict[str, Any]) -> list[str]:
    words = [",".join(file["op"]) or "all operations", f"on {file['path']}"]
    words = [" ".join(words)]
    words += [file["errno"]] if file.get("errno") else []
    words += ["short"] if file.get("short") else []
    if file.get("full_after") is not None:
        words.append(f"full after {file['full_after']} bytes")
    return [*words, f"rate {file['rate']:g}%"] if file["rate"] != 100 else words


def _effects(fault: FaultSpec) -> str:
    spec = fault.model_dump(mode="json")
    shares = ("loss", "reorder", "duplicate", "corrupt")
    times = ("delay", "jitter")
    words = _file_effects(spec["file"]) if spec.get("file") else []
    words += [f"{key} {spec[key]:g}%" for key in shares if spec.get(key)]
    words += [f"{key} {spec[key] * 1000:g}ms" for key in times if spec.get(key)]
    if spec.get("rate"):
        words.append(f"rate {spec['rate'] / 1e6:g}mbit")
    words += [f"{key} {spec[key]}" for key in ("cut", "refuse", "reset", "to") if spec.get(key)]
    if spec["direction"] != "both":
        words.append(f"only {spec['direction']}")
    return ", ".join(words)


def _until(made: Fault) -> str:
    left = made.remaining
    return f", ends in {left:.0f} s" if left else ""
