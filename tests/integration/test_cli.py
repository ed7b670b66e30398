"""The command line against a real server on loopback, over the fake agent."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.agent.fake import FakeAgent
from app.cli.root import run
from app.domain.errors import HostLacks
from tests.integration.planes import served, until

STACK = """\
name: demo
volumes: {data: }
applications:
  web:
    command: [nginx]
    elements: {net-a: {settings: {mss: 1200}}}
    ports: ["8081:80"]
  job:
    command: [sh, -c, "echo out; echo err >&2; exit 0"]
    depends_on: [web]
    mounts: [{volume: data, path: /data}]
"""

Cse = Callable[..., tuple[int, str, str]]


@pytest.fixture
def agent() -> FakeAgent:
    return FakeAgent()


@pytest.fixture
def url(tmp_path: Path, agent: FakeAgent) -> Iterator[str]:
    with served(tmp_path / "plane", agent) as address:
        yield address


@pytest.fixture
def cse(url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cse:
    """Run a command line; status, standard output, standard error."""
    monkeypatch.setenv("CSE_API", url)

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cse", *words])
        status = run()
        output = capsys.readouterr()
        return status, output.out, output.err

    return call


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    path = tmp_path / "stack.yaml"
    path.write_text(STACK)
    return path


def test_from_apply_to_rm(cse: Cse, stack: Path, agent: FakeAgent) -> None:
    status, out, err = cse("apply", "-f", str(stack))
    assert (status, err) == (0, "")
    assert "application web: created, running  10.210.0.2  http://127.0.0.1:8081/" in out

    status, out, _ = cse("ps")
    assert [line.split()[0] for line in out.splitlines()] == ["NAME", "job", "web"]
    assert "0.0.0.0:8081→80/tcp" in out and "exited (0)" in out
    listed = json.loads(cse("ps", "--json")[1])
    assert [item["name"] for item in listed] == ["job", "web"]

    assert cse("logs", "job") == (0, "out\n", "err\n")
    assert cse("logs", "-f", "--tail", "1", "job")[1:] == ("", "err\n")
    assert cse("exec", "web", "--", "sh", "-c", "echo x; exit 7") == (7, "x\n", "")
    assert cse("exec", "job", "--", "true")[0] == 125

    assert cse("apply", "-f", str(stack))[1].count("unchanged") == 3
    assert "web: stopped (143)" in cse("stop", "web")[1]
    assert "web: running" in cse("start", "web")[1]
    assert "web: running" in cse("restart", "web")[1]
    assert "net-a" in cse("instances")[1]
    assert "library" in cse("evidence", "web")[1]
    assert "started" in cse("events")[1]
    assert cse("volumes", "rm", "data")[0] == 5
    status, out, _ = cse("rm", "-f", str(stack))
    assert status == 0 and out.count("removed") == 2
    assert agent.observe() == []
    assert cse("rm", "-f", str(stack))[0] == 0
    assert cse("volumes", "rm", "data")[0] == 0


def test_faults_of_a_file_name_line_field_and_remedy(
    cse: Cse, stack: Path, agent: FakeAgent
) -> None:
    stack.write_text(STACK.replace("mss: 1200", "mms: 1200").replace("nginx", "ngins"))
    status, out, err = cse("apply", "-f", str(stack))
    assert (status, out) == (2, "")
    assert f"{stack}:6: /applications/web/elements/net-a/settings/mms: " in err
    assert "→ did you mean 'mss'?" in err
    stack.write_text(STACK.replace("ports:", "port:"))
    assert (
        f"{stack}:7: /applications/web/port: 'port' is not a field here"
        in cse("apply", "-f", str(stack))[2]
    )
    assert cse("ps", "--json")[1] == "[]\n"
    assert agent.volumes == set()


def test_what_cannot_be_started_is_told(cse: Cse, stack: Path, agent: FakeAgent) -> None:
    agent.failures["start"] = [HostLacks("no memory left", remedy="buy some")]
    stack.write_text("name: nap\ncommand: [sleep, '60']\n")
    status, out, _ = cse("apply", "-f", str(stack))
    assert status == 1
    assert "nap: created, failed" in out and "no memory left" in out and "→ buy some" in out
    assert cse("rm", "nap")[0] == 0


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["logs", "nobody"], 3, "there is no application 'nobody'"),
        (["rm", "nobody"], 3, "nobody"),
        (["stop", "nobody"], 3, "nobody"),
        (["elements", "net-q"], 3, "did you mean"),
        (["rm"], 2, "nothing to remove"),
        (["apply", "-f", "/no/such/file"], 2, "No such file"),
        (["ps", "--bogus"], 2, "--bogus"),
        (["bogus"], 2, "bogus"),
        (["--api", "http://127.0.0.1:1", "ps"], 4, "cse serve"),
        (["networks", "create", "x", "--subnet", "10.210.8.0/24"], 5, "overlaps"),
        (["networks", "rm", "default"], 2, "always exists"),
    ],
)
def test_exit_statuses(cse: Cse, words: list[str], status: int, said: str) -> None:
    got, _, err = cse(*words)
    assert got == status
    assert said in err
    assert "Traceback" not in err


def test_elements_networks_and_version(cse: Cse) -> None:
    assert "net-a" in cse("elements")[1]
    _, out, _ = cse("elements", "net-a")
    assert "mss" in out and "1460" in out
    assert cse("networks", "create", "n", "--subnet", "10.9.0.0/24")[0] == 0
    assert "10.9.0.0/24" in cse("networks")[1]
    assert cse("networks", "rm", "n")[0] == 0
    assert cse("version")[1].startswith("cse ")
    assert cse("--version")[1] == cse("version")[1]
    assert cse("doctor")[0] == 0


def test_following_logs_and_events_as_they_come(
    url: str, cse: Cse, agent: FakeAgent, stack: Path
) -> None:
    stack.write_text("name: slow\ncommand: [sh, -c, 'echo first; sleep 60']\n")
    assert cse("apply", "-f", str(stack))[0] == 0
    command = [sys.executable, "-c", "from app.cli import main; main()", "--api", url]
    follower = subprocess.Popen([*command, "logs", "-f", "slow"], stdout=subprocess.PIPE, text=True)
    assert follower.stdout is not None
    assert follower.stdout.readline() == "first\n"
    cse("stop", "slow")
    assert follower.wait(10) == 0


def test_hundred_followers_do_not_stop_the_server(url: str, cse: Cse, stack: Path) -> None:
    stack.write_text("name: quiet\ncommand: [sleep, '60']\n")
    cse("apply", "-f", str(stack))
    host, port = url.removeprefix("http://").split(":")
    sockets = [socket.create_connection((host, int(port))) for _ in range(120)]
    for one in sockets:
        path = "/v1/applications/quiet/logs?follow=true"
        one.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    began = time.monotonic()
    assert cse("ps")[0] == 0
    assert time.monotonic() - began < 5
    for one in sockets:
        one.close()
    cse("rm", "quiet")
    until(lambda: not [t for t in threading.enumerate() if t.name == "follow"])


def test_plan_apply_diff_destroy(cse: Cse, stack: Path, tmp_path: Path) -> None:
    file = str(stack)
    status, out, _ = cse("plan", "-f", file)
    assert status == 0 and "+ application web: create" in out
    version = out.split("version ")[1].split()[0]
    assert cse("apply", "-f", file, "--plan", version)[0] == 0
    assert cse("diff", "-f", file) == (0, "", "")

    other = tmp_path / "other.yaml"
    other.write_text(STACK.replace("1200", "1300").replace("echo out", "echo more"))
    status, out, _ = cse("plan", "-f", str(other))
    assert "~ application web: recreate" in out
    assert "/elements/net-a/settings/mss: 1200 → 1300  [recreate]" in out
    assert "disrupts job" in out
    status, out, _ = cse("diff", "-f", str(other))
    assert status == 1
    assert "-/elements/net-a/settings/mss: 1200" in out
    assert "+/elements/net-a/settings/mss: 1300" in out
    status, _, err = cse("apply", "-f", str(other), "--plan", version)
    assert status == 5 and "stale" in err

    status, out, _ = cse("destroy", "demo")
    assert status == 0 and "web: removed" in out and "volume" not in out
    status, out, _ = cse("destroy", "-f", file, "--volumes")
    assert status == 0 and "volume data: removed" in out
    assert json.loads(cse("ps", "--json")[1]) == []


def test_an_error_in_an_included_file_names_it(cse: Cse, tmp_path: Path) -> None:
    (tmp_path / "part.yaml").write_text("applications:\n  a:\n    comand: [x]\n")
    (tmp_path / "top.yaml").write_text("include: part.yaml\napplications: {}\n")
    status, _, err = cse("apply", "-f", str(tmp_path / "top.yaml"))
    assert status == 2 and "part.yaml:3: /applications/a/comand" in err


def test_variables_on_the_command_line(cse: Cse, tmp_path: Path) -> None:
    path = tmp_path / "v.yaml"
    path.write_text("variables: {app: null}\napplications: {one: {command: [echo, '${app}']}}\n")
    assert cse("apply", "-f", str(path))[0] == 2
    assert cse("apply", "-f", str(path), "--var", "app=hello")[0] == 0
    assert "hello" in cse("logs", "one")[1]


@pytest.mark.native
def test_run_refuses_settings_out_of_range_by_field() -> None:
    cse = str(Path(sys.executable).with_name("cse"))
    words = ["--set", "network-lwip.ttl=0", "--set", "network-lwip.keepalive.idle=99999999"]
    done = subprocess.run(
        [cse, "run", "-e", "network-lwip", *words, "--", "true"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 125
    for field in ("ttl: 0 is less", "keepalive/idle: 99999999 is greater"):
        assert f"/elements/network-lwip/settings/{field}" in done.stderr


def test_graph(cse: Cse, stack: Path) -> None:
    assert cse("apply", "-f", str(stack))[0] == 0
    status, out, _ = cse("graph")
    assert status == 0
    lines = [line.strip() for line in out.splitlines()]
    assert lines[0] == "graph LR" and 'net_default(["default"])' in lines
    assert 'web["web<br/>running<br/>10.210.0.2"]' in lines
    assert "web --- net_default" in lines and "job -->|started| web" in lines
    status, out, _ = cse("graph", "--format", "dot", "--label", "cse.stack=demo")
    assert out.startswith("digraph cse {") and out.rstrip().endswith("}")
    assert '"job" -> "web" [label="started"];' in out
    assert "web" not in cse("graph", "--label", "cse.stack=other")[1]
    status, out, err = cse("graph", "--format", "svg")
    if shutil.which("dot"):
        assert "<svg" in out and "web" in out
    else:
        assert status == 6 and "install graphviz" in err


def test_a_stack_goes_to_compose_and_back(cse: Cse, stack: Path, tmp_path: Path) -> None:
    compose, again = tmp_path / "compose.yaml", tmp_path / "again.yaml"
    assert cse("apply", "-f", str(stack))[0] == 0
    status, _, err = cse("export", "compose", "-f", str(stack))
    assert status == 2
    assert "/applications/job/image: 'job' has no image\n  → add one, or give --image IMAGE" in err
    export = ("export", "compose", "demo", "--image", "debian", "-o", str(compose))
    assert cse(*export) == (0, "", "")
    assert cse("convert", "compose", str(compose), "-o", str(again)) == (0, "", "")
    assert cse("apply", "-f", str(again))[1].count("unchanged") == 3
    assert cse("convert", "compose", str(tmp_path / "none"))[0] == 2
    assert "there is no stack 'none'" in cse("export", "compose", "none")[2]
