"""`cse serve`: the server, with the agent within it unless CSE_AGENT names another."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from app.cli.output import say
from app.settings import Settings, load

Listen = Annotated[str | None, typer.Option(help="HOST:PORT or unix:PATH [CSE_LISTEN].")]
StateDir = Annotated[
    str | None, typer.Option("--state-dir", help="What lasts is kept here [CSE_STATE_DIR].")
]
Database = Annotated[str | None, typer.Option(help="SQLAlchemy URL [CSE_DATABASE].")]
ElementsDir = Annotated[
    str | None, typer.Option("--elements-dir", help="The built elements [CSE_ELEMENTS_DIR].")
]
Agent = Annotated[str | None, typer.Option(help="unix:PATH of a separate agent [CSE_AGENT].")]


def register(commands: typer.Typer) -> None:
    """Add the command."""
    commands.command("serve")(serve)


def serve(
    listen: Listen = None,
    state_dir: StateDir = None,
    database: Database = None,
    elements_dir: ElementsDir = None,
    agent: Agent = None,
) -> None:
    """Run the server until Ctrl-C; applications go on after it.

    Every setting is also a variable CSE_*: docs/settings.md.
    """
    from app import logs, tracing
    from app.main import ControlPlane, make_agent, require_tokens
    from app.main import listen as open_listener
    from app.main import serve as run_server

    settings = load(
        listen=listen,
        state_dir=state_dir,
        database=database,
        elements_dir=elements_dir,
        agent=agent,
    )
    logs.configure(settings.log_level, settings.log_format)
    tracing.configure("cse")
    listener = open_listener(settings)
    plane = ControlPlane(settings, make_agent(settings))
    require_tokens(settings, plane.store)
    say(f"cse: listening on {address(settings, listener)}")
    run_server(plane, listener)


def address(settings: Settings, listener: Any) -> str:
    """What a client has to be told; port 0 has become a real one by now."""
    if settings.unix_listen:
        return f"unix:{settings.unix_listen}"
    host, port = listener.getsockname()[:2]
    scheme = "https" if settings.tls_certificate else "http"
    return f"{scheme}://[{host}]:{port}/" if ":" in host else f"{scheme}://{host}:{port}/"
