"""Reads stack files: YAML or JSON, with the line of every field for error messages.

Relative paths are resolved here against the file's directory: the server has another one, and
may not see the file at all. Variables and included files are resolved here for the same reason.
Called by the commands that take a stack file.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from app.catalog import relative, variables
from app.catalog.relative import Schemas
from app.client import ProblemError
from app.domain.errors import CseError, InvalidSpecification
from app.domain.explain import FieldError, InvalidFields, pointer_to

_SECTIONS = ("networks", "volumes", "applications", "faults")


class StackFile:
    """One file: its content as sent to the server, and the line of every pointer."""

    def __init__(
        self,
        name: str,
        text: str,
        directory: Path,
        values: Mapping[str, Any] | None = None,
        above: tuple[Path, ...] = (),
    ) -> None:
        """`values`: of variables; `above`: the files that include this one."""
        self.name = name
        self.lines: dict[str, int] = {}
        self._directory = directory
        self.content = self._parse(text)
        self._included: list[StackFile] = []
        try:
            own = variables.declared(self.content, values or {})
            if "variables" in self.content:
                self.content = variables.substitute(self.content, own)
            self._include({**(values or {}), **own}, above)
        except InvalidFields as error:
            raise self.placed(error) from error

    @property
    def is_single(self) -> bool:
        """Whether the file holds one application rather than a stack."""
        return "command" in self.content and "applications" not in self.content

    @property
    def stack(self) -> dict[str, Any]:
        """The content as a stack; a single application becomes one of its own name."""
        if self.is_single:
            name = str(self.content.get("name", ""))
            return {"name": name, "applications": {name: self.content}}
        if not self._included:
            return self.content
        merged = {key: value for key, value in self.content.items() if key != "include"}
        for section in _SECTIONS:
            for source in self._included:
                entries = source.stack.get(section)
                if isinstance(entries, dict):
                    merged[section] = {**entries, **(merged.get(section) or {})}
        return merged

    @property
    def places(self) -> dict[str, str]:
        """Pointer → `FILE:LINE`, also of what is included."""
        found: dict[str, str] = {}
        for source in self._included:
            found |= source.places
        return found | {pointer: f"{self.name}:{line}" for pointer, line in self.lines.items()}

    def placed(self, error: InvalidFields) -> InvalidFields:
        """The error with file and line in what it says."""
        return InvalidFields(
            [
                field.model_copy(
                    update={"detail": f"{self.name}:{self._line(field.pointer)}: {field.detail}"}
                )
                for field in error.errors
            ]
        )

    def resolve_paths(self, schemas: Schemas) -> None:
        """Make `from` of mounts and host paths in element settings absolute."""
        for source in self._included:
            source.resolve_paths(schemas)
        applications = self.content.get("applications")
        for spec in (
            [self.content]
            if self.is_single
            else list(applications.values())
            if isinstance(applications, dict)
            else []
        ):
            if isinstance(spec, dict):
                relative.resolve(spec, schemas, self._directory)

    def override(self, **fields: object) -> None:
        """Set fields of every application, as `--runtime` does."""
        specs = self.stack.get("applications")
        for spec in specs.values() if isinstance(specs, dict) else []:
            if isinstance(spec, dict):
                spec.update({key: value for key, value in fields.items() if value is not None})

    def explain(self, error: CseError) -> CseError:
        """An error about the stack of a single application points into the file again."""
        if self.is_single and isinstance(error, ProblemError):
            prefix = pointer_to(["applications", str(self.content.get("name", ""))])
            error.errors = [
                field.model_copy(update={"pointer": field.pointer.removeprefix(prefix)})
                for field in error.errors
            ]
        return error

    def _include(self, values: Mapping[str, Any], above: tuple[Path, ...]) -> None:
        listed = self.content.get("include") or []
        for index, word in enumerate([listed] if isinstance(listed, str) else listed):
            path = Path(relative.absolute(str(word), self._directory))
            if path in above:
                detail = f"'{word}' includes itself"
                error = FieldError(pointer=f"/include/{index}", detail=detail, remedy="remove it")
                raise InvalidFields([error])
            self._included.append(
                StackFile(str(path), _text(str(path)), path.parent, values, (*above, path))
            )
        seen: dict[tuple[str, str], str] = {}
        for source in [*self._included, self]:
            for section in _SECTIONS:
                for key in (
                    source.stack.get(section) or {}
                    if source is not self
                    else (self.content.get(section) or {})
                ):
                    if (other := seen.get((section, key))) is not None:
                        detail = f"'{key}' is in {other} as well"
                        place = pointer_to([section, key])
                        remedy = "rename or remove one of the two"
                        raise InvalidFields(
                            [FieldError(pointer=place, detail=detail, remedy=remedy)]
                        )
                    seen[section, key] = source.name

    def _line(self, pointer: str) -> int:
        while pointer and pointer not in self.lines:
            pointer = pointer.rpartition("/")[0]
        return self.lines.get(pointer, 1)

    def _parse(self, text: str) -> dict[str, Any]:
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
            duplicates = list(self._note_lines(node, "")) if node is not None else []
            content = yaml.safe_load(text)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            line = mark.line + 1 if mark else 1
            raise InvalidSpecification(
                f"{self.name}:{line}: not YAML: {error.problem or error.context}",
                remedy="check the indentation and the quotes there",
            ) from error
        except (yaml.YAMLError, RecursionError) as error:
            raise InvalidSpecification(f"{self.name}: not YAML: {error}") from error
        if duplicates:
            raise InvalidFields(duplicates)
        if not isinstance(content, dict):
            raise InvalidSpecification(
                f"{self.name} is not a stack",
                remedy="write 'applications:' with one entry per application",
            )
        return content

    def _note_lines(self, node: yaml.Node, pointer: str) -> Iterator[FieldError]:
        """Fill `lines`; yields keys that appear twice, of which YAML would keep only the last."""
        self.lines[pointer] = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode):
            seen = set()
            for key, value in node.value:
                place = pointer_to([str(key.value)], pointer)
                if key.value in seen:
                    yield FieldError(
                        pointer=place,
                        detail=f"'{key.value}' is there twice",
                        remedy=f"remove one (line {key.start_mark.line + 1})",
                    )
                seen.add(key.value)
                yield from self._note_lines(value, place)
                self.lines[place] = key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                yield from self._note_lines(value, pointer_to([index], pointer))


def read(path: str, given: Iterable[str] = ()) -> StackFile:
    """The file of this path; `-` is standard input, relative to the working directory.

    `given`: variables as on the command line (`NAME=VALUE`).
    """
    values = variables.given(given)
    if path == "-":
        source = StackFile("<stdin>", sys.stdin.read(), Path.cwd(), values)
    else:
        place = Path(path).resolve()
        source = StackFile(path, _text(path), place.parent, values, (place,))
    return source


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InvalidSpecification(f"{path}: {reason}", remedy="give a stack file") from error
