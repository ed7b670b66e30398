"""The stacks of examples/ beside two-webs: applied, and what their heads promise has come about."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import docker_lacks
from tests.acceptance.world import ROOT, control_plane, until

CSE = str(Path(sys.executable).with_name("cse"))
# Of its own, so that another server of this machine does not matter.
SUBNET = f"10.{140 + os.getpid() % 30}.0.0/20"


class Stack:
    """One example and the control plane that has it."""

    def __init__(self, address: str, name: str, runtime: str) -> None:
        self._environment = {**os.environ, "CSE_API": address}
        self._words = ["apply", "-f", str(ROOT / f"examples/{name}.yaml"), "--runtime", runtime]

    def cse(self, *words: str) -> str:
        """Standard output of a command that succeeds."""
        done = subprocess.run(
            [CSE, *words], env=self._environment, capture_output=True, text=True, timeout=180
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def apply(self, *words: str) -> str:
        return self.cse(*self._words, *words)

    def found(self, application: str, pattern: str) -> list[Any]:
        """What fits in the lines that the application has written."""
        return re.findall(pattern, self.cse("logs", application))

    def redis(self, host: str, port: int, *words: str) -> str:
        """What redis-cli says in the application `client`."""
        return self.cse("exec", "client", "--", "redis-cli", "-h", host, "-p", str(port), *words)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if os.geteuid() != 0 or not Path("/dev/net/tun").exists():
        pytest.skip("private network stacks need root and /dev/net/tun")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CSE_SUBNET", SUBNET)
        with control_plane(tmp_path_factory.mktemp("examples")) as api:
            yield str(api.base_url)


@pytest.fixture
def stack(address: str, request: pytest.FixtureRequest) -> Iterator[Stack]:
    """The example that the test's parameter names."""
    name, runtime = str(request.param[0]), str(request.param[1])
    if runtime == "docker" and (reason := docker_lacks()):
        pytest.skip(reason)
    made = Stack(address, name, runtime)
    made.apply()
    yield made
    made.cse("destroy", name)
    assert made.cse("ps", "--json").strip() == "[]"


def example(name: str, *runtimes: str) -> pytest.MarkDecorator:
    """The test runs with this example in these runtimes."""
    marks = {"docker": [pytest.mark.docker], "namespace": [pytest.mark.root]}
    rows = [pytest.param((name, runtime), marks=marks[runtime], id=runtime) for runtime in runtimes]
    return pytest.mark.parametrize("stack", rows, indirect=True)


@example("bad-line", "namespace", "docker")
def test_bad_line(stack: Stack) -> None:
    slowest = 4_000_000 * 8 / 20e6  # what its 20 Mbit/s allow
    taken = until(lambda: stack.found("client", r"200: ([\d.]+) s, 4000000 bytes"), 40, 0.5)
    assert all(float(seconds) >= slowest for seconds in taken)
    retransmitted = r"retrans(?:mits)?[:=](?:\d+/)?0*([1-9]\d*)"
    until(lambda: re.search(retransmitted, stack.cse("instances")), 40, 0.5)

    plan = stack.apply("--var", "rate=1gbit", "--var", "loss=0", "--var", "delay=0ms")
    assert not re.search(r"restarted|replaced", plan), plan
    pattern = r"200: ([\d.]+) s"
    until(lambda: min(map(float, stack.found("client", pattern))) < slowest, 40, 0.5)


@example("flaky-disk", "namespace")
def test_flaky_disk(stack: Stack) -> None:
    assert "application writer: unchanged" in stack.apply()
    until(lambda: stack.found("writer", "refused: disk I/O error"), 40, 0.5)
    until(lambda: stack.found("writer", "refused: database or disk is full"), 60, 0.5)
    counts = stack.found("writer", r"(\d+) committed, \d+ refused, (\d+) there")
    assert int(counts[-1][0]) > 10
    assert all(committed == there for committed, there in counts), counts[-3:]


@example("fleet", "namespace")
def test_fleet(stack: Stack) -> None:
    until(lambda: stack.found("caller", "20 of 20 answered"), 40, 0.5)
    applied = stack.apply("--var", "count=25")
    assert "echo-25: created" in applied and not re.search(r"echo-\d+: re", applied), applied
    until(lambda: stack.found("caller", "25 of 25 answered"), 40, 0.5)


@example("redis-sentinel", "namespace")
def test_redis_sentinel(stack: Stack) -> None:
    def primary() -> str:
        return stack.redis("sentinel-1", 26379, "sentinel", "get-master-addr-by-name", "shop")

    def known() -> bool:
        row = stack.redis("sentinel-1", 26379, "info", "sentinel")
        return "status=ok" in row and "slaves=2" in row and "sentinels=3" in row

    until(known, 60, 0.5)
    first = primary()
    fault = stack.cse("fault", "add", "primary", "--loss", "100%", "--for", "60s").split(":")[0]
    until(lambda: primary() != first, 60, 0.5)
    stack.cse("fault", "rm", "primary", fault)
    # It is back, and follows the new one.
    until(lambda: stack.redis("primary", 6379, "role").startswith("slave"), 90, 1)
