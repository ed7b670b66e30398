"""`cse up`: a server of its own for one stack, in the foreground; Ctrl-C removes all of it.

What `make run` calls, and the quickest way to see the project work. Where it ends, so does all
that it made: applications, their networks, the bridge. What else is in the state directory is left
alone. A killed run leaves its applications running; the next one of this stack takes them over.
"""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from app.cli import evidence, stackfile
from app.cli.apply import File, explained, follow, put, ready
from app.cli.client import connect
from app.cli.failures import ExitStatus, Failed, report
from app.cli.output import say, show_table, state, urls
from app.cli.serve import address
from app.client import Client
from app.domain.application import RuntimeName
from app.domain.errors import CseError
from app.domain.network import DEFAULT_NETWORK
from app.settings import Settings, load

if TYPE_CHECKING:
    from app.main import ControlPlane

_START_S = 120.0
_REMOVE_S = 60.0
_EVIDENCE_S = 5.0
_LABEL = "cse.stack"

Key = tuple[str, str]
"""Kind of resource (`applications`, `networks`, `volumes`) and name."""


def register(commands: typer.Typer) -> None:
    """Add the command."""
    commands.command("up")(up)


def up(
    file: File,
    runtime: Annotated[
        RuntimeName | None, typer.Option(help="For every application of the file.")
    ] = None,
) -> None:
    """Start a server and a stack file's applications, show them; Ctrl-C removes all of it."""
    from app.main import ControlPlane, listen, make_agent

    settings = load()
    source = stackfile.read(file)
    # By hand, not Python's own: a shell's background job starts with SIGINT ignored.
    _on_stop(_interrupt)
    listener = listen(settings)
    with _serving(settings, ControlPlane(settings, make_agent(settings)), listener) as plane:
        client = connect(address(settings, listener))
        others = _resources(client) - _resources(client, str(source.stack.get("name", "default")))
        try:
            _start(client, source, runtime)
            signal.pause()
        except KeyboardInterrupt:
            pass
        finally:
            _on_stop(signal.SIG_IGN)
            with Console(stderr=True).status("removing everything"):
                left = _remove(client, plane, others)
            say(f"left behind: {', '.join(left)}" if left else "removed")
        if left:
            raise Failed(ExitStatus.FAILED)


def _on_stop(action: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, action)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """The first signal ends the wait; a second would leave things half removed."""
    _on_stop(signal.SIG_IGN)
    raise KeyboardInterrupt


@contextmanager
def _serving(
    settings: Settings, plane: ControlPlane, listener: socket.socket
) -> Iterator[ControlPlane]:
    """The API in a thread of this process: the main thread gets the signals."""
    import uvicorn

    config = uvicorn.Config(
        plane.api, log_level=settings.log_level, access_log=False, timeout_graceful_shutdown=3
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="api")
    plane.start()
    thread.start()
    try:
        yield plane
    finally:
        server.should_exit = True
        thread.join()
        plane.stop()


def _start(client: Client, source: stackfile.StackFile, runtime: RuntimeName | None) -> None:
    """Apply the stack and show what runs, and what shows that its services are its own."""
    with explained(source):
        result = put(client, ready(client, source, runtime))
    followed = follow(client, result, _START_S)
    names = [change.name for change in result.changes if change.kind == "application"]
    if followed.failed:
        raise Failed(ExitStatus.FAILED)
    say("")
    _show_evidence(client, names)
    say("")
    _show_applications(client, names)
    url = client.url.rstrip("/")
    say(f"\nDashboard: {url}/   API: {url}/v1/docs   Ctrl-C removes all of it.")


def _show_applications(client: Client, names: list[str]) -> None:
    rows = []
    for name in names:
        resource = client.get_application(name)
        status = resource.status
        own = status.address
        rows.append((name, state(status), resource.spec.runtime, own, " ".join(urls(status))))
    show_table(["APPLICATION", "STATE", "RUNTIME", "OWN ADDRESS", "PUBLISHED AT"], rows)


def _show_evidence(client: Client, names: list[str]) -> None:
    """Elements start at their first use: an instance gets a moment before the claims are shown."""
    deadline = time.monotonic() + _EVIDENCE_S
    while True:
        claims = evidence.collect(client, names)
        unsettled = [claim for claim in claims if claim["verdict"] != "holds"]
        if not unsettled or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    evidence.show(claims)


def _resources(client: Client, stack: str | None = None) -> set[Key]:
    """What is in the store; of one stack only, where it is named."""
    found: set[Key] = set()
    label = None if stack is None else [f"{_LABEL}={stack}"]
    found |= {("application", one.name) for one in client.each_application(label=label)}
    found |= {("network", one.name) for one in client.each_network(label=label)}
    return found | {("volume", one.name) for one in client.each_volume(label=label)}


def _remove(client: Client, plane: ControlPlane, others: set[Key]) -> list[str]:
    """Applications, then what they used; returns what could not be removed."""
    left: list[str] = []

    def attempt(what: str, step: Any, *words: Any, **options: Any) -> None:
        try:
            step(*words, **options)
        except CseError as error:
            report(error)
            left.append(what)

    deletes: dict[str, Callable[[str], None]] = {
        "application": partial(client.delete_application, wait=_REMOVE_S),
        "network": client.delete_network,
        "volume": client.delete_volume,
    }
    for kind, name in sorted(_resources(client) - others):
        if (kind, name) != ("network", DEFAULT_NETWORK):
            attempt(f"{kind} {name}", deletes[kind], name)
    if not any(kind == "application" for kind, _ in _resources(client)):
        # `default` is always in the store; on the host it need not be while nobody uses it.
        attempt("network default", plane.reconciler.remove_network, DEFAULT_NETWORK)
    return left
