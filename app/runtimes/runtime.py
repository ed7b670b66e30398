"""What the agent needs of a runtime beside `app.domain.ports.Runtime`."""

from __future__ import annotations

from typing import Protocol

from app.domain.launch import Launch
from app.domain.ports import Runtime
from app.runtimes.preflight import Program


class AnyRuntime(Runtime, Protocol):
    """Implemented by the namespace and docker runtimes."""

    def examine(self, launch: Launch) -> Program:
        """Read the program's file as the application will see it, before `create`."""

    def close(self) -> None:
        """Let go of this host's resources; applications go on."""
