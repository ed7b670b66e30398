"""Work that outlasts its request: what it is to bring about, how far it is, how it ended.

An operation adds nothing to what is to be done: the wish is in the store, the reconcile loop
fulfils it. It is the memory of who waits for which version of which wish, and so it survives any
restart. Kept by `app/reconcile/operations.py`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Protocol

from pydantic import Field

from app.domain.model import Model

Goal = Literal["running", "stopped", "removed"]
State = Literal["running", "succeeded", "failed", "cancelled"]


class Target(Model):
    """One application of an operation."""

    application: str
    project: str = "default"
    id: str
    """The application's `id` when the operation began: another one is another wish."""
    generation: int
    goal: Goal
    is_new: bool = False
    """Created by this operation: cancelling removes it again."""
    state: Literal["pending", "done", "failed", "superseded", "cancelled"] = "pending"
    """`superseded`: a later request wants something else of it."""
    reason: str | None = None
    """Why it failed, or what it is waiting for."""


class Operation(Model):
    """One request that is being carried out, or was."""

    id: str = Field(examples=["op-1f2e3d4c5b6a"])
    kind: str = Field(examples=["create", "restart", "apply stack demo"])
    state: State
    created: datetime
    finished: datetime | None = None
    done: int
    """Of `total` applications."""
    total: int
    targets: list[Target]
    principal: str | None = None


class OperationKeeping(Protocol):
    """What the API needs of the keeper."""

    def begin(self, kind: str, targets: list[Target], principal: str | None) -> Operation:
        """Remember it; it may be over at once."""

    def get(self, identity: str, wait_s: float = 0.0) -> Operation:
        """As it is now, or when it is over within the time. Raises `NotFound`."""

    def cancel(self, identity: str) -> Operation:
        """Undo what has not been done yet; ends that are under way go on. Raises `Conflict` where
        there is nothing else."""
