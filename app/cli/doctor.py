"""`cse doctor`: what this host has and lacks."""

from __future__ import annotations

import typer

from app.cli.client import Api, AsJson, connect
from app.cli.failures import ExitStatus, Failed
from app.cli.output import say, show_json, show_table
from app.domain.errors import AgentUnavailable


def register(commands: typer.Typer) -> None:
    """Add the command."""
    commands.command("doctor")(doctor)


def doctor(api: Api = None, as_json: AsJson = False) -> None:
    """Check the host; asks the server, or looks itself where none answers.

    Exit status 6 where anything is missing.
    """
    try:
        findings = connect(api).doctor().findings
    except AgentUnavailable:
        from app.cli.local import findings_without_server

        findings = findings_without_server()
    if as_json:
        show_json(findings)
    else:
        rows = [
            (finding.check, "ok" if finding.ok else "missing", finding.observation)
            for finding in findings
        ]
        show_table(["CHECK", "", "OBSERVATION"], rows)
        for finding in findings:
            if not finding.ok and finding.remedy:
                say(f"{finding.check}: {finding.remedy}")
    if not all(finding.ok for finding in findings):
        raise Failed(ExitStatus.HOST_LACKS)
