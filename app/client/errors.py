"""What a server answers in the place of a result, as exceptions with the problem's fields.

Raised by `transport.py`; the base of all is `CseError`, so that whoever catches that sees errors
of the client and of the server alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from app.domain.errors import AgentUnavailable, CseError
from app.domain.explain import FieldError
from app.domain.resources import Problem


class Unreachable(AgentUnavailable):
    """No server answers, or not in time."""


class ProblemError(CseError):
    """The server refused the request, or could not carry it out."""

    def __init__(self, problem: Problem, request_id: str | None = None) -> None:
        pointer = problem.errors[0].pointer if problem.errors else None
        super().__init__(problem.detail, pointer=pointer, remedy=problem.remedy)
        self.problem = problem
        """The whole answer (RFC 9457)."""
        self.request_id = request_id
        """Names the request in the server's log and audit."""
        self.errors: list[FieldError] = problem.errors
        """The fields that are wrong, each with its remedy."""

    @property
    def type(self) -> str:
        """Stable: `urn:cse:problem:not-found`."""
        return self.problem.type

    @property
    def kind(self) -> str:
        """The type's last word: `not-found`."""
        return self.problem.type.rpartition(":")[2]

    @property
    def status(self) -> int:
        """Of HTTP."""
        return self.problem.status


class Invalid(ProblemError):
    """A field of the request is unknown, missing or out of range (400, 413, 422)."""


class Unauthenticated(ProblemError):
    """The request has no valid token (401)."""


class Forbidden(ProblemError):
    """The token has no right to it (403)."""


class NotFound(ProblemError):
    """There is no resource of this name (404)."""


class Conflict(ProblemError):
    """The request contradicts the present state (409)."""


class Gone(ProblemError):
    """What is asked for is kept no longer (410): read the resources anew."""


class PreconditionFailed(ProblemError):
    """The resource has changed since it was read (412)."""


class PreconditionRequired(ProblemError):
    """A change has to say which version is meant (428)."""


class TooManyRequests(ProblemError):
    """More requests than the server takes (429)."""


class ServerError(ProblemError):
    """The server or a runtime failed (5xx)."""


class Unavailable(ServerError):
    """The agent is away, the host lacks something, or it took too long (503, 504)."""


_KINDS: dict[int, type[ProblemError]] = {
    400: Invalid,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    412: PreconditionFailed,
    413: Invalid,
    422: Invalid,
    428: PreconditionRequired,
    429: TooManyRequests,
    503: Unavailable,
    504: Unavailable,
}


def error_of(status: int, body: Any, place: str, headers: Mapping[str, str]) -> ProblemError:
    """From `application/problem+json`; of anything else, that somebody else has answered."""
    try:
        problem = Problem.model_validate(body, extra="ignore")
    except ValidationError:
        problem = Problem(
            type="urn:cse:problem:unknown",
            title="This is no answer of a CSE server.",
            status=status,
            detail=f"{status} from {place}",
            remedy="is this a CSE server?",
        )
    kind = _KINDS.get(status, ServerError if status >= 500 else ProblemError)
    return kind(problem, headers.get("X-Request-ID") or problem.request_id)
