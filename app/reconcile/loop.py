"""The loop: notices what changed in the store or on the host and has it put right.

Theory of operation. Three things wake an application: the API after a change of the store
(`wake`), the watcher thread when the agent reports a change of the host, and the timer thread
when a failed step is due again. Each woken application is converged by one worker of a bounded
pool, never by two at once; a wake that comes meanwhile makes it run once more. Nothing polls.
Made and run by the composition root.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

from app.catalog.catalog import Catalog
from app.domain.errors import AgentUnavailable, CseError
from app.domain.network import NetworkSpec
from app.domain.ports import Agent
from app.domain.status import Status
from app.reconcile.converge import Converger, Hooks
from app.reconcile.history import History
from app.reconcile.view import Difference, View
from app.store.store import Store

log = logging.getLogger(__name__)

_WATCH_S = 30.0
"""The longest wait for a change; then the host is looked at even so."""
_LONGEST_PAUSE_S = 5.0
_QUIET_S = 0.05
"""A look waits so long for steps under way: it would slow them, to see half of what they do."""
_REST = 3.0
_GATHER_S = 0.01
"""Changes come in bursts, and the last of one is where a request is about to be answered."""


class Reconciler:
    """Start it once; `wake` it after every change of the store."""

    def __init__(
        self,
        store: Store,
        agent: Agent,
        catalog: Catalog,
        workers: int = 8,
        made: Callable[[str], None] = lambda name: None,
        settled: Callable[[str], None] = lambda name: None,
        hooks: Hooks = Hooks(),  # noqa: B008
    ) -> None:
        """`made` is called with each application's name before its first start, `settled` after
        each convergence."""
        self.view = View()
        self.agent_error: CseError | None = None
        self._settled = settled
        self._store = store
        self._agent = agent
        self._history = History(store)
        self._converger = Converger(
            store, agent, catalog, self.view, self._history, self._look, made, hooks
        )
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="converge")
        self._looking = threading.Lock()
        self._again: set[str] = set()
        self._early: set[str] = set()
        self._last_report: int | None = None
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._watch, name="watch", daemon=True),
            threading.Thread(target=self._retry, name="retry", daemon=True),
        ]

    def start(self) -> None:
        """Begin; the first look at the host happens in the background."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End after the steps that are under way; applications go on."""
        self._stopping.set()
        self.view.failing.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def wake(self, name: str, *, here: bool = False) -> None:
        """See `Convergence`."""
        with self.view.changed:
            if not self.view.synced:
                # Nothing is known to be absent yet: acting now could make something twice.
                self._early.add(name)
                return
            if name in self.view.busy:
                self._again.add(name)
                return
            self.view.busy.add(name)
        if here:
            self._work(name)
        else:
            self._submit(name)

    def status(self, name: str) -> Status:
        """See `Convergence`."""
        return self.view.status(name)

    def statuses(self, names: Sequence[str]) -> list[Status]:
        """See `Convergence`."""
        return self.view.statuses(names)

    def wait_for(self, name: str, done: Callable[[Status], bool], timeout_s: float) -> Status:
        """See `Convergence`."""
        return self.view.wait_for(name, done, timeout_s)

    def ensure_network(self, network: NetworkSpec) -> None:
        """See `Convergence`."""
        self._converger.ensure_network(network)

    def remove_network(self, name: str) -> None:
        """See `Convergence`."""
        self._converger.remove_network(name)

    def _submit(self, name: str) -> None:
        try:
            self._pool.submit(copy_context().run, self._work, name)  # with the request's id
        except RuntimeError:  # the pool is shut down: the next control plane takes over
            self.view.settled(name)

    def _work(self, name: str) -> None:
        try:
            self._converger.converge(name)
        except Exception:
            log.exception("converging '%s' failed", name)
        with self.view.changed:
            again = name in self._again
            self._again.discard(name)
            if not again:
                self.view.settled(name)
            if self.view.will_retry(name):  # it was not looked at while it was busy
                self.view.failing.set()
        if again:
            self._submit(name)
            return
        self._wake_dependents(name)
        try:
            self._settled(name)
        except Exception:
            log.exception("operations of '%s' were not looked after", name)

    def _wake_dependents(self, name: str) -> None:
        for other in self.view.held_by(name):
            self.wake(other)

    def _watch(self) -> None:
        seen, pause, first = -1, 0.1, True
        while not self._stopping.is_set():
            try:
                seen = self._agent.wait_change(seen, 0.0 if first else _WATCH_S)
                if not first:
                    self.view.wait_quiet(_QUIET_S)
                    self._stopping.wait(_GATHER_S)
                    seen = self._agent.wait_change(seen, 0.0)
                if self._stopping.is_set():
                    return
                began = time.monotonic()
                self._look()
                self._take_reports()
                if first or self.agent_error:
                    self._converger.forget_host()
                    self._wake_all()
                self.agent_error, first, pause = None, False, 0.1
                # Looking at a thousand applications takes a while: leave longer between looks.
                self._stopping.wait(min(_REST * (time.monotonic() - began), 0.5))
            except Exception as error:
                first_time = self.agent_error is None
                if not isinstance(error, CseError):
                    log.exception("watching the agent failed")
                    error = AgentUnavailable(f"the agent failed: {error!r}")
                self.agent_error = error
                if first_time:
                    log.warning("%s", error)
                self._stopping.wait(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_S)

    def _look(self) -> None:
        """Ask the agent what is there, and wake what is not as it was."""
        unsure = True
        while unsure and not self._stopping.is_set():
            with self._looking:  # of two looks, the older would undo the newer
                epoch = self.view.begin_snapshot()
                differences, unsure = self.view.apply_snapshot(epoch, self._agent.observe())
                self._react(differences)

    def _take_reports(self) -> None:
        """What instances told becomes events; the store remembers up to where."""
        if self._last_report is None:
            with self._store.read() as transaction:
                self._last_report = transaction.events.last_report()
        reports = self._agent.reports(self._last_report)
        if reports:
            with self._store.write() as transaction:
                transaction.events.add_reports(reports, self._store.installation)
            self._last_report = reports[-1].number
        for report in reports:
            if report.activity is not None:
                self.view.doing(report.application, report.activity)

    def _wake_all(self) -> None:
        with self._store.read() as transaction:
            priority = {one.name: one.spec.priority for one in transaction.applications.all()}
        with self.view.changed:
            names = {*priority, *self._early, *self.view.observed()}
            self._early.clear()
        for name in sorted(names, key=lambda name: (-priority.get(name, 0), name)):
            self.wake(name)

    def _react(self, differences: list[Difference]) -> None:
        self._history.note(differences)
        for name, _, _ in differences:
            self.wake(name)

    def _retry(self) -> None:
        while not self._stopping.is_set():
            self.view.failing.clear()
            due, delay = self.view.due()
            for name in due:
                self.wake(name)
            if not due and not self._stopping.is_set():
                self.view.failing.wait(delay)
