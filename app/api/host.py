"""Health and doctor."""

from __future__ import annotations

from fastapi import APIRouter

from app.api.problems import RESPONSES
from app.api.services import Given
from app.domain.observed import Finding
from app.domain.resources import Doctor, Index, ServerHealth

router = APIRouter(responses=RESPONSES)


EXTENSIONS = {
    "events-resync": "GET /v1/events answers 410 where events are kept no longer",
    "plans": "POST …/plan of applications and stacks, versions in If-Match",
    "stack-faults": "a stack may declare faults",
    "tokens": "Bearer tokens with scopes, /v1/session for browsers, /v1/audit",
    "projects": "/v1/projects with quotas, `project` in specifications",
    "operations": "202 and Operation-Location, /v1/operations, Prefer: respond-async",
    "idempotency-keys": "Idempotency-Key on POST and PATCH",
    "label-selectors": "requirements of inequality, presence and sets",
    "health-checks": "`health` in specifications, `status.health`, depends_on NAME:healthy",
    "files": "GET /v1/applications/NAME/files, …/explain, …/changes, …/content, …/archive",
    "templates": "GET /v1/templates, stack files to begin from",
    "metrics": "GET /metrics for Prometheus",
    "secrets": "/v1/secrets, {secret: NAME} in environments, files in /run/secrets",
    "gc": "POST /v1/gc, dry_run",
    "exec-terminal": "WebSocket /v1/applications/NAME/exec",
    "capture-websocket": "WebSocket /v1/applications/NAME/capture",
}
"""What this server can beyond the first release of /v1, by names that never change."""


@router.get("/v1", operation_id="index", tags=["host"])
def index(services: Given) -> Index:
    """What this server is and can; ask before use of what an older one may lack."""
    return Index(api="v1", version=services.version, api_extensions=sorted(EXTENSIONS))


@router.get("/v1/health", operation_id="health", tags=["host"])
def health(services: Given) -> ServerHealth:
    """Whether store and agent answer; cheap."""
    with services.store.read() as transaction:
        count = len(transaction.applications.names())
    error = services.convergence.agent_error
    return ServerHealth(
        status="degraded" if error else "ok",
        version=services.version,
        agent=str(error) if error else "ok",
        applications=count,
    )


@router.get("/v1/doctor", operation_id="doctor", tags=["host"])
def doctor(services: Given) -> Doctor:
    """What this host has and lacks, with remedies."""
    findings = list(services.agent.doctor())
    elements = services.catalog.elements()
    findings.append(
        Finding(
            check="elements",
            ok=bool(elements),
            observation=", ".join(element.manifest.name for element in elements) or "none",
            remedy="" if elements else "build them: make native",
        )
    )
    findings += [
        Finding(check=f"template {file}", ok=False, observation=why, remedy="repair or remove it")
        for file, why in services.templates.faults().items()
    ]
    findings += [
        Finding(
            check=f"element {folder}", ok=False, observation=why, remedy="repair its element.json"
        )
        for folder, why in services.catalog.faults().items()
    ]
    return Doctor(findings=findings)
