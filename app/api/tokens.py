"""Tokens, the session of a browser, projects, the audit log: who may do what, and who did."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request, Response

from app.api import preconditions
from app.api.access import COOKIE
from app.api.preconditions import IfMatch, IfNoneMatch
from app.api.problems import RESPONSES
from app.api.resources import After, Limit, etag_of, part
from app.api.services import Given
from app.domain.access import (
    DEFAULT_PROJECT,
    AuditEntry,
    NewToken,
    Principal,
    ProjectSpec,
    Token,
    TokenSpec,
)
from app.domain.errors import Conflict, InvalidSpecification, Unauthenticated
from app.domain.explain import did_you_mean
from app.domain.model import Name
from app.domain.resources import Page, Session, SessionRequest

router = APIRouter(prefix="/v1", responses=RESPONSES)

_TOKENS: dict[str, Any] = {
    "dashboard": {
        "summary": "For a week, to look at",
        "value": {"name": "wall", "scope": "read", "expires_in": "7d"},
    },
    "confined": {
        "summary": "For one project",
        "value": {"name": "ci", "scope": "operate", "project": "ci"},
    },
}


@router.post("/tokens", status_code=201, operation_id="createToken", tags=["access"])
def create(services: Given, spec: Annotated[TokenSpec, Body(openapi_examples=_TOKENS)]) -> NewToken:
    """Make a token. `token` is in this answer only: it is kept as a hash."""
    with services.store.write() as transaction:
        if spec.project is not None and transaction.projects.find(spec.project) is None:
            names = [project.name for project in transaction.projects.all()]
            raise InvalidSpecification(
                f"there is no project '{spec.project}'",
                pointer="/project",
                remedy=did_you_mean(spec.project, names),
            )
        made = transaction.tokens.create(spec)
    services.authenticator.forget()
    return made


@router.get("/tokens", operation_id="listTokens", tags=["access"])
def tokens(services: Given, limit: Limit = 1000, after: After = "") -> Page[Token]:
    """All tokens by id, also revoked and expired ones, without their secrets."""
    with services.store.read() as transaction:
        found = sorted(transaction.tokens.all(), key=lambda one: one.id)
    return part(found, lambda one: one.id, after, limit)


@router.delete("/tokens/{name}", operation_id="revokeToken", tags=["access"])
def revoke(services: Given, name: str) -> Token:
    """Refuse this token, named by id or name, from now on."""
    with services.store.write() as transaction:
        revoked = transaction.tokens.revoke(name)
    services.authenticator.forget()
    return revoked


@router.post("/session", operation_id="login", tags=["access"])
def login(services: Given, request: Request, body: SessionRequest, response: Response) -> Session:
    """Keep a token in a cookie that scripts cannot read and other sites cannot use."""
    principal = services.authenticator.identify({"authorization": f"Bearer {body.token}"}, None)
    assert principal is not None
    response.set_cookie(
        COOKIE,
        body.token,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
        path="/",
    )
    return _session(principal, services.authenticator.required)


@router.get("/session", operation_id="getSession", tags=["access"])
def session(services: Given, request: Request) -> Session:
    """Who this client is. 401 where a token is needed and none was given."""
    principal: Principal | None = getattr(request.state, "principal", None)
    if principal is None:
        raise Unauthenticated("no token", remedy="POST one to /v1/session, or send it as Bearer")
    return _session(principal, services.authenticator.required)


@router.delete("/session", status_code=204, operation_id="logout", tags=["access"])
def logout() -> Response:
    """Forget the cookie; the token stays valid."""
    response = Response(status_code=204)
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return response


@router.get("/projects", operation_id="listProjects", tags=["access"])
def projects(services: Given, limit: Limit = 1000, after: After = "") -> Page[ProjectSpec]:
    """All projects, by name; `default` is always there."""
    with services.store.read() as transaction:
        found = sorted(transaction.projects.all(), key=lambda one: one.name)
    ours = [one for one in found if services.project in (None, one.name)]
    return part(ours, lambda one: one.name, after, limit)


@router.get("/projects/{name}", operation_id="getProject", tags=["access"])
def project(services: Given, name: str, response: Response) -> ProjectSpec:
    """One project."""
    with services.store.read() as transaction:
        found = transaction.projects.get(name)
    response.headers["ETag"] = etag_of(found)
    return found


@router.put("/projects/{name}", operation_id="replaceProject", tags=["access"])
def put_project(
    services: Given,
    name: Name,
    spec: ProjectSpec,
    response: Response,
    if_match: IfMatch = None,
    if_none_match: IfNoneMatch = None,
) -> ProjectSpec:
    """Make or change a project. What runs already stays, even above a lowered quota."""
    if spec.name != name:
        raise InvalidSpecification(
            f"the body is for '{spec.name}', the path for '{name}'",
            pointer="/name",
            remedy="use the same name in both",
        )
    with services.store.write() as transaction:
        present = transaction.projects.find(name)
        preconditions.check(etag_of(present) if present else None, if_match, if_none_match)
        if present != spec:
            preconditions.require(present, if_match, f"project '{name}'")
            transaction.projects.put(spec)
    response.headers["ETag"] = etag_of(spec)
    return spec


@router.delete("/projects/{name}", status_code=204, operation_id="deleteProject", tags=["access"])
def delete_project(services: Given, name: str) -> Response:
    """Remove a project that has neither applications nor tokens."""
    if name == DEFAULT_PROJECT:
        raise InvalidSpecification("the project 'default' always exists", remedy="leave it")
    with services.store.write() as transaction:
        transaction.projects.get(name)
        users = [one.name for one in transaction.applications.all() if one.spec.project == name]
        users += [
            f"token {token.name}"
            for token in transaction.tokens.all()
            if token.project == name and token.revoked is None
        ]
        if users:
            raise Conflict(
                f"project '{name}' is used by {', '.join(users[:10])}",
                remedy="remove these first",
            )
        transaction.projects.remove(name)
    return Response(status_code=204)


@router.get("/audit", operation_id="listAudit", tags=["access"])
def audit(
    services: Given,
    after: Annotated[int | None, Query(ge=0, description="Only later ones.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Page[AuditEntry]:
    """Who changed what, and who was refused; the latest, or those after an id."""
    with services.store.read() as transaction:
        log = transaction.audit
        found = log.latest(limit) if after is None else log.after(after, limit)
    return Page(items=found, next=str(found[-1].id) if len(found) == limit else None)


def _session(principal: Principal, required: bool) -> Session:
    return Session(
        principal=principal.name,
        scope=principal.scope,
        project=principal.project,
        token_required=required,
    )
