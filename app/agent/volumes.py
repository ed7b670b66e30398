"""Volumes: directories under `STATE/volumes` that outlive the applications that mount them."""

from __future__ import annotations

import shutil
from pathlib import Path

from app.domain.errors import HostLacks, RuntimeFailure


class Volumes:
    """Callers have checked the names against `app.domain.model.Name`."""

    def __init__(self, state: Path) -> None:
        self._home = state / "volumes"

    def path(self, name: str) -> Path:
        """Where it is, or would be."""
        return self._home / name

    def ensure(self, name: str) -> Path:
        """Made with rights for any user inside; the directory above keeps out those outside."""
        path = self.path(name)
        try:
            self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not path.is_dir():
                path.mkdir()
                path.chmod(0o777)
        except OSError as error:
            raise HostLacks(
                f"volume '{name}' cannot be made in {self._home}: {error.strerror}",
                remedy="make room, or choose another state directory with CSE_STATE_DIR",
            ) from error
        return path

    def remove(self, name: str) -> None:
        """With all that is in it."""
        try:
            shutil.rmtree(self.path(name))
        except FileNotFoundError:
            return
        except OSError as error:
            raise RuntimeFailure(f"volume '{name}' cannot be removed: {error}") from error
