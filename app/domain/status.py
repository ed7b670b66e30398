"""One application's standing between what is wanted and what is there.

Written by `reconcile`, shown by `api`; neither imports the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from app.domain.errors import CseError
from app.domain.network import NetworkSpec
from app.domain.observed import Observed


@dataclass(frozen=True)
class Condition:
    """Why an application is not as it should be."""

    generation: int
    """Of the wish that could not be fulfilled."""
    error: CseError | None
    """None while it only waits for others."""
    detail: str
    attempts: int = 0
    retry_at: float | None = None
    """On the monotonic clock; None: not before the specification or desired state changes."""


class Status(NamedTuple):
    """One application's observation and condition at one moment."""

    observed: Observed | None
    condition: Condition | None
    busy: bool
    """Steps are under way, or about to be."""
    activity: str | None = None
    """What its instances are busy with while it runs, as they told lately."""


class Convergence(Protocol):
    """What the API needs of the reconcile loop."""

    @property
    def agent_error(self) -> CseError | None:
        """Why the agent cannot be reached; None while it can."""

    def wake(self, name: str, *, here: bool = False) -> None:
        """Converge this application soon; on return it counts as busy.

        `here`: in the calling thread, where nobody else is at it; on return its steps are done.
        Handing them to another thread and back costs about a tenth of a start.
        """

    def status(self, name: str) -> Status:
        """All that is known of one application."""

    def statuses(self, names: Sequence[str]) -> list[Status]:
        """The same of several, at one moment."""

    def wait_for(self, name: str, done: Callable[[Status], bool], timeout_s: float) -> Status:
        """Block until `done` or the time is over; the last status either way."""

    def ensure_network(self, network: NetworkSpec) -> None:
        """As `Agent.ensure_network`; asks the agent only where it is new or changed."""

    def remove_network(self, name: str) -> None:
        """As `Agent.remove_network`."""
