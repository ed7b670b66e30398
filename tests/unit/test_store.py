"""The store: allocation without sharing, all or nothing, and migrations that match the tables."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, create_engine, text

from app.domain.access import ProjectSpec, Quotas
from app.domain.application import ApplicationSpec
from app.domain.errors import Conflict, CseError, HostLacks, InvalidSpecification, NotFound
from app.domain.network import NetworkSpec
from app.domain.operation import Operation
from app.store import database, tables
from app.store.store import Store, Transaction
from tests import stores

SMALL = NetworkSpec(name="small", subnet=IPv4Network("10.9.0.0/28"))


def spec(name: str, address: str | None = None, ports: tuple[str, ...] = ()) -> ApplicationSpec:
    return ApplicationSpec.model_validate(
        {
            "name": name,
            "command": ["x"],
            "network": {"name": "small", "address": address},
            "ports": list(ports),
        }
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(stores.url(tmp_path / "store.sqlite"))
    with made.write() as transaction:
        transaction.networks.put(SMALL)
    yield made
    made.close()


def open_engine(url: str) -> Engine:
    return create_engine(url.replace("postgresql:", "postgresql+psycopg:"))


def add(store: Store, one: ApplicationSpec) -> IPv4Address | None:
    with store.write() as transaction:
        return transaction.applications.insert(store.installation, one, SMALL).address


def test_migrations_make_the_tables(tmp_path: Path) -> None:
    url = stores.url(tmp_path / "store.sqlite")
    Store(url).close()
    with open_engine(url).connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, tables.metadata) == []
    folder = Path(database.__file__).parent / "migrations"
    assert ScriptDirectory(str(folder)).get_current_head() == database.HEAD


def test_what_was_stored_is_there_after_opening_again(tmp_path: Path) -> None:
    url = stores.url(tmp_path / "store.sqlite")
    first = Store(url)
    with first.write() as transaction:
        transaction.networks.put(SMALL)
        transaction.applications.insert(first.installation, spec("a"), SMALL)
    installation = first.installation
    first.close()
    second = Store(url)
    assert second.installation == installation
    with second.read() as transaction:
        assert [record.spec for record in transaction.applications.all()] == [spec("a")]
    second.close()


def test_lowest_free_address(store: Store) -> None:
    assert [str(add(store, spec(name))) for name in "abc"] == ["10.9.0.2", "10.9.0.3", "10.9.0.4"]
    with store.write() as transaction:
        transaction.applications.forget("b")
    assert str(add(store, spec("d"))) == "10.9.0.3"
    assert str(add(store, spec("e"))) == "10.9.0.5"


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "forget"]),
            st.integers(0, 15),
            st.none() | st.integers(0, 16).map(lambda low: f"10.9.0.{low}"),
        ),
        max_size=40,
    )
)
def test_addresses_are_never_shared(steps: list[tuple[str, int, str | None]]) -> None:
    with TemporaryDirectory() as home:
        store = Store(stores.url(Path(home) / "store.sqlite"))
        with store.write() as transaction:
            transaction.networks.put(SMALL)
        held: dict[str, IPv4Address] = {}
        for verb, number, wanted in steps:
            name = f"a{number}"
            if verb == "forget":
                with store.write() as transaction:
                    transaction.applications.forget(name)
                held.pop(name, None)
                continue
            try:
                address = add(store, spec(name, wanted))
            except CseError:
                full = len(held) == 13
                taken = wanted is not None and IPv4Address(wanted) in held.values()
                unfit = wanted in ("10.9.0.0", "10.9.0.1", "10.9.0.15", "10.9.0.16")
                assert full or taken or unfit or name in held
                continue
            assert address is not None and address not in held.values()
            assert address in SMALL.subnet and address != SMALL.gateway.ip
            assert wanted is None or str(address) == wanted
            held[name] = address
        with store.read() as transaction:
            assert {r.name: r.address for r in transaction.applications.all()} == held
        store.close()


def test_a_failed_transaction_leaves_nothing(store: Store) -> None:
    add(store, spec("a", ports=("80:80",)))
    with pytest.raises(Conflict) as caught:
        add(store, spec("b", ports=("81:80", "127.0.0.1:80:80")))
    assert caught.value.pointer == "/ports/1"
    assert "'a'" in caught.value.detail
    with store.read() as transaction:
        assert transaction.applications.names() == ["a"]
    assert str(add(store, spec("c", ports=("81:80", "80:80/udp")))) == "10.9.0.3"


def test_ports_of_different_addresses_do_not_collide(store: Store) -> None:
    add(store, spec("a", ports=("127.0.0.1:80:80",)))
    add(store, spec("b", ports=("127.0.0.2:80:80",)))
    with pytest.raises(Conflict):
        add(store, spec("c", ports=("80:80",)))


def test_threads_and_processes_get_different_addresses(tmp_path: Path, store: Store) -> None:
    # A second store on the same file stands for another process: it has its own locks.
    other = Store(stores.url(tmp_path / "store.sqlite"))
    found: list[IPv4Address | None] = []

    def take(which: Store, name: str) -> None:
        found.append(add(which, spec(name)))

    threads = [
        threading.Thread(target=take, args=(store if index % 2 else other, f"a{index}"))
        for index in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 12
    other.close()


def test_replacing_keeps_the_address_where_it_fits(store: Store) -> None:
    before = add(store, spec("a"))
    with store.write() as transaction:
        record = transaction.applications.replace(store.installation, spec("a"), SMALL)
    assert record.address == before
    with store.write() as transaction:
        moved = transaction.applications.replace(store.installation, spec("a", "10.9.0.9"), SMALL)
    assert str(moved.address) == "10.9.0.9"
    assert str(add(store, spec("b"))) == str(before)


def test_a_lease_is_given_back_and_what_has_a_record_is_not(store: Store) -> None:
    with store.write() as transaction:
        transaction.applications.lease(SMALL, spec("run-1"))
        transaction.applications.lease(SMALL, spec("run-2"))
        add_record = transaction.applications.insert(store.installation, spec("a"), SMALL)
    with store.write() as transaction:
        assert sorted(transaction.applications.leases()) == ["run-1", "run-2"]
        for name in ("run-1", "a", "nobody"):
            transaction.applications.release_lease(name)
        assert transaction.networks.holders("small") == ["a", "run-2"]
    assert str(add_record.address) == "10.9.0.4"


def test_an_operation_that_is_just_over_is_kept_after_the_clock_was_set_back(store: Store) -> None:
    def end(transaction: Transaction, number: int, created: datetime) -> None:
        made = Operation(
            id=f"op-{number}",
            kind="create",
            state="running",
            created=created,
            done=0,
            total=0,
            targets=[],
        )
        transaction.operations.add(made)
        transaction.operations.save(made.model_copy(update={"state": "succeeded"}))

    began = datetime.now(UTC)
    with store.write() as transaction:
        for number in range(1100):  # by a clock that was an hour ahead
            end(transaction, number, began + timedelta(hours=1, milliseconds=number))
        for number in range(1100, 1300):
            end(transaction, number, began - timedelta(milliseconds=1300 - number))
        left = {one.id for one in transaction.operations.page("", 10_000, None)}
    assert 1000 <= len(left) <= 1100
    assert left >= {f"op-{number}" for number in range(300, 1300)}


def test_unknown_names_come_with_the_nearest(store: Store) -> None:
    add(store, spec("web-a"))
    with store.read() as transaction, pytest.raises(NotFound) as caught:
        transaction.applications.get("web-b")
    assert caught.value.remedy == "did you mean 'web-a'?"


def test_events_are_numbered_and_old_ones_go(tmp_path: Path) -> None:
    store = Store(stores.url(tmp_path / "events.sqlite"), event_history=100)
    for _ in range(6):
        with store.write() as transaction:
            for _ in range(100):
                transaction.events.add("created", "a", "x")
    with store.read() as transaction:
        events = transaction.events.latest(limit=1000)
    assert 100 <= len(events) < 600
    assert [event.id for event in events] == list(range(601 - len(events), 601))
    store.close()


def test_a_store_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostLacks, match="cannot be opened"):
        Store(f"sqlite:///{tmp_path}/file/store.sqlite")
    (tmp_path / "broken.sqlite").write_bytes(b"this is no database" * 100)
    with pytest.raises(HostLacks):
        Store(f"sqlite:///{tmp_path}/broken.sqlite")
    with pytest.raises(HostLacks, match=r"cannot be opened: .*socket") as caught:
        Store(f"postgresql://me:secret@/cse?host={tmp_path}")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["mysql://host/cse", "nonsense", "postgresql+asyncpg://host/cse"])
def test_another_kind_of_database_is_refused_with_the_form_to_write(url: str) -> None:
    with pytest.raises(InvalidSpecification, match="write sqlite:///PATH or postgresql://"):
        Store(url)


def test_a_store_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    url = stores.url(tmp_path / "store.sqlite")
    Store(url).close()
    with open_engine(url).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(HostLacks, match="newer version"):
        Store(url)


def test_servers_that_share_a_database_do_not_write_at_the_same_time(tmp_path: Path) -> None:
    url = stores.url(tmp_path / "store.sqlite")
    first, second = Store(url), Store(url)
    with first.write() as transaction:
        transaction.networks.put(SMALL)
    add(first, spec("a"))
    late = threading.Thread(target=add, args=(second, spec("b")))
    with first.write() as transaction:
        late.start()
        transaction.applications.insert(first.installation, spec("c"), SMALL)
        late.join(0.2)
        assert late.is_alive()
    late.join()
    with second.read() as transaction:
        found = {record.name: str(record.address) for record in transaction.applications.all()}
    assert found == {"a": "10.9.0.2", "c": "10.9.0.3", "b": "10.9.0.4"}
    first.close()
    second.close()


def tell(message: str, transaction: Transaction) -> None:
    transaction.events.add("k", None, message)


def told(store: Store) -> list[str]:
    with store.read() as transaction:
        return [event.message for event in transaction.events.latest()]


def test_what_is_put_off_is_seen_by_all_that_follows_and_stays_in_order(store: Store) -> None:
    for number in range(50):
        store.later(partial(tell, f"{number} later"))
        if number % 2:
            store.record_event("k", None, f"{number} at once")
        wanted = [f"{n} later" for n in range(number + 1)]
        assert [message for message in told(store) if "later" in message] == wanted
    assert told(store)[:3] == ["0 later", "1 later", "1 at once"]


def test_what_is_put_off_outlives_the_failure_of_another(store: Store) -> None:
    store.later(partial(tell, "kept"))
    with pytest.raises(NotFound), store.write() as transaction:
        transaction.events.add("k", None, "undone")
        transaction.applications.get("nobody")
    store.later(lambda transaction: transaction.applications.get("nobody"))  # goes wrong, is logged
    assert told(store) == ["kept"]


def test_what_is_put_off_is_written_without_anyone_asking_and_at_the_end(tmp_path: Path) -> None:
    url = stores.url(tmp_path / "store.sqlite")
    first, written = Store(url), threading.Event()
    first.subscribe(written.set)
    first.later(partial(tell, "one"))
    assert written.wait(10)
    first.later(partial(tell, "two"))
    first.close()
    second = Store(url)
    assert told(second) == ["one", "two"]
    second.close()


def test_an_application_is_read_as_it_is_now(store: Store) -> None:
    """Whatever was kept of the last write."""
    assert store.application("a") is None
    add(store, spec("a"))
    fresh = store.application("a")
    assert fresh is not None and fresh.desired == "running"
    with store.read() as transaction:
        assert transaction.applications.get("a") == fresh
    add(store, spec("b"))
    assert store.application("a") == fresh
    with store.write() as transaction:
        transaction.applications.set_desired("a", "stopped")
    stopped = store.application("a")
    assert stopped is not None and stopped.desired == "stopped"
    with store.write() as transaction:
        transaction.applications.insert(store.installation, spec("c"), SMALL)
        transaction.applications.set_desired("c", "stopped")
    both = store.application("c")
    assert both is not None and both.desired == "stopped"
    add(store, spec("d"))
    store.later(lambda transaction: transaction.applications.forget("d"), of="d")
    assert store.application("d") is None


def test_what_a_failed_write_made_is_not_kept(store: Store) -> None:
    with pytest.raises(RuntimeError), store.write() as transaction:
        transaction.applications.insert(store.installation, spec("a"), SMALL)
        transaction.networks.put(SMALL.model_copy(update={"mtu": 1300}))
        raise RuntimeError
    assert store.application("a") is None
    assert store.network("small") == SMALL


def test_networks_and_projects_are_read_anew_after_a_change(store: Store) -> None:
    def project(name: str) -> ProjectSpec | None:
        with store.write() as transaction:
            return store.project(transaction, name)

    assert store.network("small") == SMALL and store.network("other") is None
    narrow = SMALL.model_copy(update={"mtu": 1300})
    with store.write() as transaction:
        transaction.networks.put(narrow)
        transaction.projects.put(ProjectSpec(name="p"))
    assert store.network("small") == narrow
    assert project("p") == ProjectSpec(name="p") and project("q") is None
    wider = ProjectSpec(name="p", quotas=Quotas(applications=3))
    with store.write() as transaction:
        transaction.projects.put(wider)
        transaction.networks.remove("small")
    assert project("p") == wider and store.network("small") is None
    with store.write() as transaction:
        transaction.projects.remove("p")
        assert store.project(transaction, "q") is None
    assert project("p") is None


def test_readers_never_see_what_was_before_an_answered_write(store: Store) -> None:
    """Several writers, each of which reads its own write back at once."""

    def write(first: int) -> None:
        for number in range(first, first + 25):
            with store.write() as transaction:
                name = f"n{first}"
                transaction.projects.put(ProjectSpec(name=name, quotas=Quotas(applications=number)))
                transaction.networks.put(
                    NetworkSpec(
                        name=name, subnet=IPv4Network(f"10.8.{first}.0/28"), mtu=1300 + number
                    )
                )
            network = store.network(name)
            with store.write() as transaction:
                project = store.project(transaction, name)
            if network is None or network.mtu != 1300 + number:
                wrong.append(f"{name}: network {network}")
            if project is None or project.quotas.applications != number:
                wrong.append(f"{name}: project {project}")

    wrong: list[str] = []
    threads = [threading.Thread(target=write, args=(first,)) for first in (1, 50, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
