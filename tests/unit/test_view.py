"""What the control plane believes: when a step and a look contradict each other."""

from __future__ import annotations

import pytest

from app.domain.observed import Observed, State
from app.reconcile.view import View


def seen(state: State, pid: int | None = None) -> Observed:
    return Observed(id="i", name="a", runtime="namespace", state=state, pid=pid)


CREATED, RUNNING, EXITED = seen(State.CREATED), seen(State.RUNNING, 7), seen(State.EXITED)


@pytest.mark.parametrize(
    ("look", "undisputed"), [(None, True), (CREATED, True), (RUNNING, True), (EXITED, False)]
)
def test_a_look_during_a_step_is_disputed_where_it_saw_neither_before_nor_after(
    look: Observed | None, undisputed: bool
) -> None:
    view = View()
    view.record("a", None, CREATED)
    if look is not None:
        view.apply_snapshot(view.begin_snapshot(), [look])
    assert view.record("a", CREATED, RUNNING) is undisputed
    assert view.status("a").observed == RUNNING


def test_a_look_that_began_before_a_step_ended_does_not_undo_it() -> None:
    view = View()
    view.record("a", None, CREATED)
    epoch = view.begin_snapshot()
    view.record("a", CREATED, RUNNING)
    assert view.apply_snapshot(epoch, [CREATED]) == ([], True)
    assert view.status("a").observed == RUNNING
    assert view.apply_snapshot(view.begin_snapshot(), [EXITED]) == (
        [("a", RUNNING, EXITED)],
        False,
    )
