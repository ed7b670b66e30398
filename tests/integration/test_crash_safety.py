"""kill -9 of the agent at any moment: the next one finds everything, and nothing is leaked."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.agent.local import LocalAgent
from tests.integration.test_evidence import BUILT

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 6
BUSY_AGENT = """
import itertools, sys
from pathlib import Path
from app.agent.local import LocalAgent
from tests.integration.test_evidence import launch
agent = LocalAgent(Path(sys.argv[1]))
agent.observe()
print("ready", flush=True)
server = "import socket, time; s = socket.create_server(('', 80)); time.sleep(100)"
for n in itertools.count():
    name = f"k{n % 3}"
    agent.create(launch(name, 20 + n % 3, "python3", "-c", server,
                        ports=[f"2867{n % 3}:80"], stop={"signal": "SIGKILL"}))
    agent.start(name)
    if n >= 2:
        agent.remove(f"k{(n + 1) % 3}")
"""


@pytest.mark.root
@pytest.mark.native
@pytest.mark.skipif(not BUILT.is_dir(), reason="network-lwip is not built; run `make native`")
def test_nothing_is_leaked_wherever_the_agent_is_killed(tmp_path: Path) -> None:
    state = tmp_path / "state"
    chance = random.Random(0)
    for _ in range(ROUNDS):
        words = [sys.executable, "-c", BUSY_AGENT, str(state)]
        agent = subprocess.Popen(words, stdout=subprocess.PIPE, cwd=ROOT)
        assert agent.stdout is not None and agent.stdout.readline() == b"ready\n"
        time.sleep(chance.uniform(0, 0.35))
        assert agent.poll() is None
        agent.kill()
        agent.communicate()
        heir = LocalAgent(state)
        for observed in heir.observe():
            heir.remove(observed.name)
        for half_made in (state / "apps").iterdir():
            heir.remove(half_made.name)
        assert list((state / "apps").iterdir()) == []
        heir.remove_network("evidence")
        heir.close()
    mark = (state / "network-mark").read_text().strip()
    own = (state / "installation").read_text().strip()
    shown = {
        "interfaces": ["ip", "-o", "link"],
        "packet filter": ["nft", "list", "ruleset"],
        "processes": ["ps", "axww", "-o", "args"],
        "mounts": ["cat", "/proc/mounts"],
        "control groups": ["find", "/sys/fs/cgroup", "-name", f"cse-{own[:12]}"],
    }
    for what, command in shown.items():
        text = subprocess.run(command, capture_output=True, text=True).stdout
        left = [line for line in text.splitlines() if mark in line or str(state) in line]
        assert left == [], what
