"""What is on a host, bears this installation's mark, and is needed by nobody: for `cse gc`."""

from __future__ import annotations

from typing import Literal

from app.domain.model import Model


class Leftover(Model):
    """One thing that could be removed without anybody missing it."""

    kind: Literal["half-made", "network", "control-group", "volume", "lease", "shared-contents"]
    """`half-made`: the directory of an application that was never completed; `lease`: an address
    of a `cse run` that was killed."""
    name: str
    detail: str = ""
    removed: bool = False
