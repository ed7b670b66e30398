"""Variables of stack files: `${name}` in any text, from `variables:` or `--var name=value`.

A text that is one variable and nothing else becomes its value, whatever type that has; within
other text it is written out. `$${` is a plain `${`. Files without variables are left as they are:
the shell's own `${…}` in a command means the shell's. Called by the CLI for files that it is given,
and by `templates.py`, with the defaults, for those that are offered.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml

from app.domain.errors import InvalidSpecification
from app.domain.explain import FieldError, InvalidFields, did_you_mean, pointer_to

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_USE = re.compile(r"\$(\$?)\{([^}]*)\}")


def given(words: Iterable[str]) -> dict[str, Any]:
    """`["port=8081"]` → `{"port": 8081}`: values are read as YAML reads them."""
    found: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not _NAME.fullmatch(name):
            raise InvalidSpecification(
                f"--var '{word}': not a variable", remedy="write NAME=VALUE, as in port=8081"
            )
        found[name] = yaml.safe_load(text) if text else ""
    return found


def declared(content: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The file's own variables with these values in the place of their defaults."""
    section = content.get("variables") or {}
    if not isinstance(section, dict):
        raise InvalidFields(
            [FieldError(pointer="/variables", detail="not a map", remedy="write NAME: DEFAULT")]
        )
    found = {str(name): values.get(str(name), default) for name, default in section.items()}
    errors = [
        FieldError(
            pointer=pointer_to(["variables", name]),
            detail=f"'{name}' has no default and was not given",
            remedy=f"give it: --var {name}=VALUE",
        )
        for name, value in found.items()
        if value is None
    ]
    if errors:
        raise InvalidFields(errors)
    return found


def substitute(content: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The content with every use replaced. Raises `InvalidFields` for unknown names."""
    errors: list[FieldError] = []
    rest = {key: value for key, value in content.items() if key != "variables"}
    replaced = _walk(rest, values, "", errors)
    if errors:
        raise InvalidFields(errors)
    return dict(replaced)


def _walk(node: Any, values: Mapping[str, Any], pointer: str, errors: list[FieldError]) -> Any:
    if isinstance(node, dict):
        return {
            key: _walk(value, values, pointer_to([str(key)], pointer), errors)
            for key, value in node.items()
        }
    if isinstance(node, list):
        return [
            _walk(value, values, pointer_to([index], pointer), errors)
            for index, value in enumerate(node)
        ]
    if not isinstance(node, str):
        return node
    errors += _unknown(node, values, pointer)
    whole = _USE.fullmatch(node)
    if whole and not whole[1] and whole[2] in values:
        return values[whole[2]]
    return _USE.sub(
        lambda use: f"${{{use[2]}}}" if use[1] else _written(values.get(use[2], "")), node
    )


def _unknown(text: str, values: Mapping[str, Any], pointer: str) -> Iterator[FieldError]:
    for escape, name in _USE.findall(text):
        if not escape and name not in values:
            yield FieldError(
                pointer=pointer,
                detail=f"there is no variable '{name}'",
                remedy=f"{did_you_mean(name, values)}; for a plain ${{ write $${{",
            )


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
