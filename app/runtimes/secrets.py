"""Where the values of secrets are, and how they reach a program.

`STATE/secrets/NAME.json`, for the agent's user only (0600 in a directory 0700). They are not
encrypted: a key would have to lie beside them. The agent keeps them (`app/agent/local.py`);
`rundir` delivers those that an application names when it is created, as files also at each start.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from app.domain.application import ApplicationSpec
from app.domain.errors import HostLacks, InvalidSpecification, NotFound
from app.domain.secret import Secret, SecretRef, SecretSpec

INSIDE = "/run/secrets"
"""Where an application sees those that it has as files."""


class Secrets:
    """Those of one host. Callers have checked the names against `app.domain.model.Name`."""

    def __init__(self, state: Path) -> None:
        self._home = state / "secrets"

    def put(self, spec: SecretSpec) -> Secret:
        """Keep it, in the place of one of this name."""
        try:
            self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh = self._path(spec.name).with_suffix(".new")
            fresh.unlink(missing_ok=True)
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                moment = datetime.now(UTC).isoformat()
                json.dump({**spec.model_dump(mode="json"), "updated": moment}, file)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path(spec.name))
        except OSError as error:
            raise HostLacks(
                f"secret '{spec.name}' cannot be kept in {self._home}: {error.strerror}",
                remedy="make room, or choose another state directory with CSE_STATE_DIR",
            ) from error
        return self._shown(spec.name)

    def all(self) -> list[Secret]:
        """By name, without values."""
        try:
            names = sorted(path.stem for path in self._home.glob("*.json"))
        except OSError:
            return []
        found = []
        for name in names:
            with suppress(NotFound):  # removed meanwhile
                found.append(self._shown(name))
        return found

    def remove(self, name: str) -> None:
        """Nothing where there is none."""
        self._path(name).unlink(missing_ok=True)

    def value(self, name: str, project: str) -> bytes:
        """What a program of this project gets. Raises `NotFound`."""
        spec, _ = self._read(name)
        if spec.project != project:
            raise NotFound(f"project '{project}' has no secret '{name}'")
        return spec.content

    def _shown(self, name: str) -> Secret:
        spec, updated = self._read(name)
        return Secret(name=name, project=spec.project, updated=updated)

    def _read(self, name: str) -> tuple[SecretSpec, datetime]:
        try:
            kept = json.loads(self._path(name).read_text())
        except FileNotFoundError as error:
            raise NotFound(
                f"there is no secret '{name}' on this host",
                remedy=f"make it: cse secret set {name} < FILE",
            ) from error
        updated = datetime.fromisoformat(kept.pop("updated"))
        return SecretSpec.model_validate(kept), updated

    def _path(self, name: str) -> Path:
        return self._home / f"{name}.json"


def environment(state: Path, spec: ApplicationSpec) -> dict[str, str]:
    """The specification's environment with secrets in their places."""
    found: dict[str, str] = {}
    for variable, value in spec.environment.items():
        found[variable] = value if isinstance(value, str) else _text(state, spec, variable, value)
    return found


def _text(state: Path, spec: ApplicationSpec, variable: str, given: SecretRef) -> str:
    value = Secrets(state).value(given.secret, spec.project)
    if b"\0" in value:
        raise InvalidSpecification(
            f"secret '{given.secret}' has a NUL byte: it cannot be a variable",
            pointer=f"/environment/{variable}",
            remedy=f"take it as a file: 'secrets: [{given.secret}]'",
        )
    return os.fsdecode(value.removesuffix(b"\n"))  # files and `echo` end with one


def write_files(
    state: Path, directory: str, spec: ApplicationSpec, owner: tuple[int, int] | None
) -> None:
    """Into a directory of the application, for its user only; those it names no more go."""
    place = Path(directory)
    place.mkdir(mode=0o700, exist_ok=True)
    for name in spec.secrets:
        value = Secrets(state).value(name, spec.project)
        fresh = place / f".{name}.new"
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
        with os.fdopen(descriptor, "wb") as file:
            file.write(value)
        _give(fresh, owner)
        fresh.replace(place / name)
    _give(place, owner)


def _give(path: Path, owner: tuple[int, int] | None) -> None:
    if owner is not None and os.geteuid() == 0:
        os.chown(path, *owner)
