"""The client of the REST interface: `from app.client import Client`.

Typed by the models that the server itself is made of. Used by the CLI, and for programs of your
own (docs/api.md).
"""

from app.client.client import Client, OperationFailed
from app.client.errors import (
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    PreconditionFailed,
    PreconditionRequired,
    ProblemError,
    ServerError,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
    Unreachable,
)

__all__ = [
    "Client",
    "Conflict",
    "Forbidden",
    "Gone",
    "Invalid",
    "NotFound",
    "OperationFailed",
    "PreconditionFailed",
    "PreconditionRequired",
    "ProblemError",
    "ServerError",
    "TooManyRequests",
    "Unauthenticated",
    "Unavailable",
    "Unreachable",
]
