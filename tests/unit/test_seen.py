"""What was seen of an application is believed until something is heard, however threads run."""

from __future__ import annotations

from app.domain.application import RuntimeName
from app.domain.observed import Observed, State
from app.runtimes.namespace.seen import Seen


def observed(state: State) -> Observed:
    return Observed(id="i-1", name="a", runtime=RuntimeName.NAMESPACE, state=state)


def test_it_is_current_until_something_is_heard() -> None:
    seen = Seen()
    seen.heard("a")
    first = observed(State.RUNNING)
    seen.keep(first, seen.number("a"))
    assert seen.current("a") is first
    seen.heard("a")
    assert seen.current("a") is None


def test_what_was_read_before_a_change_is_not_kept_after_it() -> None:
    seen = Seen()
    number = seen.number("a")
    old = observed(State.RUNNING)  # read now; the change and the word of it come before `keep`
    seen.heard("a")
    seen.keep(old, number)
    assert seen.current("a") is None


def test_one_that_was_removed_and_made_again_is_another() -> None:
    seen = Seen()
    seen.heard("a")
    number = seen.number("a")
    seen.forget("a")
    seen.keep(observed(State.RUNNING), number)  # by a thread that looked before the removal
    seen.heard("a")
    assert seen.current("a") is None


def test_an_equal_one_is_the_same_object() -> None:
    seen = Seen()
    first = observed(State.RUNNING)
    seen.keep(first, seen.number("a"))
    assert seen.kept(observed(State.RUNNING)) is first
    assert seen.kept(observed(State.EXITED)) is not first
