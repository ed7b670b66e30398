"""Applications with their addresses and ports. Part of `app/store/store.py`'s transactions."""

from __future__ import annotations

import secrets
from datetime import datetime
from functools import lru_cache
from ipaddress import IPv4Address
from typing import Any
from weakref import WeakValueDictionary

from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update

from app.domain.application import ApplicationSpec
from app.domain.errors import Conflict, NotFound
from app.domain.explain import did_you_mean
from app.domain.network import NetworkSpec
from app.domain.observed import Coverage
from app.domain.resources import Desired
from app.store import addresses
from app.store.clock import now
from app.store.records import ApplicationRecord
from app.store.tables import addresses as address_table
from app.store.tables import applications as table
from app.store.tables import faults as fault_table
from app.store.tables import networks as network_table

# Built once: SQLAlchemy takes longer to build a statement than SQLite to execute it.
_JOINED = (
    select(
        table,
        address_table.c.value.label("address"),
        network_table.c.spec.label("network"),
    )
    .outerjoin(address_table, address_table.c.holder == table.c.name)
    .outerjoin(network_table, network_table.c.name == address_table.c.network)
)
_ALL = _JOINED.order_by(table.c.name)
_FIND = _JOINED.where(table.c.name == bindparam("wanted"))
_INSERT = insert(table)
_MARK_RUN = (
    update(table)
    .where(table.c.name == bindparam("wanted"), table.c.id == bindparam("wanted_id"))
    .values(run_done=bindparam("done"))
)
_SET_DESIRED = (
    update(table)
    .where(table.c.name == bindparam("wanted"))
    .values(
        desired=bindparam("state"),
        generation=bindparam("number"),
        run_wanted=bindparam("runs"),
        updated=bindparam("moment"),
    )
)
_FORGET = delete(table).where(table.c.name == bindparam("wanted"))
_FORGET_FAULTS = delete(fault_table).where(fault_table.c.application == bindparam("wanted"))


