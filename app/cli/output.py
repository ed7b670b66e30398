"""Tables for people, JSON for programs. Called by the commands."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.domain.resources import ApplicationStatus

_STYLES = {
    "running": "green",
    "failed": "red",
    "waiting": "yellow",
    "starting": "yellow",
    "restarting": "yellow",
    "holds": "green",
    "fails": "red",
    "unknown": "yellow",
    "ok": "green",
    "missing": "red",
}


def show_json(value: Any) -> None:
    """One JSON document, of models as the server sent them."""
    sys.stdout.write(json.dumps(plain(value), indent=2, ensure_ascii=False) + "\n")


def line_of(value: BaseModel) -> str:
    """The same in one line."""
    return json.dumps(plain(value), ensure_ascii=False)


def plain(value: Any) -> Any:
    """Models as what JSON is made of; what the server left out is left out."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_unset=True)
    return [plain(one) for one in value] if isinstance(value, list) else value


def show_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns without lines; states coloured on a terminal, nothing cut off in a pipe."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 10_000
    console.print(table(headings, rows))


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """The same, to be shown by others."""
    made = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for heading in headings:
        made.add_column(heading, overflow="fold")
    for row in rows:
        made.add_row(*[_cell(value) for value in row])
    return made


def say(text: str) -> None:
    """One line for people."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def ports(status: ApplicationStatus) -> str:
    """`0.0.0.0:8081→80/tcp`, as in `ps`."""
    return ", ".join(
        f"{port.host_address}:{port.host_port}→{port.container_port}/{port.protocol}"
        for port in status.ports
    )


def urls(status: ApplicationStatus) -> list[str]:
    """Where published TCP ports may be tried with a browser."""
    found = []
    for port in status.ports:
        if port.protocol == "tcp":
            host = str(port.host_address).replace("0.0.0.0", "127.0.0.1")
            found.append(f"http://{host}:{port.host_port}/")
    return found


def age(moment: datetime | None) -> str:
    """`3m`, `2h`, `5d` since then."""
    if moment is None:
        return ""
    seconds = (datetime.now(UTC) - moment).total_seconds()
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return f"{max(0, int(seconds))}s"


def state(status: ApplicationStatus) -> str:
    """The state, with the exit status where there is one."""
    ended = status.state in ("exited", "stopped") and status.exit_code is not None
    return f"{status.state} ({status.exit_code})" if ended else status.state


def _cell(value: object) -> Text:
    text = "" if value is None else str(value)
    return Text(text, style=_STYLES.get(text.split(" ")[0], ""))
