"""Secrets: set, listed without their values, removed. The values go to the agent and no further.

No answer, event, log line or error has a value in it; what a program was given can be read by
whoever may execute commands beside it.
"""

from __future__ import annotations

from fastapi import APIRouter, Response

from app.api.problems import RESPONSES
from app.api.resources import After, Limit, part
from app.api.services import Given, Services
from app.domain.errors import Conflict, InvalidSpecification, NotFound
from app.domain.model import Name
from app.domain.resources import Page
from app.domain.secret import Secret, SecretSpec

router = APIRouter(prefix="/v1/secrets", tags=["secrets"], responses=RESPONSES)


@router.get("", operation_id="listSecrets")
def list_all(services: Given, limit: Limit = 1000, after: After = "") -> Page[Secret]:
    """All secrets by name, without their values, and which applications name them."""
    return part(_all(services), lambda one: one.name, after, limit)


@router.get("/{name}", operation_id="getSecret")
def get(services: Given, name: str) -> Secret:
    """One secret, without its value."""
    return _get(services, name)


@router.put("/{name}", operation_id="putSecret")
def put(services: Given, name: Name, spec: SecretSpec) -> Secret:
    """Keep a value under this name, or another value in its place.

    Programs get it when they are created; those that have it as a file, at each start.
    """
    if spec.name != name:
        raise InvalidSpecification(
            f"the body is for '{spec.name}', the path for '{name}'",
            pointer="/name",
            remedy="use the same name in both",
        )
    _check_project(services, spec)
    with services.store.write() as transaction:
        services.agent.put_secret(spec)
        transaction.events.add("secret-set", None, f"secret '{name}' set")
    return _get(services, name)


@router.delete("/{name}", status_code=204, operation_id="deleteSecret")
def delete(services: Given, name: str) -> Response:
    """Forget a secret that no application names."""
    found = _get(services, name)
    if found.used_by:
        raise Conflict(
            f"secret '{name}' is used by {', '.join(found.used_by[:10])}",
            remedy="remove these first",
        )
    with services.store.write() as transaction:
        services.agent.remove_secret(name)
        transaction.events.add("secret-removed", None, f"secret '{name}' removed")
    return Response(status_code=204)


def _all(services: Services) -> list[Secret]:
    users: dict[str, list[str]] = {}
    for record in services.store.applications().values():
        for name in record.spec.named_secrets if record.desired != "removed" else ():
            users.setdefault(name, []).append(record.name)
    return [
        secret.model_copy(update={"used_by": sorted(users.get(secret.name, []))})
        for secret in services.agent.secrets()
        if services.project in (None, secret.project)
    ]


def _get(services: Services, name: str) -> Secret:
    for secret in _all(services):
        if secret.name == name:
            return secret
    raise NotFound(f"there is no secret '{name}'", remedy=f"make it: cse secret set {name} < FILE")


def _check_project(services: Services, spec: SecretSpec) -> None:
    if services.project not in (None, spec.project):
        raise InvalidSpecification(
            f"this token is confined to project '{services.project}'",
            pointer="/project",
            remedy=f"write 'project: {services.project}'",
        )
    with services.store.read() as transaction:
        if transaction.projects.find(spec.project) is None:
            raise InvalidSpecification(f"there is no project '{spec.project}'", pointer="/project")
    present = {secret.name: secret for secret in services.agent.secrets()}.get(spec.name)
    if present is not None and present.project != spec.project:
        raise Conflict(
            f"secret '{spec.name}' belongs to another project",
            pointer="/name",
            remedy="take another name, or remove that one first",
        )
