"""What the agent is asked about applications that run: instances, evidence, faults, use.

Called by `local`. Answers come from the kernel (`inspecting`), and from the instances themselves
through the broker (`instrumenting`).
"""

from __future__ import annotations

from collections.abc import Callable

from app.agent import file_counters, file_faults, inspecting, instrumenting
from app.agent.connecting import Connector
from app.agent.host import Host
from app.domain.errors import Conflict
from app.domain.fault import Counters, FaultOrder
from app.domain.observed import Claim, Instance
from app.domain.ports import Line, ReportKind
from app.domain.usage import Usage
from app.wiring import kernel_faults


class Looker:
    """Safe from several threads."""

    def __init__(self, host: Host, connector: Connector) -> None:
        self._host = host
        self._connector = connector

    def instances(self, name: str) -> list[Instance]:
        """See `Agent.instances`."""
        launch = self._host.launch(name)
        runtime = self._host.runtime(launch.spec.runtime)
        reported = self._host.broker.details(name)
        if launch.network is not None:
            inspecting.count_filtered(reported, self._host.wiring.delivered_packets(name))
        subject = inspecting.subject(self._host.state, launch, runtime, reported)
        return inspecting.instances(launch, subject)

    def evidence(self, name: str) -> list[Claim]:
        """See `Agent.evidence`."""
        self._host.launch(name)
        subjects = {
            other.name: inspecting.subject(
                self._host.state,
                other,
                self._host.runtime(other.spec.runtime),
                self._host.broker.details(other.name),
            )
            for other in inspecting.neighbours(self._host.launches, name)
        }
        return inspecting.evidence(subjects.pop(name), list(subjects.values()))

    def set_faults(self, name: str, orders: list[FaultOrder]) -> dict[str, Counters]:
        """See `Agent.set_faults`."""
        launch, directory = self._host.launch(name), self._host.directory(name)
        known = {order.id for order in instrumenting.read_faults(directory)}
        instrumenting.write_faults(directory, orders)
        if file_faults.concerned(launch):
            file_faults.hold(directory, orders)
        packets = [order for order in orders if order.spec.file is None]
        if launch.on_kernel_stack:
            new = {order.id for order in packets} - known
            self._connector.hold_in_kernel(launch, packets, new)
            return instrumenting.by_id(self.report(name, "faults"))
        done = instrumenting.set_faults(self._host.broker.instruments(name), packets)
        return done | instrumenting.by_id(file_faults.counted(directory, orders))

    def report(self, name: str, what: ReportKind) -> list[Line]:
        """See `Agent.report`."""
        launch = self._host.launch(name)
        if what != "faults":
            return instrumenting.report(self._host.broker.instruments(name), what)
        orders = instrumenting.read_faults(self._host.directory(name))
        found = file_faults.counted(self._host.directory(name), orders)
        if launch.on_kernel_stack:
            packets = [order for order in orders if order.spec.file is None]
            with self._connector.kernel_namespace(launch) as place:
                return found + ([] if place is None else kernel_faults.counted(place, packets))
        return found + instrumenting.report(self._host.broker.instruments(name), what)

    def usage(self) -> list[Usage]:
        """See `Agent.usage`."""
        running = [one.name for one in self._host.observe() if one.pid is not None]
        asked = {name: self._ask_counters(name) for name in running}
        return instrumenting.usage(
            asked,
            self._host.pids,
            self._host.broker.wires,
            lambda name: file_counters.read(self._host.directory(name) / "data"),
        )

    def _ask_counters(self, name: str) -> Callable[[float], list[dict[str, str]]]:
        try:
            return self._host.broker.instruments(name).ask("counters")
        except Conflict:  # no element that could be asked
            return lambda _: []
