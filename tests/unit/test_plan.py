"""The plan: whatever the state, its steps lead to what is wanted, and then nothing is left."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from app.domain.application import ApplicationSpec
from app.domain.observed import Observed, State
from app.domain.resources import Desired
from app.reconcile.plan import ALIVE, Step, plan, waits_for
from app.store.records import ApplicationRecord

INSTALLATION = "0123abcd"
IDS = st.sampled_from([f"{INSTALLATION}-1", f"{INSTALLATION}-2", "strange-1"])


def record(
    name: str = "a",
    launch_id: str = f"{INSTALLATION}-1",
    depends_on: tuple[str, ...] = (),
    **values: object,
) -> ApplicationRecord:
    spec = ApplicationSpec(name=name, command=["x"], depends_on=list(depends_on))
    moment = datetime.now(UTC)
    base = {
        "name": name,
        "id": launch_id,
        "generation": 1,
        "spec": spec,
        "desired": "running",
        "run_wanted": 1,
        "run_done": 0,
        "coverage": None,
        "address": None,
        "created": moment,
        "updated": moment,
    }
    return ApplicationRecord.model_validate({**base, **values})


def seen(state: State, launch_id: str = f"{INSTALLATION}-1", name: str = "a") -> Observed:
    return Observed(id=launch_id, name=name, runtime="fake", state=state)


RECORDS = st.none() | st.builds(
    record,
    launch_id=st.sampled_from([f"{INSTALLATION}-1", f"{INSTALLATION}-2"]),
    desired=st.sampled_from(get_args(Desired)),
    run_wanted=st.integers(1, 3),
    run_done=st.integers(0, 3),
).filter(lambda made: made.run_done <= made.run_wanted)
OBSERVED = st.none() | st.builds(seen, st.sampled_from(list(State)), IDS)


@given(RECORDS, OBSERVED)
def test_steps_lead_to_what_is_wanted(
    wanted: ApplicationRecord | None, there: Observed | None
) -> None:
    now, still = there, wanted
    for step in plan(wanted, there, INSTALLATION):
        if step is Step.REMOVE:
            now = None
        elif step is Step.CREATE:
            assert now is None and still is not None, "made over what is there"
            now = seen(State.CREATED, still.id)
        elif step is Step.START:
            assert now is not None and now.state not in ALIVE and still is not None
            now = now.model_copy(update={"state": State.RUNNING})
            still = still.model_copy(update={"run_done": still.run_wanted})
        elif step is Step.STOP:
            assert now is not None and now.state in ALIVE
            now = now.model_copy(update={"state": State.EXITED})
        elif step is Step.FORGET:
            assert now is None
            still = None
    assert plan(still, now, INSTALLATION) == []
    if wanted is not None and wanted.desired == "running":
        assert now is not None and now.id == wanted.id
        assert now.state in (*ALIVE, State.EXITED, State.FAILED)
    if wanted is not None and wanted.desired == "stopped":
        assert now is None or now.state not in ALIVE


@given(OBSERVED)
def test_what_another_installation_made_is_never_touched(there: Observed | None) -> None:
    foreign = there is not None and not there.id.startswith(INSTALLATION)
    if foreign:
        assert plan(None, there, INSTALLATION) == []


def test_what_is_right_is_not_touched() -> None:
    assert plan(record(run_done=1), seen(State.RUNNING), INSTALLATION) == []
    assert plan(record(run_done=1), seen(State.RESTARTING), INSTALLATION) == []
    assert plan(record(run_done=1), seen(State.EXITED), INSTALLATION) == []
    # Killed between the start and the record of it: what runs has been started.
    assert plan(record(run_done=0), seen(State.RUNNING), INSTALLATION) == []


def test_a_restart_is_asked_for_by_one_more_run() -> None:
    again = record(run_done=1, run_wanted=2)
    assert plan(again, seen(State.RUNNING), INSTALLATION) == [Step.STOP, Step.START]
    assert plan(again, seen(State.EXITED), INSTALLATION) == [Step.START]


def test_waiting_for_others() -> None:
    one = record("a", depends_on=("b", "c", "gone"))
    records = {"b": record("b"), "c": record("c", f"{INSTALLATION}-2")}
    there = {"b": seen(State.RUNNING, name="b"), "c": seen(State.RUNNING, name="c")}
    # `c` runs, but from an older specification.
    assert list(waits_for(one, records, there)) == ["c"]
    assert list(waits_for(one, records, {})) == ["b", "c"]
    there["c"] = seen(State.EXITED, f"{INSTALLATION}-2", "c")
    assert list(waits_for(one, records, there)) == []
    there["c"] = seen(State.FAILED, f"{INSTALLATION}-2", "c")
    assert list(waits_for(one, records, there)) == ["c"]


def test_what_is_always_to_run_is_started_again_where_its_supervisor_came_down_with_it() -> None:
    always = ApplicationSpec.model_validate({"name": "a", "command": ["x"], "restart": "always"})
    ended = seen(State.EXITED)
    assert plan(record(spec=always, run_done=1), ended, INSTALLATION) == [Step.START]
    assert plan(record(run_done=1), ended, INSTALLATION) == []
    stopped = record(spec=always, run_done=1, desired="stopped")
    assert plan(stopped, ended, INSTALLATION) == []
    for state in (State.RESTARTING, State.FAILED):
        assert plan(record(spec=always, run_done=1), seen(state), INSTALLATION) == []
