"""Compose and containerlab files as stacks, and stacks as Compose files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from app.convert.compose import from_compose
from app.convert.containerlab import from_containerlab
from app.convert.converted import Converted
from app.convert.export import to_compose
from app.convert.surroundings import Choices, ImageCommand
from app.domain.explain import InvalidFields
from app.domain.stack import Stack, StackFile

IMAGES = {"nginx": ImageCommand(["/entry.sh"], ["nginx"])}
CHOICES = Choices(Path("/project"), images=IMAGES.get)


def compose(text: str) -> Converted:
    found = from_compose(yaml.safe_load(text), CHOICES)
    StackFile.model_validate(found.document)
    return found


def service(text: str, rest: str = "") -> dict[str, Any]:
    """The application that this service becomes."""
    indented = "".join(f"    {line}\n" for line in text.strip().splitlines())
    found = compose(f"name: shop\nservices:\n  web:\n{indented}{rest}")
    made: dict[str, Any] = found.document["applications"]["web"]
    return made


def notes(found: Converted) -> dict[str, str]:
    return {note.pointer: note.detail for note in found.notes}


def refused(text: str) -> dict[str, str]:
    with pytest.raises(InvalidFields) as caught:
        compose(text)
    return {error.pointer: str(error.remedy) for error in caught.value.errors}


def test_two_labels_give_a_service_its_elements_and_any_other_field() -> None:
    made = service(
        """
image: nginx
labels:
  cse.elements: network-lwip, clock-faketime
  cse.spec: "{priority: 5, elements: {clock-faketime: {settings: {offset: -30d}}}}"
  tier: front
"""
    )
    clock = {"settings": {"offset": "-30d"}}
    assert made["elements"] == {"network-lwip": {}, "clock-faketime": clock}
    assert made["priority"] == 5
    assert made["labels"] == {"tier": "front"}
    assert "fallback" not in made


def test_a_service_without_labels_gets_the_elements_that_the_caller_names() -> None:
    made = service("image: nginx")
    assert made["elements"] == {"network-lwip": {}}
    assert made["fallback"] == "kernel"


def test_an_unknown_label_of_ours_is_refused() -> None:
    found = refused("services: {web: {image: nginx, labels: [cse.element=network-lwip]}}")
    assert found == {"/services/web/labels/cse.element": "did you mean 'cse.elements'?"}


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ("image: nginx", ["/entry.sh", "nginx"]),
        (
            "image: nginx\ncommand: nginx -g 'daemon off;'",
            ["/entry.sh", "nginx", "-g", "daemon off;"],
        ),
        ("image: nginx\nentrypoint: [sh]", ["sh"]),
        ("image: other\ncommand: [a, $$B]", ["a", "$B"]),
    ],
)
def test_command_and_entry_point_as_compose_has_them(words: str, command: list[str]) -> None:
    assert service(words)["command"] == command


def test_without_a_command_an_unknown_image_is_refused_with_the_remedy() -> None:
    found = refused("services: {web: {image: other}}")
    assert found == {"/services/web/command": "add 'command', or: docker pull other"}


def test_variables_that_nobody_filled_in_are_refused() -> None:
    found = refused("services: {web: {image: nginx, environment: {A: '${B}'}}}")
    assert list(found) == ["/services/web/environment/A"]


def test_ports_in_all_forms() -> None:
    found = compose(
        """
services:
  web:
    image: nginx
    ports:
      - "8080:80"
      - "127.0.0.1:8443:443"
      - "9000-9001:9100-9101/udp"
      - {target: 53, published: "5353", protocol: udp, mode: host}
      - "7"
      - "[::1]:8:8"
"""
    )
    assert found.document["applications"]["web"]["ports"] == [
        "8080:80",
        "127.0.0.1:8443:443",
        "9000:9100/udp",
        "9001:9101/udp",
        "5353:53/udp",
    ]
    assert list(notes(found)) == ["/services/web/ports/4", "/services/web/ports/5"]


def test_binds_volumes_secrets_and_memory() -> None:
    made = service(
        """
