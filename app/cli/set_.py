"""`cse set`: change settings of an element while its program runs."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from app.cli.client import Api, AsJson, connect
from app.cli.output import say, show_json
from app.client import Client
from app.domain.errors import InvalidSpecification


def register(commands: typer.Typer) -> None:
    """Add the command."""
    commands.command("set")(set_settings)


def set_settings(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME[/ELEMENT]", help="Which element of which application."),
    ],
    settings: Annotated[
        list[str],
        typer.Argument(metavar="KEY=VALUE...", help="keepalive.idle=60; KEY= for the default."),
    ],
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Change settings of a running application's element; a restart keeps them."""
    client = connect(api)
    application, _, element = name.partition("/")
    element = element or _only_element(client, application)
    change: dict[str, Any] = {}
    for word in settings:
        _put(change, word)
    instance = client.change_instance(f"{application}.{element}", {"settings": change})
    if as_json:
        show_json(instance)
        return
    for word in settings:
        key = word.partition("=")[0]
        value: Any = instance.settings
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        say(f"{application}/{element}  {key}={json.dumps(value, ensure_ascii=False)}")


def _only_element(client: Client, application: str) -> str:
    elements = sorted(client.get_application(application).spec.elements)
    if len(elements) == 1:
        return str(elements[0])
    if not elements:
        raise InvalidSpecification(f"application '{application}' uses no element")
    raise InvalidSpecification(
        f"application '{application}' uses several elements",
        remedy="name one: " + ", ".join(f"{application}/{element}" for element in elements),
    )


def _put(change: dict[str, Any], word: str) -> None:
    """`keepalive.idle=60` → {"keepalive": {"idle": 60}}; what is not JSON is a text."""
    key, equals, text = word.partition("=")
    if not equals or not all(key.split(".")):
        raise InvalidSpecification(f"'{word}' is not KEY=VALUE", remedy="as in ttl=32")
    value: Any = None
    if text:
        try:
            value = json.loads(text)
        except ValueError:
            value = text
    *above, last = key.split(".")
    for part in above:
        change = change.setdefault(part, {})
        if not isinstance(change, dict):
            raise InvalidSpecification(f"'{key}' lies within a value that was given, too")
    change[last] = value
