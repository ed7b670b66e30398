"""Label selectors, as Kubernetes writes them: `tier=web,env!=test,owner,!old,zone in (a, b)`.

All requirements have to fit. Called by the handlers of lists.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from app.domain.errors import InvalidSpecification

Labels = Mapping[str, str]
Selector = Callable[[Labels], bool]

_KEY = r"[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?"
_SET = re.compile(rf"(?P<key>{_KEY})\s+(?P<word>in|notin)\s*\((?P<values>[^()]*)\)")
_EQUAL = re.compile(rf"(?P<key>{_KEY})\s*(?P<sign>==|=|!=)\s*(?P<value>[^,()!=]*)")
_THERE = re.compile(rf"(?P<no>!?)\s*(?P<key>{_KEY})")
_COMMA = re.compile(r",(?![^()]*\))")


def parse(texts: Iterable[str] | None) -> Selector:
    """Of several, all have to fit; of none, everything does. Raises `InvalidSpecification`."""
    parts = [part.strip() for text in texts or [] for part in _COMMA.split(text)]
    tests = [_requirement(part) for part in parts]
    return lambda labels: all(test(labels) for test in tests)


def _requirement(text: str) -> Selector:
    if match := _SET.fullmatch(text):
        key = match["key"]
        values = {value.strip() for value in match["values"].split(",")}
        if match["word"] == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if match := _EQUAL.fullmatch(text):
        key, value = match["key"], match["value"].strip()
        if match["sign"] == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if match := _THERE.fullmatch(text):
        key, wanted = match["key"], not match["no"]
        return lambda labels: (key in labels) is wanted
    raise InvalidSpecification(
        f"'{text}' is no label selector",
        pointer="/label",
        remedy="write KEY, !KEY, KEY=VALUE, KEY!=VALUE, KEY in (A, B) or KEY notin (A, B), "
        "separated by commas",
    )
