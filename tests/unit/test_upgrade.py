"""A store of every earlier version is opened by this one with all that is in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text

from app.store import database
from app.store.store import Store
from tests import stores

_FOLDER = Path(database.__file__).parent / "migrations"
_REVISIONS = [one.revision for one in ScriptDirectory(str(_FOLDER)).walk_revisions()][::-1]
_TIME = "2026-10-01T08:00:00.000000+00:00"
_NETWORK = '{"name":"small","subnet":"10.9.0.0/28","nat":true,"mtu":65520,"dns":null,"labels":{}}'
_APPLICATION = (
    '{"name":"web","command":["nginx"],"runtime":"namespace","image":null,"elements":'
    '{"network-lwip":{"settings":{"mss":1200},"variant":"release","link":"preload"}},'
    '"network":{"name":"small","address":null,"aliases":["www"]},"ports":[{"container_port":80,'
    '"host_port":8081,"host_address":"0.0.0.0","protocol":"tcp"}],"environment":{"A":"1"},'
    '"working_directory":null,"user":null,"mounts":[],"tmpfs":[],"limits":{"memory":null,'
    '"cpus":0.5,"pids":null},"restart":{"policy":"on-failure","max_retries":3,"delay":0.1},'
    '"stop":{"signal":"SIGTERM","grace":10.0},"depends_on":[],"fallback":"refuse","labels":{}}'
)
"""As the first version wrote them; never to be changed."""


@pytest.mark.parametrize("revision", _REVISIONS)
def test_what_an_earlier_version_stored_is_there(revision: str, tmp_path: Path) -> None:
    url = stores.url(tmp_path / "store.sqlite")
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        _migrate(connection, revision)
        _fill(connection)
        connection.commit()
    engine.dispose()
    store = Store(url)
    assert store.installation == "abcd1234"
    with store.read() as transaction:
        found = transaction.applications.get("web")
        assert found.spec.command == ["nginx"]
        assert found.spec.elements["network-lwip"].settings == {"mss": 1200}
        assert found.spec.restart.max_retries == 3
        assert (str(found.address), found.generation) == ("10.9.0.2", 4)
        assert transaction.networks.get("small").mtu == 65520
        assert [event.message for event in transaction.events.latest()] == ["made"]
        assert transaction.faults.all() == []
    with store.write() as transaction:
        transaction.events.add("restarted", "web", "again")
    with store.read() as transaction:
        assert len(transaction.events.latest()) == 2
    store.close()


def _migrate(connection: Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def _fill(connection: Connection) -> None:
    """Rows of the tables that the first version had."""
    rows: list[tuple[str, dict[str, Any]]] = [
        ("meta", {"key": "installation", "value": "abcd1234"}),
        ("networks", {"name": "small", "spec": _NETWORK, "created": _TIME}),
        (
            "applications",
            {
                "name": "web",
                "id": "abcd1234-1-web",
                "generation": 4,
                "spec": _APPLICATION,
                "desired": "running",
                "run_wanted": 1,
                "run_done": 1,
                "created": _TIME,
                "updated": _TIME,
            },
        ),
        ("addresses", {"network": "small", "value": 168361985, "holder": None, "taken": _TIME}),
        ("addresses", {"network": "small", "value": 168361986, "holder": "web", "taken": _TIME}),
        (
            "ports",
            {"host_address": "0.0.0.0", "port": 8081, "protocol": "tcp", "holder": "web"},
        ),
        ("events", {"time": _TIME, "kind": "created", "application": "web", "message": "made"}),
    ]
    for table, row in rows:
        columns = ", ".join(row)
        values = ", ".join(f":{column}" for column in row)
        connection.execute(text(f"INSERT INTO {table} ({columns}) VALUES ({values})"), row)
