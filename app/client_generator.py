"""Writes `app/client/operations.py` from the OpenAPI document: one method for each operation.

Called by `app/schemas.py` (`make schemas`, and its check for drift). The models are the ones that
the server is made of (`app/domain`), so there is nothing to generate but signatures, paths and
documentation; generators of others bring models of their own.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import app.domain

_HEAD = '''"""Every operation of the REST interface as a method; made by `make schemas`.

Parameters that are left out are the server's defaults; bodies are models, or mappings in the form
of the interface. Called through `Client`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from app.client.transport import Transport, quoted
'''
_CLASS = '\n\nclass Operations(Transport):\n    """One method for each operation."""\n'
_PLAIN = {"string": "str", "integer": "int", "number": "float", "boolean": "bool"}
_BY_HAND = {"listEvents": ("follow", "last-event-id")}
"""Parameters that `Client.events` takes care of."""
_NAMES = {"for": "duration"}


@dataclass(frozen=True)
class _Parameter:
    name: str
    wire: str
    place: str
    """path, query or header."""
    type: str


@dataclass(frozen=True)
class _Operation:
    name: str
    method: str
    path: str
    text: str
    parameters: list[_Parameter]
    body: str | None
    kind: str
    """What the answer is: `model`, `none`, `lines` or `bytes`."""
    returns: str

    def signature(self, *without: str) -> str:
        """What is in the path, the body, and by keyword the rest."""
        words = [f"{one.name}: {one.type}" for one in self.parameters if one.place == "path"]
        words += [f"body: {self.body} | Mapping[str, Any]"] if self.body else []
        options = [
            f"{one.name}: {one.type} | None = None"
            for one in self.parameters
            if one.place != "path" and one.name not in without
        ]
        return ", ".join(["self", *words, *(["*", *options] if options else [])])

    def mapping(self, place: str) -> str:
        """The parameters of a place, as a mapping from names on the wire."""
        pairs = [f'"{one.wire}": {one.name}' for one in self.parameters if one.place == place]
        return "{" + ", ".join(pairs) + "}"

    @property
    def has_pages(self) -> bool:
        names = {one.name for one in self.parameters}
        return self.returns.startswith("Page[") and {"limit", "after"} <= names


def source(document: dict[str, Any]) -> str:
    """The module's text."""
    operations = [
        _operation(path, method, described)
        for path, item in document["paths"].items()
        for method, described in item.items()
    ]
    body = "".join(text for one in operations for text in _texts(one))
    modules = _modules()
    words = sorted(set(re.findall(r"[A-Z]\w+", re.sub(r'""".*?"""', "", body, flags=re.DOTALL))))
    imports = [f"from {modules[name]} import {name}\n" for name in words if name in modules]
    return _formatted(_HEAD + "".join(imports) + _CLASS + body)


def _formatted(text: str) -> str:
    ruff = [sys.executable, "-m", "ruff"]
    for words in (["check", "--select", "I", "--fix", "-q", "-"], ["format", "-q", "-"]):
        command = [*ruff, *words, "--stdin-filename", "app/client/operations.py"]
        text = subprocess.run(
            command, input=text, capture_output=True, text=True, check=True
        ).stdout
    return text


def _modules() -> dict[str, str]:
    """Class of the domain → its module."""
    return {
        name: module.name
        for module in pkgutil.iter_modules(app.domain.__path__, "app.domain.")
        for name, value in vars(importlib.import_module(module.name)).items()
        if isinstance(value, type) and value.__module__ == module.name
    }


def _operation(path: str, method: str, described: dict[str, Any]) -> _Operation:
    identity = described["operationId"]
    content = described.get("requestBody", {}).get("content", {}).get("application/json")
    kind, returns = _answer(described)
    return _Operation(
        name=re.sub(r"([A-Z])", r"_\1", identity).lower(),
        method=method.upper(),
        path=re.sub(r"\{(\w+)\}", r"{quoted(\1)}", path),
        text=described["description"],
        parameters=[
            _Parameter(
                name=_NAMES.get(one["name"], one["name"].lower().replace("-", "_")),
                wire=one["name"],
                place=one["in"],
                type=_type(one["schema"]),
            )
            for one in described.get("parameters", ())
            if one["name"] not in _BY_HAND.get(identity, ())
        ],
        body=_type(content["schema"]) if content else None,
        kind=kind,
        returns=returns,
    )


def _answer(described: dict[str, Any]) -> tuple[str, str]:
    """Its kind, and the type of what it is or is made of."""
    content = next(
        answer.get("content", {})
        for status, answer in described["responses"].items()
        if status.startswith("2") and (answer.get("content") or status == "204")
    )
    if "application/json" in content:
        return "model", _type(content["application/json"]["schema"])
    if "application/x-ndjson" in content:
        return "lines", _type(content["application/x-ndjson"]["schema"])
    if "text/plain" in content:
        return "model", "str"
    return ("bytes", "bytes") if content else ("none", "None")


def _texts(one: _Operation) -> Iterator[str]:
    """The method, and the iterator over its pages."""
    call = {"model": "_call", "none": "_done", "lines": "_lines", "bytes": "_bytes"}[one.kind]
    quotes = 'f"' if "{" in one.path else '"'
    words = [f'"{one.method}"'] if one.kind in ("model", "none") else []
    words += [f'{quotes}{one.path}"']
    words += [one.returns] if one.kind in ("model", "lines") else []
    places = {parameter.place for parameter in one.parameters}
    if "query" in places:
        words.append(f"query={one.mapping('query')}")
    if "header" in places:
        words.append(f"headers={one.mapping('header')}")
    words += ["body=body"] if one.body else []
    result = f"Iterator[{one.returns}]" if one.kind in ("lines", "bytes") else one.returns
    start = "" if one.kind == "none" else "return "
    yield f"\n    def {one.name}({one.signature()}) -> {result}:\n{_docstring(one.text)}"
    yield f"        {start}self.{call}({', '.join(words)})\n"
    if one.has_pages and one.name != "list_events":
        yield _pages(one)


def _pages(one: _Operation) -> str:
    given = [
        parameter.name if parameter.place == "path" else f"{parameter.name}={parameter.name}"
        for parameter in one.parameters
        if parameter.name != "after"
    ]
    counts = next(parameter for parameter in one.parameters if parameter.name == "after")
    numbered = counts.type == "int"
    given.append("after=int(after)" if numbered else "after=after")
    item = one.returns.removeprefix("Page[").removesuffix("]")
    noun = one.name.partition("_")[2].removesuffix("s")
    return f'''
    def each_{noun}({one.signature("after")}) -> Iterator[{item}]:
        """Those of `{one.name}` one by one, page after page; `limit`: of each page."""
        after: str | None = "{"0" if numbered else ""}"
        while after is not None:
            page = self.{one.name}({", ".join(given)})
            yield from page.items
            after = page.next
'''


def _docstring(text: str) -> str:
    lines: list[str] = []
    for paragraph in text.strip().split("\n\n"):
        lines += ["", *textwrap.wrap(paragraph, 86, break_on_hyphens=False)]
    del lines[0]
    end = "" if len(lines) == 1 else "\n        "
    inner = "\n".join([lines[0], *(f"        {line}".rstrip() for line in lines[1:])])
    return f'        """{inner}{end}"""\n'


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        name = name.removesuffix("-Input").removesuffix("-Output")
        page = re.fullmatch(r"Page_(\w+?)_", name)
        return f"Page[{page[1]}]" if page else name
    if "anyOf" in schema:
        kinds = [_type(one) for one in schema["anyOf"] if one.get("type") != "null"]
        return " | ".join(dict.fromkeys(kinds))
    if "enum" in schema:
        return "Literal[" + ", ".join(f'"{one}"' for one in schema["enum"]) + "]"
    if schema.get("type") == "array":
        return f"list[{_type(schema['items'])}]"
    return _PLAIN[schema["type"]]
