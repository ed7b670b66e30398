"""`cse convert` and `cse export`: other tools' files as stacks, stacks as theirs.

The work is done by `app/convert`; here are the files, Compose's own resolution, and the images.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from pydantic import BaseModel, ValidationError

from app.catalog.catalog import Catalog
from app.cli import stackfile
from app.cli.apply import Var
from app.cli.client import Api, AsJson, connect
from app.cli.output import plain, say, show_json
from app.convert.compose import from_compose
from app.convert.containerlab import from_containerlab
from app.convert.converted import Converted
from app.convert.export import to_compose
from app.convert.surroundings import Choices, ImageCommand
from app.domain.application import RuntimeName
from app.domain.errors import HostLacks, InvalidSpecification
from app.domain.explain import InvalidFields, explain
from app.domain.stack import Stack, StackFile
from app.settings import load

converting = typer.Typer(help="Make a stack file of another tool's file.", no_args_is_help=True)
exporting = typer.Typer(help="Make another tool's file of a stack.", no_args_is_help=True)

Source = Annotated[str, typer.Argument(help="The file; '-' is standard input.")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Where to write it; else standard output.")
]
Elements = Annotated[
    str, typer.Option(help="For what names no elements itself; separated by commas.")
]
Runtime = Annotated[RuntimeName, typer.Option(help="'namespace': the programs of this host.")]


def register(commands: typer.Typer) -> None:
    """Add both groups."""
    commands.add_typer(converting, name="convert")
    commands.add_typer(exporting, name="export")


@converting.command("compose")
def compose(
    file: Source = "compose.yaml",
    output: Output = None,
    elements: Elements = "network-lwip",
    runtime: Runtime = RuntimeName.DOCKER,
    as_json: AsJson = False,
) -> None:
    """Services become applications with private services; what cannot be carried over is named.

    A service says what it wants by labels: 'cse.elements: network-lwip, clock-faketime' and, for
    any other field of an application, 'cse.spec: "{priority: 5}"'. Compose v2, where it is
    installed, resolves variables, 'extends' and 'env_file'.
    """
    content, directory = _resolved(file)
    found = from_compose(content, _choices(directory, elements, runtime))
    _write(_checked(found), output, as_json)


@converting.command("containerlab")
def containerlab(
    file: Source,
    output: Output = None,
    elements: Elements = "network-lwip",
    runtime: Runtime = RuntimeName.DOCKER,
    as_json: AsJson = False,
) -> None:
    """Nodes of kind 'linux' become applications that reach those they are linked with."""
    content, directory = _content(file)
    found = from_containerlab(content, _choices(directory, elements, runtime))
    _write(_checked(found), output, as_json)


@exporting.command("compose")
def export_compose(
    stack: Annotated[str | None, typer.Argument(help="A stack that the server has.")] = None,
    file: Annotated[str | None, typer.Option("--file", "-f", help="A stack file instead.")] = None,
    var: Var = None,
    image: Annotated[str | None, typer.Option(help="For applications without one.")] = None,
    output: Output = None,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """A Compose file that runs without CSE, on the kernel's own services.

    Labels keep what only CSE knows: 'cse convert compose' makes the same stack of it again.
    """
    if (stack is None) == (file is None):
        raise InvalidSpecification("name a stack, or a stack file with -f", remedy="give one")
    whole = _of_server(stack, api) if stack else _of_file(str(file), var or [])
    _write(to_compose(whole, image), output, as_json)


def _choices(directory: Path, elements: str, runtime: RuntimeName) -> Choices:
    names = [name.strip() for name in elements.split(",") if name.strip()]
    return Choices(directory, names, runtime.value, _image_command)


def _content(file: str) -> tuple[dict[str, Any], Path]:
    """The file as data, and where relative paths in it start."""
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        content = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InvalidSpecification(f"{file}: {reason}", remedy="name the file") from error
    except yaml.YAMLError as error:
        raise InvalidSpecification(f"{file}: not YAML: {error}") from error
    if not isinstance(content, dict):
        raise InvalidSpecification(f"{file}: not a map", remedy="name the tool's own file")
    return content, Path.cwd() if file == "-" else Path(file).resolve().parent


def _resolved(file: str) -> tuple[dict[str, Any], Path]:
    """The Compose file, resolved by Compose itself where it is installed."""
    if file == "-" or not Path(file).exists() or not _has_compose():
        return _content(file)
    command = ["docker", "compose", "-f", file, "config", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no reason given"]
        remedy = "mend it: 'docker compose config' has to accept it"
        raise InvalidSpecification(f"{file}: {said[-1]}", remedy=remedy)
    return json.loads(done.stdout), Path(file).resolve().parent


def _has_compose() -> bool:
    if shutil.which("docker") is None:
        return False
    asked = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    return asked.returncode == 0


@cache
def _image_command(image: str) -> ImageCommand | None:
    """What Docker says of the image; None where there is no such image, or no Docker."""
    if shutil.which("docker") is None:
        return None
    command = ["docker", "image", "inspect", "--format", "{{json .Config}}", image]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return None
    config = json.loads(done.stdout)
    return ImageCommand(config.get("Entrypoint") or [], config.get("Cmd") or [])


def _checked(found: Converted) -> Converted:
    """The same. Raises `InvalidFields` where the stack would be refused."""
    try:
        StackFile.model_validate(found.document)
    except ValidationError as error:
        raise InvalidFields(explain(error.errors(), StackFile)) from error
    return found


def _of_file(file: str, var: list[str]) -> Stack:
    source = stackfile.read(file, var)
    elements = Catalog(load().elements_dir).elements()
    source.resolve_paths(lambda: {one.manifest.name: one.manifest.settings for one in elements})
    try:
        return Stack.model_validate(source.stack)
    except ValidationError as error:
        raise source.placed(InvalidFields(explain(error.errors(), Stack))) from error


def _of_server(stack: str, api: str | None) -> Stack:
    client = connect(api)
    label = [f"cse.stack={stack}"]
    applications = client.each_application(label=label)
    sections: dict[str, Any] = {
        "name": stack,
        "applications": {one.name: dict(_asked(one.spec)) for one in applications},
        "networks": {one.name: dict(_asked(one)) for one in client.each_network(label=label)},
        "volumes": {one.name: dict(_asked(one)) for one in client.each_volume(label=label)},
    }
    if not sections["applications"]:
        raise InvalidSpecification(f"there is no stack '{stack}'", remedy="see 'cse ps'")
    return Stack.model_validate(sections)


def _asked(spec: BaseModel) -> Iterator[tuple[str, Any]]:
    """What was asked for of a resource, without the server's own marks."""
    for name, value in plain(spec).items():
        if name == "labels":
            yield name, {key: text for key, text in value.items() if key != "cse.stack"}
        else:
            yield name, value


def _write(found: Converted, output: Path | None, as_json: bool) -> None:
    if as_json:
        show_json({"document": found.document, "notes": [asdict(note) for note in found.notes]})
        return
    text = yaml.safe_dump(found.document, sort_keys=False, allow_unicode=True, width=100)
    if output is None:
        say(text.rstrip())
    else:
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            raise HostLacks(f"{output}: {error.strerror}", remedy="name another file") from error
    for note in found.notes:
        sys.stderr.write(f"{note.pointer}: {note.detail}\n")
