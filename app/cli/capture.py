"""`cse capture`: packets of an application's private stack, as a pcapng file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from app.cli.client import Api, connect
from app.cli.failures import ExitStatus, Failed


def register(commands: typer.Typer) -> None:
    """Add the command."""
    commands.command("capture")(capture)


def capture(
    name: str,
    write: Annotated[
        Path | None, typer.Option("--write", "-w", help="A file; standard output if none.")
    ] = None,
    filter_text: Annotated[
        str | None, typer.Option("--filter", help="As for tcpdump: 'tcp port 80'.")
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many packets.")] = None,
    snaplen: Annotated[int, typer.Option(help="Bytes kept of each packet.")] = 262_144,
    duration: Annotated[
        str | None, typer.Option("--for", help="End after this time, as in 10s.")
    ] = None,
    api: Api = None,
) -> None:
    """Write packets as they pass: cse capture web-a | wireshark -k -i -"""
    if write is None and sys.stdout.isatty():
        sys.stderr.write("error: a terminal cannot show packets\n  → use -w FILE or a pipe\n")
        raise Failed(ExitStatus.INVALID)
    parts = connect(api).capture_packets(
        name, filter=filter_text, count=count, snaplen=snaplen, duration=duration
    )
    out = write.open("wb") if write is not None else sys.stdout.buffer
    try:
        for part in parts:
            out.write(part)
            out.flush()
    except KeyboardInterrupt:
        pass  # the usual end of a capture
    finally:
        if write is not None:
            out.close()
