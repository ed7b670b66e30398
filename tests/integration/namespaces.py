"""Applications of the namespace runtime without a control plane; used by its tests."""

from __future__ import annotations

from typing import Any

from app.domain.application import ApplicationSpec
from app.domain.launch import BoundMount, Launch
from app.runtimes.namespace import NamespaceRuntime


def launch(name: str, *command: str, mounts: list[BoundMount] | None = None, **spec: Any) -> Launch:
    made = ApplicationSpec.model_validate({"name": name, "command": list(command), **spec})
    return Launch(id=f"id-{name}", spec=made, elements=[], network=None, mounts=mounts or [])


def texts(runtime: NamespaceRuntime, name: str, stream: str = "stdout") -> list[str]:
    return [line.text for line in runtime.logs(name) if line.stream == stream]
