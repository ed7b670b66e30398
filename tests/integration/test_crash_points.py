"""kill -9 after every durable step: the next control plane brings about what the store says,
nothing that ran is disturbed, nothing is left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.test_evidence import BUILT

ROOT = Path(__file__).resolve().parents[2]
FEWEST = 40
"""Less would mean that the steps are not seen any more."""


@pytest.mark.root
@pytest.mark.native
@pytest.mark.slow
@pytest.mark.skipif(not BUILT.is_dir(), reason="network-lwip is not built; run `make native`")
@pytest.mark.parametrize(
    ("program", "more", "fewest"),
    [("crash_points", [], FEWEST), ("crash_agent", [os.environ.get("CSE_TEST_STRIDE", "3")], 25)],
)
def test_a_kill_after_each_durable_step(
    tmp_path: Path, program: str, more: list[str], fewest: int
) -> None:
    words = [sys.executable, "-m", f"tests.integration.{program}"]
    state = tmp_path / "state"
    ran = subprocess.run(
        [*words, str(state), str(BUILT.parent), *more], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    said = [json.loads(line) for line in ran.stdout.splitlines()]
    assert ran.returncode == 0 and said, ran.stdout
    bystander, last = said[0]["bystander"], said[-1]
    after = "the beginning"
    for line in said[1:]:
        if "after" in line:
            after = f"step {line['step']}, {line['after']}"
        elif "wrong" in line:
            assert line["wrong"] is None, (after, line)
            assert line["left"] == [] or line["left"] == ["network default"], (after, line)
            assert line["bystander"] == bystander, after
    assert last["status"] == 0 and last["points"] >= fewest, last
    own = (state / "installation").read_text().strip()
    mark = (state / "network-mark").read_text().strip()
    for command in (
        ["ip", "-o", "link"],
        ["nft", "list", "ruleset"],
        ["ps", "axww", "-o", "args"],
        ["cat", "/proc/mounts"],
        ["find", "/sys/fs/cgroup", "-name", f"cse-{own[:12]}"],
    ):
        text = subprocess.run(command, capture_output=True, text=True).stdout
        left = [row for row in text.splitlines() if mark in row or str(state) in row]
        assert left == [], command
