"""The namespace runtime: programs of this host's own root file system under bubblewrap."""

from app.runtimes.namespace.runtime import NamespaceRuntime

__all__ = ["NamespaceRuntime"]
