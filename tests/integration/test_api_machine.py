"""The API against a model: whatever is asked in whatever order, answers and state are the model's.

A Hypothesis state machine makes, changes, stops, removes and makes again; with right, stale and no
versions, with keys that repeat, across restarts of the control plane. Over the fake host, and with
real programs over the namespace runtime. `CSE_MACHINE_EXAMPLES=500` for a long run by hand.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings, strategies
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from app.agent.fake import FakeAgent
from app.agent.local import LocalAgent
from tests.integration.planes import Plane

NAMES = strategies.sampled_from(["a", "b", "c"])
MEMBERS = strategies.sets(strategies.sampled_from(["s1", "s2"]))
PRIORITIES = strategies.integers(0, 2)
VOLUMES = strategies.sampled_from(["v", "w"])
TAGS = strategies.sampled_from(["right", "stale", "none", "any"])
KEYS = strategies.sampled_from(["k1", "k2"])


@dataclass
class Modelled:
    """What one application should be."""

    spec: dict[str, Any]
    state: str = "running"
    etag: str = ""
    old: str = '"0.0"'
    faults: set[str] = field(default_factory=set)
    stack: str | None = None


class Machine(RuleBasedStateMachine):
    """One control plane, and what it should know."""

    command: ClassVar[list[str]] = ["nginx"]
    networked: ClassVar[dict[str, Any]] = {"net-a": {}}

    @staticmethod
    def agent(home: Path) -> Any:
        return FakeAgent()

    @initialize()
    def begin(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="cse-machine-"))
        self.home.chmod(0o755)
        self.host = self.agent(self.home / "state")
        self.plane = Plane(self.home, self.host)
        self.apps: dict[str, Modelled] = {}
        self.volumes: dict[str, dict[str, str]] = {}
        self.networks: set[str] = set()
        self.tokens: dict[str, str] = {}
        self.keys: dict[str, tuple[Any, Any]] = {}

    def teardown(self) -> None:
        if not hasattr(self, "plane"):
            return
        for name in self.apps:
            self.plane.http.delete(f"/v1/applications/{name}")
        self.plane.stop()
        if isinstance(self.host, LocalAgent):
            self.host.close()
        shutil.rmtree(self.home, ignore_errors=True)

    def ask(self, method: str, path: str, status: int, body: Any = None, **headers: str) -> Any:
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        answer = self.plane.http.request(method, f"/v1/{path}", json=body, headers=named)
        assert answer.status_code == status, f"{method} {path}: {answer.text}"
        return answer

    def spec(self, name: str, priority: int, volume: str | None = None) -> dict[str, Any]:
        mounts = [{"path": "/srv", "volume": volume}] if volume else []
        whole = {"name": name, "command": self.command, "priority": priority, "mounts": mounts}
        return {**whole, "elements": self.networked, "stop": {"grace": 0.2}}

    def learn(self, name: str, spec: dict[str, Any], state: str = "running") -> None:
        """What has just been made or changed, with its new version."""
        answer = self.ask("GET", f"applications/{name}?wait=10", 200)
        before = self.apps.get(name)
        old = before.etag if before else '"0.0"'
        faults = before.faults if before else set()
        self.apps[name] = Modelled(spec, state, answer.headers["etag"], old, faults)

    # ---- applications ------------------------------------------------------------------------

    @rule(name=NAMES, priority=PRIORITIES, volume=VOLUMES | strategies.none())
    def create(self, name: str, priority: int, volume: str | None) -> None:
        spec = self.spec(name, priority, volume)
        if volume is not None and volume not in self.volumes:
            self.ask("POST", "applications", 422, spec)
        elif name in self.apps:
            self.ask("POST", "applications", 409, spec)
        else:
            self.ask("POST", "applications", 201, spec)
            self.learn(name, spec)

    @rule(name=NAMES, priority=PRIORITIES, key=KEYS)
    def create_with_a_key(self, name: str, priority: int, key: str) -> None:
        spec = self.spec(name, priority)
        if key in self.keys:
            request, first = self.keys[key]
            again = self.plane.http.post(
                "/v1/applications", json=spec, headers={"Idempotency-Key": key}
            )
            if request == spec:
                assert (again.status_code, again.text) == first
                assert again.headers["idempotency-replayed"] == "true"
            else:
                assert again.status_code == 422, again.text
            return
        status = 409 if name in self.apps else 201
        answer = self.ask("POST", "applications", status, spec, Idempotency_Key=key)
        self.keys[key] = (spec, (status, answer.text))
        if status == 201:
            self.learn(name, spec)

    @rule(name=NAMES, priority=PRIORITIES, tag=TAGS)
    def replace(self, name: str, priority: int, tag: str) -> None:
        spec, known = self.spec(name, priority), self.apps.get(name)
        tags = {"right": known.etag if known else "x", "stale": known.old if known else "x"}
        tags |= {"any": "*"}
        headers = {"If_Match": tags[tag]} if tag != "none" else {}
        if known is None:
            expected = 201 if tag == "none" else 412
        elif tag == "stale":
            expected = 412
        else:
            expected = 200 if known.spec == spec or tag != "none" else 428
        self.ask("PUT", f"applications/{name}", expected, spec, **headers)
        if expected == 201:
            self.learn(name, spec)
        elif expected == 200 and known is not None and known.spec != spec:
            is_stopped = known.state == "stopped"
            self.learn(name, spec, self.after_change(known, spec) if is_stopped else "running")

    @staticmethod
    def after_change(known: Modelled, spec: dict[str, Any]) -> str:
        """A replacement is started; a change that no program notices leaves it stopped."""
        return "running" if known.spec["mounts"] != spec["mounts"] else "stopped"

    @rule(name=NAMES, stale=strategies.booleans())
    def delete(self, name: str, stale: bool) -> None:
        known = self.apps.get(name)
        if known is None:
            self.ask("DELETE", f"applications/{name}", 404)
        elif stale:
            self.ask("DELETE", f"applications/{name}", 412, If_Match=known.old)
        else:
            self.ask("DELETE", f"applications/{name}", 204, If_Match=known.etag)
            del self.apps[name]

    @rule(name=NAMES, verb=strategies.sampled_from(["start", "stop", "restart"]))
    def turn(self, name: str, verb: str) -> None:
        known = self.apps.get(name)
        self.ask("POST", f"applications/{name}/{verb}", 200 if known else 404)
        if known:
            self.learn(name, known.spec, "stopped" if verb == "stop" else "running")

    # ---- what applications are made of, and what befalls them ----------------------------------

    @rule(name=VOLUMES, tier=strategies.sampled_from(["x", "y"]), tag=TAGS)
    def put_volume(self, name: str, tier: str, tag: str) -> None:
        body = {"name": name, "labels": {"tier": tier}}
        known = self.volumes.get(name)
        right = self.plane.http.get(f"/v1/volumes/{name}").headers.get("etag", '"x"')
        headers = {"right": right, "stale": '"stale"', "any": "*"}
        given = {"If_Match": headers[tag]} if tag != "none" else {}
        if tag == "stale" or (known is None and tag != "none"):
            expected = 412
        elif known not in (None, body["labels"]) and tag == "none":
            expected = 428
        else:
            expected = 200
            self.volumes[name] = {"tier": tier}
        self.ask("PUT", f"volumes/{name}", expected, body, **given)

    @rule(name=VOLUMES)
    def delete_volume(self, name: str) -> None:
        mounted = any(
            mount["volume"] == name for app in self.apps.values() for mount in app.spec["mounts"]
        )
        self.ask(
            "DELETE",
            f"volumes/{name}",
            404 if name not in self.volumes else 409 if mounted else 204,
        )
        if not mounted:
            self.volumes.pop(name, None)

    @rule(name=strategies.sampled_from(["n", "m"]))
    def make_or_remove_a_network(self, name: str) -> None:
        subnet = {"n": "10.231.4.0/24", "m": "10.231.5.0/24"}[name]
        if name in self.networks:
            self.ask("POST", "networks", 409, {"name": name, "subnet": subnet})
            self.ask("DELETE", f"networks/{name}", 204)
            self.networks.discard(name)
        else:
            self.ask("DELETE", f"networks/{name}", 404)
            self.ask("POST", "networks", 201, {"name": name, "subnet": subnet})
            self.networks.add(name)

    @precondition(lambda self: self.networked)
    @rule(name=NAMES, loss=strategies.integers(1, 100))
    def add_a_fault(self, name: str, loss: int) -> None:
        known = self.apps.get(name)
        status = 201 if known else 404
        made = self.ask("POST", f"applications/{name}/faults", status, {"loss": loss})
        if known:
            known.faults.add(made.json()["id"])

    @rule(name=NAMES)
    def end_the_faults(self, name: str) -> None:
        known = self.apps.get(name)
        for fault in sorted(known.faults) if known else ["f-none"]:
            path = f"applications/{name}/faults/{fault}"
            self.ask("DELETE", path, 204 if known else 404)
            self.ask("DELETE", path, 404)
        if known:
            known.faults.clear()

    # ---- stacks, tokens, restarts ---------------------------------------------------------------

    @rule(members=MEMBERS, priority=PRIORITIES, prune=strategies.booleans())
    def apply_a_stack(self, members: set[str], priority: int, prune: bool) -> None:
        specs = {name: self.spec(name, priority) for name in sorted(members)}
        body = {"name": "s", "applications": specs}
        found = self.plane.http.put(f"/v1/stacks/s?prune={prune}", json=body)
        assert found.status_code in (200, 202), found.text
        if operation := found.json().get("operation"):
            over = self.ask("GET", f"operations/{operation}?wait=20", 200).json()
            assert over["state"] == "succeeded", over
        for name in [name for name in self.apps if name.startswith("s")]:
            if prune and name not in members:
                self.gone(name)
        for name, spec in specs.items():
            known = self.apps.get(name)
            stays = known is not None and known.state == "stopped"
            self.learn(name, spec, "stopped" if stays else "running")

    def gone(self, name: str) -> None:
        self.ask("GET", f"applications/{name}", 404)
        del self.apps[name]

    @rule()
    def delete_the_stack(self) -> None:
        members = sorted(name for name in self.apps if name.startswith("s"))
        found = self.ask("DELETE", "stacks/s", 202).json()
        assert sorted(change["name"] for change in found["changes"]) == members
        if members:
            over = self.ask("GET", f"operations/{found['operation']}?wait=20", 200).json()
            assert over["state"] == "succeeded", over
        for name in members:
            self.gone(name)

    @rule(name=strategies.sampled_from(["t", "u"]))
    def make_use_and_revoke_a_token(self, name: str) -> None:
        if known := self.tokens.pop(name, None):
            self.ask("POST", "tokens", 409, {"name": name})
            self.ask("DELETE", f"tokens/{name}", 200)
            self.ask("GET", "applications", 401, Authorization=known)
            return
        token = self.ask("POST", "tokens", 201, {"name": name, "scope": "read"}).json()["token"]
        self.tokens[name] = bearer = f"Bearer {token}"
        self.ask("GET", "applications", 200, Authorization=bearer)
        self.ask("DELETE", "volumes/v", 403, Authorization=bearer)

    @rule()
    def the_control_plane_restarts(self) -> None:
        self.plane.stop()
        self.plane = Plane(self.home, self.host)
        for name in self.apps:
            self.ask("GET", f"applications/{name}?wait=10", 200)

    @invariant()
    def everything_is_as_the_model_says(self) -> None:
        if not hasattr(self, "plane"):
            return
        listed = self.ask("GET", "applications", 200).json()["items"]
        shown = {
            item["name"]: (item["status"]["state"], item["spec"]["priority"]) for item in listed
        }
        assert shown == {n: (app.state, app.spec["priority"]) for n, app in self.apps.items()}
        for name, app in self.apps.items():
            assert self.ask("GET", f"applications/{name}", 200).headers["etag"] == app.etag
            faults = self.ask("GET", f"applications/{name}/faults", 200).json()["items"]
            assert {fault["id"] for fault in faults} == app.faults
        volumes = self.ask("GET", "volumes", 200).json()["items"]
        assert {one["name"]: one["labels"] for one in volumes} == self.volumes
        networks = self.ask("GET", "networks", 200).json()["items"]
        assert {one["name"] for one in networks} == self.networks | {"default"}
        there = {one.name: str(one.state) for one in self.host.observe()}
        assert set(there) == set(self.apps), "on the host is what is in the store"
        events = [one["id"] for one in self.ask("GET", "events?limit=1000", 200).json()["items"]]
        assert events == sorted(set(events))


class RealMachine(Machine):
    """The same with real programs, each a `sleep` of its own."""

    command: ClassVar[list[str]] = ["sleep", "1000"]
    networked: ClassVar[dict[str, Any]] = {}

    @staticmethod
    def agent(home: Path) -> Any:
        return LocalAgent(home)

    make_or_remove_a_network = None  # type: ignore[assignment] # bridges have tests of their own


def run(machine: type[Machine], examples: int, steps: int) -> None:
    wanted = int(os.environ.get("CSE_MACHINE_EXAMPLES", "0"))
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=wanted or examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=not wanted,
            database=None,
            suppress_health_check=list(HealthCheck),
            # Shrinking takes minutes; a failure is found again, and shrunk, by hand.
            phases=list(Phase) if wanted else [Phase.generate],
        ),
    )


def test_the_fake_host_is_as_the_model() -> None:
    run(Machine, 5, 20)


@pytest.mark.native
@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_real_programs_are_as_the_model() -> None:
    run(RealMachine, 2, 20)
