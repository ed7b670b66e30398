"""The docker runtime: a container of the user's image, with no network and no capability."""

from app.runtimes.docker.runtime import DockerRuntime

__all__ = ["DockerRuntime"]
