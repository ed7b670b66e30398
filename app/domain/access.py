"""Who may do what: scopes, tokens, projects with their quotas.

Checked by `app/api` (guard, admission); kept by `app/store/access.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from pydantic import Field

from app.domain.application import ApplicationSpec
from app.domain.explain import FieldError
from app.domain.model import Model, Name
from app.domain.quantities import Bytes, Seconds

DEFAULT_PROJECT = "default"


class Scope(StrEnum):
    """Each includes the ones before it."""

    READ = "read"
    """See everything but secrets, tokens and the audit log."""
    OPERATE = "operate"
    """Make, change and remove applications, networks, volumes, faults; execute commands."""
    ADMIN = "admin"
    """Tokens, projects, the audit log."""

    def includes(self, other: Scope) -> bool:
        """Whether who has this one may do what the other is needed for."""
        order = list(Scope)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True)
class Principal:
    """Who makes a request."""

    name: str
    """`local`, `uid 1000`, or `token NAME`."""
    scope: Scope
    project: str | None = None
    """Confined to this project's applications; None: to none."""
    token: str | None = None
    """The token's id."""


LOCAL = Principal("local", Scope.ADMIN)
"""Whoever reaches a server on loopback that asks for no tokens."""


class TokenSpec(Model):
    """A token to be made."""

    name: Name
    scope: Scope = Scope.READ
    project: Name | None = None
    """Confined to this project."""
    expires_in: Seconds | None = Field(default=None, gt=0, le=10 * 365 * 86_400)
    """From now; null: never."""


class Token(Model):
    """A token as it is kept: not the secret, which nobody can read again."""

    id: str
    name: str
    scope: Scope
    project: str | None = None
    created: datetime
    expires: datetime | None = None
    revoked: datetime | None = None
    last_used: datetime | None = None
    """To the minute."""


class NewToken(Token):
    """The one answer that has the secret in it."""

    token: str = Field(examples=["cse_1f2e3d4c_Zx…"])


class Quotas(Model):
    """What a project's applications may have together; null: as much as there is."""

    applications: int | None = Field(default=None, ge=0)
    memory: Bytes | None = None
    cpus: float | None = Field(default=None, ge=0)
    pids: int | None = Field(default=None, ge=0)


class ProjectSpec(Model):
    """A part of this host's applications, with bounds, to which tokens can be confined."""

    name: Name
    quotas: Quotas = Quotas()
    labels: dict[str, str] = {}


class AuditEntry(Model):
    """One request that changed something, or was refused for want of rights."""

    id: int
    time: datetime
    principal: str
    method: str
    path: str
    status: int
    request_id: str


def over_quota(project: ProjectSpec, specs: Iterable[ApplicationSpec]) -> Iterator[FieldError]:
    """What these applications, all of the project's, exceed together. Pointers are into the
    specification that is being added: it is the one to change."""
    present = list(specs)
    quotas = project.quotas
    if quotas.applications is not None and len(present) > quotas.applications:
        yield _over(project, "/project", "applications", len(present), quotas.applications)
    for field in ("memory", "cpus", "pids"):
        bound = getattr(quotas, field)
        if bound is None:
            continue
        wanted = [getattr(spec.limits, field) for spec in present]
        if any(value is None for value in wanted):
            yield FieldError(
                pointer=f"/limits/{field}",
                detail=f"project '{project.name}' has a quota of {field}, and this has no limit",
                remedy=f"set 'limits: {{{field}: …}}'",
            )
        elif (total := sum(value for value in wanted if value is not None)) > bound:
            yield _over(project, f"/limits/{field}", field, total, bound)


def _over(project: ProjectSpec, pointer: str, what: str, total: float, bound: float) -> FieldError:
    return FieldError(
        pointer=pointer,
        detail=f"project '{project.name}' would have {total:g} of {what}, its quota is {bound:g}",
        remedy="remove or shrink another application, or have the quota raised",
    )
