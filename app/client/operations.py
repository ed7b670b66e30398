"""Every operation of the REST interface as a method; made by `make schemas`.

Parameters that are left out are the server's defaults; bodies are models, or mappings in the form
of the interface. Called through `Client`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from app.client.transport import Transport, quoted
from app.domain.access import AuditEntry, NewToken, ProjectSpec, Token, TokenSpec
from app.domain.application import ApplicationSpec
from app.domain.change import Plan
from app.domain.fault import Fault, FaultSpec
from app.domain.files import Changes, Directory, Explanation
from app.domain.leftover import Leftover
from app.domain.network import NetworkSpec
from app.domain.observed import Claim, ExecResult, Instance, LogLine
from app.domain.operation import Operation
from app.domain.resources import (
    Application,
    Doctor,
    ElementResource,
    Event,
    ExecRequest,
    Index,
    Page,
    ServerHealth,
    Session,
    SessionRequest,
    SettingsChange,
    StackResult,
)
from app.domain.secret import Secret, SecretSpec
from app.domain.stack import Stack
from app.domain.template import Template
from app.domain.usage import SocketEntry, Usage
from app.domain.volume import VolumeSpec


class Operations(Transport):
    """One method for each operation."""

    def create_application(
        self,
        body: ApplicationSpec | Mapping[str, Any],
        *,
        wait: float | None = None,
        prefer: str | None = None,
        idempotency_key: str | None = None,
    ) -> Application:
        """Check, record and start an application.

        With `wait`, what keeps it from being started is answered as an error and leaves
        nothing. 202 and an operation where it takes longer.
        """
        return self._call(
            "POST",
            "/v1/applications",
            Application,
            query={"wait": wait},
            headers={"prefer": prefer, "Idempotency-Key": idempotency_key},
            body=body,
        )

    def list_applications(
        self,
        *,
        label: list[str] | None = None,
        project: str | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> Page[Application]:
        """All applications, by name."""
        return self._call(
            "GET",
            "/v1/applications",
            Page[Application],
            query={"label": label, "project": project, "limit": limit, "after": after},
        )

    def each_application(
        self,
        *,
        label: list[str] | None = None,
        project: str | None = None,
        limit: int | None = None,
    ) -> Iterator[Application]:
        """Those of `list_applications` one by one, page after page; `limit`: of each page."""
        after: str | None = ""
        while after is not None:
            page = self.list_applications(label=label, project=project, limit=limit, after=after)
            yield from page.items
            after = page.next

    def get_application(self, name: str, *, wait: float | None = None) -> Application:
        """One application; with `wait`, not before it has been started or has failed to be."""
        return self._call(
            "GET", f"/v1/applications/{quoted(name)}", Application, query={"wait": wait}
        )

    def replace_application(
        self,
        name: str,
        body: ApplicationSpec | Mapping[str, Any],
        *,
        wait: float | None = None,
        prefer: str | None = None,
        if_match: str | None = None,
        if_none_match: str | None = None,
    ) -> Application:
        """Make the application so: created, changed as gently as what differs allows, or left
        alone.

        `POST …/plan` says what would happen. To change one that is there, its ETag in
        `If-Match` is required (428), or `*` to overrule whatever it has become.
        """
        return self._call(
            "PUT",
            f"/v1/applications/{quoted(name)}",
            Application,
            query={"wait": wait},
            headers={"prefer": prefer, "if-match": if_match, "if-none-match": if_none_match},
            body=body,
        )

    def delete_application(
        self,
        name: str,
        *,
        wait: float | None = None,
        prefer: str | None = None,
        if_match: str | None = None,
    ) -> None:
        """End the program and remove everything made for it. 202 and an operation while it
        lasts.
        """
        self._done(
            "DELETE",
            f"/v1/applications/{quoted(name)}",
            query={"wait": wait},
            headers={"prefer": prefer, "if-match": if_match},
        )

    def plan_application(
        self,
        name: str,
        body: ApplicationSpec | Mapping[str, Any],
        *,
        idempotency_key: str | None = None,
    ) -> Plan:
        """What a PUT of this specification would change, and who would notice; nothing is done.

        `version` is the ETag to give the PUT in `If-Match`; empty where there is none yet.
        """
        return self._call(
            "POST",
            f"/v1/applications/{quoted(name)}/plan",
            Plan,
            headers={"Idempotency-Key": idempotency_key},
            body=body,
        )

    def start_application(
        self,
        name: str,
        *,
        wait: float | None = None,
        prefer: str | None = None,
        idempotency_key: str | None = None,
    ) -> Application:
        """Start the program if it does not run."""
        return self._call(
            "POST",
            f"/v1/applications/{quoted(name)}/start",
            Application,
            query={"wait": wait},
            headers={"prefer": prefer, "Idempotency-Key": idempotency_key},
        )

    def stop_application(
        self,
        name: str,
        *,
        wait: float | None = None,
        prefer: str | None = None,
        idempotency_key: str | None = None,
    ) -> Application:
        """End the program by its stop rule; the application stays."""
        return self._call(
            "POST",
            f"/v1/applications/{quoted(name)}/stop",
            Application,
            query={"wait": wait},
            headers={"prefer": prefer, "Idempotency-Key": idempotency_key},
        )

    def restart_application(
        self,
        name: str,
        *,
        wait: float | None = None,
        prefer: str | None = None,
        idempotency_key: str | None = None,
    ) -> Application:
        """End the program, and start it anew."""
        return self._call(
            "POST",
            f"/v1/applications/{quoted(name)}/restart",
            Application,
            query={"wait": wait},
            headers={"prefer": prefer, "Idempotency-Key": idempotency_key},
        )

    def plan_stack(
        self,
        name: str,
        body: Stack | Mapping[str, Any],
        *,
        prune: bool | None = None,
        idempotency_key: str | None = None,
    ) -> Plan:
        """What applying would change, field by field, and who would notice; nothing is done."""
        return self._call(
            "POST",
            f"/v1/stacks/{quoted(name)}/plan",
            Plan,
            query={"prune": prune},
            headers={"Idempotency-Key": idempotency_key},
            body=body,
        )

    def apply_stack(
        self,
        name: str,
        body: Stack | Mapping[str, Any],
        *,
        prune: bool | None = None,
        if_match: str | None = None,
    ) -> StackResult:
        """Make networks, volumes, applications and faults so; what already is so is left alone.

        Nothing is changed where anything in it cannot be accepted. Answers when all is
        recorded, with 202 and an operation where there is something to be done.
        """
        return self._call(
            "PUT",
            f"/v1/stacks/{quoted(name)}",
            StackResult,
            query={"prune": prune},
            headers={"if-match": if_match},
            body=body,
        )

    def delete_stack(self, name: str) -> StackResult:
        """Remove the stack's applications; networks and volumes stay until removed by name."""
        return self._call("DELETE", f"/v1/stacks/{quoted(name)}", StackResult)

    def read_logs(
        self, name: str, *, follow: bool | None = None, tail: int | None = None
    ) -> Iterator[LogLine]:
        """The program's output, oldest first; JSON lines, or server-sent events by `Accept`."""
        return self._lines(
            f"/v1/applications/{quoted(name)}/logs", LogLine, query={"follow": follow, "tail": tail}
        )

    def exec_in_application(
        self,
        name: str,
        body: ExecRequest | Mapping[str, Any],
        *,
        idempotency_key: str | None = None,
    ) -> ExecResult:
        """Run a command to its end in the running application's surroundings."""
        return self._call(
            "POST",
            f"/v1/applications/{quoted(name)}/exec",
            ExecResult,
            headers={"Idempotency-Key": idempotency_key},
            body=body,
        )

    def list_instances_of_application(self, name: str) -> Page[Instance]:
        """The element instances of one application."""
        return self._call("GET", f"/v1/applications/{quoted(name)}/instances", Page[Instance])

    def read_evidence(self, name: str) -> Page[Claim]:
        """Claims about the application's privacy, each checked now against what the kernel
        shows.
        """
        return self._call("GET", f"/v1/applications/{quoted(name)}/evidence", Page[Claim])

    def list_instances(
        self, *, limit: int | None = None, after: str | None = None
    ) -> Page[Instance]:
        """The element instances of all running applications, by id."""
        return self._call(
            "GET", "/v1/instances", Page[Instance], query={"limit": limit, "after": after}
        )

    def each_instance(self, *, limit: int | None = None) -> Iterator[Instance]:
        """Those of `list_instances` one by one, page after page; `limit`: of each page."""
        after: str | None = ""
        while after is not None:
            page = self.list_instances(limit=limit, after=after)
            yield from page.items
            after = page.next

    def change_instance(
        self,
        instance_id: str,
        body: SettingsChange | Mapping[str, Any],
        *,
        wait: float | None = None,
        idempotency_key: str | None = None,
    ) -> Instance:
        """Change settings while the program runs: those whose schema says `apply: live`.

        The change is part of the application's specification from now on: a restart keeps it.
        """
        return self._call(
            "PATCH",
            f"/v1/instances/{quoted(instance_id)}",
            Instance,
            query={"wait": wait},
            headers={"Idempotency-Key": idempotency_key},
            body=body,
        )

    def list_elements(
        self, *, limit: int | None = None, after: str | None = None
    ) -> Page[ElementResource]:
        """The catalogue, by name."""
        return self._call(
            "GET", "/v1/elements", Page[ElementResource], query={"limit": limit, "after": after}
        )

    def each_element(self, *, limit: int | None = None) -> Iterator[ElementResource]:
        """Those of `list_elements` one by one, page after page; `limit`: of each page."""
        after: str | None = ""
        while after is not None:
            page = self.list_elements(limit=limit, after=after)
            yield from page.items
            after = page.next

    def get_element(self, name: str) -> ElementResource:
        """One element."""
        return self._call("GET", f"/v1/elements/{quoted(name)}", ElementResource)

    def list_templates(
        self, *, limit: int | None = None, after: str | None = None
    ) -> Page[Template]:
        """Stack files to begin from, by name, with the paths of the host that runs applications."""
        return self._call(
            "GET", "/v1/templates", Page[Template], query={"limit": limit, "after": after}
        )

    def each_template(self, *, limit: int | None = None) -> Iterator[Template]:
        """Those of `list_templates` one by one, page after page; `limit`: of each page."""
        after: str | None = ""
        while after is not None:
            page = self.list_templates(limit=limit, after=after)
            yield from page.items
            after = page.next

    def list_networks(
        self, *, label: list[str] | None = None, limit: int | None = None, after: str | None = None
    ) -> Page[NetworkSpec]:
        """All networks, by name."""
        return self._call(
            "GET",
            "/v1/networks",
            Page[NetworkSpec],
            query={"label": label, "limit": limit, "after": after},
        )

    def each_network(
        self, *, label: list[str] | None = None, limit: int | None = None
    ) -> Iterator[NetworkSpec]:
        """Those of `list_networks` one by one, page after page; `limit`: of each page."""
        after: str | None = ""
        while after is not None:
            page = self.list_networks(label=label, limit=limit, after=after)
            yield from page.items
            after = page.next

    def create_network(
        self, body: NetworkSpec | Mapping[str, Any], *, idempotency_key: str | None = None
    ) -> NetworkSpec:
        """Make a new network, on the host too."""
        return self._call(
            "POST",
            "/v1/networks",
            NetworkSpec,
            headers={"Idempotency-Key": idempotency_key},
            body=body,
        )

    def get_network(self, name: str) -> NetworkSpec:
        """One network."""
        return self._call("GET", f"/v1/networks/{quoted(name)}", NetworkSpec)

    def replace_network(
        self,
        name: str,
        body: NetworkSpec | Mapping[str, Any],
        *,
        if_match: str | None = None,
        if_none_match: str | None = None,
    ) -> NetworkSpec:
        """Make the network so, on the host too; to change one, say which version (`If-Match`)."""
        return self._call(
            "PUT",
            f"/v1/networks/{quoted(name)}",
            NetworkSpec,
            headers={"if-match": if_match, "if-none-match": if_none_match},
            body=body,
        )

    def delete_network(self, name: str) -> None:
        """Remove a network that no application uses."""
        self._done("DELETE", f"/v1/networks/{quoted(name)}")

    def list_volumes(
        self, *, label: list[str] | None = None, limit: int | None = None, after: str | None = None
    ) -> Page[VolumeSpec]:
        """All volumes, by name."""
        return self._call(
            "GET",
            "/v1/volumes",
            Page[VolumeSpec],
            query={"label": label, "limit": limit, "after": after},
        )

    def each_volume(
        self, *, label: list[str] | None = None, limit: int | None = None
    ) -> Iterator[VolumeSpec]:
        """Those of `list_volumes` one by one, page after page; `limit`: of each page."""
        after: str | None = ""
        while after is not None:
            page = self.list_volumes(label=label, limit=limit, after=after)
            yield from page.items
            after = page.next

    def create_volume(
        self, body: VolumeSpec | Mapping[str, Any], *, idempotency_key: str | None = None
    ) -> VolumeSpec:
        """Make a new volume."""
        return self._call(
            "POST",
            "/v1/volumes",
            VolumeSpec,
            headers={"Idempotency-Key": idempotency_key},
            body=body,
        )

    def get_volume(self, name: str) -> VolumeSpec:
        """One volume."""
        return self._call("GET", f"/v1/volumes/{quoted(name)}", VolumeSpec)

    def replace_volume(
        self,
        name: str,
        body: VolumeSpec | Mapping[str, Any],
        *,
        if_match: str | None = None,
        if_none_match: str | None = None,
    ) -> VolumeSpec:
        """Make a volume, or change its labels (`If-Match` says which version); its content is
        kept.
        """
        return self._call(
            "PUT",
            f"/v1/volumes/{quoted(name)}",
            VolumeSpec,
            headers={"if-match": if_match, "if-none-match": if_none_match},
            body=body,
        )

    def delete_volume(self, name: str) -> None:
        """Delete a volume that no application mounts, with what is in it."""
        self._done("DELETE", f"/v1/volumes/{quoted(name)}")

    def list_events(
        self, *, after: int | None = None, application: str | None = None, limit: int | None = None
    ) -> Page[Event]:
        """The latest events; a stream with `follow` or `Accept: text/event-stream`.

        With `after` or `Last-Event-ID`, what came later: none is left out, and where some of
        it is kept no longer the answer is 410. A stream that falls behind so far ends with an
        event `resync`.
        """
        return self._call(
            "GET",
            "/v1/events",
            Page[Event],
            query={"after": after, "application": application, "limit": limit},
        )

    def add_fault(
        self, name: str, body: FaultSpec | Mapping[str, Any], *, idempotency_key: str | None = None
    ) -> Fault:
        """Begin now. The instance, or the kernel, ends it after `for`, whoever is there then."""
        return self._call(
            "POST",
            f"/v1/applications/{quoted(name)}/faults",
            Fault,
            headers={"Idempotency-Key": idempotency_key},
            body=body,
        )

    def list_faults(
        self, name: str, *, limit: int | None = None, after: str | None = None
    ) -> Page[Fault]:
        """What holds now, by id, with what each has done to the running instance's packets."""
        return self._call(
            "GET",
            f"/v1/applications/{quoted(name)}/faults",
            Page[Fault],
            query={"limit": limit, "after": after},
        )

    def each_fault(self, name: str, *, limit: int | None = None) -> Iterator[Fault]:
        """Those of `list_faults` one by one, page after page; `limit`: of each page."""
        after: str | None = ""
        while after is not None:
            page = self.list_faults(name, limit=limit, after=after)
            yield from page.items
            after = page.next

    def get_fault(self, name: str, fault_id: str) -> Fault:
        """One fault that holds."""
        return self._call(
            "GET", f"/v1/applications/{quoted(name)}/faults/{quoted(fault_id)}", Fault
        )

    def remove_fault(self, name: str, fault_id: str) -> None:
        """End it now; packets that it holds back go on when they are due."""
        self._done("DELETE", f"/v1/applications/{quoted(name)}/faults/{quoted(fault_id)}")

    def list_files(
        self,
        name: str,
        *,
        path: str | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> Directory:
        """A directory as the application sees it, running or not, each name with the mount and
        layer that serve it and what was changed.
        """
        return self._call(
            "GET",
            f"/v1/applications/{quoted(name)}/files",
            Directory,
            query={"path": path, "limit": limit, "after": after},
        )

    def explain_file(self, name: str, *, path: str | None = None) -> Explanation:
        """Which mount and layer serve a path, where its content is, and why. Also of removed
        names.
        """
        return self._call(
            "GET",
            f"/v1/applications/{quoted(name)}/files/explain",
            Explanation,
            query={"path": path},
        )

    def list_file_changes(
        self,
        name: str,
        *,
        path: str | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> Changes:
        """What the application changed below a path of a `cow` or `memory` mount, or ("/") in
        all.
        """
        return self._call(
            "GET",
            f"/v1/applications/{quoted(name)}/files/changes",
            Changes,
            query={"path": path, "limit": limit, "after": after},
        )

    def read_file(
        self,
        name: str,
        *,
        path: str | None = None,
        offset: int | None = None,
        limit: int | None = None,
    ) -> Iterator[bytes]:
        """A file's bytes; the connection breaks off where they cannot all be read."""
        return self._bytes(
            f"/v1/applications/{quoted(name)}/files/content",
            query={"path": path, "offset": offset, "limit": limit},
        )

    def archive_files(
        self,
        name: str,
        *,
        path: str | None = None,
        changes: bool | None = None,
        format: Literal["tar", "tar.gz"] | None = None,
    ) -> Iterator[bytes]:
        """A tree as the application sees it, as an archive that can be a `lower` itself."""
        return self._bytes(
            f"/v1/applications/{quoted(name)}/files/archive",
            query={"path": path, "changes": changes, "format": format},
        )

    def index(self) -> Index:
        """What this server is and can; ask before use of what an older one may lack."""
        return self._call("GET", "/v1", Index)

    def health(self) -> ServerHealth:
        """Whether store and agent answer; cheap."""
        return self._call("GET", "/v1/health", ServerHealth)

    def doctor(self) -> Doctor:
        """What this host has and lacks, with remedies."""
        return self._call("GET", "/v1/doctor", Doctor)

    def collect_garbage(
        self,
        *,
        dry_run: bool | None = None,
        volumes: bool | None = None,
        idempotency_key: str | None = None,
    ) -> Page[Leftover]:
        """What this installation has made on the host and nobody needs any more.

        Nothing without this installation's mark is touched, and nothing that is in the store
        but a bridge that nobody is plugged into: it is made again when it is needed.
        """
        return self._call(
            "POST",
            "/v1/gc",
            Page[Leftover],
            query={"dry_run": dry_run, "volumes": volumes},
            headers={"Idempotency-Key": idempotency_key},
        )

    def list_sockets(self, name: str) -> Page[SocketEntry]:
        """All sockets of the application's private stack, now."""
        return self._call("GET", f"/v1/applications/{quoted(name)}/sockets", Page[SocketEntry])

    def read_usage(self, *, limit: int | None = None, after: str | None = None) -> Page[Usage]:
        """What each running application has used so far: packets, memory, processor time."""
        return self._call("GET", "/v1/usage", Page[Usage], query={"limit": limit, "after": after})

    def each_usage(self, *, limit: int | None = None) -> Iterator[Usage]:
        """Those of `read_usage` one by one, page after page; `limit`: of each page."""
        after: str | None = ""
        while after is not None:
            page = self.read_usage(limit=limit, after=after)
            yield from page.items
            after = page.next

    def capture_packets(
        self,
        name: str,
        *,
        filter: str | None = None,
        count: int | None = None,
        snaplen: int | None = None,
        duration: str | None = None,
    ) -> Iterator[bytes]:
        """Packets as they pass, as a pcapng file that grows until the request ends."""
        return self._bytes(
            f"/v1/applications/{quoted(name)}/capture",
            query={"filter": filter, "count": count, "snaplen": snaplen, "for": duration},
        )

    def read_metrics(self) -> str:
        """Gauges and counters of the server and of all running applications, for Prometheus."""
        return self._call("GET", "/metrics", str)

    def list_operations(
        self,
        *,
        state: Literal["running", "succeeded", "failed", "cancelled"] | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> Page[Operation]:
        """The newest first; the last thousand that are over are kept."""
        return self._call(
            "GET",
            "/v1/operations",
            Page[Operation],
            query={"state": state, "limit": limit, "after": after},
        )

    def each_operation(
        self,
        *,
        state: Literal["running", "succeeded", "failed", "cancelled"] | None = None,
        limit: int | None = None,
    ) -> Iterator[Operation]:
        """Those of `list_operations` one by one, page after page; `limit`: of each page."""
        after: str | None = ""
        while after is not None:
            page = self.list_operations(state=state, limit=limit, after=after)
            yield from page.items
            after = page.next

    def get_operation(self, identity: str, *, wait: float | None = None) -> Operation:
        """One operation; with `wait`, when it is over or the time is."""
        return self._call(
            "GET", f"/v1/operations/{quoted(identity)}", Operation, query={"wait": wait}
        )

    def cancel_operation(self, identity: str, *, idempotency_key: str | None = None) -> Operation:
        """Call it off: applications that do not run yet are removed where they are new, else
        stopped.

        What has been done stays done; ends that are under way go on (409 where there is
        nothing else).
        """
        return self._call(
            "POST",
            f"/v1/operations/{quoted(identity)}/cancel",
            Operation,
            headers={"Idempotency-Key": idempotency_key},
        )

    def list_secrets(self, *, limit: int | None = None, after: str | None = None) -> Page[Secret]:
        """All secrets by name, without their values, and which applications name them."""
        return self._call(
            "GET", "/v1/secrets", Page[Secret], query={"limit": limit, "after": after}
        )

    def each_secret(self, *, limit: int | None = None) -> Iterator[Secret]:
        """Those of `list_secrets` one by one, page after page; `limit`: of each page."""
        after: str | None = ""
        while after is not None:
            page = self.list_secrets(limit=limit, after=after)
            yield from page.items
            after = page.next

    def get_secret(self, name: str) -> Secret:
        """One secret, without its value."""
        return self._call("GET", f"/v1/secrets/{quoted(name)}", Secret)

    def put_secret(self, name: str, body: SecretSpec | Mapping[str, Any]) -> Secret:
        """Keep a value under this name, or another value in its place.

        Programs get it when they are created; those that have it as a file, at each start.
        """
        return self._call("PUT", f"/v1/secrets/{quoted(name)}", Secret, body=body)

    def delete_secret(self, name: str) -> None:
        """Forget a secret that no application names."""
        self._done("DELETE", f"/v1/secrets/{quoted(name)}")

    def create_token(
        self, body: TokenSpec | Mapping[str, Any], *, idempotency_key: str | None = None
    ) -> NewToken:
        """Make a token. `token` is in this answer only: it is kept as a hash."""
        return self._call(
            "POST", "/v1/tokens", NewToken, headers={"Idempotency-Key": idempotency_key}, body=body
        )

    def list_tokens(self, *, limit: int | None = None, after: str | None = None) -> Page[Token]:
        """All tokens by id, also revoked and expired ones, without their secrets."""
        return self._call("GET", "/v1/tokens", Page[Token], query={"limit": limit, "after": after})

    def each_token(self, *, limit: int | None = None) -> Iterator[Token]:
        """Those of `list_tokens` one by one, page after page; `limit`: of each page."""
        after: str | None = ""
        while after is not None:
            page = self.list_tokens(limit=limit, after=after)
            yield from page.items
            after = page.next

    def revoke_token(self, name: str) -> Token:
        """Refuse this token, named by id or name, from now on."""
        return self._call("DELETE", f"/v1/tokens/{quoted(name)}", Token)

    def get_session(self) -> Session:
        """Who this client is. 401 where a token is needed and none was given."""
        return self._call("GET", "/v1/session", Session)

    def login(
        self, body: SessionRequest | Mapping[str, Any], *, idempotency_key: str | None = None
    ) -> Session:
        """Keep a token in a cookie that scripts cannot read and other sites cannot use."""
        return self._call(
            "POST", "/v1/session", Session, headers={"Idempotency-Key": idempotency_key}, body=body
        )

    def logout(self) -> None:
        """Forget the cookie; the token stays valid."""
        self._done("DELETE", "/v1/session")

    def list_projects(
        self, *, limit: int | None = None, after: str | None = None
    ) -> Page[ProjectSpec]:
        """All projects, by name; `default` is always there."""
        return self._call(
            "GET", "/v1/projects", Page[ProjectSpec], query={"limit": limit, "after": after}
        )

    def each_project(self, *, limit: int | None = None) -> Iterator[ProjectSpec]:
        """Those of `list_projects` one by one, page after page; `limit`: of each page."""
        after: str | None = ""
        while after is not None:
            page = self.list_projects(limit=limit, after=after)
            yield from page.items
            after = page.next

    def get_project(self, name: str) -> ProjectSpec:
        """One project."""
        return self._call("GET", f"/v1/projects/{quoted(name)}", ProjectSpec)

    def replace_project(
        self,
        name: str,
        body: ProjectSpec | Mapping[str, Any],
        *,
        if_match: str | None = None,
        if_none_match: str | None = None,
    ) -> ProjectSpec:
        """Make or change a project. What runs already stays, even above a lowered quota."""
        return self._call(
            "PUT",
            f"/v1/projects/{quoted(name)}",
            ProjectSpec,
            headers={"if-match": if_match, "if-none-match": if_none_match},
            body=body,
        )

    def delete_project(self, name: str) -> None:
        """Remove a project that has neither applications nor tokens."""
        self._done("DELETE", f"/v1/projects/{quoted(name)}")

    def list_audit(self, *, after: int | None = None, limit: int | None = None) -> Page[AuditEntry]:
        """Who changed what, and who was refused; the latest, or those after an id."""
        return self._call(
            "GET", "/v1/audit", Page[AuditEntry], query={"after": after, "limit": limit}
        )

    def each_audit(self, *, limit: int | None = None) -> Iterator[AuditEntry]:
        """Those of `list_audit` one by one, page after page; `limit`: of each page."""
        after: str | None = "0"
        while after is not None:
            page = self.list_audit(limit=limit, after=int(after))
            yield from page.items
            after = page.next

    def list_all_faults(self, *, limit: int | None = None, after: str | None = None) -> Page[Fault]:
        """What holds now anywhere, by id; what each has done is told by the application's own
        list.
        """
        return self._call("GET", "/v1/faults", Page[Fault], query={"limit": limit, "after": after})

    def each_all_fault(self, *, limit: int | None = None) -> Iterator[Fault]:
        """Those of `list_all_faults` one by one, page after page; `limit`: of each page."""
        after: str | None = ""
        while after is not None:
            page = self.list_all_faults(limit=limit, after=after)
            yield from page.items
            after = page.next
