"""Turns validation failures into field errors a person can act on.

pydantic and JSON Schema say what they could not parse; a user wants the place (a JSON pointer),
one sentence, and what to write instead. Called by `catalog` (element settings and manifests),
`api` (request bodies) and `cli` (stack files).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from typing import Any

from pydantic import BaseModel

from app.domain.errors import InvalidSpecification
from app.domain.model import Model


class FieldError(Model):
    """One field that cannot be accepted."""

    pointer: str
    """JSON pointer (RFC 6901) into the request or file."""
    detail: str
    remedy: str | None = None


class InvalidFields(InvalidSpecification):
    """A field of the specification is unknown, missing or out of range."""

    def __init__(self, errors: Sequence[FieldError]) -> None:
        first = errors[0]
        super().__init__(first.detail, pointer=first.pointer, remedy=first.remedy)
        self.errors = list(errors)

    def __str__(self) -> str:
        return "; ".join(
            f"{error.pointer}: {error.detail}" + (f" ({error.remedy})" if error.remedy else "")
            for error in self.errors
        )


def pointer_to(parts: Iterable[str | int], prefix: str = "") -> str:
    """`["a/b", 0]` → `/a~1b/0`."""
    return prefix + "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """A remedy for an unknown word: the nearest known one, else all of them."""
    names = sorted(known)
    near = get_close_matches(str(name), names, n=1, cutoff=0.6)
    if near:
        return f"did you mean '{near[0]}'?"
    if not names:
        return "remove it"
    return "use one of: " + ", ".join(names[:20])


def explain(
    failures: Iterable[Mapping[str, Any]],
    model: type[BaseModel] | None = None,
    prefix: str = "",
    *,
    show_input: bool = True,
) -> list[FieldError]:
    """`ValidationError.errors()` → field errors; `model` is what was validated.

    Where the failures come from FastAPI the leading `body` is dropped. `show_input`: say what was
    given; not where it may be a secret.
    """
    found = []
    for failure in failures:
        location = [part for part in failure["loc"] if part != "[key]"]
        if location[:1] in (["body"], ["query"], ["path"], ["header"]):
            location = location[1:]
        found.append(
            FieldError(
                pointer=pointer_to(location, prefix),
                detail=_sentence(failure, location, show_input),
                remedy=_remedy(failure, location, model),
            )
        )
    return found


def _sentence(failure: Mapping[str, Any], location: list[str | int], show_input: bool) -> str:
    kind = failure["type"]
    if kind == "extra_forbidden":
        return f"'{location[-1]}' is not a field here"
    if kind == "missing":
        return f"'{location[-1]}' is missing" if location else "the request has no body"
    if kind == "json_invalid":
        return f"the body is not JSON: {failure.get('ctx', {}).get('error', '')}"
    if kind == "value_error":
        return _own_words(failure)[0]
    text = str(failure["msg"])
    shown = failure.get("input") if show_input else None
    if isinstance(shown, str | int | float | bool):
        shortened = repr(shown) if len(repr(shown)) <= 60 else repr(shown)[:57] + "…"
        text = f"{shortened}: {text[:1].lower()}{text[1:]}"
    return text


def _own_words(failure: Mapping[str, Any]) -> tuple[str, str]:
    """What our validators say: what is wrong, and after the last semicolon what to do."""
    text = str(failure["msg"]).removeprefix("Value error, ")
    wrong, _, remedy = text.rpartition("; ")
    return (wrong, remedy) if wrong else (text, "")


def _remedy(
    failure: Mapping[str, Any], location: list[str | int], model: type[BaseModel] | None
) -> str | None:
    kind, context = failure["type"], failure.get("ctx", {})
    if kind == "value_error" and _own_words(failure)[1]:
        return _own_words(failure)[1]
    if kind == "extra_forbidden":
        if model is None:
            return "remove it"
        return did_you_mean(location[-1], _field_names(model, location[:-1]))
    if kind == "missing":
        return "add it"
    if kind in ("enum", "literal_error"):
        known = str(context.get("expected", "")).replace(" or ", ", ").replace("'", "")
        return did_you_mean(failure.get("input"), [word.strip() for word in known.split(",")])
    if kind == "string_pattern_mismatch":
        described = _description(model, location) if model else None
        return described or f"it must match {context.get('pattern')}"
    if kind.startswith(("greater_than", "less_than")):
        bound = next((context[key] for key in ("ge", "gt", "le", "lt") if key in context), None)
        word = (
            "at least"
            if "ge" in context
            else "more than"
            if "gt" in context
            else ("at most" if "le" in context else "less than")
        )
        return f"write {word} {bound}" if bound is not None else None
    if kind.endswith(("_type", "_parsing")):
        return f"write a {kind.split('_')[0]}"
    return _description(model, location) if model else None


def _field_names(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    schema = _schema_at(model, location)
    return list(schema.get("properties", {})) if schema else []


def _description(model: type[BaseModel], location: Sequence[str | int]) -> str | None:
    schema = _schema_at(model, location)
    # What a whole object is for is no remedy.
    text = schema.get("description") if schema and "properties" not in schema else None
    return str(text).splitlines()[0] if text else None


@cache
def _json_schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema(by_alias=True)


def _schema_at(model: type[BaseModel], location: Sequence[str | int]) -> dict[str, Any] | None:
    """The JSON Schema of one place in a model; None where the place is not described."""
    root = _json_schema(model)
    places = _alternatives(root, root)
    for part in location:
        places = [
            deeper
            for place in places
            for step in _children(place, part)
            for deeper in _alternatives(step, root)
        ]
    return next((place for place in places if "properties" in place), places[0] if places else None)


def _children(schema: dict[str, Any], part: str | int) -> list[dict[str, Any]]:
    if isinstance(part, int):
        found = schema.get("items")
    else:
        found = schema.get("properties", {}).get(part) or schema.get("additionalProperties")
        for pattern_schema in schema.get("patternProperties", {}).values():
            found = found or pattern_schema
    return [found] if isinstance(found, dict) else []


def _alternatives(schema: dict[str, Any], root: dict[str, Any]) -> list[dict[str, Any]]:
    """The schema itself, and what its references and `anyOf` lead to."""
    found = [schema]
    if "$ref" in schema:
        name = str(schema["$ref"]).rsplit("/", 1)[-1]
        found += _alternatives(root["$defs"][name], root)
    for branch in [*schema.get("anyOf", []), *schema.get("allOf", [])]:
        found += _alternatives(branch, root)
    return found
