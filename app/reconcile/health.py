"""Keeps asking programs whether they do their work, and tells when the answer changes.

Theory of operation. One thread knows when each application is to be asked next; a small pool asks,
through the agent. What is known is of one run of the program: a start makes it `starting` again.
Applications without a check cost nothing. Made by the composition root; `noted` and `settled` are
called by the loop, `status` by the API and by whatever waits for a healthy dependency.
"""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

from app.domain.errors import CseError
from app.domain.health import Health, HealthCheck, Probed
from app.domain.observed import Observed, State
from app.domain.ports import Agent
from app.store.records import ApplicationRecord
from app.store.store import Store

log = logging.getLogger(__name__)

_WORKERS = 8
Run = tuple[str, datetime | None]
"""Id and start of what runs."""


@dataclass
class _Patient:
    """One application that is asked."""

    check: HealthCheck
    run: Run | None = None
    began: float = 0.0
    health: Health | None = None
    due: float = field(default=float("inf"))
    asking: bool = False


class HealthKeeper:
    """Implements `app.domain.health.HealthKeeping`."""

    def __init__(
        self,
        store: Store,
        agent: Agent,
        observed: Callable[[str], Observed | None],
        changed: Callable[[str], None],
    ) -> None:
        """`changed` is called after an application has become healthy or unhealthy."""
        self._store = store
        self._agent = agent
        self._observed = observed
        self._tell = changed
        self._changed = threading.Condition()
        self._patients: dict[str, _Patient] = {}
        self._due: list[tuple[float, str]] = []
        self._stopping = False
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="probe")
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """End; what is being asked is waited for."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def status(self, application: str) -> Health | None:
        """See `HealthKeeping`."""
        if application not in self._patients:  # most; and lists ask for a thousand
            return None
        with self._changed:
            patient = self._patients.get(application)
            return patient.health if patient is not None else None

    def noted(self, name: str, record: ApplicationRecord | None) -> None:
        """The loop is about to converge this application; its check may be new."""
        check = record.spec.health if record is not None and record.desired == "running" else None
        if check is None and name not in self._patients:
            return
        with self._changed:
            if check is None:
                self._patients.pop(name, None)
            elif (patient := self._patients.get(name)) is None:
                self._patients[name] = _Patient(check)
            elif patient.check != check:
                patient.check, patient.run = check, None

    def settled(self, name: str) -> None:
        """A convergence has ended: what runs may be another run."""
        if name not in self._patients:
            return
        observed = self._observed(name)
        with self._changed:
            patient = self._patients.get(name)
            if patient is None:
                return
            if observed is None or observed.state is not State.RUNNING:
                patient.run, patient.health, patient.due = None, None, float("inf")
                return
            run = (observed.id, observed.started_at)
            if patient.run != run:
                patient.run, patient.began = run, time.monotonic()
                patient.health = Health(state="starting", since=datetime.now(UTC))
                self._schedule(name, patient, 0.0)

    def _schedule(self, name: str, patient: _Patient, delay_s: float) -> None:
        patient.due = time.monotonic() + delay_s
        heapq.heappush(self._due, (patient.due, name))
        self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._stopping:
                    left = self._due[0][0] - time.monotonic() if self._due else None
                    if left is not None and left <= 0:
                        break
                    self._changed.wait(left)
                if self._stopping:
                    return
                due, name = heapq.heappop(self._due)
                patient = self._patients.get(name)
                if patient is None or patient.due != due or patient.asking or patient.run is None:
                    continue
                patient.asking = True
                run = patient.run
            self._pool.submit(self._ask, name, patient, run)

    def _ask(self, name: str, patient: _Patient, run: Run) -> None:
        try:
            probed = self._agent.probe(name, patient.check.probe)
        except CseError as error:  # the agent is away: nothing is known of the program
            log.debug("'%s' could not be asked: %s", name, error)
            probed = None
        with self._changed:
            patient.asking = False
            current = self._patients.get(name) is patient and patient.run is not None
            news = None
            if current and patient.run == run and probed is not None:
                news = self._judge(patient, probed)
            if current:
                self._schedule(name, patient, patient.check.interval)
        if news is not None:
            self._react(name, patient.check, news)

    def _judge(self, patient: _Patient, probed: Probed) -> Health | None:
        """The new state, where it is another one."""
        before, check = patient.health, patient.check
        assert before is not None
        excused = (
            before.state == "starting" and time.monotonic() - patient.began < check.start_period
        )
        failures = 0 if probed.ok or excused else before.failures + 1
        state = before.state
        if probed.ok:
            state = "healthy"
        elif failures >= check.retries:
            state = "unhealthy"
        since = before.since if state == before.state else datetime.now(UTC)
        patient.health = Health(state=state, since=since, detail=probed.detail, failures=failures)
        return patient.health if state != before.state else None

    def _react(self, name: str, check: HealthCheck, health: Health) -> None:
        restart = health.state == "unhealthy" and check.on_failure == "restart"
        try:
            with self._store.write() as transaction:
                transaction.events.add(health.state, name, f"{health.state}: {health.detail}")
                if restart:
                    transaction.applications.set_desired(name, "running", new_run=True)
                    transaction.events.add("restart-requested", name, "unhealthy")
            self._tell(name)
        except CseError as error:  # it is being removed
            log.debug("'%s': %s", name, error)