class Applications:
    """The applications, by name."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.touched = False
        """Whether anything of them was written."""
        self.inserted: ApplicationRecord | None = None
        """The one that was, where nothing else was."""

    def all(self) -> list[ApplicationRecord]:
        """By name."""
        rows = self._connection.execute(_ALL)
        return [_record(row) for row in rows]

    def find(self, name: str) -> ApplicationRecord | None:
        """None where there is none of this name."""
        row = self._connection.execute(_FIND, {"wanted": name}).first()
        return _record(row) if row else None

    def get(self, name: str) -> ApplicationRecord:
        """Raises `NotFound`; an application that is being removed is not found either."""
        record = self.find(name)
        if record is None or record.desired == "removed":
            names = self.names()
            remedy = did_you_mean(name, names) if names else "create it first"
            raise NotFound(f"there is no application '{name}'", remedy=remedy)
        return record

    def names(self, project: str | None = None) -> list[str]:
        """Of all that are not being removed; of one project only, where it is given."""
        query = select(table.c.name, table.c.spec).where(table.c.desired != "removed")
        rows = self._connection.execute(query)
        return [name for name, text in rows if project in (None, _spec(text).project)]

    def insert(
        self,
        installation: str,
        spec: ApplicationSpec,
        network: NetworkSpec | None,
        coverage: Coverage | None = None,
    ) -> ApplicationRecord:
        """A new application that is to run. Raises `Conflict` where its name is taken."""
        if present := self.find(spec.name):
            being = "is being removed" if present.desired == "removed" else "exists already"
            raise Conflict(
                f"application '{spec.name}' {being}",
                pointer="/name",
                remedy="choose another name, or replace it with PUT",
            )
        address = self._allocate(spec, network)
        if spec.ports:
            addresses.take_ports(self._connection, spec.name, spec.ports)
        moment = now()
        values: dict[str, Any] = {
            "name": spec.name,
            "id": _new_id(installation),
            "generation": 1,
            "spec": spec.model_dump_json(),
            "desired": "running",
            "run_wanted": 1,
            "run_done": 0,
            "coverage": coverage.model_dump_json() if coverage else None,
            "created": moment,
            "updated": moment,
        }
        self._connection.execute(_INSERT, values)
        record = ApplicationRecord.model_construct(
            **{
                **values,
                "spec": spec,
                "coverage": coverage,
                "address": address,
                "network": network,
                "created": datetime.fromisoformat(moment),
                "updated": datetime.fromisoformat(moment),
            }
        )
        self._touch(record)
        return record

    def replace(
        self,
        installation: str,
        spec: ApplicationSpec,
        network: NetworkSpec | None,
        coverage: Coverage | None = None,
    ) -> ApplicationRecord:
        """Another specification under the same name; the address is kept where it still fits."""
        present = self.get(spec.name)
        held = addresses.address_of(self._connection, spec.name)
        wanted = spec.network.address
        keeps = (
            held is not None
            and network is not None
            and held[0] == network.name
            and wanted in (None, held[1])
        )
        if not keeps:
            addresses.release(self._connection, spec.name)
            self._allocate(spec, network)
        addresses.take_ports(self._connection, spec.name, spec.ports)
        self._update(
            spec.name,
            id=_new_id(installation),
            generation=present.generation + 1,
            spec=spec.model_dump_json(),
            desired="running",
            run_wanted=1,
            run_done=0,
            coverage=coverage.model_dump_json() if coverage else None,
            updated=now(),
        )
        return self.get(spec.name)

    def set_desired(
        self, name: str, desired: Desired, *, new_run: bool = False
    ) -> ApplicationRecord:
        """Ask for another state; `new_run`: start the program even where it has run and ended."""
        record = self.get(name)
        self._touch()
        values = {
            "wanted": name,
            "state": desired,
            "number": record.generation + 1,
            "runs": record.run_done + 1 if new_run else record.run_wanted,
            "moment": now(),
        }
        self._connection.execute(_SET_DESIRED, values)
        return record.model_copy(update={"desired": desired, "generation": record.generation + 1})

    def remove_all(self, records: list[ApplicationRecord]) -> None:
        """Ask for the end of all of these, as they were read in this transaction."""
        self._touch()
        moment = now()
        rows = [
            {
                "wanted": record.name,
                "state": "removed",
                "number": record.generation + 1,
                "runs": record.run_wanted,
                "moment": moment,
            }
            for record in records
        ]
        if rows:
            self._connection.execute(_SET_DESIRED, rows)

    def change(self, spec: ApplicationSpec, *, restart: bool) -> ApplicationRecord:
        """Another specification of what goes on under the same id, as the present one allows;
        `restart`: with another start of its program."""
        record = self.get(spec.name)
        again = (restart or record.desired != "running") and record.run_done > 0
        run_wanted = record.run_done + 1 if again else record.run_wanted
        generation = record.generation + 1
        self._update(
            spec.name,
            spec=spec.model_dump_json(),
            desired="running",
            generation=generation,
            run_wanted=run_wanted,
            updated=now(),
        )
        return self.get(spec.name)

    def set_settings(self, name: str, element: str, settings: dict[str, Any]) -> ApplicationRecord:
        """Other settings of one element; what runs goes on under the same id."""
        record = self.get(name)
        use = record.spec.elements[element].model_copy(update={"settings": settings})
        spec = record.spec.model_copy(update={"elements": {**record.spec.elements, element: use}})
        generation = record.generation + 1
        self._update(name, spec=spec.model_dump_json(), generation=generation, updated=now())
        return record.model_copy(update={"spec": spec, "generation": generation})

    def mark_run(self, name: str, application_id: str, done: int) -> None:
        """The start number `done` has been made."""
        values = {"wanted": name, "wanted_id": application_id, "done": done}
        self._touch()
        self._connection.execute(_MARK_RUN, values)

    def set_coverage(self, name: str, application_id: str, coverage: Coverage) -> None:
        """What the agent found out about the program when it made the application."""
        change = update(table).where(table.c.name == name, table.c.id == application_id)
        self._touch()
        self._connection.execute(change.values(coverage=coverage.model_dump_json()))

    def forget(self, name: str) -> None:
        """Remove the record and give back address and ports."""
        self._touch()
        self._connection.execute(_FORGET, {"wanted": name})
        self._connection.execute(_FORGET_FAULTS, {"wanted": name})
        addresses.release(self._connection, name)
        addresses.release_ports(self._connection, name)

    def lease(self, network: NetworkSpec, spec: ApplicationSpec) -> IPv4Address:
        """Address and ports for a program that no record stands for (`cse run`)."""
        address = addresses.allocate(self._connection, network, spec.name, spec.network.address)
        addresses.take_ports(self._connection, spec.name, spec.ports)
        return address

    def release_lease(self, holder: str) -> None:
        """Give back what such a program had, if anything; what records stand for is kept."""
        if self.find(holder) is None:
            addresses.release(self._connection, holder)
            addresses.release_ports(self._connection, holder)

    def leases(self) -> list[str]:
        """Programs that have an address and no record."""
        query = (
            select(address_table.c.holder)
            .outerjoin(table, table.c.name == address_table.c.holder)
            .where(address_table.c.holder.is_not(None), table.c.name.is_(None))
        )
        return [holder for (holder,) in self._connection.execute(query)]

    def prepare_network(self, network: NetworkSpec) -> None:
        """Forget all addresses of a network (which nobody uses) and take the gateway's own."""
        self._connection.execute(
            delete(address_table).where(address_table.c.network == network.name)
        )
        addresses.reserve_gateway(self._connection, network)

    def _allocate(self, spec: ApplicationSpec, network: NetworkSpec | None) -> IPv4Address | None:
        if network is None:
            return None
        return addresses.allocate(self._connection, network, spec.name, spec.network.address)

    def _touch(self, inserted: ApplicationRecord | None = None) -> None:
        self.inserted = None if self.touched else inserted
        self.touched = True

    def _update(self, name: str, **values: object) -> None:
        self._touch()
        self._connection.execute(update(table).where(table.c.name == name).values(**values))


_alive: WeakValueDictionary[str, ApplicationSpec] = WeakValueDictionary()


@lru_cache(256)
def _spec(text: str) -> ApplicationSpec:
    """Specifications are immutable, and listing a thousand of them is common: one is parsed once
    while anybody has it, and those of the last requests a little longer."""
    found = _alive.get(text)
    if found is None:
        found = _alive[text] = ApplicationSpec.model_validate_json(text)
    return found


@lru_cache(256)
def network_of(text: str) -> NetworkSpec:
    """From its row."""
    return NetworkSpec.model_validate_json(text)


@lru_cache(4096)
def _coverage(text: str) -> Coverage:
    return Coverage.model_validate_json(text)


def _new_id(installation: str) -> str:
    return f"{installation}-{secrets.token_hex(6)}"


def _record(row: Row[tuple[object, ...]]) -> ApplicationRecord:
    values = dict(row._mapping)
    coverage, address, network = values["coverage"], values["address"], values["network"]
    return ApplicationRecord.model_construct(
        **{
            **values,
            "spec": _spec(values["spec"]),
            "coverage": _coverage(coverage) if coverage else None,
            "address": IPv4Address(address) if address is not None else None,
            "network": network_of(network) if network else None,
            "created": datetime.fromisoformat(values["created"]),
            "updated": datetime.fromisoformat(values["updated"]),
        }
    )
