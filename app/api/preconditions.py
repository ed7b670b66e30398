"""Conditional requests (RFC 9110, RFC 6585): nobody overwrites what they have not seen.

Called by the handlers that change a resource that has an ETag.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Header

from app.api.problems import PreconditionFailed, PreconditionRequired

IfMatch = Annotated[
    str | None, Header(description="Only if the resource still has this ETag; `*`: if it exists.")
]
IfNoneMatch = Annotated[
    str | None, Header(description="`*`: only if there is no such resource yet.", pattern=r"^\*$")
]


def check(present: str | None, if_match: str | None, if_none_match: str | None = None) -> None:
    """`present`: the ETag, None where there is no resource. Raises `PreconditionFailed` (412)."""
    if if_none_match is not None and present is not None:
        raise PreconditionFailed("it exists already", remedy=f"its ETag is {present}")
    if if_match is None or (if_match == "*" and present is not None):
        return
    if present is None or present not in [tag.strip() for tag in if_match.split(",")]:
        raise PreconditionFailed(
            "If-Match does not name the present version",
            remedy=f"read it again; it is {present}" if present else "it does not exist",
        )


def require(present: object, if_match: str | None, what: str) -> None:
    """Before a change of what is there. Raises `PreconditionRequired` (428)."""
    if present is not None and if_match is None:
        raise PreconditionRequired(
            f"{what} exists, and the request does not say which version of it is to be changed",
            remedy="send its ETag as If-Match, or 'If-Match: *' to change whatever it is now",
        )
