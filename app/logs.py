"""The control plane's own log: lines for people, or JSON lines, with the request they belong to.

The ids are context variables: they follow a request into the thread that handles it, the worker
that converges its application, and the agent's process. Set up by `cse serve` and `cse agent`.
"""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal

NONE = "-"
request_id: ContextVar[str] = ContextVar("request_id", default=NONE)
"""Of the request that is being handled, or whose wish is being fulfilled."""
_EXTRA = ("operation_id", "application", "principal", "method", "path", "status", "duration_ms")
"""Fields that a line may bring by `extra`."""


def configure(level: str, form: Literal["text", "json"]) -> None:
    """All loggers of this process, uvicorn's too, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_with_request)
    if form == "json":
        handler.setFormatter(JsonLines())
    else:
        text = "%(asctime)s %(levelname)s %(name)s [%(request_id)s]: %(message)s"
        handler.setFormatter(logging.Formatter(text))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    if level != "debug":
        logging.getLogger("alembic").setLevel(logging.WARNING)  # ten lines at each start


class JsonLines(logging.Formatter):
    """One object a line; `time` is in UTC, fields without a value are left out."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        identity = getattr(record, "request_id", NONE)
        if identity != NONE:
            line["request_id"] = identity
        line |= {key: getattr(record, key) for key in _EXTRA if hasattr(record, key)}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def _with_request(record: logging.LogRecord) -> bool:
    record.request_id = request_id.get()
    return True
