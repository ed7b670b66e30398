"""Files of an image, as the application will see them, before any container of it runs.

Called by `runtime`, which hands them to `app.runtimes.preflight`. Docker has no call that reads
an image, only one that reads a container: one is created, never started, and removed. What was
read is kept in `STATE/cache/images/<image id>`, so each image costs that once; an image's id
changes with its content.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import posixpath
import secrets
import stat
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.domain.errors import CseError, InvalidSpecification, NotFound, RuntimeFailure
from app.domain.launch import Launch
from app.runtimes.docker.container import INSTALLATION_LABEL
from app.runtimes.docker.engine import Engine
from app.runtimes.preflight import ProgramFile

_READER_LABEL = f"{INSTALLATION_LABEL}.reader"
_AGENT_LABEL = f"{_READER_LABEL}.agent"
_THIS_AGENT = secrets.token_hex(6)
_GO_SYMLINK = 1 << 27
_GO_DIRECTORY = 1 << 31
_GO_SETUID, _GO_SETGID = 1 << 23, 1 << 22
_MAX_FILE_BYTES = 512 * 2**20
_MAX_LINKS = 16


@dataclass(frozen=True)
class Image:
    """What `inspect` says, as far as it matters here."""

    reference: str
    id: str
    environment: dict[str, str]
    user: str
    working_directory: str


def inspect(engine: Engine, reference: str) -> Image:
    """Raises NotFound, with the commands that get it, where the image is not on this host."""
    try:
        with engine.doing(f"inspect the image '{reference}'"):
            found = engine().inspect_image(reference)
    except NotFound as error:
        raise NotFound(
            f"image '{reference}' is not on this host",
            pointer="/image",
            remedy=f"'docker pull {reference}', or build it ('make images' makes cse/example)",
        ) from error
    config = found.get("Config") or {}
    pairs = (entry.partition("=") for entry in config.get("Env") or [])
    return Image(
        reference=reference,
        id=found["Id"].removeprefix("sha256:"),
        environment={name: value for name, _, value in pairs},
        user=config.get("User") or "",
        working_directory=config.get("WorkingDir") or "/",
    )


class ImageFiles:
    """`app.runtimes.preflight.Files` of one launch: its image, and its mounts over that.

    A context manager: the container that it may have made is removed at the end.
    """

    def __init__(
        self, engine: Engine, cache: Path, installation: str, launch: Launch, image: Image
    ) -> None:
        self._engine = engine
        self._cache = cache / image.id[:24]
        self._installation = installation
        self._launch = launch
        self.image = image
        self._container: str | None = None

    def __enter__(self) -> ImageFiles:
        return self

    def __exit__(self, *_: object) -> None:
        if self._container is not None:
            with contextlib.suppress(CseError), self._engine.doing("remove a container"):
                self._engine().remove_container(self._container, force=True, v=True)

    def find(self, path: str) -> ProgramFile | None:
        """See `Files.find`; `host_path` is a copy with the mode that the file has in the image."""
        for mount in sorted(self._launch.mounts, key=lambda one: len(one.target), reverse=True):
            target = mount.target.rstrip("/")
            if path == target or path.startswith(f"{target}/"):
                return _on_host(path, Path(mount.source + path[len(target) :]))
        with contextlib.suppress(FileNotFoundError, ValueError, TypeError):
            known = json.loads(self._facts(path).read_text())
            if known is None:
                return None
            if Path(known["host_path"]).exists():
                return ProgramFile(**known)
        return self._read(path)

    def owner(self) -> tuple[int, int]:
        """(uid, gid) that the program runs as, by the image's own /etc/passwd and /etc/group."""
        text = self._launch.spec.user or self.image.user or "0"
        user, _, group = text.partition(":")
        entry = self._entry("/etc/passwd", user)
        if not user.isdigit() and entry is None:
            raise InvalidSpecification(
                f"image '{self.image.reference}' has no user '{user}'",
                pointer="/user",
                remedy="give a user of the image, or a numeric id",
            )
        uid = int(user) if entry is None else int(entry[2])
        if not group:
            return uid, 0 if entry is None else int(entry[3])
        named = self._entry("/etc/group", group)
        if not group.isdigit() and named is None:
            raise InvalidSpecification(
                f"image '{self.image.reference}' has no group '{group}'",
                pointer="/user",
                remedy="give a group of the image, or a numeric id",
            )
        return uid, int(group) if named is None else int(named[2])

    def _entry(self, path: str, key: str) -> list[str] | None:
        """The line of passwd or group whose name, or number, is `key`."""
        found = self.find(path) if key != "0" else None
        if found is None:
            return None
        column = 2 if key.isdigit() else 0
        for line in Path(found.host_path).read_text(errors="replace").splitlines():
            fields = line.split(":")
            if len(fields) > 3 - (path == "/etc/group") and fields[column] == key:
                return fields
        return None

    # ---- the cache

    def _facts(self, path: str) -> Path:
        return self._cache / f"{hashlib.sha256(path.encode()).hexdigest()[:24]}.json"

    def _keep(self, asked: str, found: ProgramFile | None) -> ProgramFile | None:
        """Also that there is no such file: PATH is searched again at each start."""
        _write(self._facts(asked), json.dumps(found and found.__dict__).encode(), 0o600)
        return found

    # ---- the image

    def _read(self, path: str) -> ProgramFile | None:
        """None where there is no regular file of this name."""
        # Only its owner may enter: copies have the set-id bits of the image.
        self._cache.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._cache.mkdir(exist_ok=True)
        seen = path
        for _ in range(_MAX_LINKS):
            answer = self._archive(seen)
            if answer is None:
                return self._keep(path, None)
            chunks, facts = answer
            mode = int(facts["mode"])
            if mode & _GO_SYMLINK:
                seen = posixpath.normpath(posixpath.join("/", facts["linkTarget"]))
                continue
            if mode & _GO_DIRECTORY or int(facts["size"]) > _MAX_FILE_BYTES:
                return self._keep(path, None)
            with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
                entry = tar.next()
                file = tar.extractfile(entry) if entry is not None and entry.isreg() else None
                if entry is None or file is None:
                    return self._keep(path, None)
                content = self._facts(path).with_suffix(".file")
                _write(content, file.read(), _permissions(mode))
                capable = "SCHILY.xattr.security.capability" in entry.pax_headers
            return self._keep(path, ProgramFile(seen, str(content), capable))
        return None

    def _archive(self, path: str) -> tuple[Iterator[bytes], dict[str, Any]] | None:
        container = self._made()
        try:
            with self._engine.doing(f"read {path} of image '{self.image.reference}'"):
                answer: tuple[Iterator[bytes], dict[str, Any]]
                answer = self._engine().get_archive(container, path)
            return answer
        except (NotFound, RuntimeFailure) as error:
            # 400: a part of the path is not a directory
            if isinstance(error, NotFound) or "not a directory" in str(error):
                return None
            raise

    def _made(self) -> str:
        if self._container is None:
            with self._engine.doing(f"make a container of image '{self.image.reference}'"):
                made = self._engine().create_container_from_config(
                    {
                        "Image": f"sha256:{self.image.id}",
                        "Entrypoint": ["/never-started"],
                        "Labels": reader_labels(self._installation),
                        "HostConfig": {"NetworkMode": "none"},
                    }
                )
            self._container = str(made["Id"])
        return self._container


