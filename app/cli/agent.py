"""`cse agent`: the agent as a process of its own, the only one with privilege."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.serve import ElementsDir, StateDir
from app.settings import load


def register(commands: typer.Typer) -> None:
    """Add the command."""
    commands.command("agent")(agent)


def agent(
    socket: Annotated[str, typer.Option(help="The Unix socket to serve on.")],
    state_dir: StateDir = None,
    elements_dir: ElementsDir = None,
) -> None:
    """Serve runtimes, wiring, broker and evidence of this host to one API, until Ctrl-C.

    Who may connect is decided by the socket's mode: its owner and its group.
    """
    from app import logs, tracing
    from app.main import serve_agent

    settings = load(state_dir=state_dir, elements_dir=elements_dir, agent="")
    logs.configure(settings.log_level, settings.log_format)
    tracing.configure("cse-agent")
    serve_agent(settings, socket)
