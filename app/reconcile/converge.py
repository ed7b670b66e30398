"""Carries out the plan of one application, step by step. Called by `loop.py`'s workers."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from app import tracing
from app.catalog import resolve
from app.catalog.catalog import Catalog
from app.domain.errors import CseError, RuntimeFailure
from app.domain.network import NetworkSpec
from app.domain.observed import Observed, State
from app.domain.ports import Agent
from app.domain.status import Condition
from app.reconcile.history import History
from app.reconcile.plan import Step, plan, waits_for
from app.reconcile.view import View
from app.store.records import ApplicationRecord
from app.store.store import Store, Transaction

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Hooks:
    """Who else looks after applications (`health.py`)."""

    noted: Callable[[str, ApplicationRecord | None], None] = lambda name, record: None
    """Before a convergence, with the record as it is."""
    healthy: Callable[[str], bool] = lambda name: False


class Converger:
    """Steps of one application at a time per caller; safe from several threads."""

    def __init__(
        self,
        store: Store,
        agent: Agent,
        catalog: Catalog,
        view: View,
        history: History,
        look: Callable[[], None],
        made: Callable[[str], None],
        hooks: Hooks,
    ) -> None:
        self._noted, self._healthy = hooks.noted, hooks.healthy
        self._store = store
        self._agent = agent
        self._catalog = catalog
        self._view = view
        self._history = history
        self._look = look
        self._made = made
        self._configured: dict[str, tuple[str, int]] = {}
        """Name → id and generation of the record whose settings the host has."""
        self._networks: dict[str, NetworkSpec] = {}
        self._networks_lock = threading.Lock()

    def forget_host(self) -> None:
        """The agent may be another one: make sure of everything again when next needed."""
        with self._networks_lock:
            self._networks.clear()
        self._configured.clear()

    def ensure_network(self, network: NetworkSpec) -> None:
        """Ask the agent only where the network is new or changed."""
        with self._networks_lock:
            if self._networks.get(network.name) != network:
                self._agent.ensure_network(network)
                self._networks[network.name] = network

    def remove_network(self, name: str) -> None:
        """Remove it from the host."""
        with self._networks_lock:
            self._networks.pop(name, None)
            self._agent.remove_network(name)

    def converge(self, name: str) -> None:
        """Do what is to be done; an error becomes the application's condition and an event."""
        record = self._store.application(name)
        self._noted(name, record)
        status = self._view.status(name)
        steps = plan(record, status.observed, self._store.installation)
        if not steps and not self._may_differ(record, status.observed):
            self._settle(record, name)
            return
        if record is not None and _must_wait(status.condition, record):
            return
        try:
            for step in steps:
                if step is Step.START and record is not None and not self._may_start(record):
                    return
                with tracing.span(f"step {step}", application=name):
                    self._take(step, name, record, starting=steps[-1] is Step.START)
            if not steps and record is not None:
                self._configure(record)
                self._settle(record, name)
        except CseError as error:
            self._failed(name, record, error)
        except Exception as error:
            log.exception("unexpected error while converging '%s'", name)
            wrapped = RuntimeFailure(f"unexpected error: {error!r}", remedy="see the server's log")
            self._failed(name, record, wrapped)
        else:
            self._view.clear(name)

    def _may_differ(self, record: ApplicationRecord | None, observed: Observed | None) -> bool:
        """Whether the settings on the host may be older than the record's."""
        return (
            record is not None
            and bool(record.spec.elements)
            and observed is not None
            and observed.id == record.id
            and self._configured.get(record.name) != (record.id, record.generation)
        )

    def _configure(self, record: ApplicationRecord) -> None:
        self._agent.configure(
            record.name, record.spec, resolve.settings(record.spec, self._catalog)
        )
        self._configured[record.name] = (record.id, record.generation)

    def _settle(self, record: ApplicationRecord | None, name: str) -> None:
        self._view.clear(name)
        if record is not None and record.desired == "running" and record.run_done == 0:
            with self._store.write() as transaction:
                _mark_run(transaction, record)

    def _may_start(self, record: ApplicationRecord) -> bool:
        if not record.spec.depends_on:
            return True
        with self._store.read() as transaction:
            records = {other.name: other for other in transaction.applications.all()}
        waiting = waits_for(record, records, self._view.observed(), self._healthy)
        if waiting:
            names = ", ".join(f"'{other}' to be {how}" for other, how in waiting.items())
            self._view.hold(record.name, record.generation, f"waits for {names}")
            # One that started between the look and the note above would wake nobody.
            waiting = waits_for(record, records, self._view.observed(), self._healthy)
        return not waiting

    def _take(
        self, step: Step, name: str, record: ApplicationRecord | None, *, starting: bool
    ) -> None:
        if step is Step.REMOVE:
            before = self._view.status(name).observed
            with self._history.ending(name):
                self._agent.remove(name)
                self._record(name, before, None)
            if record is None:
                self._store.record_event("removed", name, "removed: no record stands for it")
        elif record is None:
            raise RuntimeFailure(f"step '{step}' needs a record")
        elif step is Step.FORGET:
            self._configured.pop(name, None)
            # Whoever asks next finds it written; of many removals several are one commit. After a
            # kill in between it is removed once more, with nothing to do but this.
            self._store.later(partial(_forget, name=name), of=name)
        elif step is Step.CREATE:
            self._create(record, starting=starting and not record.spec.depends_on)
        elif step is Step.START:
            self._start(record)
        elif step is Step.STOP:
            before = self._view.status(name).observed
            with self._history.ending(name):
                observed = self._agent.stop(name)
                self._record(name, before, observed)
            self._history.known(observed)
            self._store.record_event("stopped", name, f"stopped, status {observed.exit_code}")

    def _create(self, record: ApplicationRecord, *, starting: bool) -> None:
        spec = record.spec
        network = None
        if record.address is not None and record.network is not None:
            self.ensure_network(record.network)
            network = resolve.binding(record.network, record.address, spec)
        volumes = {
            mount.volume: self._agent.ensure_volume(mount.volume)
            for mount in spec.mounts
            if mount.volume is not None
        }
        launch = resolve.launch(record.id, spec, self._catalog, network, volumes)
        before = self._view.status(record.name).observed
        coverage = self._agent.create(launch, starting=starting)
        self._made(record.name)
        if record.generation == 1:  # else it may have been there, with the settings of before
            self._configured[record.name] = (record.id, record.generation)
        # `create` answers with the coverage; what it made is this:
        made = Observed(id=record.id, name=record.name, runtime=spec.runtime, state=State.CREATED)
        self._record(record.name, before, made)
        if coverage != record.coverage:
            with self._store.write() as transaction:
                transaction.applications.set_coverage(record.name, record.id, coverage)

    def _start(self, record: ApplicationRecord) -> None:
        before = self._view.status(record.name).observed
        if self._may_differ(record, before):
            self._configure(record)
        with self._history.starting(record.name):
            first = record.run_done == 0
            if first:
                # Written while the program starts. Where a kill comes in between, what was made
                # but has never run is started all the same (see `plan`).
                self._store.later(partial(_mark_run, record=record), of=record.name, at_once=True)
            observed = self._agent.start(record.name)
            if first:
                self._store.later(partial(_tell_start, observed=observed), of=record.name)
            else:
                with self._store.write() as transaction:
                    _mark_run(transaction, record)
                    _tell_start(transaction, observed)
            # Last: it wakes the request that waits, whose answer this thread would only hinder.
            self._record(record.name, before, observed)

    def _record(self, name: str, before: Observed | None, after: Observed | None) -> None:
        undisputed = self._view.record(name, before, after)
        if not undisputed and after is not None:  # what is removed is made again by nobody else
            self._look()

    def _failed(self, name: str, record: ApplicationRecord | None, error: CseError) -> None:
        generation = record.generation if record else 0
        condition = self._view.fail(name, generation, error)
        if condition.attempts == 1:
            self._store.record_event("failed", name, str(error))
        fields = {"application": name}
        log.info("'%s': %s (attempt %d)", name, error, condition.attempts, extra=fields)


def _mark_run(transaction: Transaction, record: ApplicationRecord) -> None:
    transaction.applications.mark_run(record.name, record.id, record.run_wanted)


def _forget(transaction: Transaction, name: str) -> None:
    transaction.applications.forget(name)
    transaction.events.add("removed", name, "removed")


def _tell_start(transaction: Transaction, observed: Observed) -> None:
    if observed.state is State.FAILED:
        transaction.events.add("failed", observed.name, observed.reason or "did not start")
    else:
        transaction.events.add("started", observed.name, f"started, pid {observed.pid}")


def _must_wait(condition: Condition | None, record: ApplicationRecord) -> bool:
    """Whether the last attempt failed, for this very wish, and the next is not due yet."""
    if condition is None or condition.error is None or condition.generation != record.generation:
        return False
    return condition.retry_at is None or condition.retry_at > time.monotonic()