def reader_labels(installation: str) -> dict[str, str]:
    """Of a container that this process made to look at something, and removes itself."""
    return {_READER_LABEL: installation, _AGENT_LABEL: _THIS_AGENT}


def remove_leftover_readers(engine: Engine, installation: str) -> None:
    """What an agent that was killed while it read an image, or files, has left behind: an
    installation has one agent at a time, so that all that are not of this process are leftovers."""
    filters = {"label": [f"{_READER_LABEL}={installation}"]}
    with engine.doing("list its containers"):
        rows = engine().containers(all=True, filters=filters)
    for row in rows:
        if row["Labels"].get(_AGENT_LABEL) == _THIS_AGENT:
            continue
        with contextlib.suppress(CseError), engine.doing("remove a container"):
            engine().remove_container(row["Id"], force=True, v=True)


def _permissions(go_mode: int) -> int:
    """Go's FileMode, which Docker answers with, has the set-id bits elsewhere."""
    bits = go_mode & 0o777
    bits |= stat.S_ISUID if go_mode & _GO_SETUID else 0
    return bits | (stat.S_ISGID if go_mode & _GO_SETGID else 0)


def _on_host(path: str, host: Path) -> ProgramFile | None:
    """A file behind one of the launch's mounts."""
    try:
        resolved = host.resolve(strict=True)
        if not resolved.is_file():
            return None
        capable = "security.capability" in os.listxattr(resolved)
    except OSError:
        return None
    return ProgramFile(path, str(resolved), capable)


def _write(path: Path, data: bytes, mode: int) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_native_id()}")
    temporary.write_bytes(data)
    temporary.chmod(mode)
    temporary.replace(path)
