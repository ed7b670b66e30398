"""Every error this project raises on purpose.

Adapters translate what SDKs and the operating system raise into these (`raise … from`);
`app/api/problems.py` maps them to HTTP, `app/cli` to exit codes. A message says what was
wrong, where (`pointer`, a JSON pointer into the request or file) and what to do (`remedy`).
"""

from __future__ import annotations

from typing import ClassVar


class CseError(Exception):
    """The request could not be carried out."""

    slug: ClassVar[str] = "error"

    def __init__(
        self, detail: str, *, pointer: str | None = None, remedy: str | None = None
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.pointer = pointer
        self.remedy = remedy

    @property
    def title(self) -> str:
        """The class's docstring: one sentence that is the same for every occurrence."""
        return (type(self).__doc__ or "").strip().splitlines()[0]

    def __str__(self) -> str:
        where = f"{self.pointer}: " if self.pointer else ""
        remedy = f" ({self.remedy})" if self.remedy else ""
        return f"{where}{self.detail}{remedy}"


class InvalidSpecification(CseError):
    """A field of the specification is unknown, missing or out of range."""

    slug = "invalid-specification"


class NotFound(CseError):
    """There is no resource of this name."""

    slug = "not-found"


class Unauthenticated(CseError):
    """The request has no valid token."""

    slug = "unauthenticated"


class Forbidden(CseError):
    """Whoever makes the request has no right to it."""

    slug = "forbidden"


class TooLarge(CseError):
    """The request's body is too large."""

    slug = "request-entity-too-large"


class TooManyRequests(CseError):
    """More requests than this server takes."""

    slug = "too-many-requests"


class Gone(CseError):
    """What is asked for was there once, and is kept no longer."""

    slug = "gone"


class Conflict(CseError):
    """The request contradicts the present state of another resource."""

    slug = "conflict"


class PreflightRefused(CseError):
    """The program cannot be given its private services, so it was not started."""

    slug = "preflight-refused"


class HostLacks(CseError):
    """This host lacks something that the request needs."""

    slug = "host-lacks"


class RuntimeFailure(CseError):
    """The runtime could not carry out the step."""

    slug = "runtime-failure"


class AgentUnavailable(CseError):
    """The agent did not answer; running applications are not affected."""

    slug = "agent-unavailable"


class TimedOut(CseError):
    """The step did not end within its time."""

    slug = "timed-out"
