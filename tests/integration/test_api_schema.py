"""Schemathesis: whatever its description permits or forbids to ask, the API answers as described.

An outside program asks a real server over the fake host, with a token, in all its phases (examples,
bounds, random data good and bad, sequences) and with all its checks but one: that what fits the
schemas is accepted, for names that are free or known are in no schema. `CSE_SCHEMATHESIS_S=600`
for a long run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from app.agent.fake import FakeAgent
from app.domain.access import Scope, TokenSpec
from app.store.store import Store
from tests import stores
from tests.integration.planes import served

SECONDS = os.environ.get("CSE_SCHEMATHESIS_S")
# Streams that go on, and waits, would take all the time.
SETTINGS = "[parameters]\nwait = 0\nfollow = false\n"


def token(home: Path) -> str:
    (home / "state").mkdir()
    store = Store(stores.url(home / "state/store.sqlite"))
    with store.write() as transaction:
        made = transaction.tokens.create(TokenSpec(name="tester", scope=Scope.ADMIN))
    store.close()
    return made.token


def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    secret = token(tmp_path)
    (tmp_path / "schemathesis.toml").write_text(SETTINGS)
    with served(tmp_path, FakeAgent(), require_token=True) as url:
        tool = [str(Path(sys.executable).parent / "schemathesis")]
        command = [*tool, "--config-file", "schemathesis.toml", "run", f"{url}/v1/openapi.json"]
        command += ["--header", f"Authorization: Bearer {secret}", "--max-time", SECONDS or "8"]
        command += [] if SECONDS else ["--seed", "1"]  # a long run asks something else each time
        command += ["--checks", "all", "--exclude-checks", "positive_data_acceptance"]
        command += ["--request-timeout", "20", "--continue-on-failure", "--no-color"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "Stateful" in done.stdout and " passed" in done.stdout
