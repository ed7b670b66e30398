"""One example of every request and answer, for the OpenAPI document (`openapi.py`).

Answers are made from the models themselves, so that an example cannot be what the server would
never say; a test checks all of them against their schemas, and that none is missing.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from pydantic import BaseModel

from app.domain.access import AuditEntry, NewToken, ProjectSpec, Quotas, Scope, Token
from app.domain.application import ApplicationSpec, PublishedPort
from app.domain.capture import PCAPNG
from app.domain.change import Effect, FieldChange, Plan, ResourceChange
from app.domain.fault import Fault, FaultSpec
from app.domain.files import (
    ChangedMount,
    Changes,
    Directory,
    Explanation,
    FileChange,
    FileEntry,
    FileLayer,
)
from app.domain.leftover import Leftover
from app.domain.network import NetworkSpec
from app.domain.observed import Claim, Coverage, ExecResult, Finding, Instance, LogLine
from app.domain.operation import Operation, Target
from app.domain.resources import (
    Application,
    ApplicationStatus,
    Change,
    Doctor,
    ElementResource,
    Event,
    Index,
    Page,
    Problem,
    ServerHealth,
    Session,
    StackResult,
)
from app.domain.secret import Secret
from app.domain.template import Template
from app.domain.usage import SocketEntry, Usage
from app.domain.volume import VolumeSpec

_AT = datetime(2026, 11, 29, 8, 15, 30, tzinfo=UTC)
_SPEC = ApplicationSpec(
    name="web-a",
    command=["nginx", "-g", "daemon off;"],
    elements={"network-lwip": {}},  # type: ignore[dict-item]
    ports=[PublishedPort(host_port=8081, container_port=80)],
)
_COVERAGE = Coverage(
    program="/usr/sbin/nginx",
    sha256="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    interpreter="/lib64/ld-linux-x86-64.so.2",
    libc="glibc",
    machine="x86_64",
    verdict="private",
)
_APPLICATION = Application(
    name="web-a",
    id="a-1f2e3d4c5b6a",
    generation=3,
    desired="running",
    created=_AT,
    updated=_AT,
    spec=_SPEC,
    status=ApplicationStatus(
        state="running",
        pid=4711,
        started_at=_AT,
        address=IPv4Address("10.210.0.2"),
        ports=_SPEC.ports,
        coverage=_COVERAGE,
    ),
)
_STOPPED = _APPLICATION.model_copy(
    update={
        "desired": "stopped",
        "generation": 4,
        "status": ApplicationStatus(state="stopped", exit_code=0, finished_at=_AT),
    }
)
_NETWORK = NetworkSpec(name="back", subnet=IPv4Network("10.211.0.0/24"), labels={"tier": "back"})
_VOLUME = VolumeSpec(name="data", labels={"tier": "back"})
_PROJECT = ProjectSpec(name="ci", quotas=Quotas(applications=20, memory=8 * 2**30))
_FAULT = Fault(
    id="f-1f2e3d4c",
    application="web-a",
    spec=FaultSpec.model_validate({"loss": "5%", "delay": "20ms", "for": "30s", "seed": 7}),
    seed=7,
    created=_AT,
    ends=_AT + timedelta(seconds=30),
    remaining=12.5,
    counters={"packets": 1200, "lost": 61},
)
_OPERATION = Operation(
    id="op-1f2e3d4c5b6a",
    kind="create",
    state="succeeded",
    created=_AT,
    finished=_AT + timedelta(seconds=2),
    done=1,
    total=1,
    targets=[
        Target(
            application="web-a",
            id="a-1f2e3d4c5b6a",
            generation=1,
            goal="running",
            is_new=True,
            state="done",
        )
    ],
    principal="token ci",
)
_CANCELLED = _OPERATION.model_copy(
    update={
        "state": "cancelled",
        "done": 0,
        "targets": [_OPERATION.targets[0].model_copy(update={"state": "cancelled"})],
    }
)
_INSTANCE = Instance(
    id="web-a.network-lwip",
    application="web-a",
    element="network-lwip",
    kind="network",
    pids=[4711],
    started=True,
    settings={"ttl": 32},
    details={"address": "10.210.0.2"},
)
_PLAN = Plan(
    name="web-a",
    version='"a-1f2e3d4c5b6a.3"',
    changes=[
        ResourceChange(
            kind="application",
            name="web-a",
            action="change",
            effect=Effect.LIVE,
            fields=[
                FieldChange(
                    pointer="/elements/network-lwip/settings/ttl",
                    before=64,
                    after=32,
                    effect=Effect.LIVE,
                )
            ],
        )
    ],
)
_APPLIED = StackResult(
    name="demo",
    changes=[
        Change(kind="network", name="back", change="created"),
        Change(kind="application", name="web-a", change="created"),
    ],
    operation="op-1f2e3d4c5b6a",
)
_REMOVED = _APPLIED.model_copy(
    update={"changes": [Change(kind="application", name="web-a", change="removed")]}
)
_TOKEN = Token(id="1f2e3d4c", name="ci", scope=Scope.OPERATE, project="ci", created=_AT)
_SESSION = Session(principal="token ci", scope=Scope.OPERATE, project="ci", token_required=True)
_ELEMENT = ElementResource(
    name="clock-faketime",
    kind="clock",
    version="0.9.10",
    summary="A clock moved by an offset",
    description="libfaketime, packaged.",
    license="GPL-2.0-only",
    targets=["glibc-x86_64"],
    settings={"type": "object", "properties": {"offset": {"type": "string"}}},
    needs=[],
)
_TEMPLATE = Template(
    name="two-webs",
    about="Two unmodified web servers on the same port of the same machine.",
    content={"name": "two-webs", "applications": {"web-a": {"command": ["nginx"]}}},
)
_LINE = LogLine(time=_AT, stream="stdout", text="ready")
_EVENT = Event(id=42, time=_AT, kind="started", application="web-a", message="started, pid 4711")
_SOCKET = SocketEntry(
    kind="tcp",
    state="LISTEN",
    recvq=0,
    sendq=511,
    local="10.210.0.2:80",
    peer="0.0.0.0:0",
    pid=2,
    program="nginx",
)
_USAGE = Usage(
    application="web-a", counters={"tx_packets": 1200}, wires=["web-b"], memory=5_242_880, cpu=0.25
)
_CLAIM = Claim(
    claim="library-mapped",
    title="The element's library is mapped in the program",
    observation="/proc/4711/maps: /run/cse/lib/network-lwip/libcse-net.so",
    verdict="holds",
    element="network-lwip",
)
_AUDIT = AuditEntry(
    id=7,
    time=_AT,
    principal="token ci",
    method="POST",
    path="/v1/applications",
    status=201,
    request_id="5f0c3a1e9b7d2468",
)
_GC = Leftover(kind="volume", name="old", detail="no record stands for it", removed=False)
_SECRET = Secret(name="db-password", project="default", updated=_AT, used_by=["db"])
_METRICS = """# HELP cse_applications Applications by state.
# TYPE cse_applications gauge
cse_applications{state="running"} 2
"""

_STACK: dict[str, Any] = {
    "name": "demo",
    "networks": {"back": {"name": "back", "subnet": "10.211.0.0/24"}},
    "applications": {
        "web-a": {
            "name": "web-a",
            "command": ["nginx", "-g", "daemon off;"],
            "elements": {"network-lwip": {}},
            "network": {"name": "back"},
            "ports": ["8081:80"],
        }
    },
}
REQUESTS: dict[str, Any] = {
    "applyStack": _STACK,
    "planStack": _STACK,
    "createNetwork": {"name": "back", "subnet": "10.211.0.0/24", "labels": {"tier": "back"}},
    "replaceNetwork": {"name": "back", "subnet": "10.211.0.0/24", "mtu": 1500},
    "createVolume": {"name": "data", "labels": {"tier": "back"}},
    "replaceVolume": {"name": "data", "labels": {"tier": "front"}},
    "replaceProject": {"name": "ci", "quotas": {"applications": 20, "memory": "8G"}},
    "execInApplication": {"command": ["ls", "-l", "/srv"], "timeout": 10},
    "changeInstance": {"settings": {"ttl": 32, "keepalive": {"idle": 60}}},
    "putSecret": {"name": "db-password", "value": "correct horse battery staple"},
    "login": {"token": "cse_1f2e3d4c_Zx…"},
}
"""By operation; others say in their handler what is special about each of their examples."""

_ANSWERS: dict[str, BaseModel] = {
    "index": Index(api="v1", version="0.1.0", api_extensions=["operations", "plans"]),
    "health": ServerHealth(status="ok", version="0.1.0", agent="ok", applications=2),
    "doctor": Doctor(findings=[Finding(check="tun", ok=True, observation="/dev/net/tun")]),
    "collectGarbage": Page(items=[_GC]),
    "listApplications": Page(items=[_APPLICATION], next="web-a"),
    "createApplication": _APPLICATION,
    "getApplication": _APPLICATION,
    "replaceApplication": _APPLICATION,
    "startApplication": _APPLICATION,
    "restartApplication": _APPLICATION,
    "stopApplication": _STOPPED,
    "planApplication": _PLAN,
    "planStack": _PLAN.model_copy(update={"name": "demo", "version": "5b6a1f2e3d4c"}),
    "applyStack": _APPLIED,
    "deleteStack": _REMOVED,
    "listInstances": Page(items=[_INSTANCE]),
    "listInstancesOfApplication": Page(items=[_INSTANCE]),
    "changeInstance": _INSTANCE,
    "readEvidence": Page(items=[_CLAIM]),
    "execInApplication": ExecResult(exit_code=0, stdout="index.html\n", stderr=""),
    "listSockets": Page(items=[_SOCKET]),
    "readUsage": Page(items=[_USAGE]),
    "listElements": Page(items=[_ELEMENT]),
    "getElement": _ELEMENT,
    "listTemplates": Page(items=[_TEMPLATE]),
    "listNetworks": Page(items=[_NETWORK]),
    "createNetwork": _NETWORK,
    "getNetwork": _NETWORK,
    "replaceNetwork": _NETWORK.model_copy(update={"mtu": 1500}),
    "listVolumes": Page(items=[_VOLUME]),
    "createVolume": _VOLUME,
    "getVolume": _VOLUME,
    "replaceVolume": _VOLUME,
    "listSecrets": Page(items=[_SECRET]),
    "getSecret": _SECRET,
    "putSecret": _SECRET,
    "listEvents": Page(items=[_EVENT]),
    "listFaults": Page(items=[_FAULT]),
    "listAllFaults": Page(items=[_FAULT.model_copy(update={"counters": {}})]),
    "addFault": _FAULT,
    "getFault": _FAULT,
    "listOperations": Page(items=[_OPERATION]),
    "getOperation": _OPERATION,
    "cancelOperation": _CANCELLED,
    "createToken": NewToken(**dict(_TOKEN), token="cse_1f2e3d4c_Zx…"),  # noqa: S106
    "listTokens": Page(items=[_TOKEN]),
    "revokeToken": _TOKEN.model_copy(update={"revoked": _AT}),
    "login": _SESSION,
    "getSession": _SESSION,
    "listProjects": Page(items=[_PROJECT]),
    "getProject": _PROJECT,
    "replaceProject": _PROJECT,
    "listAudit": Page(items=[_AUDIT]),
}
_STATUS: dict[str, Any] = {"kind": "file", "size": 1280, "mode": "0644", "modified": _AT}
_UPPER = "/var/lib/cse/apps/web-a/data/fs-0/upper"
_ANSWERS |= {
    "listFiles": Directory(
        items=[
            FileEntry(
                name="index.html",
                owner="root",
                mount="/srv/www",
                source="upper",
                layer=0,
                change="changed",
                **_STATUS,
            )
        ]
    ),
    "explainFile": Explanation(
        path="/srv/www/index.html",
        exists=True,
        mount="/srv/www",
        source="upper",
        layer=0,
        change="changed",
        real="/run/cse/data/fs-0/upper/index.html",
        host=f"{_UPPER}/index.html",
        why="copied up from layer 1 when the application changed it",
        layers=[
            FileLayer(
                number=0,
                source="upper",
                root="/run/cse/data/fs-0/upper",
                host_root=_UPPER,
                has=True,
                **_STATUS,
            ),
            FileLayer(
                number=1,
                source="archive",
                root="/run/cse/private/fs/a0/tree",
                archive="/srv/site.tar.gz",
                has=True,
                **{**_STATUS, "size": 1024},
            ),
        ],
        **_STATUS,
    ),
    "listFileChanges": Changes(
        items=[
            FileChange(
                path="/srv/www/index.html",
                change="changed",
                differs=["content", "time"],
                size_before=1024,
                **_STATUS,
            )
        ],
        mounts=[ChangedMount(path="/srv/www")],
    ),
}
_STREAMS: dict[tuple[str, str], Any] = {
    ("readLogs", "application/x-ndjson"): _LINE,
    ("listEvents", "application/x-ndjson"): _EVENT,
    ("readLogs", "text/event-stream"): f"data: {_LINE.model_dump_json()}\n\n",
    ("listEvents", "text/event-stream"): f"id: 42\ndata: {_EVENT.model_dump_json()}\n\n",
    ("capturePackets", PCAPNG): "(bytes of a pcapng file)",
    ("readFile", "application/octet-stream"): "(bytes of the file)",
    ("archiveFiles", "application/x-tar"): "(bytes of an archive)",
    ("archiveFiles", "application/gzip"): "(bytes of an archive)",
    ("readMetrics", "text/plain"): _METRICS,
}


def response(operation: str, media_type: str) -> Any:
    """An example of this operation's answer; None where there is none."""
    if media_type == "application/json":
        found: Any = _ANSWERS.get(operation)
    else:
        found = _STREAMS.get((operation, media_type))
    if isinstance(found, BaseModel):
        return json.loads(found.model_dump_json(exclude_none=True))
    return found


def problem(status: int, slug: str, title: str) -> Any:
    """An example of this error."""
    return Problem(
        type=f"urn:cse:problem:{slug}",
        title=title,
        status=status,
        detail=_DETAILS.get(status, title),
        remedy=_REMEDIES.get(status),
        request_id="5f0c3a1e9b7d2468",
    ).model_dump(mode="json", exclude_none=True)


_DETAILS = {
    401: "this server asks for a token",
    403: "token ci has the scope 'read', this needs 'operate'",
    404: "there is no application 'web-c'",
    409: "application 'web-a' exists already",
    412: "If-Match does not name the present version",
    422: "'colour' is not a field here",
    428: "application 'web-a' exists, and the request does not say which version of it is meant",
    503: "the agent does not answer",
}
_REMEDIES = {
    401: "send 'Authorization: Bearer TOKEN'; the CLI takes it from CSE_TOKEN",
    403: "use a token of that scope",
    404: "did you mean 'web-a'?",
    409: "change it with PUT instead",
    412: 'read it again; it is "a-1f2e3d4c5b6a.3"',
    422: "remove it",
    428: "send its ETag as If-Match, or 'If-Match: *' to change whatever it is now",
    429: "wait for a second",
}
