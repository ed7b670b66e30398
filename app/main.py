"""The composition root: the only place that knows which parts there are and how they fit.

Called by `cse serve`, `cse agent` and `cse run` (app/cli), and by tests, which bring an agent of
their own.
"""

from __future__ import annotations

import gc
import socket
import stat
import sys
from contextlib import suppress
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from app import malloc, runs, tracing
from app.api.access import Authenticator
from app.api.app import create_app
from app.api.guard import Rules
from app.api.peers import PeerProtocol
from app.api.rendered import Rendered
from app.api.services import Services
from app.catalog.catalog import Catalog
from app.catalog.templates import Templates
from app.domain.access import Scope
from app.domain.errors import HostLacks
from app.domain.network import DEFAULT_NETWORK, NetworkSpec
from app.domain.ports import Agent
from app.reconcile.clock import Clock
from app.reconcile.converge import Hooks
from app.reconcile.faults import FaultKeeper
from app.reconcile.health import HealthKeeper
from app.reconcile.loop import Reconciler
from app.reconcile.operations import OperationKeeper
from app.settings import Settings, product_version
from app.store.store import Store

_BACKLOG = 512
_SWITCH_INTERVAL_S = 0.0005
"""Python's own 5 ms is how long an answer may wait for a thread that does bookkeeping."""
_COLLECT_AFTER = 20_000
"""Objects. Python's own 700 are made several times over by one request, and next to nothing of
what is made here is garbage in cycles."""


def open_store(settings: Settings) -> Store:
    """The store, with the network that always exists."""
    store = Store(settings.database_url, event_history=settings.event_history)
    with store.write() as transaction:
        if transaction.networks.find(DEFAULT_NETWORK) is None:
            transaction.networks.put(default_network(settings))
    return store


def make_agent(settings: Settings) -> Agent:
    """The separate agent that the settings name, or one within this process."""
    if path := settings.agent_socket:
        from app.agent.remote import RemoteAgent

        return RemoteAgent(path)
    from app.agent.local import LocalAgent

    return LocalAgent(settings.state_dir)


def serve_agent(settings: Settings, path: str) -> None:
    """Serve an agent of this process on a Unix socket until SIGINT or SIGTERM."""
    from app.agent.server import serve as run_agent

    malloc.give_back_large_blocks()
    run_agent(make_agent(settings), path)


def default_network(settings: Settings) -> NetworkSpec:
    """The network of applications that name none."""
    return NetworkSpec(name=DEFAULT_NETWORK, subnet=settings.subnet)


class ControlPlane:
    """Store, catalogue, reconcile loop and API over one agent."""

    def __init__(self, settings: Settings, agent: Agent, clock: Clock = Clock()) -> None:  # noqa: B008
        self.settings = settings
        agent = self.agent = tracing.traced(agent)
        self.store = open_store(settings)
        self.catalog = Catalog(settings.elements_dir)
        self.faults = FaultKeeper(self.store, agent, clock)
        self.operations = OperationKeeper(self.store, lambda: self.reconciler)
        self.health = HealthKeeper(
            self.store,
            agent,
            lambda name: self.reconciler.status(name).observed,
            self._health_changed,
        )
        self.reconciler = Reconciler(
            self.store,
            agent,
            self.catalog,
            settings.workers,
            self.faults.made,
            self._settled,
            Hooks(self.health.noted, self._is_healthy),
        )
        self.authenticator = Authenticator(self.store, required=settings.asks_for_tokens)
        self.api: FastAPI = create_app(
            Services(
                store=self.store,
                agent=agent,
                catalog=self.catalog,
                templates=Templates(settings.examples_dir, self.catalog),
                convergence=self.reconciler,
                faults=self.faults,
                operations=self.operations,
                health=self.health,
                rendered=Rendered(self.reconciler, self.health),
                default_network=default_network(settings),
                version=product_version(),
                default_runtime=settings.runtime,
                paths_are_visible=settings.paths_are_visible,
                dashboard_dir=settings.dashboard_dir,
                runs=lambda: runs.names(settings.state_dir),
                authenticator=self.authenticator,
                clock=clock,
                rules=Rules(
                    loopback_only=settings.on_loopback and not settings.allow_remote,
                    hosts=tuple(filter(None, settings.hosts.split(","))),
                    rate=settings.rate_limit,
                    audit_history=settings.audit_history,
                ),
            )
        )

    def _health_changed(self, name: str) -> None:
        self.reconciler.wake(name)  # and with it whoever waits for it

    def _settled(self, name: str) -> None:
        self.health.settled(name)
        self.operations.settled(name)

    def _is_healthy(self, name: str) -> bool:
        found = self.health.status(name)
        return found is not None and found.state == "healthy"

    def start(self) -> None:
        """Begin to converge. Does not wait for the agent."""
        self.health.start()
        self.reconciler.start()
        self.faults.start()

    def stop(self) -> None:
        """End; applications go on."""
        self.faults.stop()
        self.health.stop()
        self.reconciler.stop()
        self.store.close()


def require_tokens(settings: Settings, store: Store) -> None:
    """Before anybody but this host can reach the API. Raises `HostLacks`."""
    if settings.on_loopback or settings.allow_remote:
        return
    with store.read() as transaction:
        if any(token.scope is Scope.ADMIN for token in transaction.tokens.hashed().values()):
            return
    raise HostLacks(
        f"'{settings.listen}' is not a loopback address, and there is no token to keep others out",
        remedy="make one: cse token create NAME --scope admin --offline; or set "
        "CSE_ALLOW_REMOTE=true if something in front of the server authenticates",
    )


def listen(settings: Settings) -> socket.socket:
    """The API's listening socket. Raises `HostLacks` where the address is taken."""
    path = settings.unix_listen
    try:
        if path is not None:
            return _listen_unix(Path(path))
        host, port = settings.listen_address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        # Inherited by connections; asyncio sets it only on sockets that it made itself. Without
        # it an answer of two segments waits 40 ms for the client's delayed acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        raise HostLacks(
            f"cannot listen on {settings.listen}: {error.strerror}",
            remedy="is another server running? Stop it, or set CSE_LISTEN to another address",
        ) from error


def serve(plane: ControlPlane, listener: socket.socket) -> None:
    """Run the API until SIGINT or SIGTERM."""
    server = uvicorn.Server(
        uvicorn.Config(
            plane.api,
            log_config=None,  # app/logs.py
            log_level=plane.settings.log_level,
            access_log=False,
            http=PeerProtocol,
            ssl_certfile=plane.settings.tls_certificate or None,
            ssl_keyfile=plane.settings.tls_key or None,
            timeout_graceful_shutdown=3,
        )
    )
    malloc.give_back_large_blocks()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    gc.collect()
    gc.set_threshold(_COLLECT_AFTER)
    gc.freeze()  # what has been imported stays: no need to look through it during a request
    plane.start()
    try:
        server.run(sockets=[listener])
    finally:
        plane.stop()
        if path := plane.settings.unix_listen:
            Path(path).unlink(missing_ok=True)


def _listen_unix(path: Path) -> socket.socket:
    """A socket that its owner and group may use; one that a killed server left is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.stat().st_mode) and not _answers(path):
            path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o660)
    listener.listen(_BACKLOG)
    return listener


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True
