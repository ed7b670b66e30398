"""`cse top`: what all applications do to the network, memory and processor, live."""

from __future__ import annotations

import json
import sys
import time
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live

from app.cli.client import Api, AsJson, connect
from app.cli.output import table
from app.client import Client
from app.domain.usage import Usage

_RATES = (
    ("rx_packets", "RX PKT/S"),
    ("tx_packets", "TX PKT/S"),
    ("rx_bytes", "RX B/S"),
    ("tx_bytes", "TX B/S"),
    ("tcp_retransmits", "RETRANS/S"),
)


def register(commands: typer.Typer) -> None:
    """Add the command."""
    commands.command("top")(top)


def top(
    interval: Annotated[float, typer.Option("--interval", "-d", min=0.1, help="Seconds.")] = 1.0,
    rounds: Annotated[
        int | None, typer.Option("--count", "-n", min=1, help="End after so many.")
    ] = None,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Show all running applications; --json writes a line for each, each interval."""
    client = connect(api)
    before, done = _sample(client), 0
    with Live(console=Console(), auto_refresh=False, screen=False) as live:
        while rounds is None or done < rounds:
            time.sleep(interval)
            now = _sample(client)
            rows = [_rates(name, before[1].get(name), now, before[0]) for name in sorted(now[1])]
            if as_json:
                for row in rows:
                    sys.stdout.write(json.dumps(row) + "\n")
                sys.stdout.flush()
            else:
                live.update(_table(rows), refresh=True)
            before, done = now, done + 1


Sample = tuple[float, dict[str, Usage]]


def _sample(client: Client) -> Sample:
    items = client.each_usage()
    return time.monotonic(), {item.application: item for item in items}


def _rates(name: str, before: Usage | None, now: Sample, since: float) -> dict[str, Any]:
    item, seconds = now[1][name], now[0] - since
    counters = item.counters
    older = before.counters if before else {}
    row: dict[str, Any] = {"application": name}
    for key, _ in _RATES:
        # A restarted instance counts from zero: what it has so far is all there is.
        gained = counters.get(key, 0) - older.get(key, 0)
        row[f"{key}_per_s"] = round(max(0, gained) / seconds, 1)
    gained_cpu = item.cpu - (before.cpu if before else item.cpu)
    return {
        **row,
        "connections": counters.get("established", 0),
        "memory": item.memory,
        "cpu_percent": round(max(0.0, gained_cpu) / seconds * 100, 1),
    }


def _table(rows: list[dict[str, Any]]) -> Any:
    headings = ["APPLICATION", *(title for _, title in _RATES), "CONN", "MEMORY", "CPU %"]
    return table(
        headings,
        [
            (
                row["application"],
                *(f"{row[f'{key}_per_s']:,.0f}" for key, _ in _RATES),
                row["connections"],
                f"{row['memory'] / 2**20:.1f}M",
                row["cpu_percent"],
            )
            for row in rows
        ],
    )
