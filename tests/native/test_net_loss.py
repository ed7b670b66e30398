"""TCP over a path that loses 5 % of the packets and reorders 10 %: net/flows.c, both ways."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.native.net.lab import Lab
from tests.native.net.lossy import LossyHost, LossyPath

SOURCE = Path(__file__).parent / "net/flows.c"
CONNECTIONS = 200

pytestmark = [pytest.mark.native, pytest.mark.root]


@pytest.fixture(scope="module")
def flows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("flows") / "flows"
    subprocess.run(["gcc", "-O1", "-w", "-pthread", str(SOURCE), "-o", str(built)], check=True)
    return built


@pytest.fixture
def path() -> Iterator[LossyPath]:
    made = LossyPath(loss=0.05, reorder=0.10, seed=7)
    yield made
    made.close()


def pair(lab: Lab, path: LossyPath, **settings: object) -> tuple[LossyHost, LossyHost]:
    made = []
    for role in ("lossy-server", "lossy-client"):
        host = LossyHost(lab, path, role)
        host.set(mss=1460, **settings)
        made.append(host)
    return made[0], made[1]


@pytest.mark.parametrize("congestion", ["reno", "cubic"])
def test_content_survives_loss_and_reordering(
    lab: Lab, path: LossyPath, flows: Path, congestion: str
) -> None:
    server, client = pair(lab, path, congestion=congestion)
    serving = server.start(str(flows), "serve", "7000", str(CONNECTIONS))
    said = client.check(
        *(str(flows), "connect", server.address, "7000", str(CONNECTIONS), "20", "100000"),
        timeout=180,
    )
    assert said == f"connected {CONNECTIONS}\n"
    assert serving.wait(60) == 0
    assert server.log() == f"served {CONNECTIONS}\n"
    assert path.lost > path.carried // 50
    assert path.reordered > path.carried // 25
