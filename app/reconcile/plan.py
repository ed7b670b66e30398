"""What has to be done so that one application is as its user wants it. Pure: no I/O, no clock.

Called by `converge.py` with what the store wants and what the agent sees.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum

from app.domain.application import Condition
from app.domain.observed import Observed, State
from app.store.records import ApplicationRecord

ALIVE = (State.RUNNING, State.RESTARTING)


class Step(StrEnum):
    """One call of the agent, or of the store."""

    CREATE = "create"
    START = "start"
    STOP = "stop"
    REMOVE = "remove"
    FORGET = "forget"
    """Remove the store's record: last, so that a crash before it only repeats the rest."""


def plan(
    record: ApplicationRecord | None, observed: Observed | None, installation: str
) -> list[Step]:
    """The steps in order; empty where all is right.

    What runs without a record is removed only where its id shows that this store made it.
    """
    if record is None:
        ours = observed is not None and observed.id.startswith(f"{installation}-")
        return [Step.REMOVE] if ours else []
    if record.desired == "removed":
        return [Step.REMOVE, Step.FORGET]
    wants_run = record.desired == "running"
    if observed is None:
        return [Step.CREATE, Step.START] if wants_run else []
    if observed.id != record.id:
        return [Step.REMOVE, Step.CREATE, Step.START] if wants_run else [Step.REMOVE]
    if observed.state in ALIVE:
        if not wants_run:
            return [Step.STOP]
        # A first run that is alive has been started, even where a crash kept that from the store.
        again = 0 < record.run_done < record.run_wanted
        return [Step.STOP, Step.START] if again else []
    never_run = observed.state is State.CREATED
    due = never_run or record.run_done < record.run_wanted or _came_down(record, observed)
    return [Step.START] if wants_run and due else []


def _came_down(record: ApplicationRecord, observed: Observed) -> bool:
    """Whether it has ended although it is always to run: who restarts it was killed with it (the
    host, the Docker daemon). While the runtime's own policy acts, it is `restarting`."""
    return observed.state is State.EXITED and record.spec.restart.policy == "always"


def waits_for(
    record: ApplicationRecord,
    records: Mapping[str, ApplicationRecord],
    observed: Mapping[str, Observed],
    healthy: Callable[[str], bool] = lambda name: False,
) -> dict[str, Condition]:
    """What in `depends_on` has not come about yet; removed ones hold nobody up."""
    waiting = {}
    for name, condition in record.spec.dependencies.items():
        other, seen = records.get(name), observed.get(name)
        if other is None or other.desired == "removed":
            continue
        ours = seen is not None and seen.id == other.id
        state = seen.state if seen is not None and ours else None
        reached = {
            "started": state in ALIVE or state is State.EXITED,
            "healthy": state in ALIVE and healthy(name),
            "completed": state is State.EXITED and seen is not None and seen.exit_code == 0,
        }
        if not reached[condition]:
            waiting[name] = condition
    return waiting
