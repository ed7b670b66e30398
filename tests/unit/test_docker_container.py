"""What is asked of Docker, and how its answers are read: pure functions, no daemon."""

from __future__ import annotations

import io
import struct
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.application import ApplicationSpec
from app.domain.launch import BoundMount, Launch
from app.domain.network import NetworkBinding, NetworkSpec, mac_for
from app.domain.observed import State
from app.runtimes.docker import container, inspected, output
from app.runtimes.rundir import Bind, Memory, RunDirectory

ADDRESS = IPv4Address("10.210.0.7")
BINDING = NetworkBinding(network=NetworkSpec(name="default"), address=ADDRESS, mac=mac_for(ADDRESS))
DIRECTORY = RunDirectory(
    Path("/state/apps/web"),
    [
        Bind("/state/apps/web/run", "/run/cse", True),
        Bind("/state/apps/web/data", "/run/cse/data", False),
    ],
    [Memory("/run/cse/private")],
    {"LD_PRELOAD": "/run/cse/lib/network-lwip/libcse-net.so"},
    {"PASSWORD": "of a secret"},
)


def body(**spec: Any) -> dict[str, Any]:
    made = ApplicationSpec.model_validate(
        {"name": "web", "command": ["nginx", "-t"], "runtime": "docker", "image": "i", **spec}
    )
    mounts = [BoundMount(source="/a:b", target="/srv/a", read_only=True)]
    launch = Launch(id="one", spec=made, elements=[], network=BINDING, mounts=mounts)
    return container.body(launch, DIRECTORY, "here", (33, 34))


def test_the_request_gives_nothing_away() -> None:
    host = body()["HostConfig"]
    assert host["NetworkMode"] == "none"
    assert host["CapDrop"] == ["ALL"] and "CapAdd" not in host and "Privileged" not in host
    assert host["SecurityOpt"] == ["no-new-privileges"]


def test_the_environment_is_what_was_given_and_what_the_libraries_need() -> None:
    assert body(environment={"PASSWORD": {"secret": "db"}})["Env"] == [
        "PASSWORD=of a secret",
        "LD_PRELOAD=/run/cse/lib/network-lwip/libcse-net.so",
    ]


def test_both_entry_point_and_command_are_ours_and_marks_cannot_be_forged() -> None:
    asked = body(labels={"cse.installation": "theirs", "tier": "web"})
    assert asked["Entrypoint"] == ["nginx"] and asked["Cmd"] == ["-t"]
    assert asked["Labels"][container.INSTALLATION_LABEL] == "here"
    assert asked["Labels"]["cse.label.tier"] == "web"


def test_paths_are_mounts_so_that_colons_are_ordinary_and_nothing_is_made_on_the_host() -> None:
    host = body(tmpfs=["/scratch"])["HostConfig"]
    assert "Binds" not in host
    assert host["Mounts"][0] == {
        "Type": "bind",
        "Source": "/a:b",
        "Target": "/srv/a",
        "ReadOnly": True,
    }
    assert [one["ReadOnly"] for one in host["Mounts"]] == [True, True, False]
    assert set(host["Tmpfs"]) == {"/scratch", "/run/cse/private"}
    assert host["Tmpfs"]["/scratch"].endswith("uid=33,gid=34")


@pytest.mark.parametrize(
    ("rule", "asked"),
    [
        ("no", {"Name": "no"}),
        ("always", {"Name": "unless-stopped"}),
        ("on-failure", {"Name": "on-failure", "MaximumRetryCount": 0}),
        ("on-failure:4", {"Name": "on-failure", "MaximumRetryCount": 4}),
    ],
)
def test_restart_is_dockers_own_policy(rule: str, asked: dict[str, Any]) -> None:
    assert body(restart=rule)["HostConfig"]["RestartPolicy"] == asked


def test_stop_rule_is_kept_by_docker() -> None:
    asked = body(stop={"signal": "SIGQUIT", "grace": 2.5})
    assert (asked["StopSignal"], asked["StopTimeout"]) == ("SIGQUIT", 3)


def frame(stream: int, stamp: str, text: bytes) -> bytes:
    payload = stamp.encode() + b" " + text
    return struct.pack(">BxxxL", stream, len(payload)) + payload


def test_cut_lines_are_put_together_for_each_stream() -> None:
    first, second = "2026-01-02T03:04:05.000000006Z", "2026-01-02T03:04:06Z"
    data = (
        frame(1, first, b"lo")
        + frame(2, second, b"err\n")
        + frame(1, second, b"ng\n")
        + frame(1, second, b"no newline")
    )
    lines = [line for _, line in output.log_lines(io.BytesIO(data).read)]
    assert [(line.stream, line.text) for line in lines] == [
        ("stderr", "err"),
        ("stdout", "long"),
        ("stdout", "no newline"),
    ]
    assert lines[1].time == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@given(st.binary(max_size=200))
def test_frames_of_a_broken_stream_end(data: bytes) -> None:
    for stream, payload in output.frames(io.BytesIO(data).read):
        assert stream in ("stdout", "stderr") and len(payload) <= len(data)


@given(st.integers(0, 2**32), st.integers(0, 10**9 - 1))
def test_after_is_one_nanosecond_later(seconds: int, nanoseconds: int) -> None:
    moment = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    later = output.after(f"{moment}.{nanoseconds:09d}Z")
    total = int(later.split(".")[0]) * 10**9 + int(later.split(".")[1])
    assert total == seconds * 10**9 + nanoseconds + 1


def answer(**state: Any) -> dict[str, Any]:
    labels = {container.ID_LABEL: "one", container.NAME_LABEL: "web"}
    base = {"Status": "exited", "Running": False, "ExitCode": 0, "Error": "", "Pid": 0}
    times = {"StartedAt": "0001-01-01T00:00:00Z", "FinishedAt": "0001-01-01T00:00:00Z"}
    return {"Config": {"Labels": labels}, "State": {**base, **times, **state}, "RestartCount": 2}


def test_a_container_that_docker_could_not_start_has_failed() -> None:
    seen = inspected.observed(answer(Status="created", ExitCode=127, Error="no such directory"))
    assert (seen.state, seen.reason, seen.exit_code) == (
        State.FAILED,
        "no such directory",
        None,
    )
    assert seen.started_at is None


def test_restarting_is_neither_over_nor_running() -> None:
    answered = answer(Status="restarting", Running=True, Restarting=True, ExitCode=3)
    assert not inspected.over(answered)
    seen = inspected.observed(answered)
    assert (seen.state, seen.exit_code, seen.restarts) == (State.RESTARTING, 3, 2)