image: nginx
volumes: ["./html:/srv:ro", "data:/data", "/scratch", {type: tmpfs, target: /fast}]
tmpfs: /run/x:size=1m
secrets: [key]
""",
        "volumes: {data: }\nsecrets: {key: {file: key.txt}}\n",
    )
    assert made["mounts"] == [
        {"path": "/srv", "from": "/project/html"},
        {"path": "/data", "volume": "shop-data", "read_only": False},
        {"path": "/run/secrets/key", "from": "/project/key.txt"},
    ]
    assert made["tmpfs"] == ["/run/x", "/scratch", "/fast"]


def test_limits_stop_restart_health_and_order() -> None:
    found = compose(
        """
services:
  web:
    image: nginx
    depends_on: {db_1: {condition: service_healthy}}
    restart: unless-stopped
    deploy: {resources: {limits: {cpus: "0.5", memory: 64M, pids: 10}}, replicas: 2}
    stop_signal: INT
    stop_grace_period: 1m30s
  db_1:
    image: nginx
    restart: on-failure:3
    healthcheck: {test: pg_isready, interval: 1m, retries: 4}
"""
    )
    web, db = found.document["applications"]["web"], found.document["applications"]["db-1"]
    assert web["limits"] == {"cpus": 0.5, "memory": "64M", "pids": 10}
    assert web["depends_on"] == ["db-1:healthy"]
    assert (web["restart"], web["replicas"]) == ("always", 2)
    assert web["stop"] == {"signal": "SIGINT", "grace": "90s"}
    assert db["restart"] == "on-failure:3"
    assert db["health"]["command"] == ["/bin/sh", "-c", "pg_isready"]
    assert (db["health"]["interval"], db["health"]["retries"]) == ("60s", 4)
    assert "/services/db_1" in notes(found)


def test_networks_with_common_members_become_one_whose_policy_keeps_who_may_talk() -> None:
    found = compose(
        """
name: shop
services:
  web: {image: nginx, networks: [front]}
  api: {image: nginx, networks: {front: , back: {aliases: [backend]}}}
  db: {image: nginx, networks: [back]}
  alone: {image: nginx}
networks:
  front: {}
  back: {internal: true, ipam: {config: [{subnet: 172.30.0.0/24}]}}
"""
    )
    assert found.document["networks"] == {
        "shop-front": {
            "subnet": "172.30.0.0/24",
            "policy": {"default": "deny", "allow": [["web", "api"], ["api", "db"]]},
        }
    }
    applications = found.document["applications"]
    assert applications["api"]["network"] == {"name": "shop-front", "aliases": ["backend"]}
    assert "network" not in applications["alone"]


def test_what_cannot_be_carried_over_is_named() -> None:
    found = compose("services: {web: {image: nginx, privileged: true, ulimits: {nofile: 1}}}")
    assert notes(found) == {
        "/services/web/privileged": "left out: applications have no capabilities",
        "/services/web/ulimits": "left out: CSE has nothing like it",
    }


LAB = """
name: lab
topology:
  defaults: {kind: linux}
  kinds: {linux: {image: nginx, cmd: sleep 9, env: {X: "1"}}}
  nodes:
    a: {exec: ["ip link"], env: {Y: "2"}}
    b: {binds: ["f:/f:ro"]}
    c:
    br: {kind: bridge}
    d:
    e:
  links:
    - endpoints: ["a:eth1", "b:eth1"]
    - endpoints: ["b:eth2", "c:eth1"]
    - endpoints: ["d:eth1", "br:e1"]
    - endpoints: [{node: e, interface: eth1}, {node: br, interface: e2}]
"""


def test_links_of_a_lab_become_networks_with_policies() -> None:
    found = from_containerlab(yaml.safe_load(LAB), CHOICES)
    StackFile.model_validate(found.document)
    assert found.document["networks"] == {
        "lab-1": {
            "subnet": "10.211.0.0/16",
            "policy": {"default": "deny", "allow": [["a", "b"], ["b", "c"]]},
        },
        "lab-2": {"subnet": "10.212.0.0/16"},
    }
    applications = found.document["applications"]
    assert applications["a"]["environment"] == {"X": "1", "Y": "2"}
    assert applications["a"]["command"] == ["/entry.sh", "sleep", "9"]
    assert applications["b"]["mounts"] == [{"path": "/f", "from": "/project/f"}]
    assert applications["e"]["network"] == {"name": "lab-2"}
    assert "/topology/nodes/a/exec" in notes(found)


def test_a_router_is_refused_where_it_stands() -> None:
    lab = {"topology": {"nodes": {"r": {"kind": "nokia_srlinux", "image": "srl"}}}}
    with pytest.raises(InvalidFields) as caught:
        from_containerlab(lab, CHOICES)
    assert caught.value.errors[0].pointer == "/topology/nodes/r/kind"


def test_notes_of_a_node_point_to_its_own_fields() -> None:
    lab = {"topology": {"nodes": {"r": {"kind": "linux", "image": "x"}}}}
    with pytest.raises(InvalidFields) as caught:
        from_containerlab(lab, CHOICES)
    assert caught.value.errors[0].pointer == "/topology/nodes/r/cmd"


WHOLE = """
name: whole
networks:
  own: {subnet: 10.99.0.0/24, nat: false, mtu: 1500, policy: {default: deny, allow: [[web, db]]}}
volumes: {data: }
applications:
  web:
    command: [sh, -c, "echo $HOME"]
    runtime: docker
    image: nginx
    elements:
      network-lwip:
      filesystem: {settings: {mounts: [{path: /srv, source: archive, from: /a.zip}]}}
    network: {name: own, address: 10.99.0.7, aliases: [www]}
    ports: ["8080:80", "127.0.0.1:53:53/udp"]
    environment: {A: "1"}
    working_directory: /srv
    user: www-data
    mounts: [{path: /e, from: /etc}, {path: /d, volume: data, read_only: false}]
    tmpfs: [/fast]
    limits: {memory: 64M, cpus: 0.5, pids: 9}
    restart: on-failure:3
    stop: {signal: SIGQUIT, grace: 3s}
    depends_on: [db:healthy, job:completed]
    priority: 7
    labels: {tier: front}
  db:
    command: [redis-server]
    image: nginx
    elements: {network-lwip: }
    network: {name: own}
    health: {tcp: {port: 6379}, interval: 5s}
    restart: {policy: always, delay: 2s}
  job:
    command: ["true"]
    runtime: docker
    image: nginx
    network: {address: 10.210.0.9}
    health: {command: [test, -e, /ok]}
faults:
  slow: {application: web, delay: 20ms}
"""


def test_an_exported_stack_is_read_back_as_it_was() -> None:
    stack = Stack.model_validate(yaml.safe_load(WHOLE))
    exported = to_compose(stack).document
    again = from_compose(yaml.safe_load(yaml.safe_dump(exported)), CHOICES)
    assert Stack.model_validate(again.document) == stack
    assert not again.notes


def test_an_exported_stack_waits_for_health_only_where_compose_can_ask() -> None:
    exported = to_compose(Stack.model_validate(yaml.safe_load(WHOLE))).document
    waits = exported["services"]["web"]["depends_on"]
    assert waits["db"] == {"condition": "service_started"}
    assert waits["job"] == {"condition": "service_completed_successfully"}


def test_export_asks_for_an_image_where_there_is_none() -> None:
    stack = Stack.model_validate({"applications": {"web": {"command": ["nginx"]}}})
    with pytest.raises(InvalidFields) as caught:
        to_compose(stack)
    assert caught.value.errors[0].pointer == "/applications/web/image"
    assert to_compose(stack, "nginx").document["services"]["web"]["image"] == "nginx"
